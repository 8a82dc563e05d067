"""The device as Python sees it. A status becomes an exception here."""

from libc.stdint cimport uint64_t

from memlimits._device.mlim cimport (
    mlim_bound, mlim_cuda, mlim_device, mlim_device_facts, mlim_queue, mlim_sizes,
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
    # Opens a GPU of NVIDIA's, -1 for the one that is used already; the caller closes it.
    cdef mlim_cuda *open_cuda(self, const char *library, int ordinal) except NULL
