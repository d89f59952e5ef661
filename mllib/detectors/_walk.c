/* Walks rows through complete binary trees and sums what the leaves stand for. Called through ctypes; needs no Python.
 *
 * Every tree has the same depth, so a walk is a fixed number of steps without a branch: the children of node i are
 * 2i + 1 and 2i + 2. Eight rows are walked at once, so that their memory accesses overlap, and 64 rows see a tree while
 * it is in the nearest cache. Path lengths of a row are added tree by tree: the order, and so every bit of the sum, is
 * that of the numpy version.
 *
 * millrace_attribute walks one row at a time, for it is called for anomalies only, and credits each step's gain to the feature that was asked:
 * value of the node less value of the child.
 */
#include <stdint.h>

#define ROWS_A_BLOCK 64
#define ROWS_AT_ONCE 8

void millrace_walk(const float *rows, int64_t n, int64_t width, const int16_t *feature, const float *split,
                   const double *length, int64_t trees, int64_t depth, double *total)
{
    const int64_t inner = ((int64_t)1 << depth) - 1;
    const int64_t leaves = (int64_t)1 << depth;

    for (int64_t begin = 0; begin < n; begin += ROWS_A_BLOCK) {
        const int64_t end = begin + ROWS_A_BLOCK < n ? begin + ROWS_A_BLOCK : n;
        for (int64_t tree = 0; tree < trees; tree++) {
            const int16_t *f = feature + tree * inner;
            const float *s = split + tree * inner;
            const double *l = length + tree * leaves;
            int64_t row = begin;
            for (; row + ROWS_AT_ONCE <= end; row += ROWS_AT_ONCE) {
                const float *x = rows + row * width;
                int32_t node[ROWS_AT_ONCE] = {0};
                for (int64_t level = 0; level < depth; level++)
                    for (int k = 0; k < ROWS_AT_ONCE; k++)
                        node[k] = 2 * node[k] + 1 + (x[k * width + f[node[k]]] > s[node[k]]);
                for (int k = 0; k < ROWS_AT_ONCE; k++)
                    total[row + k] += l[node[k] - inner];
            }
            for (; row < end; row++) {
                const float *x = rows + row * width;
                int32_t node = 0;
                for (int64_t level = 0; level < depth; level++)
                    node = 2 * node + 1 + (x[f[node]] > s[node]);
                total[row] += l[node - inner];
            }
        }
    }
}

void millrace_attribute(const float *rows, int64_t n, int64_t width, const int16_t *feature, const float *split,
                        const double *value, int64_t trees, int64_t depth, double *gained)
{
    const int64_t inner = ((int64_t)1 << depth) - 1;
    const int64_t nodes = 2 * inner + 1;

    for (int64_t begin = 0; begin < n; begin += ROWS_A_BLOCK) {
        const int64_t end = begin + ROWS_A_BLOCK < n ? begin + ROWS_A_BLOCK : n;
        for (int64_t tree = 0; tree < trees; tree++) {
            const int16_t *f = feature + tree * inner;
            const float *s = split + tree * inner;
            const double *v = value + tree * nodes;
            for (int64_t row = begin; row < end; row++) {
                const float *x = rows + row * width;
                double *out = gained + row * width;
                int32_t node = 0;
                for (int64_t level = 0; level < depth; level++) {
                    const int32_t child = 2 * node + 1 + (x[f[node]] > s[node]);
                    out[f[node]] += v[node] - v[child];
                    node = child;
                }
            }
        }
    }
}

/* Trees of classes, of which every leaf leads to itself: child k of node i is children[2 * i + k]. A node has one value
 * per class, values[i * classes + class].
 *
 * millrace_class_sums adds the values of the leaves, tree by tree. millrace_class_steps credits the step from a node to
 * its child to the feature that was asked, level by level and within one tree by tree, as numpy does: the same bits.
 */
void millrace_class_sums(const float *rows, int64_t n, int64_t width, const int64_t *children, const int64_t *feature,
                         const float *split, const double *values, int64_t classes, const int64_t *roots, int64_t trees,
                         int64_t depth, double *total)
{
    for (int64_t begin = 0; begin < n; begin += ROWS_A_BLOCK) {
        const int64_t end = begin + ROWS_A_BLOCK < n ? begin + ROWS_A_BLOCK : n;
        for (int64_t tree = 0; tree < trees; tree++) {
            for (int64_t row = begin; row < end; row += ROWS_AT_ONCE) {
                const int64_t count = row + ROWS_AT_ONCE < end ? ROWS_AT_ONCE : end - row;
                const float *x = rows + row * width;
                int64_t node[ROWS_AT_ONCE];
                for (int64_t k = 0; k < count; k++)
                    node[k] = roots[tree];
                for (int64_t level = 0; level < depth; level++)
                    for (int64_t k = 0; k < count; k++)
                        node[k] = children[2 * node[k] + (x[k * width + feature[node[k]]] > split[node[k]])];
                for (int64_t k = 0; k < count; k++)
                    for (int64_t class = 0; class < classes; class++)
                        total[(row + k) * classes + class] += values[node[k] * classes + class];
            }
        }
    }
}

void millrace_class_steps(const float *rows, int64_t n, int64_t width, const int64_t *children, const int64_t *feature,
                          const float *split, const double *values, int64_t classes, const int64_t *roots, int64_t trees,
                          int64_t depth, const int64_t *chosen, int64_t *nodes, double *level_sum, double *added)
{
    for (int64_t row = 0; row < n; row++) {
        const float *x = rows + row * width;
        const double *value = values + chosen[row];
        double *out = added + row * width;
        for (int64_t tree = 0; tree < trees; tree++)
            nodes[tree] = roots[tree];
        for (int64_t level = 0; level < depth; level++) {
            for (int64_t k = 0; k < width; k++)
                level_sum[k] = 0.0;
            for (int64_t tree = 0; tree < trees; tree++) {
                const int64_t node = nodes[tree];
                const int64_t child = children[2 * node + (x[feature[node]] > split[node])];
                level_sum[feature[node]] += value[child * classes] - value[node * classes];
                nodes[tree] = child;
            }
            for (int64_t k = 0; k < width; k++)
                out[k] += level_sum[k];
        }
    }
}
