"""objc/shared.h, word for word."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from memlimits._device.mlim cimport bool, mlim_error, mlim_status

cdef extern from "<sys/types.h>" nogil:
    ctypedef unsigned int mode_t

cdef extern from "shared.h" nogil:
    ctypedef struct mlim_shared:
        pass

    ctypedef struct mlim_identity:
        uint64_t pid
        uint64_t started
        uint64_t space

    mlim_status mlim_shared_create(
        const char *path, mode_t mode, size_t size, const void *head, size_t head_size,
        mlim_error *error)
    mlim_status mlim_shared_open(
        const char *path, size_t size, mlim_shared **out, mlim_error *error)
    void mlim_shared_close(mlim_shared *shared)
    void *mlim_shared_words(const mlim_shared *shared)
    uint64_t mlim_shared_owner(const mlim_shared *shared)
    bool mlim_shared_is(const mlim_shared *shared, const char *path)
    bool mlim_shared_reopen(mlim_shared *shared)
    bool mlim_shared_take(mlim_shared *shared, uint64_t part)
    void mlim_shared_leave(mlim_shared *shared, uint64_t part)
    bool mlim_shared_is_taken(mlim_shared *shared, uint64_t part)
    void mlim_identity_of_self(mlim_identity *out)
    bool mlim_shared_is_mapped_by(mlim_shared *shared, const mlim_identity *who)
    void mlim_shared_command(char *out, size_t size)
    void mlim_shared_wait(uint32_t *word, uint32_t was, uint64_t ns)
    void mlim_shared_wake(uint32_t *word)
