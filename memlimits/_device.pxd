"""The device: the one module that links libmlim. A status becomes an exception here."""

from libc.stdint cimport uint64_t

from memlimits._mlim cimport (
    mlim_bound, mlim_buffer, mlim_device, mlim_device_facts, mlim_error, mlim_queue, mlim_range,
    mlim_residency, mlim_sizes, mlim_status,
)


cdef class Device:
    """An open device. Whoever uses `handle` keeps the Device alive."""
    cdef mlim_device *handle
    cdef const mlim_device_facts *facts
    # Raises DeviceError in a forked child where the device does not survive that.
    cdef int require(self) except -1
    # What may change while the program runs, as of now; where that cannot be read, as of the start.
    cdef mlim_sizes sizes(self) noexcept
    # What bounds the system's bytes now, `count` of them: the caller frees them.
    cdef mlim_bound *bounds(self, size_t *count) except NULL
    # Whether the blocks that are made from now on may lie in huge pages.
    cdef void use_huge_pages(self, bint wanted) noexcept
    # Opens the queue at an address; the caller closes it.
    cdef mlim_queue *open_queue(self, uint64_t address) except NULL


# mlim.h for the other modules: same names less the prefix, same contracts.
cdef mlim_status device_usable(mlim_device *device) noexcept nogil
cdef mlim_status device_sizes(
    mlim_device *device, bint closely, mlim_sizes *out) noexcept nogil
cdef int device_claim(mlim_device *device) noexcept nogil
cdef void device_unclaim(mlim_device *device, int claim) noexcept nogil
cdef bint device_unread(mlim_device *device, mlim_error *error) noexcept nogil
cdef mlim_status device_stall(mlim_device *device, double *out) noexcept nogil
cdef mlim_status device_touched(
    mlim_device *device, mlim_range *ranges, size_t count, uint64_t *out) noexcept nogil

# Around a fork: between the two nobody reads what the system says, since the child would keep the
# open file.
cdef void device_before_fork() noexcept nogil
cdef void device_after_fork(bint child) noexcept nogil

cdef mlim_status buffer_create(mlim_device *device, size_t length, mlim_buffer **out) noexcept nogil
cdef void buffer_destroy(mlim_buffer *buffer) noexcept nogil
cdef void *buffer_contents(mlim_buffer *buffer) noexcept nogil
cdef void *buffer_native(mlim_buffer *buffer) noexcept nogil
cdef mlim_status buffer_discard(mlim_buffer *buffer) noexcept nogil
cdef mlim_status buffer_set_purgeable(mlim_buffer *buffer, bint purgeable) noexcept nogil
cdef mlim_status buffer_resize(
    mlim_device *device, mlim_buffer *buffer, size_t length) noexcept nogil

cdef mlim_status residency_create(
    mlim_device *device, mlim_residency **out, mlim_error *error) noexcept nogil
cdef void residency_destroy(mlim_residency *residency) noexcept nogil
cdef void residency_add(mlim_residency *residency, mlim_buffer *buffer) noexcept nogil
cdef void residency_remove(mlim_residency *residency, mlim_buffer *buffer) noexcept nogil
cdef mlim_status residency_commit(mlim_residency *residency, mlim_error *error) noexcept nogil
cdef bint residency_contains(mlim_residency *residency, mlim_buffer *buffer) noexcept nogil

cdef void queue_close(mlim_queue *queue) noexcept nogil
cdef void queue_add(mlim_queue *queue, mlim_residency *residency) noexcept nogil
cdef void queue_remove(mlim_queue *queue, mlim_residency *residency) noexcept nogil
