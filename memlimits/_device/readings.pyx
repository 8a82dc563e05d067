from memlimits._base.own cimport own_begin, own_end
from memlimits._base.sync cimport (
    pthread_rwlock_init, pthread_rwlock_rdlock, pthread_rwlock_t, pthread_rwlock_unlock,
    pthread_rwlock_wrlock,
)
from memlimits._device.mlim cimport (
    mlim_device_bounds, mlim_device_process, mlim_device_sizes, mlim_device_stall,
    mlim_device_touched,
)

cdef extern from *:
    """
    static pthread_rwlock_t files = PTHREAD_RWLOCK_INITIALIZER;
    """
    pthread_rwlock_t files


# What the C library asks malloc for meanwhile is not to come back to us.

cdef void begin() noexcept nogil:
    own_begin()
    pthread_rwlock_rdlock(&files)


cdef mlim_status done(mlim_status status) noexcept nogil:
    pthread_rwlock_unlock(&files)
    own_end()
    return status


cdef mlim_status device_sizes(
    mlim_device *device, bint closely, mlim_sizes *out, mlim_error *error
) noexcept nogil:
    begin()
    return done(mlim_device_sizes(device, closely, out, error))


cdef mlim_status device_stall(mlim_device *device, double *out) noexcept nogil:
    begin()
    return done(mlim_device_stall(device, out, NULL))


cdef mlim_status device_process(mlim_device *device, mlim_process *out) noexcept nogil:
    begin()
    return done(mlim_device_process(device, out, NULL))


cdef mlim_status device_touched(
    mlim_device *device, mlim_range *ranges, size_t count, uint64_t *out
) noexcept nogil:
    begin()
    return done(mlim_device_touched(device, ranges, count, out, NULL))


cdef mlim_status device_bounds(
    mlim_device *device, mlim_bound *bounds, size_t capacity, size_t *count, mlim_error *error
) noexcept nogil:
    begin()
    return done(mlim_device_bounds(device, bounds, capacity, count, error))


cdef void device_before_fork() noexcept nogil:
    pthread_rwlock_wrlock(&files)


cdef void device_after_fork(bint child) noexcept nogil:
    if child:
        pthread_rwlock_init(&files, NULL)
    else:
        pthread_rwlock_unlock(&files)
