cimport cython
from libc.stdlib cimport free

from memlimits._base.own cimport own_calloc
from memlimits._device.mlim cimport (
    MLIM_NO_MEMORY, MLIM_NO_RESOURCES, MLIM_OK, mlim_capacities, mlim_cuda_open, mlim_device_close,
    mlim_device_get_facts, mlim_device_open, mlim_device_usable, mlim_device_use_huge_pages,
    mlim_error, mlim_queue_open, mlim_status,
)
from memlimits._device.readings cimport device_bounds, device_sizes

from memlimits.errors import DeviceError


cdef int check(mlim_status status, const mlim_error *error) except -1:
    """The one place where a status becomes an exception."""
    if status == MLIM_OK:
        return 0
    cdef str text = (<const char *> error.message).decode("utf-8", "replace")
    if status == MLIM_NO_MEMORY:
        raise MemoryError(text)
    raise DeviceError(text)


@cython.final
cdef class Device:
    """The device that was linked in, opened.

    Parameters
    ----------
    memory_size, max_buffer_length, wired_capacity : int, optional
        Lower the machine's own numbers, in bytes; 0 leaves them.
    """

    def __cinit__(self, *, uint64_t memory_size=0, uint64_t max_buffer_length=0,
                  uint64_t wired_capacity=0):
        cdef mlim_capacities capacities
        cdef mlim_error error
        capacities.memory_size = memory_size
        capacities.max_buffer_length = max_buffer_length
        capacities.wired_capacity = wired_capacity
        check(mlim_device_open(&capacities, &self.handle, &error), &error)
        self.facts = mlim_device_get_facts(self.handle)

    def __dealloc__(self):
        mlim_device_close(self.handle)

    cdef int require(self) except -1:
        cdef mlim_error error
        return check(mlim_device_usable(self.handle, &error), &error)

    cdef mlim_sizes sizes(self) noexcept:
        cdef mlim_sizes sizes = self.facts.sizes
        with nogil:
            device_sizes(self.handle, False, &sizes, NULL)
        return sizes

    cdef mlim_bound *bounds(self, size_t *count) except NULL:
        cdef mlim_bound *bounds = NULL
        cdef mlim_status status
        cdef mlim_error error
        cdef size_t capacity = 32
        while True:
            bounds = <mlim_bound *> own_calloc(capacity, sizeof(mlim_bound))
            if bounds == NULL:
                raise MemoryError
            with nogil:
                status = device_bounds(self.handle, bounds, capacity, count, &error)
            if status == MLIM_OK and count[0] <= capacity:
                return bounds
            free(bounds)
            check(status, &error)
            capacity = 2 * count[0]

    cdef mlim_queue *open_queue(self, uint64_t address) except NULL:
        cdef mlim_queue *queue = NULL
        cdef mlim_error error
        check(mlim_queue_open(self.handle, <void *> address, &queue, &error), &error)
        return queue

    cdef mlim_cuda *open_cuda(self, const char *library, int ordinal) except NULL:
        cdef mlim_cuda *cuda = NULL
        cdef mlim_status status
        cdef mlim_error error
        cdef uint64_t room = self.available()
        with nogil:
            status = mlim_cuda_open(library, ordinal, room, &cuda, &error)
        if status == MLIM_NO_RESOURCES:
            text = (<const char *> error.message).decode()
            raise ValueError(f"device {ordinal} is not there: {text}, counted from 0")
        check(status, &error)
        return cuda

    cdef void use_huge_pages(self, bint wanted) noexcept:
        mlim_device_use_huge_pages(self.handle, wanted)

    def info(self):
        """The device's facts as of now as a dict of str and int, sizes in bytes."""
        cdef mlim_sizes sizes = self.sizes()
        return {
            "device_name": (<const char *> self.facts.device_name).decode("utf-8", "replace"),
            "architecture": (<const char *> self.facts.architecture).decode(),
            "memory_size": sizes.memory_size,
            "max_recommended_working_set_size": sizes.max_recommended_working_set_size,
            "max_buffer_length": sizes.max_buffer_length,
            "resource_limit": self.facts.resource_limit,
            "backend": (<const char *> self.facts.backend).decode(),
            "wired_capacity": self.facts.wired_capacity,
        }

    def available(self):
        """Bytes that the system could still give this process now, RAM and swap."""
        cdef mlim_sizes sizes
        cdef mlim_status status
        cdef mlim_error error
        with nogil:
            status = device_sizes(self.handle, False, &sizes, &error)
        check(status, &error)
        return sizes.available
