/* mach, sysctl and libproc, and the control functions' answers to wrong names. */
#include <errno.h>
#include <libproc.h>
#include <mach/mach.h>
#include <string.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include "selftest.h"

KEEPS(sysctl_reads_numbers)
{
    uint64_t size = 0, resources = 0;
    int wired = 0;
    size_t length = sizeof size;
    fake_metal_set("memory_size", 1ll << 35);
    CHECK(sysctlbyname("hw.memsize", &size, &length, NULL, 0) == 0);
    CHECK(size == 1ull << 35 && length == sizeof size);
    fake_metal_set("rsrc_limit", 5);
    CHECK(sysctlbyname("iogpu.rsrc_limit", &resources, &length, NULL, 0) == 0);
    CHECK(resources == 5 && length == sizeof(int)); /* an int, whatever the buffer's size */
    fake_metal_set("wired_limit_mb", 1000);
    CHECK(sysctlbyname("iogpu.wired_limit_mb", &wired, &length, NULL, 0) == 0 && wired == 1000);
    fake_metal_set("pressure_level", 2);
    CHECK(sysctlbyname("kern.memorystatus_vm_pressure_level", &wired, &length, NULL, 0) == 0);
    CHECK(wired == 2);
    length = 4;
    CHECK(sysctlbyname("hw.memsize", &wired, &length, NULL, 0) == -1 && errno == ERANGE);
    length = 1;
    CHECK(sysctlbyname("hw.memsize", &size, &length, NULL, 0) == -1 && errno == ENOMEM);
    CHECK(sysctlbyname("hw.memsize", NULL, &length, NULL, 0) == 0 && length == sizeof size);
    CHECK(sysctlbyname("hw.nothing", &size, &length, NULL, 0) == -1 && errno == ENOENT);
    fake_metal_set("rsrc_limit", -1);
    CHECK(sysctlbyname("iogpu.rsrc_limit", &resources, &length, NULL, 0) == -1);
    CHECK(sysctlbyname("hw.memsize", NULL, NULL, &size, sizeof size) == -1 && errno == EPERM);
    length = sizeof size;
    fake_metal_fail("sysctlbyname", 1);
    CHECK(sysctlbyname("hw.memsize", &size, &length, NULL, 0) == -1);
}

KEEPS(sysctl_reads_swap)
{
    struct xsw_usage usage;
    size_t length = sizeof usage;
    fake_metal_set("swap_total", 1000);
    fake_metal_set("swap_free", 300);
    CHECK(sysctlbyname("vm.swapusage", &usage, &length, NULL, 0) == 0);
    CHECK(usage.xsu_total == 1000 && usage.xsu_avail == 300 && usage.xsu_used == 700);
}

KEEPS(host_statistics_add_up)
{
    vm_statistics64_data_t pages;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    vm_size_t page;
    host_t host = mach_host_self();
    CHECK(host_page_size(host, &page) == KERN_SUCCESS && page == 16 * KIB);
    fake_metal_set("available", 1000 * 16 * KIB);
    CHECK(host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&pages, &count) == KERN_SUCCESS);
    CHECK(pages.free_count + pages.inactive_count == 1000);
    CHECK(pages.free_count - pages.speculative_count + pages.external_page_count == 1000);
    fake_metal_set("available", 0);
    CHECK(host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&pages, &count) == KERN_SUCCESS);
    CHECK(pages.free_count + pages.inactive_count == 0);
    fake_metal_set("available", -1);
    CHECK(host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&pages, &count) == KERN_SUCCESS);
    CHECK(pages.free_count > 100);
    fake_metal_fail("host_page_size", 1);
    CHECK(host_page_size(host, &page) == KERN_FAILURE);
    fake_metal_fail("host_statistics64", 1);
    CHECK(host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&pages, &count) == KERN_FAILURE);
    CHECK(fake_metal_count("host_rights") == 1);
    mach_port_deallocate(mach_task_self(), host);
    CHECK(fake_metal_count("host_rights") == 0);
}

KEEPS(the_footprint_is_known)
{
    task_vm_info_data_t info;
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    struct rusage_info_v4 usage;
    CHECK(task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&info, &count) == 0);
    CHECK(info.phys_footprint > 0);
    fake_metal_set("phys_footprint", 12345);
    CHECK(task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&info, &count) == 0);
    CHECK(info.phys_footprint == 12345);
    CHECK(info.ledger_phys_footprint_peak > 12345);
    CHECK(proc_pid_rusage(getpid(), RUSAGE_INFO_V4, (rusage_info_t *)&usage) == 0);
    CHECK(usage.ri_phys_footprint == 12345);
    CHECK(proc_pid_rusage(1, RUSAGE_INFO_V4, (rusage_info_t *)&usage) == -1);
    fake_metal_fail("proc_pid_rusage", 1);
    CHECK(proc_pid_rusage(getpid(), RUSAGE_INFO_V4, (rusage_info_t *)&usage) == -1);
    fake_metal_fail("task_info", 1);
    CHECK(task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&info, &count) == KERN_FAILURE);
}

KEEPS(a_reset_brings_back_the_start)
{
    id<MTLBuffer> one = a_buffer(MIB), two = a_buffer(MIB);
    [two release];
    fake_metal_set("no_device", 1);
    fake_metal_fail("alloc", 1);
    CHECK(fake_metal_get("no_device") == 1 && fake_metal_get("page_size") == 16384);
    fake_metal_reset();
    CHECK(fake_metal_get("no_device") == 0 && fake_metal_count("length") == 0);
    CHECK(fake_metal_count("buffer_bytes_peak") == MIB && fake_metal_count("buffers") == 1);
    [[[NSObject alloc] init] release];
    [one release];
}

BREAKS(wrong_count, "*count is 0, to begin with")
{
    vm_statistics64_data_t pages;
    mach_msg_type_number_t count = 0;
    host_statistics64(mach_host_self(), HOST_VM_INFO64, (host_info64_t)&pages, &count);
}

BREAKS(wrong_count_of_a_task, "task_info: *count is 1, to begin with")
{
    task_vm_info_data_t info;
    mach_msg_type_number_t count = 1;
    task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&info, &count);
}

BREAKS(sysctl_without_a_size, "sysctlbyname: a place for the value, but not its size")
{
    uint64_t size;
    sysctlbyname("hw.memsize", &size, NULL, NULL, 0);
}

BREAKS(wrong_environment, "FAKE_METAL=older_makos=1")
{
    setenv("FAKE_METAL", "older_makos=1", 1);
    execl("/proc/self/exe", "selftest", "leak", NULL);
}

BREAKS(wrong_port, "port 0x103 is not the one it works on")
{
    vm_size_t page;
    host_page_size(mach_task_self(), &page);
}

BREAKS(too_many_rights_given_back, "more often than mach_host_self")
{
    mach_port_deallocate(mach_task_self(), 0x203);
}

BREAKS(wrong_setting, "no setting \"older_makos\"")
{
    CHECK(fake_metal_set("older_makos", 1) == -1 && fake_metal_get("x") == -1);
    abort();
}

BREAKS(wrong_failure, "no call that may fail \"commit\"")
{
    CHECK(fake_metal_fail("commit", 1) == -1);
    abort();
}

BREAKS(wrong_count_name, "no count \"comit\"")
{
    CHECK(fake_metal_count("comit") == -1);
    abort();
}
