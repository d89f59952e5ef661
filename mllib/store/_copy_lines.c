/* Takes lines of COPY out of libpq's memory. Called through ctypes, without Python's lock: a loop in Python holds it for
 * as long as the line takes to parse.
 */
#include <stdint.h>
#include <string.h>

/* PQgetCopyData and PQfreemem of the library that the driver has loaded. */
typedef int (*getter)(void *connection, char **line, int async);
typedef void (*releaser)(void *line);

/* Puts `most` lines at most, of those that have arrived, into `out`, and returns how many. `used` is how many bytes they
 * have. `last` is what libpq said at last: 0 that no more has arrived, -1 that there is no more, -2 that it failed. A
 * line that there is no room for is in `unfitting`, its size in `last`, and for the caller to release.
 */
int64_t millrace_take_lines(void *connection, getter get, releaser release, int64_t most, char *out, int64_t room,
                            int64_t *used, char **unfitting, int32_t *last)
{
    int64_t lines = 0, at = 0;

    *unfitting = NULL;
    *last = 1;
    while (lines < most && *last > 0) {
        char *line = NULL;
        *last = get(connection, &line, 1);
        if (*last <= 0)
            break;
        if (*last > room - at) {
            *unfitting = line;
            break;
        }
        memcpy(out + at, line, (size_t)*last);
        at += *last;
        lines++;
        release(line);
    }
    *used = at;
    return lines;
}
