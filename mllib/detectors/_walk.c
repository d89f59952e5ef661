/* Walks rows through complete binary trees and sums what the leaves stand for. Called through ctypes; needs no Python.
 *
 * Every tree has the same depth, so a walk is a fixed number of steps without a branch: the children of node i are
 * 2i + 1 and 2i + 2. Sixteen rows are walked at once, so that their memory accesses overlap, and 64 rows see a tree while
 * it is in the nearest cache. Path lengths of a row are added tree by tree: the order, and so every bit of the sum, is
 * that of the numpy version.
 *
 * millrace_attribute walks eight rows at once, as many as there are, and credits each step's gain to the feature that was
 * asked: value of the node less value of the child. The values of the nodes where a row ends are added up as well.
 */
#include <stdint.h>

#define ROWS_A_BLOCK 64
#define ROWS_AT_ONCE 16
#define ROWS_CREDITED 8

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
                int64_t node[ROWS_AT_ONCE] = {0};
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
                        const double *value, int64_t trees, int64_t depth, double *gained,
                        double *ended)
{
    const int64_t inner = ((int64_t)1 << depth) - 1;
    const int64_t nodes = 2 * inner + 1;

    for (int64_t begin = 0; begin < n; begin += ROWS_A_BLOCK) {
        const int64_t end = begin + ROWS_A_BLOCK < n ? begin + ROWS_A_BLOCK : n;
        for (int64_t tree = 0; tree < trees; tree++) {
            const int16_t *f = feature + tree * inner;
            const float *s = split + tree * inner;
            const double *v = value + tree * nodes;
            for (int64_t row = begin; row < end; row += ROWS_CREDITED) {
                const int at_once = end - row < ROWS_CREDITED ? (int)(end - row) : ROWS_CREDITED;
                int32_t node[ROWS_CREDITED] = {0};
                for (int64_t level = 0; level < depth; level++)
                    for (int k = 0; k < at_once; k++) {
                        const int64_t own = (row + k) * width;
                        const int32_t asked = f[node[k]];
                        const int32_t child = 2 * node[k] + 1 + (rows[own + asked] > s[node[k]]);
                        gained[own + asked] += v[node[k]] - v[child];
                        node[k] = child;
                    }
                for (int k = 0; k < at_once; k++)
                    ended[row + k] += v[node[k]];
            }
        }
    }
}

/* Trees of classes. The second child of a node stands after the first, and a leaf, whose split nothing is above, leads to
 * itself. A node has one value per class, values[i * classes + class].
 *
 * millrace_class_sums adds the values of the leaves, tree by tree. Rows that are walked at once stop together, when the
 * last one is at its leaf: most are there long before the depth of the tree.
 *
 * millrace_class_steps credits the step from a node to its child to the feature that was asked, level by level and
 * within one tree by tree, as numpy does: the same bits.
 */
typedef struct {
    float split;
    int32_t feature;
    int32_t first;
} question;

static inline int64_t child_of(const question *asked, const float *x)
{
    return asked->first + (x[asked->feature] > asked->split);
}

void millrace_class_sums(const float *rows, int64_t n, int64_t width, const question *nodes, const double *values,
                         int64_t classes, const int64_t *roots, int64_t trees, int64_t depth, double *total)
{
    for (int64_t begin = 0; begin < n; begin += ROWS_A_BLOCK) {
        const int64_t end = begin + ROWS_A_BLOCK < n ? begin + ROWS_A_BLOCK : n;
        for (int64_t tree = 0; tree < trees; tree++) {
            int64_t row = begin;
            for (; row + ROWS_AT_ONCE <= end; row += ROWS_AT_ONCE) {
                const float *x = rows + row * width;
                int64_t node[ROWS_AT_ONCE];
                int64_t moved = 1;
                for (int k = 0; k < ROWS_AT_ONCE; k++)
                    node[k] = roots[tree];
                for (int64_t level = 0; level < depth && moved; level++) {
                    moved = 0;
                    for (int k = 0; k < ROWS_AT_ONCE; k++) {
                        const int64_t child = child_of(nodes + node[k], x + k * width);
                        moved |= child ^ node[k];
                        node[k] = child;
                    }
                }
                for (int k = 0; k < ROWS_AT_ONCE; k++)
                    for (int64_t class = 0; class < classes; class++)
                        total[(row + k) * classes + class] += values[node[k] * classes + class];
            }
            for (; row < end; row++) {
                int64_t node = roots[tree];
                for (int64_t level = 0; level < depth; level++)
                    node = child_of(nodes + node, rows + row * width);
                for (int64_t class = 0; class < classes; class++)
                    total[row * classes + class] += values[node * classes + class];
            }
        }
    }
}

void millrace_class_steps(const float *rows, int64_t n, int64_t width, const question *nodes, const double *values,
                          int64_t classes, const int64_t *roots, int64_t trees, int64_t depth, const int64_t *chosen,
                          int64_t *at, double *level_sum, double *added)
{
    for (int64_t row = 0; row < n; row++) {
        const float *x = rows + row * width;
        const double *value = values + chosen[row];
        double *out = added + row * width;
        for (int64_t tree = 0; tree < trees; tree++)
            at[tree] = roots[tree];
        for (int64_t level = 0; level < depth; level++) {
            for (int64_t k = 0; k < width; k++)
                level_sum[k] = 0.0;
            for (int64_t tree = 0; tree < trees; tree++) {
                const int64_t node = at[tree];
                const int64_t child = child_of(nodes + node, x);
                level_sum[nodes[node].feature] += value[child * classes] - value[node * classes];
                at[tree] = child;
            }
            for (int64_t k = 0; k < width; k++)
                out[k] += level_sum[k];
        }
    }
}
