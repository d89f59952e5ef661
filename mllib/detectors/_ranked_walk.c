/* Walks rows through binary trees of at most 256 leaves, 128 rows at once, and sums what the leaves stand for: the sums of
 * millrace_walk and millrace_class_sums, in the same order and so to the same bits. Called through ctypes; needs no Python.
 *
 * A value is looked at twice. First it is ranked: how many of the splits that any tree has for its feature are below it.
 * From then on a question "is the value above split number r" is one about ranks, and these are cut into bytes: column c
 * of a feature holds its ranks from 127 c to 127 (c + 1), those below as 0 and those above as 127. So a vector holds the
 * ranks of 32 rows, and a tree is walked by asking all of its questions, level by level, of all rows: a row takes the
 * answer of the question at its own place. No address depends on a row, and nothing is loaded row by row.
 *
 * The place of a row within a tree is the first of the leaves that it can still reach; going right adds the number of those
 * that it leaves behind.
 */
#include <stdint.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>

#define ROWS_A_BLOCK 128
#define ROWS_A_VECTOR 32
#define VECTORS (ROWS_A_BLOCK / ROWS_A_VECTOR)
#define FLOATS 8
#define GROUPS (ROWS_A_VECTOR / FLOATS)
#define TREES_AT_ONCE 8
#define RANKS_A_COLUMN 127

/* A feature with more splits than this is searched in steps: every sixteenth split first. */
#define FEW_SPLITS 64
#define STRIDE 16

#define COMPUTES __attribute__((target("avx2")))
#define INSIDE static inline __attribute__((always_inline)) COMPUTES

typedef int8_t bytes __attribute__((vector_size(ROWS_A_VECTOR), aligned(1)));
typedef float floats __attribute__((vector_size(4 * FLOATS)));
typedef int32_t ints __attribute__((vector_size(4 * FLOATS)));

typedef struct {
    int16_t column;
    int8_t rank;
    uint8_t place;
    uint8_t step; /* to the right, in places */
} question;

typedef struct {
    int64_t first; /* of its splits, which ascend and, where they are many, end with 16 to 31 that nothing is above */
    int64_t count;
} splits_of;

int32_t millrace_can_rank(void)
{
    return __builtin_cpu_supports("avx2");
}

/* Eight features from `feature` on, of eight rows each. */
INSIDE void transpose(const float *const *row, int64_t feature, floats out[FLOATS][GROUPS], int group)
{
    __m256 a[8], b[8];

    for (int i = 0; i < 8; i++)
        a[i] = _mm256_loadu_ps(row[i] + feature);
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            a[i + 2 * k] = _mm256_shuffle_ps(b[i + k], b[i + k + 2], 0x44);
            a[i + 2 * k + 1] = _mm256_shuffle_ps(b[i + k], b[i + k + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        out[i][group] = (floats)_mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
        out[i + 4][group] = (floats)_mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
    }
}

/* How many splits each value is above. */
INSIDE void rank(const floats value[GROUPS], const float *split, int64_t count, ints out[GROUPS])
{
    const int64_t stride = count > FEW_SPLITS ? STRIDE : 1;

    for (int g = 0; g < GROUPS; g++)
        out[g] = (ints){0};
    for (int64_t s = stride - 1; s < count; s += stride)
        for (int g = 0; g < GROUPS; g++)
            out[g] -= (ints)(value[g] > split[s]);
    if (stride == 1)
        return;
    for (int g = 0; g < GROUPS; g++)
        out[g] *= STRIDE;
    for (int half = STRIDE / 2; half; half /= 2)
        for (int g = 0; g < GROUPS; g++)
            out[g] += half & (ints)(value[g] > (floats)_mm256_i32gather_ps(split + half - 1, (__m256i)out[g], 4));
}

/* 32 ranks less `low`, from 0 to 127, as bytes. Packing saturates, and works in halves of a vector. */
INSIDE bytes narrowed(const ints ranks[GROUPS], int32_t low)
{
    __m256i r[GROUPS];

    for (int g = 0; g < GROUPS; g++)
        r[g] = _mm256_max_epi32((__m256i)(ranks[g] - low), _mm256_setzero_si256());
    const __m256i all = _mm256_packs_epi16(_mm256_packs_epi32(r[0], r[1]), _mm256_packs_epi32(r[2], r[3]));
    return (bytes)_mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Ranks of 32 rows, of which those beyond `last` are `last` again, into one vector of each column. */
INSIDE void rank_rows(const float *rows, int64_t first, int64_t last, int64_t width, int64_t features,
                      const float *split, const splits_of *splits, int8_t *column)
{
    const float *row[ROWS_A_VECTOR];

    for (int k = 0; k < ROWS_A_VECTOR; k++)
        row[k] = rows + (first + k < last ? first + k : last) * width;
    for (int64_t begin = 0; begin < features; begin += FLOATS) {
        floats value[FLOATS][GROUPS];
        const int64_t some = begin + FLOATS < features ? FLOATS : features - begin;
        if (begin + FLOATS <= width) {
            for (int g = 0; g < GROUPS; g++)
                transpose(row + g * FLOATS, begin, value, g);
        } else {
            for (int64_t f = 0; f < some; f++)
                for (int k = 0; k < ROWS_A_VECTOR; k++)
                    value[f][k / FLOATS][k % FLOATS] = row[k][begin + f];
        }
        for (int64_t f = 0; f < some; f++) {
            const splits_of of = splits[begin + f];
            ints ranks[GROUPS];
            if (!of.count)
                continue;
            rank(value[f], split + of.first, of.count, ranks);
            for (int64_t low = 0; low < of.count; low += RANKS_A_COLUMN, column += ROWS_A_BLOCK)
                *(bytes *)column = narrowed(ranks, (int32_t)low);
        }
    }
}

/* The leaves of 128 rows. `level` tells where the questions of each level begin, and the last one's end. */
INSIDE void walk(const int8_t *columns, const question *asked, const int32_t *level, int64_t depth, uint8_t *leaf)
{
    bytes place[VECTORS], steps[VECTORS];

    for (int v = 0; v < VECTORS; v++)
        place[v] = (bytes){0};
    for (int64_t l = 0; l < depth; l++) {
        for (int v = 0; v < VECTORS; v++)
            steps[v] = (bytes){0};
        for (const question *q = asked + level[l], *end = asked + level[l + 1]; q < end; q++) {
            const bytes *of_rows = (const bytes *)(columns + q->column * ROWS_A_BLOCK);
            const bytes rank = (bytes){0} + q->rank, here = (bytes){0} + (int8_t)q->place;
            const bytes step = (bytes){0} + (int8_t)q->step;
            for (int v = 0; v < VECTORS; v++)
                steps[v] |= step & (bytes)(of_rows[v] > rank) & (bytes)(place[v] == here);
        }
        for (int v = 0; v < VECTORS; v++)
            place[v] += steps[v];
    }
    memcpy(leaf, place, sizeof place);
}

INSIDE void add_leaves(uint8_t leaf[TREES_AT_ONCE][ROWS_A_BLOCK], const double *length, int64_t leaves, int64_t trees,
                       int64_t rows, double *total)
{
    for (int64_t k = 0; k < rows; k++) {
        double sum = total[k];
        for (int64_t t = 0; t < trees; t++)
            sum += length[t * leaves + leaf[t][k]];
        total[k] = sum;
    }
}

/* `columns` is room for as many columns as there are, of 128 bytes each. */
COMPUTES
void millrace_ranked_walk(const float *rows, int64_t n, int64_t width, const float *split, const splits_of *splits,
                          int64_t features, const question *asked, const int32_t *level, int64_t depth,
                          const double *length, int64_t trees, int64_t leaves, int8_t *columns, double *total)
{
    for (int64_t begin = 0; begin < n; begin += ROWS_A_BLOCK) {
        const int64_t count = begin + ROWS_A_BLOCK < n ? ROWS_A_BLOCK : n - begin;
        for (int64_t k = 0; k < count; k += ROWS_A_VECTOR)
            rank_rows(rows, begin + k, n - 1, width, features, split, splits, columns + k);
        for (int64_t tree = 0; tree < trees; tree += TREES_AT_ONCE) {
            const int64_t some = tree + TREES_AT_ONCE < trees ? TREES_AT_ONCE : trees - tree;
            uint8_t leaf[TREES_AT_ONCE][ROWS_A_BLOCK];
            for (int64_t t = 0; t < some; t++)
                walk(columns, asked, level + (tree + t) * depth, depth, leaf[t]);
            if (some == TREES_AT_ONCE)
                add_leaves(leaf, length + tree * leaves, leaves, TREES_AT_ONCE, count, total + begin);
            else
                add_leaves(leaf, length + tree * leaves, leaves, some, count, total + begin);
        }
    }
}

#else

int32_t millrace_can_rank(void)
{
    return 0;
}

#endif
