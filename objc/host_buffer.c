/* The host's buffers: private anonymous mappings. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host.h"

/* A buffer longer than HUGE_ABOVE asks for huge pages: first touch is then four times faster, and
 * locking a resident buffer three hundred times. Who touches a byte pays for a whole one. So
 * shorter buffers do not ask; and one starts BEHIND the boundary of a huge page, so that it has one
 * less of them than would fit, as malloc's blocks have, and sparse arrays take no more RAM. */
#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_ABOVE ((size_t)4 << 20)
#define BEHIND ((size_t)64 << 10) /* a page of any size */
#define READ_WRITE (PROT_READ | PROT_WRITE)

/* Our caller accounts for the bytes itself; and a mapping without a reservation is not merged with
 * one of malloc's, so that /proc/self/smaps tells what of it is touched. */
static void *map_pages(void *wanted, size_t length, int protection)
{
    void *base =
        mmap(wanted, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return base == MAP_FAILED ? NULL : base;
}

/* A mapping amid others that merged with it cannot be taken out when the process has as many as it
 * may (vm.max_map_count). Then its pages go back, and only addresses are lost. */
static void unmap_pages(void *base, size_t length)
{
    if (munmap(base, length) != 0) {
        munlock(base, length);
        madvise(base, length, MADV_DONTNEED);
    }
}

/* Where the newest of the buffers that are gone started. Of a kind that comes and goes, the next
 * lies there, with nothing to unmap around it. */
static void *_Atomic left;

static size_t before_start(const void *base)
{
    return (HUGE_PAGE + BEHIND - (uintptr_t)base % HUGE_PAGE) % HUGE_PAGE;
}

/* False where it is registered. Two threads never drop pages of one buffer. */
static bool begin_drop(mlim_buffer *buffer)
{
    int open = MLIM_OPEN;
    return atomic_compare_exchange_strong(&buffer->gate, &open, MLIM_DROPPING);
}

static void end_drop(mlim_buffer *buffer)
{
    atomic_store(&buffer->gate, MLIM_OPEN);
}

static mlim_status is_registered(mlim_error *error)
{
    return mlim_fail(error, MLIM_NOT_RESIDENT, EBUSY, "a buffer that is registered with CUDA");
}

bool mlim_buffer_register(mlim_buffer *buffer, mlim_cuda *cuda)
{
    int gate = MLIM_OPEN;
    while (!atomic_compare_exchange_strong(&buffer->gate, &gate, MLIM_REGISTERED)) {
        /* Its driver did not take a registration back. */
        if (gate == MLIM_REGISTERED)
            return false;
        gate = MLIM_OPEN;
        sched_yield();
    }
    if (mlim_cuda_register(cuda, buffer->base, buffer->length))
        return true;
    atomic_store(&buffer->gate, MLIM_OPEN);
    return false;
}

/* Where the driver refuses, the gate stays shut: the pages are the driver's for good. */
void mlim_buffer_unregister(mlim_buffer *buffer, mlim_cuda *cuda)
{
    if (atomic_load(&buffer->gate) != MLIM_REGISTERED)
        return;
    if (!cuda || mlim_cuda_unregister(cuda, buffer->base))
        atomic_store(&buffer->gate, MLIM_OPEN);
}

bool mlim_buffer_is_registered(const mlim_buffer *buffer)
{
    return atomic_load(&buffer->gate) == MLIM_REGISTERED;
}

static void *map_again(size_t length)
{
    void *wanted = atomic_exchange(&left, NULL);
    char *base = wanted ? map_pages(wanted, length, READ_WRITE) : NULL;
    if (!base || before_start(base) == 0)
        return base;
    unmap_pages(base, length);
    return NULL;
}

/* Maps more than asked for, by a huge page at least, and unmaps what lies outside the part that
 * starts where it should, so that the process keeps exactly length bytes. */
static void *map_behind(size_t length, size_t more, int protection)
{
    char *base = map_pages(NULL, length + more, protection);
    if (!base)
        return NULL;
    size_t before = before_start(base);
    if (before)
        unmap_pages(base, before);
    if (before < more)
        unmap_pages(base + before + length, more - before);
    return base + before;
}

/* Why mmap refused, ENOMEM for either: no room for the bytes, or no room for one more mapping. */
static mlim_status refusal(const mlim_device *device)
{
    char text[4096];
    uint64_t mappings = 0;
    ssize_t got;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return MLIM_NO_MEMORY;
    while ((got = read(fd, text, sizeof text)) > 0)
        for (ssize_t i = 0; i < got; i++)
            mappings += text[i] == '\n';
    close(fd);
    return mappings + 1 >= device->facts.resource_limit ? MLIM_NO_RESOURCES : MLIM_NO_MEMORY;
}

static bool is_length(const mlim_device *device, size_t length)
{
    return length && length % device->facts.page_size == 0;
}

void mlim_device_use_huge_pages(mlim_device *device, bool wanted)
{
    __atomic_store_n(&device->no_huge_pages, !wanted, __ATOMIC_RELAXED);
}

static bool is_huge(const mlim_device *device, size_t length)
{
    return length > HUGE_ABOVE && !__atomic_load_n(&device->no_huge_pages, __ATOMIC_RELAXED);
}

mlim_status mlim_buffer_create(mlim_device *device, size_t length, mlim_buffer **out,
                               mlim_error *error)
{
    if (!is_length(device, length))
        return mlim_fail(error, MLIM_NO_MEMORY, EINVAL, "a buffer's length");
    mlim_buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer)
        return mlim_fail(error, MLIM_NO_MEMORY, ENOMEM, "a buffer's handle");
    /* An alignment hole that cannot be had is no reason to refuse the buffer. */
    bool huge = is_huge(device, length);
    if (huge)
        buffer->base = map_again(length);
    if (huge && !buffer->base)
        buffer->base = map_behind(length, HUGE_PAGE, READ_WRITE);
    if (!buffer->base)
        buffer->base = map_pages(NULL, length, READ_WRITE);
    if (!buffer->base) {
        int code = errno;
        free(buffer);
        return mlim_fail(error, refusal(device), code, "mmap");
    }
    if (huge)
        madvise(buffer->base, length, MADV_HUGEPAGE); /* a wish: kernels without it say EINVAL */
    buffer->length = length;
    *out = buffer;
    return MLIM_OK;
}

void mlim_buffer_destroy(mlim_buffer *buffer)
{
    if (!buffer)
        return;
    /* Else its addresses are nobody's from now on, or others would find the old pages there. */
    if (begin_drop(buffer)) {
        unmap_pages(buffer->base, buffer->length);
        if (before_start(buffer->base) == 0)
            atomic_store(&left, buffer->base);
    }
    free(buffer);
}

void *mlim_buffer_contents(const mlim_buffer *buffer)
{
    return buffer->base;
}

void *mlim_buffer_native(const mlim_buffer *buffer)
{
    (void)buffer;
    return NULL;
}

mlim_status mlim_buffer_discard(mlim_buffer *buffer, mlim_error *error)
{
    if (!begin_drop(buffer))
        return is_registered(error);
    /* Locked pages refuse with EINVAL. */
    int code = madvise(buffer->base, buffer->length, MADV_DONTNEED) == 0 ? 0 : errno;
    end_drop(buffer);
    return code ? mlim_fail(error, MLIM_NOT_RESIDENT, code, "madvise(MADV_DONTNEED)") : MLIM_OK;
}

mlim_status mlim_buffer_set_purgeable(mlim_buffer *buffer, bool purgeable, mlim_error *error)
{
    /* The first write to a page ends it. Locked pages refuse with EINVAL. */
    if (!purgeable)
        return MLIM_OK;
    if (!begin_drop(buffer))
        return is_registered(error);
    int code = madvise(buffer->base, buffer->length, MADV_FREE) == 0 ? 0 : errno;
    end_drop(buffer);
    return code ? mlim_fail(error, MLIM_NOT_RESIDENT, code, "madvise(MADV_FREE)") : MLIM_OK;
}

/* Moves a buffer's pages to where there is room, as far behind a huge page's boundary. The target
 * is asked for with the bytes that are new once more, since mremap will ask for them, too
 * (RLIMIT_AS). When that fails, the target may be gone, and its addresses somebody else's: they are
 * left alone. */
static bool move(mlim_buffer *buffer, size_t length)
{
    size_t growth = length - buffer->length;
    void *target = map_behind(length, growth > HUGE_PAGE ? growth : HUGE_PAGE, PROT_NONE);
    if (!target || mremap(buffer->base, buffer->length, length, MREMAP_MAYMOVE | MREMAP_FIXED,
                          target) == MAP_FAILED)
        return false;
    buffer->base = target;
    return true;
}

static mlim_status resize(mlim_buffer *buffer, size_t length, mlim_error *error)
{
    if (length <= buffer->length)
        unmap_pages((char *)buffer->base + length, buffer->length - length);
    /* Only for want of addresses: what cannot be resized at all cannot be moved. */
    else if (mremap(buffer->base, buffer->length, length, 0) == MAP_FAILED &&
             (errno != ENOMEM || !move(buffer, length)))
        return mlim_fail(error, MLIM_NO_MEMORY, errno, "mremap");
    return MLIM_OK;
}

mlim_status mlim_buffer_resize(mlim_device *device, mlim_buffer *buffer, size_t length,
                               mlim_error *error)
{
    if (!is_length(device, length))
        return mlim_fail(error, MLIM_NO_MEMORY, EINVAL, "a buffer's length");
    if (buffer->set)
        return mlim_fail(error, MLIM_NOT_RESIDENT, EINVAL, "a buffer in a residency set");
    if (!begin_drop(buffer))
        return is_registered(error);
    mlim_status status = resize(buffer, length, error);
    end_drop(buffer);
    if (status != MLIM_OK)
        return status;
    if (is_huge(device, length))
        madvise(buffer->base, length, MADV_HUGEPAGE);
    buffer->length = length;
    return MLIM_OK;
}

mlim_status mlim_buffer_split(mlim_buffer *buffer, size_t length, mlim_buffer **rest,
                              mlim_error *error)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!length || length % page || length >= buffer->length)
        return mlim_fail(error, MLIM_NO_MEMORY, EINVAL, "a buffer's length");
    if (buffer->set)
        return mlim_fail(error, MLIM_NOT_RESIDENT, EINVAL, "a buffer in a residency set");
    if (mlim_buffer_is_registered(buffer))
        return is_registered(error);
    mlim_buffer *made = calloc(1, sizeof *made);
    if (!made)
        return mlim_fail(error, MLIM_NO_MEMORY, ENOMEM, "a buffer's handle");
    made->base = (char *)buffer->base + length;
    made->length = buffer->length - length;
    buffer->length = length;
    *rest = made;
    return MLIM_OK;
}

mlim_status mlim_buffer_join(mlim_buffer *buffer, mlim_buffer *next, mlim_error *error)
{
    if ((char *)buffer->base + buffer->length != next->base)
        return mlim_fail(error, MLIM_NO_MEMORY, EINVAL, "a buffer's place");
    if (buffer->set || next->set)
        return mlim_fail(error, MLIM_NOT_RESIDENT, EINVAL, "a buffer in a residency set");
    if (mlim_buffer_is_registered(buffer) || mlim_buffer_is_registered(next))
        return is_registered(error);
    buffer->length += next->length;
    free(next);
    return MLIM_OK;
}
