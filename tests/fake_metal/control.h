/* fake_metal: how tests speak to the stand-in for Metal. None of this exists in the product.
 *
 * Everything here may be called from any thread, before or after the device is opened, and through
 * ctypes: arguments and results are C strings, pointers and long long. A name that does not exist
 * is said on stderr and answered with -1.
 *
 * Settings are read at each call that depends on them. FAKE_METAL in the environment holds those to
 * start with: FAKE_METAL="memory_size=8589934592,no_device" ("name" alone is 1).
 *
 *   no_device           MTLCreateSystemDefaultDevice returns nil
 *   older_macos         1 or 14: the residency classes and methods are not there; 13: neither is
 *                       MTLArchitecture. Sending them aborts
 *   no_residency_family supportsFamily:MTLGPUFamilyMetal3 says NO, and making a set aborts
 *   residency_fails     a virtual machine: making a residency set gives nil and an NSError
 *   discrete            hasUnifiedMemory says NO
 *   memory_size         hw.memsize; 0: this machine's
 *   working_set         recommendedMaxWorkingSetSize; 0: wired_limit_mb, or 3/4 of memory_size
 *   max_buffer_length   0: 3/4 of the working set
 *   buffer_memory       bytes that all buffers together can have; 0: memory_size
 *   page_size           16384
 *   rsrc_limit          iogpu.rsrc_limit, and how many buffers there can be; 0 reads 0 and allows
 *                       499,000; -1: no such sysctl
 *   wired_limit_mb      iogpu.wired_limit_mb; -1: no such sysctl
 *   available           bytes that host_statistics64 lets one add up: free_count + inactive_count,
 *                       or free_count - speculative_count + external_page_count; -1: this machine's
 *   swap_total, swap_free  vm.swapusage; -1: this machine's
 *   pressure_level      kern.memorystatus_vm_pressure_level: 1, 2 or 4; -1: no such sysctl
 *   phys_footprint      -1: this process's private resident bytes
 *   set_overhead        bytes that a non-empty residency set's allocatedSize has on top: Apple says
 *                       that it may include internal allocations
 *   resident_at_request 1: only what was committed when requestResidency came is made resident, the
 *                       narrow reading of Apple's words; 0: what is committed later is, too
 *   empty_at_once       1: what is made volatile is emptied on the spot
 *   fork_keeps_memory   0: buffers' contents are not mapped in a forked child
 *   leaks_allowed       1: no report and no exit status 99 for objects alive at exit
 *   dead_kept           how many released objects stay where they were, so that their use aborts;
 *                       of released contents as many, up to 1024
 */
#ifndef FAKE_METAL_CONTROL_H
#define FAKE_METAL_CONTROL_H

int fake_metal_set(const char *setting, long long value);
long long fake_metal_get(const char *setting);

/* The nth call from now of a method or function fails as it may by its contract; with a negative
 * number the nth and all after it; 0 takes it back. -1 for what cannot fail. */
int fake_metal_fail(const char *name, long long nth);

/* How often a method ("commit") or function ("sysctlbyname") was called since the last reset (init,
 * retain, release, autorelease and drain: by the stand-in itself, too), or
 *
 *   objects, retains     objects alive, devices and pools apart, and the sum of their retain counts
 *   devices, buffers, sets, queues   of each kind alive
 *   buffer_bytes, buffer_bytes_peak  of buffers alive
 *   resident_bytes, resident_bytes_peak   of buffers committed to sets with residency requested,
 *                        each once
 *   volatile_buffers, empty_buffers, volatile_bytes   as they are now
 *   host_rights          mach_host_self's less mach_port_deallocate's
 *   dead                 released objects that are kept, of any kind
 *   and since the last reset: commits_empty (nothing was staged), requests_before_commit,
 *   requests_repeated, sets_dropped_staged, sets_dropped_resident (released in that state),
 *   purges (buffers emptied while volatile)
 */
long long fake_metal_count(const char *name);

/* Every volatile buffer loses its contents. Returns how many. */
long long fake_metal_empty_volatile(void);

/* Lists on stderr what is alive, devices apart, and returns how many. Exit does this, too. */
long long fake_metal_leaks(void);

/* Settings as at the start, no failures to come, counts of calls and events 0, peaks as of now. */
void fake_metal_reset(void);

/* A command queue, the caller's to destroy, and how many sets are attached to it. */
void *fake_metal_queue_create(void);
void fake_metal_queue_destroy(void *queue);
long long fake_metal_queue_sets(void *queue);

/* About an object by its address: 1 or 0. A released one, or none at all, is not alive. */
int fake_metal_is_alive(const void *object);
int fake_metal_is_resident(const void *buffer);

/* The same of the live buffer that an address lies in. */
int fake_metal_is_resident_at(const void *address);

/* A live buffer's contents, without counting a call; NULL for anything else. */
void *fake_metal_contents(const void *buffer);

/* The MTLPurgeableState of the live buffer whose contents begin there; 0 where there is none. */
long long fake_metal_state_at(const void *address);

#endif
