"""What the device says now, read from the system's files: never while the process forks.

A child would keep a file that is open at the fork. Who reads holds a lock for it that a fork takes
for writing, and takes no other meanwhile.
"""

from libc.stdint cimport uint64_t

from memlimits._device.mlim cimport (
    mlim_bound, mlim_device, mlim_error, mlim_process, mlim_range, mlim_sizes, mlim_status,
)

# mlim_device_sizes, and so on: same contracts. `error` may be NULL.
cdef extern mlim_status device_sizes(
    mlim_device *device, bint closely, mlim_sizes *out, mlim_error *error) noexcept nogil
cdef extern mlim_status device_stall(mlim_device *device, double *out) noexcept nogil
cdef extern mlim_status device_process(mlim_device *device, mlim_process *out) noexcept nogil
cdef extern mlim_status device_touched(
    mlim_device *device, mlim_range *ranges, size_t count, uint64_t *out) noexcept nogil
cdef extern mlim_status device_bounds(
    mlim_device *device, mlim_bound *bounds, size_t capacity, size_t *count,
    mlim_error *error) noexcept nogil

# Around a fork: between the two nobody reads.
cdef extern void device_before_fork() noexcept nogil
cdef extern void device_after_fork(bint child) noexcept nogil
