/* The host device: what Linux says about the machine, this process and its control groups. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "host.h"

#define CAP_IPC_LOCK_BIT 14 /* linux/capability.h */

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
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t used = 0;
    ssize_t got;
    while (used < size - 1 && (got = read(fd, text + used, size - 1 - used)) > 0)
        used += (size_t)got;
    close(fd);
    text[used] = 0;
    return used > 0;
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

static uint64_t kibibytes(const char *text, const char *key)
{
    return mlim_number(text, key) * 1024;
}

/* What RLIMIT_MEMLOCK lets this process lock once the soft limit is raised to the hard one. */
static uint64_t lockable(uint64_t memory_size)
{
    char text[8192];
    const char *line;
    uint64_t capabilities = 0;
    if (mlim_read_text("/proc/self/status", text, sizeof text) && (line = strstr(text, "\nCapEff:")))
        sscanf(line, "\nCapEff: %" SCNx64, &capabilities);
    if (capabilities >> CAP_IPC_LOCK_BIT & 1)
        return memory_size;
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        return 0;
    return limit.rlim_max == RLIM_INFINITY ? memory_size : least(memory_size, limit.rlim_max);
}

static void name_processor(char *name, size_t size, const char *otherwise)
{
    char text[4096];
    snprintf(name, size, "%s", otherwise);
    if (!mlim_read_text("/proc/cpuinfo", text, sizeof text))
        return;
    const char *line = strstr(text, "model name");
    const char *value = line ? strchr(line, ':') : NULL;
    if (value)
        snprintf(name, size, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
}

mlim_status mlim_device_open(const mlim_capacities *capacities, mlim_device **out,
                             mlim_error *error)
{
    static const mlim_capacities the_systems_own;
    const mlim_capacities *caps = capacities ? capacities : &the_systems_own;
    char text[8192];
    struct utsname machine;
    if (!mlim_read_text("/proc/meminfo", text, sizeof text))
        return mlim_fail(error, MLIM_NO_DEVICE, errno, "/proc/meminfo");
    mlim_device *device = calloc(1, sizeof *device);
    if (!device)
        return mlim_fail(error, MLIM_NO_MEMORY, ENOMEM, "a device's handle");
    mlim_device_facts *facts = &device->facts;
    uname(&machine);
    snprintf(facts->backend, sizeof facts->backend, "host");
    snprintf(facts->architecture, sizeof facts->architecture, "%.63s", machine.machine);
    name_processor(facts->device_name, sizeof facts->device_name, facts->architecture);
    facts->page_size = (uint64_t)sysconf(_SC_PAGESIZE);

    uint64_t memory = least(kibibytes(text, "MemTotal:"), mlim_cgroups_limit());
    if (caps->memory_size)
        memory = least(memory, caps->memory_size);
    facts->memory_size = memory;
    facts->max_recommended_working_set_size = (uint64_t)(0.75 * (double)memory);

    /* A longer buffer could not be filled, whatever is swapped out. */
    uint64_t length = memory + kibibytes(text, "SwapTotal:");
    if (caps->max_buffer_length)
        length = least(length, caps->max_buffer_length);
    facts->max_buffer_length = length - length % facts->page_size;

    facts->wired_capacity = lockable(memory);
    if (caps->wired_capacity)
        facts->wired_capacity = least(facts->wired_capacity, caps->wired_capacity);
    if (mlim_read_text("/proc/sys/vm/max_map_count", text, sizeof text))
        sscanf(text, "%" SCNu64, &facts->resource_limit);
    *out = device;
    return MLIM_OK;
}

void mlim_device_close(mlim_device *device)
{
    free(device);
}

const mlim_device_facts *mlim_device_get_facts(const mlim_device *device)
{
    return &device->facts;
}

mlim_status mlim_device_available(const mlim_device *device, uint64_t *out, mlim_error *error)
{
    (void)device;
    char text[8192];
    if (!mlim_read_text("/proc/meminfo", text, sizeof text))
        return mlim_fail(error, MLIM_UNKNOWN, errno, "/proc/meminfo");
    uint64_t swap_free = kibibytes(text, "SwapFree:");
    *out = least(kibibytes(text, "MemAvailable:") + swap_free, mlim_cgroups_room(swap_free));
    return MLIM_OK;
}

mlim_status mlim_device_touched(const mlim_device *device, uint64_t *out, mlim_error *error)
{
    (void)device;
    char text[8192];
    if (!mlim_read_text("/proc/self/status", text, sizeof text))
        return mlim_fail(error, MLIM_UNKNOWN, errno, "/proc/self/status");
    *out = kibibytes(text, "RssAnon:") + kibibytes(text, "VmSwap:");
    return MLIM_OK;
}

mlim_status mlim_device_touched_range(const mlim_device *device, const void *start, size_t length,
                                      uint64_t *out, mlim_error *error)
{
    /* An entry a page; the two top bits say "in RAM" and "in swap" (Documentation/admin-guide/mm,
     * pagemap). A page that was only read counts too, though it costs nothing yet. */
    enum { ENTRIES = 2048 };
    uint64_t entries[ENTRIES];
    uint64_t page_size = device->facts.page_size, pages = 0;
    uint64_t left = length / page_size;
    off_t at = (off_t)((uintptr_t)start / page_size * sizeof *entries);
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mlim_fail(error, MLIM_UNKNOWN, errno, "/proc/self/pagemap");
    while (left) {
        ssize_t got = pread(fd, entries, (size_t)least(left, ENTRIES) * sizeof *entries, at);
        if (got <= 0)
            break; /* beyond the address space: nothing is touched there */
        size_t count = (size_t)got / sizeof *entries;
        for (size_t i = 0; i < count; i++)
            pages += entries[i] >> 62 != 0;
        at += got;
        left -= count;
    }
    close(fd);
    *out = pages * page_size;
    return MLIM_OK;
}
