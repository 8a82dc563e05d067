/* The parts of mach that memlimits' Metal files use, declared for the stand-in. */
#ifndef FAKE_MACH_H
#define FAKE_MACH_H

#include <stdint.h>

typedef int kern_return_t;
typedef int integer_t;
typedef unsigned int natural_t;
typedef natural_t mach_port_t;
typedef natural_t mach_port_name_t;
typedef natural_t mach_msg_type_number_t;
typedef natural_t task_flavor_t;
typedef mach_port_t host_t;
typedef mach_port_t ipc_space_t;
typedef mach_port_t task_t;
typedef mach_port_t task_name_t;
typedef int host_flavor_t;
typedef integer_t *host_info64_t;
typedef integer_t *task_info_t;
typedef uintptr_t vm_size_t;
typedef uint64_t mach_vm_size_t;

#define KERN_SUCCESS 0
#define KERN_INVALID_ARGUMENT 4
#define KERN_FAILURE 5
#define KERN_INVALID_NAME 15

struct vm_statistics64 {
    natural_t free_count; /* speculative ones included */
    natural_t active_count;
    natural_t inactive_count;
    natural_t wire_count;
    uint64_t purges;
    natural_t purgeable_count;
    natural_t speculative_count;
    natural_t compressor_page_count;
    natural_t external_page_count; /* backed by files */
    natural_t internal_page_count; /* anonymous */
} __attribute__((aligned(8)));

typedef struct vm_statistics64 *vm_statistics64_t;
typedef struct vm_statistics64 vm_statistics64_data_t;

#define HOST_VM_INFO64 4
#define HOST_VM_INFO64_COUNT \
    ((mach_msg_type_number_t)(sizeof(vm_statistics64_data_t) / sizeof(integer_t)))

struct task_vm_info {
    mach_vm_size_t virtual_size;
    mach_vm_size_t resident_size;
    mach_vm_size_t phys_footprint;
    int64_t ledger_phys_footprint_peak;
};

typedef struct task_vm_info *task_vm_info_t;
typedef struct task_vm_info task_vm_info_data_t;

#define TASK_VM_INFO 22
#define TASK_VM_INFO_COUNT \
    ((mach_msg_type_number_t)(sizeof(task_vm_info_data_t) / sizeof(natural_t)))

extern mach_port_t mach_task_self_;
#define mach_task_self() mach_task_self_

/* Each call hands out one more right, to be given back by mach_port_deallocate. */
mach_port_t mach_host_self(void);
kern_return_t mach_port_deallocate(ipc_space_t task, mach_port_name_t name);

kern_return_t host_page_size(host_t host, vm_size_t *size);
kern_return_t host_statistics64(host_t host, host_flavor_t flavor, host_info64_t info,
                                mach_msg_type_number_t *count);
kern_return_t task_info(task_name_t task, task_flavor_t flavor, task_info_t info,
                        mach_msg_type_number_t *count);

#endif
