/* Reading what Linux says as text, and saying what failed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
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

static bool reserve(mlim_text *text, size_t capacity)
{
    if (text->capacity >= capacity)
        return true;
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes)
        return false;
    text->bytes = bytes;
    text->capacity = capacity;
    return true;
}

/* Reads to the end of the file. */
static bool read_all(int fd, mlim_text *text)
{
    size_t used = 0;
    for (;;) {
        if (used + 1 == text->capacity && !reserve(text, 2 * text->capacity))
            return false;
        ssize_t got = read(fd, text->bytes + used, text->capacity - 1 - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        used += (size_t)got;
        text->bytes[used] = 0;
        if (got == 0)
            return true;
    }
}

static bool is_for_now(int code)
{
    return code == EMFILE || code == ENFILE || code == ENOMEM || code == EINTR;
}

/* A control group that was removed says ENODEV. */
static bool is_absent(int code)
{
    return code == ENOENT || code == ENOTDIR || code == ENODEV;
}

bool mlim_read_text(mlim_device *device, const char *path, mlim_text *text)
{
    if (!reserve(text, 4096))
        return false;
    text->bytes[0] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool known = fd >= 0 && read_all(fd, text);
    int code = errno;
    if (fd >= 0)
        close(fd);
    if (known)
        return true;
    text->bytes[0] = 0;
    errno = code;
    if (is_for_now(code))
        return false;
    if (device && !is_absent(code) && code != EOPNOTSUPP)
        mlim_note_unread(device, path, code);
    return true;
}

void mlim_text_free(mlim_text *text)
{
    free(text->bytes);
    *text = (mlim_text){NULL, 0};
}

void mlim_note_unread(mlim_device *device, const char *path, int code)
{
    int none = UNREAD_NONE;
    if (!atomic_compare_exchange_strong(&device->unread.state, &none, UNREAD_WRITING))
        return; /* one is enough */
    mlim_fail(&device->unread.error, MLIM_OK, code, path);
    atomic_store(&device->unread.state, UNREAD_NOTED);
}

bool mlim_device_unread(mlim_device *device, mlim_error *error)
{
    int noted = UNREAD_NOTED;
    if (!atomic_compare_exchange_strong(&device->unread.state, &noted, UNREAD_TOLD))
        return false;
    *error = device->unread.error;
    return true;
}

bool mlim_next_line(FILE *file, char *line, int size)
{
    if (!fgets(line, size, file))
        return false;
    /* Under the stream's lock: at exit the C library takes the buffers of open ones. */
    char rest[256];
    for (const char *part = line; part && !strchr(part, '\n');)
        part = fgets(rest, sizeof rest, file);
    return true;
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
            mlim_digits(line + length, &number);
            break;
        }
    }
    return number;
}

/* sscanf would measure all of the text first, and make a stream of it: three quarters of what a
 * reading of the system takes. */
void mlim_digits(const char *text, uint64_t *out)
{
    char *end;
    int before = errno;
    unsigned long long number = strtoull(text, &end, 10);
    if (end != text)
        *out = number;
    errno = before; /* what is beyond all numbers is the largest */
}

bool mlim_concat(char *out, size_t size, const char *first, const char *second, const char *third)
{
    const char *const parts[] = {first, second, third};
    size_t used = 0;
    for (size_t i = 0; i < 3; i++) {
        size_t length = strlen(parts[i]);
        bool fits = length < size - used;
        length = fits ? length : size - used - 1;
        memcpy(out + used, parts[i], length);
        used += length;
        out[used] = 0;
        if (!fits)
            return false;
    }
    return true;
}
