/* What an autoencoder of the layers HIDDEN makes of rows, and how far off that is. Called through ctypes; needs no
 * Python.
 *
 * All values are multiples of 1/4096 and all products multiples of 1/4096^2. They are kept as these multiples: values and
 * weights in 16 bits, sums in 32, which _coder.py has made sure hold every one. So all is exact, and neither the order of
 * a sum nor the processor's kind of vector shows in the result.
 *
 * The values of the first layer reach up to 10. A row with one that is too great for 16 bits, or for the sums, is divided
 * into two, x = 64 high + low: first all high ones are multiplied, and their sum is cut off where the hyperbolic tangent is
 * 1 for good whatever the low ones are.
 *
 * The hyperbolic tangent is looked up. As it never climbs faster than its argument, of any two neighbouring multiples of
 * 1/4096 it passes between at most one step of 1/4096: an entry of the table holds how far behind the first of the two
 * that step is, in its lower 16 bits, and above them the number of steps before.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define BITS 12
#define STEPS ((float)(1 << BITS))
#define LOW_BITS 6
#define FARTHEST 10.0f
#define FAR_SUM (1 << 24)
#define LAYERS 4
#define ROWS_A_BLOCK 32
#define ROWS_AT_ONCE 4
#define TILE 16
#define MOST_VALUES 272 /* no power of two, which would have all rows in the same few lines of the cache */

/* Vectors as wide as the processor's: wider ones, taken apart by the compiler, are many times slower. */
#ifdef __x86_64__
#include <immintrin.h>
#define LANES 8
#define COMPUTES __attribute__((target("avx2")))
#else
#define LANES 4
#define COMPUTES
#endif
#define VECTORS (TILE / LANES)
#define INSIDE static inline __attribute__((always_inline)) COMPUTES

typedef int32_t sums __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int16_t pairs __attribute__((vector_size(4 * LANES), aligned(2)));
typedef int16_t values[ROWS_A_BLOCK][MOST_VALUES];
typedef int32_t products[ROWS_A_BLOCK][MOST_VALUES];

/* Whether this processor has the instructions that millrace_code_rows is made of. */
int32_t millrace_can_code(void)
{
#ifdef __x86_64__
    return __builtin_cpu_supports("avx2");
#else
    return 1;
#endif
}

/* a[0] b[0] + a[1] b[1], and so on. */
INSIDE sums products_of_pairs(pairs a, pairs b)
{
#ifdef __x86_64__
    return (sums)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    const sums x = (sums)a, y = (sums)b;
    return (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
}

INSIDE sums entries_of(const int32_t *table, sums at)
{
#ifdef __x86_64__
    return (sums)_mm256_i32gather_epi32(table, (__m256i)at, 4);
#else
    sums found;
    for (int i = 0; i < LANES; i++)
        found[i] = table[at[i]];
    return found;
#endif
}

INSIDE sums chosen(sums condition, sums yes, sums no)
{
    return (condition & yes) | (~condition & no);
}

INSIDE void add_products(values in, int64_t row, int64_t inside, const int16_t *weight, sums sum[ROWS_AT_ONCE][VECTORS])
{
    for (int64_t i = 0; i < inside; i++)
        for (int k = 0; k < ROWS_AT_ONCE; k++) {
            int32_t two;
            memcpy(&two, &in[row + k][2 * i], sizeof two);
            for (int v = 0; v < VECTORS; v++)
                sum[k][v] += products_of_pairs(*(const pairs *)(weight + 2 * (i * TILE + v * LANES)),
                                               (pairs)((sums){0} + two));
        }
}

INSIDE int any(const int *of_rows)
{
    int found = 0;
    for (int k = 0; k < ROWS_AT_ONCE; k++)
        found |= of_rows[k];
    return found;
}

/* Of inputs there are `inside` pairs. Outputs come in tiles, whose weights stand together: weight[tile][pair][TILE][2].
 * `high` counts where rows are divided, which is NULL if none can be.
 */
INSIDE void multiply(const int *divided, values high, values low, int64_t rows, int64_t inside, const int16_t *weight,
                     const int32_t *bias, int64_t tiles, products out)
{
    const sums far = (sums){0} + FAR_SUM;

    for (int64_t tile = 0; tile < tiles; tile++, weight += 2 * inside * TILE, bias += TILE)
        for (int64_t row = 0; row < rows; row += ROWS_AT_ONCE) {
            sums sum[ROWS_AT_ONCE][VECTORS];
            for (int k = 0; k < ROWS_AT_ONCE; k++)
                for (int v = 0; v < VECTORS; v++)
                    sum[k][v] = (sums){0};
            if (divided && any(divided + row)) {
                add_products(high, row, inside, weight, sum);
                for (int k = 0; k < ROWS_AT_ONCE; k++)
                    for (int v = 0; v < VECTORS; v++) {
                        const sums near = chosen(sum[k][v] > far, far, sum[k][v]);
                        sum[k][v] = chosen(near < -far, -far, near) * (1 << LOW_BITS);
                    }
            }
            add_products(low, row, inside, weight, sum);
            for (int k = 0; k < ROWS_AT_ONCE; k++)
                for (int v = 0; v < VECTORS; v++)
                    *(sums *)&out[row + k][tile * TILE + v * LANES] = sum[k][v] + *(const sums *)(bias + v * LANES);
        }
}

INSIDE void squash(products in, int64_t rows, int64_t width, const int32_t *table, int64_t entries, values out)
{
    const sums last = (sums){0} + (int32_t)(entries - 1);

    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < width; i += LANES) {
            const sums x = *(const sums *)&in[row][i], sign = x >> 31, far = (x ^ sign) - sign, at = far >> BITS;
            const sums entry = entries_of(table, chosen(at > last, last, at));
            const sums steps = (entry >> 16) - ((far & ((1 << BITS) - 1)) >= (entry & 0xffff));
            const sums signed_steps = (steps ^ sign) - sign;
            for (int k = 0; k < LANES; k++)
                out[row][i + k] = (int16_t)signed_steps[k];
        }
}

/* Whether all values of the row are numbers. */
INSIDE int standardise(const float *row, int64_t features, const float *mean, const float *scale, int32_t *standard)
{
    int32_t unknown = 0;

    for (int64_t i = 0; i < features; i++) {
        const float off = (row[i] - mean[i]) / scale[i];
        const float near = off > FARTHEST ? FARTHEST : off > -FARTHEST ? off : -FARTHEST;
        unknown |= off != off;
        standard[i] = (int32_t)rintf(near * STEPS);
    }
    return !unknown;
}

/* Whether the row had to be divided, as one of its values is greater than `most`. */
INSIDE int divide(const int32_t *standard, int64_t features, int32_t most, int16_t *high, int16_t *low)
{
    int32_t greatest = 0;

    for (int64_t i = 0; i < features; i++) {
        const int32_t value = standard[i] < 0 ? -standard[i] : standard[i];
        greatest = value > greatest ? value : greatest;
    }
    const int divided = greatest > most;
    for (int64_t i = 0; i < features; i++) {
        high[i] = divided ? (int16_t)(standard[i] >> LOW_BITS) : 0;
        low[i] = (int16_t)(divided ? standard[i] & ((1 << LOW_BITS) - 1) : standard[i]);
    }
    high[features] = low[features] = 0; /* the other of the last pair: it has no weight, but is read */
    return divided;
}

/* Of each of n rows, of which the first `features` of `width` columns count, the sum of the errors in `total`, and the
 * errors themselves in `errors` unless that is NULL. `tiles` and `inside` are those of each layer; a value of the first one
 * may be up to `most` where its row is not divided.
 */
COMPUTES
void millrace_code_rows(const float *rows, int64_t n, int64_t width, int64_t features, const float *mean,
                        const float *scale, int32_t most, const int16_t *weights, const int32_t *biases,
                        const int64_t *tiles, const int64_t *inside, const int32_t *table, int64_t entries,
                        double *total, float *errors)
{
    products standard, sum;
    values high, low;
    int known[ROWS_A_BLOCK], divided[ROWS_A_BLOCK];

    for (int64_t begin = 0; begin < n; begin += ROWS_A_BLOCK) {
        const int64_t count = begin + ROWS_A_BLOCK < n ? ROWS_A_BLOCK : n - begin;
        const int64_t filled = (count + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * ROWS_AT_ONCE;
        for (int64_t row = 0; row < filled; row++) {
            const float *values_of = rows + (begin + (row < count ? row : count - 1)) * width;
            known[row] = standardise(values_of, features, mean, scale, standard[row]);
            divided[row] = divide(standard[row], features, most, high[row], low[row]);
        }
        const int16_t *weight = weights;
        const int32_t *bias = biases;
        for (int layer = 0; layer < LAYERS; layer++) {
            multiply(layer == 0 ? divided : NULL, high, low, filled, inside[layer], weight, bias, tiles[layer], sum);
            weight += 2 * inside[layer] * tiles[layer] * TILE;
            bias += tiles[layer] * TILE;
            if (layer < LAYERS - 1)
                squash(sum, filled, tiles[layer] * TILE, table, entries, low);
        }
        for (int64_t row = 0; row < count; row++) {
            int64_t all = 0;
            for (int64_t i = 0; i < features; i++) {
                const int32_t error = sum[row][i] - standard[row][i] * (1 << BITS);
                sum[row][i] = error < 0 ? -error : error;
                all += sum[row][i];
            }
            total[begin + row] = known[row] ? (double)all / (STEPS * STEPS) : NAN;
            for (int64_t i = 0; errors && i < features; i++)
                errors[(begin + row) * features + i] = known[row] ? (float)sum[row][i] / (STEPS * STEPS) : NAN;
        }
    }
}
