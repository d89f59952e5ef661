/* Medians of windows that move forward over a series of ranks. Called through ctypes; needs no Python.
 *
 * counts[] is a Fenwick tree over the ranks in the present window, 2^levels of them: a rank enters or leaves in at most
 * `levels` steps, and the k-th smallest is found in as many. `start` and `end` never go back, so that each value
 * enters and leaves once.
 */
#include <stdint.h>

static void add(int32_t *counts, int64_t size, int64_t rank, int32_t by)
{
    for (int64_t at = rank + 1; at <= size; at += at & -at)
        counts[at] += by;
}

static int32_t kth(const int32_t *counts, int64_t size, int64_t k)
{
    int64_t at = 0;
    for (int64_t step = size; step > 0; step >>= 1)
        if (at + step <= size && counts[at + step] <= k) {
            at += step;
            k -= counts[at];
        }
    return (int32_t)at;
}

void millrace_medians(const int32_t *ranks, const int64_t *start, const int64_t *end, int64_t windows, int64_t levels,
                      int32_t *counts, int32_t *lower, int32_t *upper)
{
    const int64_t size = (int64_t)1 << levels;
    int64_t first = 0, last = 0;

    for (int64_t window = 0; window < windows; window++) {
        for (; last < end[window]; last++)
            add(counts, size, ranks[last], 1);
        for (; first < start[window]; first++)
            add(counts, size, ranks[first], -1);
        const int64_t n = end[window] - start[window];
        lower[window] = kth(counts, size, (n - 1) / 2);
        upper[window] = n % 2 ? lower[window] : kth(counts, size, n / 2);
    }
}
