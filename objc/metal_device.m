/* The Metal device: what macOS says about the GPU, the machine and this process. */
#include <mach/mach.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysctl.h>
#include <unistd.h>

#import "metal.h"
#import "page.h"

/* What iogpu.rsrc_limit means when it reads 0. */
#define DEFAULT_RESOURCE_LIMIT 499000

mlim_status mlim_fail(mlim_error *error, mlim_status status, NSError *reason, const char *what)
{
    if (error) {
        const char *text = reason ? reason.localizedDescription.UTF8String : NULL;
        error->code = (int)reason.code;
        snprintf(error->message, sizeof error->message, "%s%s%s", what, text ? ": " : "",
                 text ? text : "");
    }
    return status;
}

bool mlim_is_forked(const mlim_device *device)
{
    return getpid() != device->owner;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* An integer of the system's, whichever of its sizes it has; 0 where there is none. */
static uint64_t system_number(const char *name)
{
    uint64_t number = 0;
    size_t size = sizeof number;
    return sysctlbyname(name, &number, &size, NULL, 0) == 0 ? number : 0;
}

/* A name's bytes, for as long as the pool is open. */
static const char *bytes_of(NSString *name)
{
    const char *bytes = name.UTF8String;
    return bytes ? bytes : "unknown";
}

static bool has_residency(id<MTLDevice> metal)
{
    if (@available(macOS 15.0, *))
        return NSClassFromString(@"MTLResidencySetDescriptor") &&
               [metal supportsFamily:MTLGPUFamilyMetal3];
    return false;
}

static void describe(id<MTLDevice> metal, const mlim_capacities *capacities,
                     mlim_device_facts *facts)
{
    NSString *architecture = nil;
    vm_size_t page_size = 0;
    mach_port_t host = mach_host_self();
    if (host_page_size(host, &page_size) != KERN_SUCCESS)
        page_size = (vm_size_t)sysconf(_SC_PAGESIZE);
    mach_port_deallocate(mach_task_self(), host);
    if (@available(macOS 14.0, *))
        if ([metal respondsToSelector:@selector(architecture)])
            architecture = metal.architecture.name;
    snprintf(facts->backend, sizeof facts->backend, "metal");
    snprintf(facts->device_name, sizeof facts->device_name, "%s", bytes_of(metal.name));
    snprintf(facts->architecture, sizeof facts->architecture, "%s", bytes_of(architecture));
    facts->page_size = page_size;
    facts->sizes.memory_size = system_number("hw.memsize");
    facts->sizes.max_recommended_working_set_size = metal.recommendedMaxWorkingSetSize;
    facts->sizes.max_buffer_length = metal.maxBufferLength;
    facts->resource_limit = system_number("iogpu.rsrc_limit");
    if (facts->resource_limit == 0)
        facts->resource_limit = DEFAULT_RESOURCE_LIMIT;
    if (capacities && capacities->memory_size)
        facts->sizes.memory_size = least(facts->sizes.memory_size, capacities->memory_size);
    if (capacities && capacities->max_buffer_length)
        facts->sizes.max_buffer_length =
            least(facts->sizes.max_buffer_length, capacities->max_buffer_length);
    facts->sizes.max_buffer_length -= facts->sizes.max_buffer_length % facts->page_size;
    facts->wired_capacity =
        has_residency(metal) ? facts->sizes.max_recommended_working_set_size : 0;
    if (capacities && capacities->wired_capacity)
        facts->wired_capacity = least(facts->wired_capacity, capacities->wired_capacity);
}

mlim_status mlim_device_open(const mlim_capacities *capacities, mlim_device **out,
                             mlim_error *error)
{
    @autoreleasepool {
        id<MTLDevice> metal = MTLCreateSystemDefaultDevice();
        if (!metal)
            return mlim_fail(error, MLIM_NO_DEVICE, nil, "this machine has no Metal device");
        mlim_device *device = calloc(1, sizeof *device);
        if (!device) {
            [metal release];
            return mlim_fail(error, MLIM_NO_MEMORY, nil, "no memory for a device's handle");
        }
        device->metal = metal;
        device->owner = getpid();
        device->has_residency = has_residency(metal);
        describe(metal, capacities, &device->facts);
        device->facts.sizes.available = UINT64_MAX; /* where it cannot be read */
        mlim_device_sizes(device, false, &device->facts.sizes, NULL);
        mlim_device_process(device, &device->facts.process, NULL);
        *out = device;
        return MLIM_OK;
    }
}

void mlim_device_close(mlim_device *device)
{
    if (!device)
        return;
    if (!mlim_is_forked(device))
        @autoreleasepool {
            [device->metal release];
        }
    free(device);
}

const mlim_device_facts *mlim_device_get_facts(const mlim_device *device)
{
    return &device->facts;
}

mlim_status mlim_device_usable(const mlim_device *device, mlim_error *error)
{
    if (!mlim_is_forked(device))
        return MLIM_OK;
    return mlim_fail(error, MLIM_NO_DEVICE, nil,
                     "Metal does not work in a forked child process. Start processes with "
                     "the 'spawn' method, multiprocessing.set_start_method('spawn')");
}

mlim_status mlim_device_sizes(mlim_device *device, bool closely, mlim_sizes *out, mlim_error *error)
{
    (void)closely;
    vm_statistics64_data_t pages;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    mach_port_t host = mach_host_self();
    kern_return_t code = host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&pages, &count);
    mach_port_deallocate(mach_task_self(), host);
    if (code != KERN_SUCCESS)
        return mlim_fail(error, MLIM_UNKNOWN, nil, "host_statistics64 failed");
    struct xsw_usage swap = {0};
    size_t size = sizeof swap;
    sysctlbyname("vm.swapusage", &swap, &size, NULL, 0);
    uint64_t free_pages = (uint64_t)pages.free_count + pages.inactive_count + pages.purgeable_count;
    if (out != &device->facts.sizes)
        *out = device->facts.sizes;
    out->available = out->assured = free_pages * device->facts.page_size + swap.xsu_avail;
    out->sharers = 1;
    out->between = UINT64_MAX;
    return MLIM_OK;
}

mlim_status mlim_device_bounds(mlim_device *device, mlim_bound *bounds, size_t capacity,
                               size_t *count, mlim_error *error)
{
    mlim_sizes sizes;
    mlim_status status = mlim_device_sizes(device, false, &sizes, error);
    if (status != MLIM_OK)
        return status;
    *count = 1;
    if (capacity) {
        *bounds = (mlim_bound){.kind = MLIM_SYSTEM, .room = sizes.available};
        snprintf(bounds->name, sizeof bounds->name, "RAM and swap");
    }
    return MLIM_OK;
}

void mlim_device_use_huge_pages(mlim_device *device, bool wanted)
{
    (void)device;
    (void)wanted; /* the system decides by itself */
}

mlim_status mlim_device_stall(mlim_device *device, double *out, mlim_error *error)
{
    /* Three levels, after dispatch/source.h: 1 is normal, 2 a warning, 4 critical. */
    (void)device;
    uint64_t level = system_number("kern.memorystatus_vm_pressure_level");
    if (level == 0)
        return mlim_fail(error, MLIM_UNSUPPORTED, nil, "kern.memorystatus_vm_pressure_level");
    *out = level >= 4 ? 100 : level >= 2 ? 50 : 0;
    return MLIM_OK;
}

static mlim_status ask_task(task_vm_info_data_t *info, mlim_error *error)
{
    mach_msg_type_number_t words = TASK_VM_INFO_COUNT;
    if (task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)info, &words) != KERN_SUCCESS)
        return mlim_fail(error, MLIM_UNKNOWN, nil, "task_info failed");
    return MLIM_OK;
}

mlim_status mlim_device_process(mlim_device *device, mlim_process *out, mlim_error *error)
{
    /* The footprint is what macOS itself holds a process to: what is compressed or swapped out is
     * in it, too, and pages of files are not. */
    (void)device;
    task_vm_info_data_t info = {0};
    mlim_status status = ask_task(&info, error);
    if (status != MLIM_OK)
        return status;
    *out = (mlim_process){.resident = info.phys_footprint};
    out->peak_resident = info.phys_footprint;
    if (info.ledger_phys_footprint_peak > (int64_t)info.phys_footprint)
        out->peak_resident = (uint64_t)info.ledger_phys_footprint_peak;
    return MLIM_OK;
}

mlim_status mlim_device_touched(mlim_device *device, mlim_range *ranges, size_t count,
                                uint64_t *out, mlim_error *error)
{
    /* The footprint of the whole process is an upper bound; ranges that are gone are none of it. */
    (void)device;
    task_vm_info_data_t info = {0};
    mlim_status status = ask_task(&info, error);
    if (status != MLIM_OK)
        return status;
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += ranges[i].end - ranges[i].start;
    *out = least(bytes, info.phys_footprint);
    return MLIM_OK;
}

bool mlim_device_unread(mlim_device *device, mlim_error *error)
{
    (void)device, (void)error;
    return false;
}

mlim_page *mlim_page_of_self(void)
{
    return NULL;
}

void mlim_page_forget(void)
{
}

void mlim_device_claim(mlim_device *device, mlim_claim *out)
{
    (void)device;
    *out = (mlim_claim){-1, -1};
}

void mlim_device_unclaim(mlim_device *device, const mlim_claim *claim)
{
    (void)device, (void)claim;
}
