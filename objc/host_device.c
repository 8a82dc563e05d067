/* The host device: what Linux says about the machine, this process and its control groups. */
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "host.h"

static uint64_t kibibytes(const char *text, const char *key)
{
    return mlim_number(text, key) * 1024;
}

/* What RLIMIT_MEMLOCK lets this process lock once the soft limit is raised to the hard one. */
static uint64_t lockable(uint64_t memory_size)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct capabilities[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &header, capabilities) == 0 &&
        capabilities[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK))
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
    if (!mlim_read_text("/proc/meminfo", text, sizeof text) || !kibibytes(text, "MemTotal:"))
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

    uint64_t in_groups;
    if (!mlim_cgroups_open(device) || !mlim_cgroups_limit(device, &in_groups)) {
        int code = errno;
        free(device);
        return mlim_fail(error, MLIM_NO_DEVICE, code, "the memory control group");
    }
    uint64_t memory = least(kibibytes(text, "MemTotal:"), in_groups);
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
    /* Pages advised MADV_FREE stay in the list of file pages when they are written again. */
    facts->purgeable_lingers = true;
    facts->resizes = true;
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

mlim_status mlim_device_usable(const mlim_device *device, mlim_error *error)
{
    (void)device, (void)error;
    return MLIM_OK;
}

mlim_status mlim_device_available(const mlim_device *device, uint64_t *out, mlim_error *error)
{
    char text[8192];
    uint64_t in_groups;
    if (!mlim_read_text("/proc/meminfo", text, sizeof text))
        return mlim_fail(error, MLIM_UNKNOWN, errno, "/proc/meminfo");
    uint64_t swap_free = kibibytes(text, "SwapFree:");
    if (!mlim_cgroups_room(device, swap_free, &in_groups))
        return mlim_fail(error, MLIM_UNKNOWN, errno, "the memory control group");
    *out = least(kibibytes(text, "MemAvailable:") + swap_free, in_groups);
    return MLIM_OK;
}

void mlim_bound_add(mlim_bound_list *list, mlim_bound_kind kind, const char *name, uint64_t room)
{
    if (list->count < list->capacity) {
        mlim_bound *bound = &list->bounds[list->count];
        bound->kind = kind;
        bound->room = room;
        snprintf(bound->name, sizeof bound->name, "%s", name);
    }
    list->count++;
}

static void add_rlimit(mlim_bound_list *list, int which, const char *name, uint64_t mapped)
{
    struct rlimit limit;
    if (getrlimit((unsigned)which, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        mlim_bound_add(list, MLIM_RLIMIT, name, minus(limit.rlim_cur, mapped));
}

mlim_status mlim_device_bounds(const mlim_device *device, mlim_bound *bounds, size_t capacity,
                               size_t *count, mlim_error *error)
{
    char text[8192];
    mlim_bound_list list = {bounds, capacity, 0};
    if (!mlim_read_text("/proc/self/status", text, sizeof text))
        return mlim_fail(error, MLIM_UNKNOWN, errno, "/proc/self/status");
    add_rlimit(&list, RLIMIT_AS, "RLIMIT_AS", kibibytes(text, "VmSize:"));
    add_rlimit(&list, RLIMIT_DATA, "RLIMIT_DATA", kibibytes(text, "VmData:"));
    if (!mlim_read_text("/proc/meminfo", text, sizeof text))
        return mlim_fail(error, MLIM_UNKNOWN, errno, "/proc/meminfo");
    uint64_t swap_free = kibibytes(text, "SwapFree:");
    if (!mlim_cgroups_bounds(device, swap_free, &list))
        return mlim_fail(error, MLIM_UNKNOWN, errno, "the memory control group");
    mlim_bound_add(&list, MLIM_SYSTEM, "RAM and swap",
                   kibibytes(text, "MemAvailable:") + swap_free);
    *count = list.count;
    return MLIM_OK;
}

mlim_status mlim_device_stall(const mlim_device *device, double *out, mlim_error *error)
{
    char text[512];
    if (!mlim_cgroups_stall(device, out))
        return mlim_fail(error, MLIM_UNKNOWN, errno, "the memory control group");
    if (*out >= 0)
        return MLIM_OK;
    /* A kernel that was told not to count says EOPNOTSUPP. */
    if (!mlim_read_text("/proc/pressure/memory", text, sizeof text) && errno != EOPNOTSUPP)
        return mlim_fail(error, MLIM_UNKNOWN, errno, "/proc/pressure/memory");
    *out = mlim_stall(text);
    return *out >= 0 ? MLIM_OK
                     : mlim_fail(error, MLIM_UNSUPPORTED, ENOENT, "/proc/pressure/memory");
}

static int by_start(const void *a, const void *b)
{
    const mlim_range *first = a, *second = b;
    return (first->start > second->start) - (first->start < second->start);
}

/* How many bytes of ordered ranges lie in a mapping. *next is the first that is not below it. */
static uint64_t overlap(const mlim_range *ranges, size_t count, size_t *next, uintptr_t start,
                        uintptr_t end)
{
    uint64_t bytes = 0;
    while (*next < count && ranges[*next].end <= start)
        ++*next;
    for (size_t i = *next; i < count && ranges[i].start < end; i++) {
        uintptr_t from = ranges[i].start > start ? ranges[i].start : start;
        uintptr_t to = ranges[i].end < end ? ranges[i].end : end;
        bytes += to - from;
    }
    return bytes;
}

mlim_status mlim_device_touched(const mlim_device *device, mlim_range *ranges, size_t count,
                                uint64_t *out, mlim_error *error)
{
    /* One pass over the mappings. "Anonymous" leaves out the pages of zeros that a mere read maps,
     * and "LazyFree" is what of it the kernel may take. Neighbouring buffers merge into one mapping:
     * its figure is then theirs together. */
    (void)device;
    char line[512];
    size_t next = 0;
    uint64_t ours = 0, touched = 0, size;
    uintptr_t start, end;
    FILE *mappings = fopen("/proc/self/smaps", "re");
    if (!mappings)
        return mlim_fail(error, MLIM_UNKNOWN, errno, "/proc/self/smaps");
    qsort(ranges, count, sizeof *ranges, by_start);
    *out = 0;
    while (fgets(line, sizeof line, mappings)) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2) {
            *out += least(ours, touched);
            ours = overlap(ranges, count, &next, start, end);
            touched = 0;
        } else if (ours && (sscanf(line, "Anonymous: %" SCNu64, &size) == 1 ||
                            sscanf(line, "Swap: %" SCNu64, &size) == 1)) {
            touched += size * 1024;
        } else if (ours && sscanf(line, "LazyFree: %" SCNu64, &size) == 1) {
            touched = minus(touched, size * 1024);
        }
    }
    *out += least(ours, touched);
    fclose(mappings);
    return MLIM_OK;
}
