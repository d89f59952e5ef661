/* Rows of binary COPY: taken out of libpq's memory, and made into columns. Called through ctypes, without Python's lock: a
 * loop in Python holds it for as long as all the rest of reading takes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* PQgetCopyData and PQfreemem of the library that the driver has loaded. */
typedef int (*getter)(void *connection, char **row, int async);
typedef void (*releaser)(void *row);

#define MARK 2 /* bytes of the mark that there are no more rows; a row of one column has more */

/* Puts `most` rows at most, of those that have arrived, into `out`, and returns how many. `used` is how many bytes they
 * have. `last` is what libpq said at last: 0 that no more has arrived, -1 that there is no more, -2 that it failed. A
 * row that there is no room for is in `unfitting`, its size in `last`, and for the caller to release.
 */
int64_t millrace_take_rows(void *connection, getter get, releaser release, int64_t most, char *out, int64_t room,
                           int64_t *used, char **unfitting, int32_t *last)
{
    int64_t rows = 0, at = 0;

    *unfitting = NULL;
    *last = 1;
    while (rows < most && *last > 0) {
        char *row = NULL;
        *last = get(connection, &row, 1);
        if (*last <= 0)
            break;
        if (*last > room - at) {
            *unfitting = row;
            break;
        }
        if (*last > MARK) {
            memcpy(out + at, row, (size_t)*last);
            at += *last;
            rows++;
        }
        release(row);
    }
    *used = at;
    return rows;
}

/* The C data interface of Apache Arrow, by which columns change hands without being copied. */
struct array {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct array **children, *dictionary;
    void (*release)(struct array *);
    void *block;
};

struct schema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct schema **children, *dictionary;
    void (*release)(struct schema *);
    void *block;
};

/* Of a schema that its maker keeps. */
void millrace_release_schema(struct schema *schema)
{
    schema->release = NULL;
}

static void release_array(struct array *array)
{
    free(array->block);
    array->release = NULL;
}

#define ALIGNED(bytes) (((bytes) + 63) & ~(int64_t)63)
#define FROM_1970_TO_2000 946684800000000 /* microseconds */

/* Bytes of a value in COPY, 0 for text of any length, -1 for no kind of ours. Kinds are the first letters of Arrow's. */
static int32_t width(char kind)
{
    switch (kind) {
    case 'l': /* whole number */
    case 't': /* microseconds since 2000 */
    case 'g': /* double */
        return 8;
    case 'i':
        return 4;
    case 'b': /* boolean */
        return 1;
    case 'Z':
        return 0;
    default:
        return -1;
    }
}

static uint16_t two(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t four(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint64_t eight(const uint8_t *at)
{
    return (uint64_t)four(at) << 32 | four(at + 4);
}

/* Whether the rows are what the kinds say, to the last byte. Counts nulls, and the bytes of texts. */
static int fits(const uint8_t *rows, int64_t size, int64_t count, const char *kinds, int64_t *nulls, int64_t *texts)
{
    const uint8_t *at = rows, *end = rows + size;
    int columns = (int)strlen(kinds);

    for (int c = 0; c < columns; c++) {
        nulls[c] = texts[c] = 0;
        if (width(kinds[c]) < 0)
            return 0;
    }
    for (int64_t r = 0; r < count; r++) {
        if (end - at < 2 || two(at) != columns)
            return 0;
        at += 2;
        for (int c = 0; c < columns; c++) {
            if (end - at < 4)
                return 0;
            int32_t bytes = (int32_t)four(at);
            at += 4;
            if (bytes == -1) {
                nulls[c]++;
                continue;
            }
            if (bytes < 0 || end - at < bytes || (width(kinds[c]) && bytes != width(kinds[c])))
                return 0;
            texts[c] += bytes;
            at += bytes;
        }
    }
    return at == end;
}

/* A column without values yet. Its buffers are in one block: which rows have a value, the values (of texts, where each
 * begins), the texts. Returns 0 when there is no memory.
 */
static int make(struct array *column, int64_t count, char kind, int64_t nulls, int64_t texts)
{
    int64_t bits = ALIGNED((count + 7) / 8), head = ALIGNED((int64_t)(3 * sizeof(void *)));
    int64_t values = kind == 'b' ? bits : ALIGNED((count + 1) * (kind == 'i' ? 4 : 8));
    char *block = malloc((size_t)(head + bits + values + (kind == 'Z' ? texts : 0) + 64));

    memset(column, 0, sizeof *column);
    if (!block)
        return 0;
    memset(block + head, 0, (size_t)(kind == 'b' ? bits + values : bits));
    column->block = block;
    column->buffers = (const void **)block;
    column->buffers[0] = nulls ? block + head : NULL;
    column->buffers[1] = block + head + bits;
    column->buffers[2] = block + head + bits + values;
    column->length = count;
    column->null_count = nulls;
    column->n_buffers = kind == 'Z' ? 3 : 2;
    column->release = release_array;
    if (kind == 'Z')
        *(int64_t *)column->buffers[1] = 0; /* where the first text begins */
    return 1;
}

/* Puts a value into row `r`; `bytes` is below 0 where there is none. */
static void put(struct array *column, char kind, int64_t r, const uint8_t *value, int32_t bytes)
{
    void *values = (void *)column->buffers[1];
    int there = bytes >= 0;

    if (column->buffers[0] && there)
        ((uint8_t *)column->buffers[0])[r >> 3] |= (uint8_t)(1 << (r & 7));
    switch (kind) {
    case 'Z': {
        int64_t *begins = values;
        if (there)
            memcpy((char *)column->buffers[2] + begins[r], value, (size_t)bytes);
        begins[r + 1] = begins[r] + (there ? bytes : 0);
        break;
    }
    case 'b':
        if (there && *value)
            ((uint8_t *)values)[r >> 3] |= (uint8_t)(1 << (r & 7));
        break;
    case 'i':
        ((uint32_t *)values)[r] = there ? four(value) : 0;
        break;
    default:
        ((uint64_t *)values)[r] = there ? eight(value) + (kind == 't' ? FROM_1970_TO_2000 : 0) : 0;
    }
}

/* Makes `count` rows into one column for each of `kinds`. Returns 0; or 1 when the rows are not of these kinds, 2 when
 * there is no memory, and then there is nothing to release.
 */
int32_t millrace_columns(const uint8_t *rows, int64_t size, int64_t count, const char *kinds, struct array *columns)
{
    int number = (int)strlen(kinds), made = 0;
    int64_t nulls[number + 1], texts[number + 1];

    if (!fits(rows, size, count, kinds, nulls, texts))
        return 1;
    while (made < number && make(&columns[made], count, kinds[made], nulls[made], texts[made]))
        made++;
    if (made < number) {
        while (made--)
            release_array(&columns[made]);
        return 2;
    }
    for (int64_t r = 0; r < count; r++) {
        rows += 2;
        for (int c = 0; c < number; c++) {
            int32_t bytes = (int32_t)four(rows);
            rows += 4;
            put(&columns[c], kinds[c], r, rows, bytes);
            rows += bytes > 0 ? bytes : 0;
        }
    }
    return 0;
}
