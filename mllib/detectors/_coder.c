/* What an autoencoder of the layers HIDDEN makes of rows, and how far off that is. Called through ctypes; needs no
 * Python.
 *
 * All values are multiples of 1/4096 and all products multiples of 1/4096^2, few enough that 64 bits hold every sum
 * exactly (see _autoencoder.py). So neither the order of a sum nor the processor's kind of vector shows in the result,
 * and the compiler may use whatever vectors it finds.
 *
 * The hyperbolic tangent is looked up. As it never climbs faster than its argument, of any two neighbouring multiples of
 * 1/4096 it passes between at most one step of 1/4096: an entry of the table holds the argument of that step, and the
 * number of steps below it.
 */
#include <math.h>
#include <stdint.h>

#define BITS 12
#define STEPS ((double)(1 << BITS))
#define FARTHEST 10.0f
#define LAYERS 4
#define ROWS_A_BLOCK 32
#define ROWS_AT_ONCE 4
#define TILE 8
#define MOST_FEATURES 264 /* no power of two, which would have all rows in the same few lines of the cache */

/* Vectors as wide as the processor's: wider ones, taken apart by the compiler, are many times slower. */
#ifdef __x86_64__
#define LANES 4
#define COMPUTES __attribute__((target("avx2,fma")))
#else
#define LANES 2
#define COMPUTES
#endif
#define VECTORS (TILE / LANES)
#define INSIDE static inline __attribute__((always_inline)) COMPUTES

typedef double vector __attribute__((vector_size(8 * LANES), aligned(8)));
typedef double block[ROWS_A_BLOCK][MOST_FEATURES];

/* Whether this processor has the instructions that millrace_code is made of. */
int32_t millrace_can_code(void)
{
#ifdef __x86_64__
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

/* Outputs come in tiles, whose weights stand together: weight[tile][input][TILE]. */
INSIDE void multiply(block in, int64_t inside, const double *weight, const double *bias, int64_t tiles, block out)
{
    for (int64_t tile = 0; tile < tiles; tile++) {
        const double *w = weight + tile * inside * TILE;
        for (int64_t row = 0; row < ROWS_A_BLOCK; row += ROWS_AT_ONCE) {
            vector sum[ROWS_AT_ONCE][VECTORS];
            for (int k = 0; k < ROWS_AT_ONCE; k++)
                for (int v = 0; v < VECTORS; v++)
                    sum[k][v] = *(const vector *)(bias + tile * TILE + v * LANES);
            for (int64_t i = 0; i < inside; i++)
                for (int k = 0; k < ROWS_AT_ONCE; k++)
                    for (int v = 0; v < VECTORS; v++)
                        sum[k][v] += *(const vector *)(w + i * TILE + v * LANES) * in[row + k][i];
            for (int k = 0; k < ROWS_AT_ONCE; k++)
                for (int v = 0; v < VECTORS; v++)
                    *(vector *)&out[row + k][tile * TILE + v * LANES] = sum[k][v];
        }
    }
}

INSIDE void squash(block values, int64_t width, const int32_t *table, int64_t entries)
{
    const double last = (double)entries * STEPS - 1.0;

    for (int64_t row = 0; row < ROWS_A_BLOCK; row++)
        for (int64_t i = 0; i < width; i++) {
            const double value = values[row][i], far = fabs(value) * (STEPS * STEPS);
            const int32_t x = (int32_t)(far < last ? far : last), place = 2 * (x >> BITS);
            const double found = (double)(table[place + 1] + (x >= table[place])) / STEPS;
            values[row][i] = value == value ? copysign(found, value) : value;
        }
}

/* Of each of n rows, of which the first `features` of `width` columns count, the sum of the errors in `total`, and the
 * errors themselves in `errors` unless that is NULL. `tiles` are those of each layer.
 */
COMPUTES
void millrace_code(const float *rows, int64_t n, int64_t width, int64_t features, const float *mean,
                   const float *scale, const double *weights, const double *biases, const int64_t *tiles,
                   const int64_t *inside, const int32_t *table, int64_t entries, double *total, float *errors)
{
    block standard = {{0}}, one, other;

    for (int64_t begin = 0; begin < n; begin += ROWS_A_BLOCK) {
        const int64_t count = begin + ROWS_A_BLOCK < n ? ROWS_A_BLOCK : n - begin;
        for (int64_t row = 0; row < count; row++)
            for (int64_t i = 0; i < features; i++) {
                const float off = (rows[(begin + row) * width + i] - mean[i]) / scale[i];
                const float near = off > FARTHEST ? FARTHEST : off < -FARTHEST ? -FARTHEST : off;
                standard[row][i] = rint((double)near * STEPS) / STEPS;
            }
        const double *weight = weights, *bias = biases;
        for (int layer = 0; layer < LAYERS; layer++) {
            multiply(layer == 0 ? standard : layer % 2 ? one : other, inside[layer], weight, bias, tiles[layer],
                     layer % 2 ? other : one);
            weight += inside[layer] * tiles[layer] * TILE;
            bias += tiles[layer] * TILE;
            if (layer < LAYERS - 1)
                squash(layer % 2 ? other : one, inside[layer + 1], table, entries);
        }
        for (int64_t row = 0; row < count; row++) {
            double sum = 0.0;
            for (int64_t i = 0; i < features; i++) {
                const double error = fabs(other[row][i] - standard[row][i]);
                sum += error;
                if (errors)
                    errors[(begin + row) * features + i] = (float)error;
            }
            total[begin + row] = sum;
        }
    }
}
