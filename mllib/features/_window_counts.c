/* Counts, sums and medians of windows that move forward over the lines of each service. Called through ctypes; needs no
 * Python. Everything is an integer, so the numpy version gives the same.
 *
 * The lines are regrouped by service, in the order of time within each. A window is then one slice of that order, and
 * its ends never go back: each line enters once and leaves once. For the medians, the response times of a service are
 * ranked: a bit per rank says which are in the window, and a Fenwick tree over words of 64 bits how many.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The rows of `out`, in the order of the fields of `Counts`. */
enum { FIRST, PREVIOUS, VOLUME, ERRORS, PRESENT, SUM, HIGH, LOW, LOWER, UPPER };

#define DIGIT 8 /* bits sorted by at a time; few, so that a few lines are sorted soon */
#define PASSES 4

/* What is in the window at present. */
typedef struct {
    const uint8_t *error;
    const int64_t *response;
    const int32_t *rank;
    uint64_t *bits;
    int32_t *tree, words; /* a power of 2 */
    int64_t errors, count, sum, high, low;
} Window;

/* A line enters (by 1) or leaves (by -1). */
static void move(Window *w, int32_t line, int32_t by)
{
    w->errors += by * w->error[line];
    if (w->response[line] < 0)
        return;
    const uint64_t square = (uint64_t)w->response[line] * (uint64_t)w->response[line];
    w->count += by;
    w->sum += by * w->response[line];
    w->high += by * (int64_t)(square >> 32);
    w->low += by * (int64_t)(square & 0xFFFFFFFF);
    const int32_t word = w->rank[line] / 64;
    w->bits[word] ^= (uint64_t)1 << w->rank[line] % 64;
    for (int32_t at = word + 1; at <= w->words; at += at & -at)
        w->tree[at] += by;
}

/* The rank of the k-th smallest (from 0) of the more than k in the window. */
static int32_t kth(const Window *w, int32_t k)
{
    int32_t word = 0;
    for (int32_t step = w->words / 2; step > 0; step /= 2) {
        const int32_t there = w->tree[word + step];
        const int32_t further = -(there <= k); /* all bits or none: to guess at a branch would take longer */
        word += step & further;
        k -= there & further;
    }
    uint64_t left = w->bits[word];
    while (k-- > 0)
        left &= left - 1;
    return word * 64 + __builtin_ctzll(left);
}

/* `rows` in the order of their response times, which are below 2^32; returns which of two buffers holds it. */
static int32_t *by_response(const int64_t *response, int32_t n, int32_t *rows, int32_t *spare)
{
    for (int32_t row = 0; row < n; row++)
        rows[row] = row;
    for (int pass = 0; pass < PASSES; pass++) {
        int32_t begins[1 << DIGIT] = {0}, begin = 0;
        for (int32_t row = 0; row < n; row++)
            begins[response[row] >> (pass * DIGIT) & ((1 << DIGIT) - 1)]++;
        for (int digit = 0; digit < 1 << DIGIT; digit++) {
            const int32_t count = begins[digit];
            begins[digit] = begin;
            begin += count;
        }
        for (int32_t place = 0; place < n; place++) {
            const int32_t row = rows[place];
            spare[begins[response[row] >> (pass * DIGIT) & ((1 << DIGIT) - 1)]++] = row;
        }
        int32_t *swap = rows;
        rows = spare;
        spare = swap;
    }
    return rows;
}

/* Of n lines: time, service (0 to n - 1), whether it is an error, response time (-1 for none, below 2^32). `rows` are
 * positions of lines and ascend; `out` has shape (10, width), zeros. Returns 0, or -1 for anything else than that, or
 * without memory.
 */
int millrace_windows(const int64_t *ts, const int64_t *service, const uint8_t *error, const int64_t *response,
                     int64_t lines, int64_t span, const int64_t *rows, int64_t width, int64_t *out)
{
    const int32_t n = (int32_t)lines;
    int64_t services = 0;
    for (int32_t row = 0; row < n; row++) {
        if (service[row] < 0 || service[row] >= n || response[row] < -1 || response[row] > UINT32_MAX)
            return -1;
        services = service[row] < services ? services : service[row] + 1;
    }
    for (int64_t k = 0; k < width; k++)
        if (rows[k] < (k ? rows[k - 1] + 1 : 0) || rows[k] >= n)
            return -1;

    int32_t *begin = calloc((size_t)services + 1, sizeof *begin); /* of each service in `order`, then its end */
    int32_t *ranked = calloc((size_t)services + 1, sizeof *ranked);
    int32_t *asked = malloc(((size_t)n + 1) * sizeof *asked); /* the column of a line in `out`, or -1 */
    int32_t *order = malloc(((size_t)n + 1) * sizeof *order);
    int32_t *rank = malloc(((size_t)n + 1) * sizeof *rank);
    int32_t *buffer = malloc(((size_t)n + 1) * 2 * sizeof *buffer);
    int32_t *tree = malloc(((size_t)n / 32 + 3) * sizeof *tree);
    uint64_t *bits = malloc(((size_t)n / 64 + 1) * sizeof *bits);
    int64_t *sorted = malloc(((size_t)n + 1) * sizeof *sorted); /* response times by service and rank */
    const int failed = !begin || !ranked || !asked || !order || !rank || !buffer || !tree || !bits || !sorted;

    if (!failed) {
        for (int32_t row = 0; row < n; row++) {
            begin[service[row] + 1]++;
            asked[row] = -1;
        }
        for (int64_t k = 0; k < width; k++)
            asked[rows[k]] = (int32_t)k;
        for (int64_t s = 0; s < services; s++)
            begin[s + 1] += begin[s];
        const int32_t *by_value = by_response(response, n, buffer, buffer + n);
        for (int32_t place = 0; place < n; place++) {
            const int32_t row = by_value[place];
            if (response[row] >= 0) {
                rank[row] = ranked[service[row]]++;
                sorted[begin[service[row]] + rank[row]] = response[row];
            }
        }
        for (int32_t row = 0; row < n; row++)
            order[begin[service[row]]++] = row; /* begin[s] ends up as the end of service s */
        for (int32_t row = 0, first = 0; row < n; row++) {
            while (first < row && ts[first] <= ts[row] - span)
                first++;
            if (asked[row] >= 0)
                out[FIRST * width + asked[row]] = first;
        }
    }
    for (int64_t s = 0; s < services && !failed; s++) {
        int32_t start = s ? begin[s - 1] : 0;
        const int64_t *values = sorted + start;
        Window w = {.error = error, .response = response, .rank = rank, .bits = bits, .tree = tree};
        w.words = 1;
        while (w.words * 64 < ranked[s])
            w.words *= 2;
        memset(tree, 0, ((size_t)w.words + 1) * sizeof *tree);
        memset(bits, 0, ((size_t)ranked[s] / 64 + 1) * sizeof *bits);
        for (int32_t last = start; last < begin[s]; last++) {
            const int32_t row = order[last];
            move(&w, row, 1);
            for (; start < last && ts[order[start]] <= ts[row] - span; start++)
                move(&w, order[start], -1);
            if (asked[row] < 0)
                continue;
            int64_t *found = out + asked[row];
            found[PREVIOUS * width] = last > start ? order[last - 1] : -1;
            found[VOLUME * width] = last - start + 1;
            found[ERRORS * width] = w.errors;
            found[PRESENT * width] = w.count;
            found[SUM * width] = w.sum;
            found[HIGH * width] = w.high;
            found[LOW * width] = w.low;
            if (w.count) {
                found[LOWER * width] = values[kth(&w, (int32_t)((w.count - 1) / 2))];
                found[UPPER * width] =
                    w.count % 2 ? found[LOWER * width] : values[kth(&w, (int32_t)(w.count / 2))];
            }
        }
    }
    free(begin);
    free(ranked);
    free(asked);
    free(order);
    free(rank);
    free(buffer);
    free(tree);
    free(bits);
    free(sorted);
    return failed ? -1 : 0;
}
