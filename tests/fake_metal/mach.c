/* The calls of mach, sysctl and libproc. */
#include <errno.h>
#include <libproc.h>
#include <mach/mach.h>
#include <string.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include "machine.h"
#include "rules.h"

#define TASK 0x103
#define HOST 0x203

mach_port_t mach_task_self_ = TASK;

static int64_t or_machines(int64_t setting, int64_t (*machines)(void))
{
    return setting < 0 ? machines() : setting;
}

static void check_port(mach_port_t port, mach_port_t expected, const char *what)
{
    if (port != expected)
        fake_break("%s: port 0x%x is not the one it works on", what, port);
}

mach_port_t mach_host_self(void)
{
    (void)FUNCTION_FAILS();
    fake_gauges.host_rights++;
    return HOST;
}

kern_return_t mach_port_deallocate(ipc_space_t task, mach_port_name_t name)
{
    (void)FUNCTION_FAILS();
    check_port(task, TASK, __func__);
    check_port(name, HOST, __func__);
    if (--fake_gauges.host_rights < 0)
        fake_break("mach_port_deallocate more often than mach_host_self");
    return KERN_SUCCESS;
}

kern_return_t host_page_size(host_t host, vm_size_t *size)
{
    if (FUNCTION_FAILS())
        return KERN_FAILURE;
    check_port(host, HOST, __func__);
    *size = (vm_size_t)fake_settings.page_size;
    return KERN_SUCCESS;
}

static natural_t pages(int64_t bytes)
{
    int64_t page = fake_settings.page_size;
    return bytes < 0 ? 0 : (natural_t)(bytes / page);
}

/* Half of what is available is free, half belongs to files; a quarter of that was read ahead, which
 * macOS counts as free. So neither free + external nor free + inactive + speculative is right. */
kern_return_t host_statistics64(host_t host, host_flavor_t flavor, host_info64_t info,
                                mach_msg_type_number_t *count)
{
    bool fails = FUNCTION_FAILS();
    check_port(host, HOST, __func__);
    if (flavor != HOST_VM_INFO64)
        return KERN_INVALID_ARGUMENT;
    if (*count != HOST_VM_INFO64_COUNT)
        fake_break("host_statistics64: *count is %u, to begin with, not HOST_VM_INFO64_COUNT",
                   *count);
    if (fails)
        return KERN_FAILURE;
    int64_t available = or_machines(fake_settings.available, fake_machine_available);
    int64_t memory = (int64_t)fake_memory_size();
    if (available > memory)
        available = memory;
    natural_t free_pages = pages(available / 2), files = pages(available) - free_pages;
    vm_statistics64_data_t *statistics = (vm_statistics64_data_t *)(void *)info;
    memset(statistics, 0, sizeof *statistics);
    statistics->speculative_count = files / 4;
    statistics->free_count = free_pages + statistics->speculative_count;
    statistics->inactive_count = files - statistics->speculative_count;
    statistics->external_page_count = files;
    statistics->wire_count = pages(fake_gauges.resident_bytes);
    statistics->purgeable_count = pages(fake_gauges.volatile_bytes);
    statistics->purges = (uint64_t)fake_gauges.purges;
    int64_t used = (int64_t)pages(memory) - free_pages - files - statistics->wire_count;
    statistics->active_count = used < 0 ? 0 : (natural_t)used;
    statistics->internal_page_count = statistics->active_count;
    return KERN_SUCCESS;
}

/* The kernel's is that of every instant, this one that of every call. */
static int64_t highest_footprint(int64_t footprint)
{
    static int64_t highest;
    int64_t before = __atomic_load_n(&highest, __ATOMIC_RELAXED);
    if (before >= footprint)
        return before;
    __atomic_store_n(&highest, footprint, __ATOMIC_RELAXED);
    return footprint;
}

kern_return_t task_info(task_name_t task, task_flavor_t flavor, task_info_t info,
                        mach_msg_type_number_t *count)
{
    bool fails = FUNCTION_FAILS();
    check_port(task, TASK, __func__);
    if (flavor != TASK_VM_INFO)
        return KERN_INVALID_ARGUMENT;
    if (*count != TASK_VM_INFO_COUNT)
        fake_break("task_info: *count is %u, to begin with, not TASK_VM_INFO_COUNT", *count);
    if (fails)
        return KERN_FAILURE;
    task_vm_info_data_t *facts = (task_vm_info_data_t *)(void *)info;
    uint64_t footprint =
        (uint64_t)or_machines(fake_settings.phys_footprint, fake_machine_footprint);
    *facts = (task_vm_info_data_t){
        .resident_size = footprint,
        .phys_footprint = footprint,
        .ledger_phys_footprint_peak = highest_footprint((int64_t)footprint),
    };
    return KERN_SUCCESS;
}

int proc_pid_rusage(int pid, int flavor, rusage_info_t *info)
{
    if (FUNCTION_FAILS() || pid != getpid() || flavor != RUSAGE_INFO_V4) {
        errno = pid != getpid() ? ESRCH : EINVAL;
        return -1;
    }
    uint64_t footprint =
        (uint64_t)or_machines(fake_settings.phys_footprint, fake_machine_footprint);
    struct rusage_info_v4 facts = {
        .ri_wired_size = (uint64_t)fake_gauges.resident_bytes,
        .ri_resident_size = footprint,
        .ri_phys_footprint = footprint,
    };
    memcpy(info, &facts, sizeof facts);
    return 0;
}

/* xnu is generous with one size only: a number of 64 bits may be read into 32, if it fits. One of
 * 32 bits that is read into 64 leaves the upper half as it was. */
static int give(void *old, size_t *old_size, const void *value, size_t size)
{
    int32_t narrow;
    if (!old_size && !old)
        return 0;
    if (!old_size)
        fake_break("sysctlbyname: a place for the value, but not its size");
    if (old && *old_size == sizeof narrow && size == sizeof(int64_t)) {
        int64_t wide;
        memcpy(&wide, value, sizeof wide);
        narrow = (int32_t)wide;
        if (narrow != wide)
            return ERANGE;
        value = &narrow;
        size = sizeof narrow;
    }
    bool fits = !old || *old_size >= size;
    if (old)
        memcpy(old, value, fits ? size : *old_size);
    *old_size = fits ? size : *old_size;
    return fits ? 0 : ENOMEM;
}

static int give_setting(void *old, size_t *old_size, int64_t setting)
{
    int32_t value = (int32_t)setting;
    return setting < 0 ? ENOENT : give(old, old_size, &value, sizeof value);
}

static int give_swap(void *old, size_t *old_size)
{
    int64_t total = or_machines(fake_settings.swap_total, fake_machine_swap_total);
    int64_t left = or_machines(fake_settings.swap_free, fake_machine_swap_free);
    if (left > total)
        left = total;
    struct xsw_usage usage = {
        .xsu_total = (uint64_t)total,
        .xsu_avail = (uint64_t)left,
        .xsu_used = (uint64_t)(total - left),
        .xsu_pagesize = (uint32_t)fake_settings.page_size,
        .xsu_encrypted = 1,
    };
    return give(old, old_size, &usage, sizeof usage);
}

int sysctlbyname(const char *name, void *old, size_t *old_size, void *new_value, size_t new_size)
{
    uint64_t memory = fake_memory_size();
    int code = ENOENT;
    if (FUNCTION_FAILS())
        code = EPERM;
    else if (new_value || new_size)
        code = EPERM;
    else if (strcmp(name, "hw.memsize") == 0)
        code = give(old, old_size, &memory, sizeof memory);
    else if (strcmp(name, "iogpu.rsrc_limit") == 0)
        code = give_setting(old, old_size, fake_settings.rsrc_limit);
    else if (strcmp(name, "iogpu.wired_limit_mb") == 0)
        code = give_setting(old, old_size, fake_settings.wired_limit_mb);
    else if (strcmp(name, "kern.memorystatus_vm_pressure_level") == 0)
        code = give_setting(old, old_size, fake_settings.pressure_level);
    else if (strcmp(name, "vm.swapusage") == 0)
        code = give_swap(old, old_size);
    if (code == 0)
        return 0;
    errno = code;
    return -1;
}
