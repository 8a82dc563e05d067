/* Preloaded: counts the bytes that the libraries of a process map and unmap.
 *
 * A mapping counts from before it is made until after it is gone, so the count is never below what
 * is mapped. The C library's own mappings, for stacks and for malloc, do not pass here.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

static atomic_int_fast64_t mapped, highest;
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);
static int (*real_munmap)(void *, size_t);

__attribute__((constructor)) static void find(void)
{
    *(void **)&real_mmap = dlsym(RTLD_NEXT, "mmap");
    *(void **)&real_munmap = dlsym(RTLD_NEXT, "munmap");
}

static void count(int_fast64_t n)
{
    int_fast64_t now = atomic_fetch_add(&mapped, n) + n;
    int_fast64_t seen = atomic_load(&highest);
    while (seen < now && !atomic_compare_exchange_weak(&highest, &seen, now))
        ;
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    if (!real_mmap)
        find();
    count((int_fast64_t)n);
    void *start = real_mmap(at, n, protection, flags, fd, offset);
    if (start == MAP_FAILED)
        count(-(int_fast64_t)n);
    return start;
}

void *mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    return mmap(at, n, protection, flags, fd, offset);
}

int munmap(void *start, size_t n)
{
    if (!real_munmap)
        find();
    int status = real_munmap(start, n);
    if (status == 0)
        count(-(int_fast64_t)n);
    return status;
}

/* From now on `highest` counts what is mapped anew. */
void mappings_start(void)
{
    atomic_store(&mapped, 0);
    atomic_store(&highest, 0);
}

int64_t mappings_highest(void)
{
    return atomic_load(&highest);
}
