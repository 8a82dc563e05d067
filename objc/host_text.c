/* Reading what Linux says as text, and saying what failed. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

mlim_status mlim_fail(mlim_error *error, mlim_status status, int code, const char *what)
{
    if (error) {
        error->code = code;
        snprintf(error->message, sizeof error->message, "%s: %s", what, strerror(code));
    }
    return status;
}

bool mlim_read_text(const char *path, char *text, size_t size)
{
    size_t used = 0;
    ssize_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    text[0] = 0;
    if (fd < 0)
        return errno == ENOENT;
    while (used < size - 1 && (got = read(fd, text + used, size - 1 - used)) > 0)
        used += (size_t)got;
    int code = errno;
    close(fd);
    text[used] = 0;
    errno = code;
    return got >= 0;
}

double mlim_stall(const char *text)
{
    double percent;
    return sscanf(text, "some avg10=%lf", &percent) == 1 ? percent : -1;
}

uint64_t mlim_number(const char *text, const char *key)
{
    size_t length = strlen(key);
    uint64_t number = 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0) {
            sscanf(line + length, "%" SCNu64, &number);
            break;
        }
    }
    return number;
}
