# Methods as C would write them: they check what they are called on.
# cython: binding=False, embedsignature=True, embedsignature.format=clinic

cimport cython
from libc.stdlib cimport free, malloc

cimport memlimits._mlim as mlim
from memlimits._mlim cimport MLIM_OK
from memlimits._sync cimport (
    pthread_rwlock_init, pthread_rwlock_rdlock, pthread_rwlock_t, pthread_rwlock_unlock,
    pthread_rwlock_wrlock,
)

from memlimits.errors import DeviceError

cdef extern from *:
    """
    /* Who reads the system's files holds it for reading, and takes no other lock meanwhile; a fork
     * holds it for writing. */
    static pthread_rwlock_t files = PTHREAD_RWLOCK_INITIALIZER;
    """
    pthread_rwlock_t files


cdef int check(mlim_status status, const mlim_error *error) except -1:
    """The one place where a status becomes an exception."""
    if status == MLIM_OK:
        return 0
    cdef str text = (<const char *> error.message).decode("utf-8", "replace")
    if status == mlim.MLIM_NO_MEMORY:
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
        cdef mlim.mlim_capacities capacities
        cdef mlim_error error
        capacities.memory_size = memory_size
        capacities.max_buffer_length = max_buffer_length
        capacities.wired_capacity = wired_capacity
        check(mlim.mlim_device_open(&capacities, &self.handle, &error), &error)
        self.facts = mlim.mlim_device_get_facts(self.handle)

    def __dealloc__(self):
        mlim.mlim_device_close(self.handle)

    cdef int require(self) except -1:
        cdef mlim_error error
        return check(mlim.mlim_device_usable(self.handle, &error), &error)

    cdef mlim_sizes sizes(self) noexcept:
        cdef mlim_sizes sizes = self.facts.sizes
        with nogil:
            device_sizes(self.handle, False, &sizes)
        return sizes

    cdef mlim_bound *bounds(self, size_t *count) except NULL:
        cdef mlim_bound *bounds = NULL
        cdef mlim_status status
        cdef mlim_error error
        cdef size_t capacity = 32
        while True:
            bounds = <mlim_bound *> malloc(capacity * sizeof(mlim_bound))
            if bounds == NULL:
                raise MemoryError
            with nogil:
                pthread_rwlock_rdlock(&files)
                status = mlim.mlim_device_bounds(self.handle, bounds, capacity, count, &error)
                pthread_rwlock_unlock(&files)
            if status == MLIM_OK and count[0] <= capacity:
                return bounds
            free(bounds)
            check(status, &error)
            capacity = 2 * count[0]

    cdef mlim_queue *open_queue(self, uint64_t address) except NULL:
        cdef mlim_queue *queue = NULL
        cdef mlim_error error
        check(mlim.mlim_queue_open(self.handle, <void *> address, &queue, &error), &error)
        return queue

    cdef void use_huge_pages(self, bint wanted) noexcept:
        mlim.mlim_device_use_huge_pages(self.handle, wanted)

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
            pthread_rwlock_rdlock(&files)
            status = mlim.mlim_device_sizes(self.handle, False, &sizes, &error)
            pthread_rwlock_unlock(&files)
        check(status, &error)
        return sizes.available


cdef mlim_status device_usable(mlim_device *device) noexcept nogil:
    return mlim.mlim_device_usable(device, NULL)


cdef mlim_status device_sizes(
    mlim_device *device, bint closely, mlim_sizes *out
) noexcept nogil:
    cdef mlim_status status
    pthread_rwlock_rdlock(&files)
    status = mlim.mlim_device_sizes(device, closely, out, NULL)
    pthread_rwlock_unlock(&files)
    return status


cdef int device_claim(mlim_device *device) noexcept nogil:
    return mlim.mlim_device_claim(device)


cdef void device_unclaim(mlim_device *device, int claim) noexcept nogil:
    mlim.mlim_device_unclaim(device, claim)


cdef bint device_unread(mlim_device *device, mlim_error *error) noexcept nogil:
    return mlim.mlim_device_unread(device, error)


cdef mlim_status device_stall(mlim_device *device, double *out) noexcept nogil:
    cdef mlim_status status
    pthread_rwlock_rdlock(&files)
    status = mlim.mlim_device_stall(device, out, NULL)
    pthread_rwlock_unlock(&files)
    return status


cdef mlim_status device_touched(
    mlim_device *device, mlim_range *ranges, size_t count, uint64_t *out
) noexcept nogil:
    cdef mlim_status status
    pthread_rwlock_rdlock(&files)
    status = mlim.mlim_device_touched(device, ranges, count, out, NULL)
    pthread_rwlock_unlock(&files)
    return status


cdef void device_before_fork() noexcept nogil:
    pthread_rwlock_wrlock(&files)


cdef void device_after_fork(bint child) noexcept nogil:
    if child:
        pthread_rwlock_init(&files, NULL)
    else:
        pthread_rwlock_unlock(&files)


cdef mlim_status buffer_create(
    mlim_device *device, size_t length, mlim_buffer **out
) noexcept nogil:
    return mlim.mlim_buffer_create(device, length, out, NULL)


cdef void buffer_destroy(mlim_buffer *buffer) noexcept nogil:
    mlim.mlim_buffer_destroy(buffer)


cdef void *buffer_contents(mlim_buffer *buffer) noexcept nogil:
    return mlim.mlim_buffer_contents(buffer)


cdef void *buffer_native(mlim_buffer *buffer) noexcept nogil:
    return mlim.mlim_buffer_native(buffer)


cdef mlim_status buffer_discard(mlim_buffer *buffer) noexcept nogil:
    return mlim.mlim_buffer_discard(buffer, NULL)


cdef mlim_status buffer_set_purgeable(mlim_buffer *buffer, bint purgeable) noexcept nogil:
    return mlim.mlim_buffer_set_purgeable(buffer, purgeable, NULL)


cdef mlim_status buffer_resize(
    mlim_device *device, mlim_buffer *buffer, size_t length
) noexcept nogil:
    return mlim.mlim_buffer_resize(device, buffer, length, NULL)


cdef mlim_status residency_create(
    mlim_device *device, mlim_residency **out, mlim_error *error
) noexcept nogil:
    return mlim.mlim_residency_create(device, out, error)


cdef void residency_destroy(mlim_residency *residency) noexcept nogil:
    mlim.mlim_residency_destroy(residency)


cdef void residency_add(mlim_residency *residency, mlim_buffer *buffer) noexcept nogil:
    mlim.mlim_residency_add(residency, buffer)


cdef void residency_remove(mlim_residency *residency, mlim_buffer *buffer) noexcept nogil:
    mlim.mlim_residency_remove(residency, buffer)


cdef mlim_status residency_commit(mlim_residency *residency, mlim_error *error) noexcept nogil:
    return mlim.mlim_residency_commit(residency, error)


cdef bint residency_contains(mlim_residency *residency, mlim_buffer *buffer) noexcept nogil:
    return mlim.mlim_residency_contains(residency, buffer)


cdef void queue_close(mlim_queue *queue) noexcept nogil:
    mlim.mlim_queue_close(queue)


cdef void queue_add(mlim_queue *queue, mlim_residency *residency) noexcept nogil:
    mlim.mlim_queue_add(queue, residency)


cdef void queue_remove(mlim_queue *queue, mlim_residency *residency) noexcept nogil:
    mlim.mlim_queue_remove(queue, residency)
