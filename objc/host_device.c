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

static void name_processor(mlim_reader *reader, char *name, size_t size, const char *otherwise)
{
    snprintf(name, size, "%s", otherwise);
    if (!mlim_read_text(reader->device, "/proc/cpuinfo", &reader->text))
        return;
    const char *line = strstr(reader->text.bytes, "model name");
    const char *value = line ? strchr(line, ':') : NULL;
    if (value && value[1] == ' ')
        snprintf(name, size, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
}

/* A limit on how many mappings there are, where the system does not tell: its default. */
static uint64_t most_mappings(mlim_reader *reader)
{
    uint64_t number = 0;
    if (mlim_read_text(reader->device, "/proc/sys/vm/max_map_count", &reader->text))
        sscanf(reader->text.bytes, "%" SCNu64, &number);
    return number ? number : 65530;
}

static uint64_t machine_room(const mlim_machine *machine)
{
    return saturating_add(machine->available, machine->swap_free);
}

/* Each number lowered by what the device was opened with. */
static void fill_in(const mlim_device *device, const mlim_machine *machine,
                    const mlim_cgroups *cgroups, mlim_sizes *out)
{
    const mlim_capacities *caps = &device->capacities;
    out->available = least(machine_room(machine), cgroups->room);
    out->assured = least(machine->assured, cgroups->assured);
    out->sharers = cgroups->sharers;
    out->between = cgroups->between;
    out->memory_size = least(machine->memory, cgroups->limit);
    if (caps->memory_size)
        out->memory_size = least(out->memory_size, caps->memory_size);
    out->max_recommended_working_set_size = (uint64_t)(0.75 * (double)out->memory_size);
    /* A longer buffer could not be filled, whatever is swapped out. */
    uint64_t length = saturating_add(out->memory_size, machine->swap);
    if (caps->max_buffer_length)
        length = least(length, caps->max_buffer_length);
    out->max_buffer_length = length - length % device->facts.page_size;
}

static uint64_t machine_assured(const mlim_machine *machine, const mlim_peers *peers)
{
    return mlim_assured(machine->memory, machine_room(machine), peers);
}

/* Of the machine's room what other processes of this user were promised is left out. */
static bool read_shared(mlim_reader *reader, mlim_machine *machine, mlim_cgroups *cgroups,
                        mlim_bound_list *list)
{
    mlim_peers peers;
    bool closely = reader->closely;
    reader->closely = false;
    mlim_running_read(reader, &peers);
    reader->closely = closely;
    if (!mlim_machine_read(reader, machine) ||
        !mlim_cgroups_read(reader, machine->swap_free, cgroups, list))
        return false;
    if (closely && (list || machine_assured(machine, &peers) < cgroups->assured)) {
        mlim_running_read(reader, &peers);
        if (!mlim_machine_read(reader, machine))
            return false;
    }
    machine->assured = machine_assured(machine, &peers);
    if (machine->assured < cgroups->assured)
        mlim_cgroups_share(cgroups, machine->memory, machine->assured, &peers);
    return true;
}

mlim_status mlim_device_sizes(mlim_device *device, bool closely, mlim_sizes *out, mlim_error *error)
{
    mlim_reader reader = {.device = device, .closely = closely};
    mlim_machine machine;
    mlim_cgroups cgroups;
    bool known = read_shared(&reader, &machine, &cgroups, NULL);
    int code = errno;
    mlim_text_free(&reader.text);
    if (!known)
        return mlim_fail(error, MLIM_UNKNOWN, code, "the system's memory");
    fill_in(device, &machine, &cgroups, out);
    return MLIM_OK;
}

static void describe(mlim_device *device)
{
    mlim_device_facts *facts = &device->facts;
    mlim_reader reader = {.device = device};
    struct utsname machine;
    uname(&machine);
    snprintf(facts->backend, sizeof facts->backend, "host");
    snprintf(facts->architecture, sizeof facts->architecture, "%.63s", machine.machine);
    name_processor(&reader, facts->device_name, sizeof facts->device_name, facts->architecture);
    facts->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
    facts->resource_limit = most_mappings(&reader);
    /* Pages advised MADV_FREE stay in the list of file pages when they are written again. */
    facts->purgeable_lingers = true;
    facts->resizes = true;
    mlim_text_free(&reader.text);
    /* The kernel adds a count of a CPU's to a group's when it is as many pages as that. */
    device->batches = 64 * facts->page_size * (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
}

/* Of this process alone, which has taken nothing yet. Where the files cannot be read for now, what
 * the kernel says of the machine. */
static void size_up(mlim_device *device, mlim_sizes *out)
{
    mlim_reader reader = {.device = device};
    mlim_machine machine;
    mlim_cgroups cgroups;
    if (!mlim_machine_read(&reader, &machine) ||
        !mlim_cgroups_read(&reader, machine.swap_free, &cgroups, NULL)) {
        mlim_machine_ask(&machine);
        cgroups = mlim_no_cgroups;
    }
    machine.assured = machine_room(&machine);
    mlim_text_free(&reader.text);
    fill_in(device, &machine, &cgroups, out);
}

mlim_status mlim_device_open(const mlim_capacities *capacities, mlim_device **out,
                             mlim_error *error)
{
    mlim_device *device = calloc(1, sizeof *device);
    if (!device)
        return mlim_fail(error, MLIM_NO_MEMORY, ENOMEM, "a device's handle");
    if (capacities)
        device->capacities = *capacities;
    describe(device);
    if (!mlim_mounts_open(device)) {
        mlim_device_close(device);
        return mlim_fail(error, MLIM_NO_MEMORY, ENOMEM, "a device's handle");
    }
    mlim_device_facts *facts = &device->facts;
    size_up(device, &facts->sizes);
    if (mlim_device_process(device, &facts->process, NULL) != MLIM_OK)
        mlim_process_ask(&facts->process);
    facts->wired_capacity = lockable(facts->sizes.memory_size);
    if (device->capacities.wired_capacity)
        facts->wired_capacity = least(facts->wired_capacity, device->capacities.wired_capacity);
    *out = device;
    return MLIM_OK;
}

void mlim_device_close(mlim_device *device)
{
    if (!device)
        return;
    mlim_mounts_close(device);
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
        mlim_bound_add(list, MLIM_RLIMIT, name, saturating_sub(limit.rlim_cur, mapped));
}

static bool add_bounds(mlim_reader *reader, mlim_bound_list *list)
{
    mlim_mapped mapped;
    mlim_machine machine;
    mlim_cgroups cgroups;
    if (!mlim_process_mapped(reader, &mapped))
        return false;
    if (mapped.known) {
        add_rlimit(list, RLIMIT_AS, "RLIMIT_AS", mapped.all);
        add_rlimit(list, RLIMIT_DATA, "RLIMIT_DATA", mapped.data);
    }
    if (!read_shared(reader, &machine, &cgroups, list))
        return false;
    mlim_bound_add(list, MLIM_SYSTEM, "RAM and swap", machine.assured);
    return true;
}

mlim_status mlim_device_bounds(mlim_device *device, mlim_bound *bounds, size_t capacity,
                               size_t *count, mlim_error *error)
{
    mlim_reader reader = {.device = device, .closely = true};
    mlim_bound_list list = {bounds, capacity, 0};
    bool known = add_bounds(&reader, &list);
    int code = errno;
    mlim_text_free(&reader.text);
    *count = list.count;
    return known ? MLIM_OK : mlim_fail(error, MLIM_UNKNOWN, code, "what bounds memory");
}

mlim_status mlim_device_stall(mlim_device *device, double *out, mlim_error *error)
{
    mlim_reader reader = {.device = device};
    bool known = mlim_cgroups_stall(&reader, out);
    if (known && *out < 0) {
        known = mlim_read_text(device, "/proc/pressure/memory", &reader.text);
        *out = known ? mlim_stall(reader.text.bytes) : -1;
    }
    int code = errno;
    mlim_text_free(&reader.text);
    if (!known)
        return mlim_fail(error, MLIM_UNKNOWN, code, "how long programs wait for memory");
    return *out >= 0 ? MLIM_OK
                     : mlim_fail(error, MLIM_UNSUPPORTED, ENOENT, "/proc/pressure/memory");
}
