/* The part of libproc that memlimits' Metal files use, declared for the stand-in. */
#ifndef FAKE_LIBPROC_H
#define FAKE_LIBPROC_H

#include <stdint.h>

#define RUSAGE_INFO_V4 4

typedef void *rusage_info_t;

struct rusage_info_v4 {
    uint64_t ri_wired_size;
    uint64_t ri_resident_size;
    uint64_t ri_phys_footprint;
};

int proc_pid_rusage(int pid, int flavor, rusage_info_t *info);

#endif
