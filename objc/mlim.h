/* mlim: where memory comes from. Mechanism only; limits and policy live above it.
 *
 * Ownership   What a create or open function hands out belongs to the caller until the matching
 *             destroy or close, which return nothing and accept NULL. A device outlives its
 *             buffers, residency sets and queues; a buffer leaves its set before it is destroyed.
 * Lifetime    Pointers to contents are valid until mlim_buffer_destroy or mlim_buffer_resize. An
 *             mlim_error belongs to the caller, may be NULL, and is written only by a call that
 *             fails.
 * Units       Every size is in bytes.
 * Threads     Every function may be called from any thread, without the GIL. Calls on one
 *             residency set, on the buffers in it, or that add or remove it, must not overlap.
 * Failure     0 is success. A call that fails has changed nothing, except that
 *             mlim_residency_commit says which of its additions succeeded.
 */
#ifndef MLIM_H
#define MLIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mlim_device mlim_device;
typedef struct mlim_buffer mlim_buffer;
typedef struct mlim_residency mlim_residency;
typedef struct mlim_queue mlim_queue;
typedef struct mlim_cuda mlim_cuda;

typedef enum mlim_status {
    MLIM_OK = 0,
    MLIM_NO_DEVICE,    /* there is no such device on this machine */
    MLIM_NO_MEMORY,    /* the system refused the bytes */
    MLIM_NO_RESOURCES, /* the system refused one more resource, whatever its size */
    MLIM_NOT_RESIDENT, /* some of a residency set's additions could not be kept resident */
    MLIM_UNKNOWN,      /* the system does not tell */
    MLIM_UNSUPPORTED   /* the device has no such thing */
} mlim_status;

typedef struct mlim_error {
    int code; /* the system's own error number, 0 when it gave none */
    char message[252];
} mlim_error;

/* What a device is opened with: each number lowers the system's own, 0 leaves it. */
typedef struct mlim_capacities {
    uint64_t memory_size;
    uint64_t max_buffer_length;
    uint64_t wired_capacity;
} mlim_capacities;

/* What may change while a program runs. */
typedef struct mlim_sizes {
    uint64_t available;   /* bytes that the system could still give this process, RAM and swap */
    uint64_t assured;     /* the part of them that other programs were not promised already */
    uint64_t sharers;     /* programs that share what this process is limited to, itself included */
    uint64_t between;     /* bytes that each of them may take between two looks */
    uint64_t memory_size; /* the bytes that all programs here share */
    uint64_t max_recommended_working_set_size;
    uint64_t max_buffer_length;
} mlim_sizes;

/* What this process holds in all, whoever took it. */
typedef struct mlim_process {
    uint64_t resident;      /* bytes in RAM */
    uint64_t files;         /* the part of them that is pages of files, which the system can drop */
    uint64_t swap;          /* bytes swapped out */
    uint64_t peak_resident; /* the highest resident since the process began its program */
} mlim_process;

typedef struct mlim_device_facts {
    char backend[8];
    char device_name[128];
    char architecture[64];
    mlim_sizes sizes;        /* when the device was opened */
    mlim_process process;    /* likewise */
    uint64_t page_size;      /* lengths and contents are multiples of it */
    uint64_t resource_limit; /* how many resources the system allows */
    uint64_t wired_capacity; /* bytes this process could keep resident when the device was opened */
    bool purgeable_lingers;  /* what was purgeable goes on to count as available to the process */
    bool resizes;            /* mlim_buffer_resize may succeed */
} mlim_device_facts;

typedef struct mlim_range {
    uintptr_t start;
    uintptr_t end;
} mlim_range;

/* What bounds the bytes that the system could still give this process. */
typedef enum mlim_bound_kind {
    MLIM_SYSTEM, /* RAM and swap */
    MLIM_CGROUP, /* a control group, named by its path */
    MLIM_RLIMIT  /* a limit of the process's own, on what is mapped, touched or not */
} mlim_bound_kind;

typedef struct mlim_bound {
    mlim_bound_kind kind;
    uint64_t room; /* bytes */
    char name[1024];
} mlim_bound;

/* device */
mlim_status mlim_device_open(const mlim_capacities *capacities, mlim_device **out,
                             mlim_error *error);
void mlim_device_close(mlim_device *device);
const mlim_device_facts *mlim_device_get_facts(const mlim_device *device);

/* MLIM_NO_DEVICE in a forked child of the process that opened the device, where it does not survive
 * that: nothing more is made, nobody may rely on contents, what is destroyed is only forgotten. */
mlim_status mlim_device_usable(const mlim_device *device, mlim_error *error);

/* The sizes as of now. What other programs were promised is an upper bound, for quick, or what
 * those that use this library were promised, closely, which takes a millisecond and more for each
 * of them. MLIM_UNKNOWN where they cannot be read now, for want of a file descriptor, say. What can
 * never be read bounds nothing. */
mlim_status mlim_device_sizes(mlim_device *device, bool closely, mlim_sizes *out,
                              mlim_error *error);

/* From a claim to its end no other process that claims looks at its sizes, or takes what it found
 * there: none that shares a control group's limit with this one, and none of this user's. */
typedef struct mlim_claim {
    int group, machine; /* below 0: excludes nobody */
} mlim_claim;

void mlim_device_claim(mlim_device *device, mlim_claim *out);
void mlim_device_unclaim(mlim_device *device, const mlim_claim *claim);

/* Whether buffers that are made or resized from now on may ask for huge pages, where the system has
 * them to give. They may until told otherwise. */
void mlim_device_use_huge_pages(mlim_device *device, bool wanted);

/* Everything that bounds the bytes available now, each by itself: `*count` is how many there are,
 * of which the first `capacity` are written. The least of the system and its groups is `available`.
 * MLIM_UNKNOWN likewise. */
mlim_status mlim_device_bounds(mlim_device *device, mlim_bound *bounds, size_t capacity,
                               size_t *count, mlim_error *error);

/* The share of the last seconds, in percent, in which programs here waited for memory; the system
 * may tell in steps. MLIM_UNSUPPORTED where it never tells, MLIM_UNKNOWN where it does not now. */
mlim_status mlim_device_stall(mlim_device *device, double *out, mlim_error *error);

/* What this process holds now. Where the system never tells, what is resident is at most, and swap
 * nothing. MLIM_UNKNOWN likewise. */
mlim_status mlim_device_process(mlim_device *device, mlim_process *out, mlim_error *error);

/* How much of some ranges of contents has been touched, so that it is private and in RAM or swap: a
 * page that was only read is not. A range may be gone meanwhile, and then is not touched. The
 * ranges are put in order. */
mlim_status mlim_device_touched(mlim_device *device, mlim_range *ranges, size_t count,
                                uint64_t *out, mlim_error *error);

/* Whether there is something that bounds memory, or may, and cannot be read, and that was not told
 * yet: the first such thing, once. The error is written then. */
bool mlim_device_unread(mlim_device *device, mlim_error *error);

/* buffer: readable, writable memory that reads as zeros until it is written */
mlim_status mlim_buffer_create(mlim_device *device, size_t length, mlim_buffer **out,
                               mlim_error *error);
void mlim_buffer_destroy(mlim_buffer *buffer);
void *mlim_buffer_contents(const mlim_buffer *buffer);

/* The device's own object behind the buffer, for calls of the caller's own: as long as the buffer
 * lives, and not retained. NULL where there is none. */
void *mlim_buffer_native(const mlim_buffer *buffer);

/* The whole buffer reads as zeros again, its pages returned. MLIM_NOT_RESIDENT while in a set. */
mlim_status mlim_buffer_discard(mlim_buffer *buffer, mlim_error *error);

/* Purgeable contents may be taken by the system when it runs short, and are not to be touched. Once
 * they are not purgeable any more, which a usable device never refuses, they are undefined.
 * MLIM_NOT_RESIDENT while in a set. */
mlim_status mlim_buffer_set_purgeable(mlim_buffer *buffer, bool purgeable, mlim_error *error);

/* Makes a buffer that is not purgeable longer or shorter, elsewhere where it has to be: its pages
 * move, nothing is copied, and what is new reads as zeros. A device that resizes never refuses a
 * shorter length. MLIM_NOT_RESIDENT while in a set. */
mlim_status mlim_buffer_resize(mlim_device *device, mlim_buffer *buffer, size_t length,
                               mlim_error *error);

/* Cuts a buffer that is not purgeable in two, where the device resizes: it keeps its first `length`
 * bytes, and the others are a buffer of their own. Asks the system for a handle only.
 * MLIM_NOT_RESIDENT while in a set. */
mlim_status mlim_buffer_split(mlim_buffer *buffer, size_t length, mlim_buffer **rest,
                              mlim_error *error);

/* The other way round: what lies right behind a buffer joins it, and its handle ends. Neither is
 * purgeable. MLIM_NOT_RESIDENT while one is in a set. */
mlim_status mlim_buffer_join(mlim_buffer *buffer, mlim_buffer *next, mlim_error *error);

/* residency set: buffers to be kept resident. Adding and removing take effect at commit, which
 * removes first. After a failed commit mlim_residency_contains tells what is in the set. */
mlim_status mlim_residency_create(mlim_device *device, mlim_residency **out, mlim_error *error);
void mlim_residency_destroy(mlim_residency *set);
void mlim_residency_add(mlim_residency *set, mlim_buffer *buffer);
void mlim_residency_remove(mlim_residency *set, mlim_buffer *buffer);
mlim_status mlim_residency_commit(mlim_residency *set, mlim_error *error);
bool mlim_residency_contains(const mlim_residency *set, const mlim_buffer *buffer);

/* queue: where the caller sends the GPU work of its own. While a residency set is added to one, its
 * buffers are resident for that work. `native` is the device's own object, retained until close; a
 * queue takes 32 sets, those of others included. MLIM_UNSUPPORTED where it is no queue that takes
 * any. A set is removed from its queues before it is destroyed. */
mlim_status mlim_queue_open(mlim_device *device, void *native, mlim_queue **out, mlim_error *error);
void mlim_queue_close(mlim_queue *queue);
void mlim_queue_add(mlim_queue *queue, mlim_residency *set);
void mlim_queue_remove(mlim_queue *queue, mlim_residency *set);

/* cuda: a GPU of NVIDIA's, found through its driver's library, which is loaded from `library`. The
 * number below 0: the GPU that this thread works on, or else the first. `room` is what the system
 * could give this process: CUDA's start takes some of it. MLIM_NO_DEVICE, and the reason, where
 * there is none to be had, MLIM_NO_RESOURCES where there are not as many. A forked child never
 * closes what its parent opened. */
#define MLIM_CUDA_START ((uint64_t)64 << 20)
mlim_status mlim_cuda_open(const char *library, int ordinal, uint64_t room, mlim_cuda **out,
                           mlim_error *error);
void mlim_cuda_close(mlim_cuda *cuda);
int mlim_cuda_ordinal(const mlim_cuda *cuda);
/* Why a buffer was not registered, the last that was not. */
void mlim_cuda_why(const mlim_cuda *cuda, mlim_error *out);

/* From now on a buffer that joins a residency set is registered with that GPU's driver, which is
 * what keeps it resident; one that cannot be is kept so without. NULL ends that. No buffer is in a
 * set meanwhile, but in a forked child: there what was registered is only forgotten. */
void mlim_device_register_with(mlim_device *device, mlim_cuda *cuda);
/* As of the last commit, for who makes those. */
bool mlim_buffer_is_registered(const mlim_buffer *buffer);

#endif
