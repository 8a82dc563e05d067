"""mlim.h, word for word. What reads the system's files is called by `readings` alone."""

from libc.stdint cimport uint64_t, uintptr_t

cdef extern from "<stdbool.h>":
    ctypedef bint bool

cdef extern from "mlim.h" nogil:
    ctypedef struct mlim_device:
        pass
    ctypedef struct mlim_buffer:
        pass
    ctypedef struct mlim_residency:
        pass
    ctypedef struct mlim_queue:
        pass
    ctypedef struct mlim_cuda:
        pass

    ctypedef enum mlim_status:
        MLIM_OK
        MLIM_NO_DEVICE
        MLIM_NO_MEMORY
        MLIM_NO_RESOURCES
        MLIM_NOT_RESIDENT
        MLIM_UNKNOWN
        MLIM_UNSUPPORTED

    ctypedef struct mlim_error:
        int code
        char message[252]

    ctypedef struct mlim_capacities:
        uint64_t memory_size
        uint64_t max_buffer_length
        uint64_t wired_capacity

    ctypedef struct mlim_sizes:
        uint64_t available
        uint64_t assured
        uint64_t sharers
        uint64_t between
        uint64_t memory_size
        uint64_t max_recommended_working_set_size
        uint64_t max_buffer_length

    ctypedef struct mlim_process:
        uint64_t resident
        uint64_t files
        uint64_t swap
        uint64_t peak_resident

    ctypedef struct mlim_device_facts:
        char backend[8]
        char device_name[128]
        char architecture[64]
        mlim_sizes sizes
        mlim_process process
        uint64_t page_size
        uint64_t resource_limit
        uint64_t wired_capacity
        bool purgeable_lingers
        bool resizes

    ctypedef struct mlim_range:
        uintptr_t start
        uintptr_t end

    ctypedef enum mlim_bound_kind:
        MLIM_SYSTEM
        MLIM_CGROUP
        MLIM_RLIMIT

    ctypedef struct mlim_bound:
        mlim_bound_kind kind
        uint64_t room
        char name[1024]

    mlim_status mlim_device_open(const mlim_capacities *capacities, mlim_device **out,
                                 mlim_error *error)
    void mlim_device_close(mlim_device *device)
    const mlim_device_facts *mlim_device_get_facts(const mlim_device *device)
    mlim_status mlim_device_usable(const mlim_device *device, mlim_error *error)
    mlim_status mlim_device_sizes(mlim_device *device, bool closely, mlim_sizes *out,
                                  mlim_error *error)
    ctypedef struct mlim_claim:
        pass
    void mlim_device_claim(mlim_device *device, mlim_claim *out)
    void mlim_device_unclaim(mlim_device *device, const mlim_claim *claim)
    void mlim_device_use_huge_pages(mlim_device *device, bool wanted)
    mlim_status mlim_device_bounds(mlim_device *device, mlim_bound *bounds, size_t capacity,
                                   size_t *count, mlim_error *error)
    mlim_status mlim_device_stall(mlim_device *device, double *out, mlim_error *error)
    mlim_status mlim_device_process(mlim_device *device, mlim_process *out, mlim_error *error)
    mlim_status mlim_device_touched(mlim_device *device, mlim_range *ranges, size_t count,
                                    uint64_t *out, mlim_error *error)
    bool mlim_device_unread(mlim_device *device, mlim_error *error)

    mlim_status mlim_buffer_create(mlim_device *device, size_t length, mlim_buffer **out,
                                   mlim_error *error)
    void mlim_buffer_destroy(mlim_buffer *buffer)
    void *mlim_buffer_contents(const mlim_buffer *buffer)
    void *mlim_buffer_native(const mlim_buffer *buffer)
    mlim_status mlim_buffer_discard(mlim_buffer *buffer, mlim_error *error)
    mlim_status mlim_buffer_set_purgeable(mlim_buffer *buffer, bool purgeable, mlim_error *error)
    mlim_status mlim_buffer_resize(mlim_device *device, mlim_buffer *buffer, size_t length,
                                   mlim_error *error)
    mlim_status mlim_buffer_split(mlim_buffer *buffer, size_t length, mlim_buffer **rest,
                                  mlim_error *error)
    mlim_status mlim_buffer_join(mlim_buffer *buffer, mlim_buffer *next, mlim_error *error)

    mlim_status mlim_residency_create(mlim_device *device, mlim_residency **out, mlim_error *error)
    void mlim_residency_destroy(mlim_residency *set)
    void mlim_residency_add(mlim_residency *set, mlim_buffer *buffer)
    void mlim_residency_remove(mlim_residency *set, mlim_buffer *buffer)
    mlim_status mlim_residency_commit(mlim_residency *set, mlim_error *error)
    bool mlim_residency_contains(const mlim_residency *set, const mlim_buffer *buffer)

    mlim_status mlim_queue_open(mlim_device *device, void *native, mlim_queue **out,
                                mlim_error *error)
    void mlim_queue_close(mlim_queue *queue)
    void mlim_queue_add(mlim_queue *queue, mlim_residency *set)
    void mlim_queue_remove(mlim_queue *queue, mlim_residency *set)

    mlim_status mlim_cuda_open(const char *library, int ordinal, uint64_t room, mlim_cuda **out,
                               mlim_error *error)
    void mlim_cuda_close(mlim_cuda *cuda)
    int mlim_cuda_ordinal(const mlim_cuda *cuda)
    void mlim_cuda_why(const mlim_cuda *cuda, mlim_error *out)
    void mlim_device_register_with(mlim_device *device, mlim_cuda *cuda)
    bool mlim_buffer_is_registered(const mlim_buffer *buffer)
