/* Mappings of allocators that bring their own pages, such as jemalloc in polars and duckdb: once a
 * core takes part they are blocks of it, within its limits and in its counters.
 *
 * Such an allocator maps memory for which no swap is set aside, a MiB and more at a time. It may
 * unmap a part of that: a block goes back when nothing of it is left. All else is the kernel's. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interpose.h"

#define PUBLIC __attribute__((visibility("default")))

enum { LEAST = 1 << 20, MOST_MAPS = 4096 };

typedef struct {
    char *start;
    size_t length;
    size_t left; /* of it, what was not unmapped yet */
} block_map;

/* In no order; those that do not fit in are the kernel's. The core is never called under the lock,
 * which a fork takes. */
static block_map maps[MOST_MAPS];
static size_t n_maps;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool refused;

static void lock_maps(void)
{
    pthread_mutex_lock(&lock);
}

static void unlock_maps(void)
{
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void follow_forks(void)
{
    pthread_atfork(lock_maps, unlock_maps, unlock_maps);
}

static size_t whole_pages(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (n + page - 1) & ~(page - 1);
}

static bool is_an_allocators(size_t n, int protection, int flags)
{
    const int wanted = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    return n >= LEAST && n <= PTRDIFF_MAX && protection == (PROT_READ | PROT_WRITE) &&
           flags == wanted;
}

static bool note(char *start, size_t n)
{
    lock_maps();
    bool fits = n_maps < MOST_MAPS;
    if (fits)
        maps[n_maps++] = (block_map){start, n, n};
    unlock_maps();
    return fits;
}

/* A block, or what the kernel says where there can be none. */
static void *map_block(const memlimits_interposed *core, size_t n)
{
    void *start = core->calloc(1, n);
    if (!start) {
        __atomic_store_n(&refused, true, __ATOMIC_RELAXED);
        errno = ENOMEM;
        return MAP_FAILED;
    }
    if (whole_pages((uintptr_t)start) == (uintptr_t)start && note(start, n))
        return start;
    core->free(start);
    return NULL;
}

PUBLIC void *mmap(void *start, size_t n, int protection, int flags, int fd, off_t offset)
{
    const memlimits_interposed *core = memlimits_taking_part();
    if (core && is_an_allocators(n, protection, flags)) {
        int before = errno;
        void *block = map_block(core, whole_pages(n));
        if (block) {
            if (block != MAP_FAILED)
                errno = before;
            return block;
        }
        errno = before;
    }
    return (void *)syscall(SYS_mmap, start, n, protection, flags, fd, offset);
}

PUBLIC void *mmap64(void *start, size_t n, int protection, int flags, int fd, off_t offset)
{
    return mmap(start, n, protection, flags, fd, offset);
}

/* Under the lock: the first that has a part of this. */
static block_map *find_first(const char *start, const char *end)
{
    block_map *first = NULL;
    for (block_map *map = maps; map < maps + n_maps; map++)
        if (map->start < end && start < map->start + map->length &&
            (!first || map->start < first->start))
            first = map;
    return first;
}

/* What the kernel would have: no pages. For whom the block is next, no protection is left over. */
static int empty(char *start, size_t n)
{
    if (mprotect(start, n, PROT_READ | PROT_WRITE) != 0)
        return -1;
    if (madvise(start, n, MADV_DONTNEED) != 0)
        memset(start, 0, n); /* it is locked */
    return 0;
}

/* Unmaps what is of one block, or before the next one. Returns up to where, NULL if it cannot. */
static char *unmap_first(const memlimits_interposed *core, char *start, char *end)
{
    char *gone = NULL;
    lock_maps();
    block_map *map = find_first(start, end);
    if (!map || map->start > start) {
        end = map ? map->start : end;
        if (syscall(SYS_munmap, start, (size_t)(end - start)) != 0)
            end = NULL;
    } else {
        end = end < map->start + map->length ? end : map->start + map->length;
        if (empty(start, (size_t)(end - start)) != 0) {
            end = NULL;
        } else if ((map->left -= (size_t)(end - start)) == 0) {
            gone = map->start;
            *map = maps[--n_maps];
        }
    }
    unlock_maps();
    if (gone)
        core->free(gone);
    return end;
}

PUBLIC int munmap(void *start, size_t n)
{
    const memlimits_interposed *core = memlimits_taking_part();
    size_t whole = whole_pages(n);
    if (!core || n == 0 || whole < n || whole_pages((uintptr_t)start) != (uintptr_t)start)
        return (int)syscall(SYS_munmap, start, n);
    char *at = start, *end = at + whole;
    while (at && at < end)
        at = unmap_first(core, at, end);
    return at ? 0 : -1;
}

static bool has_block(const char *start, size_t n)
{
    lock_maps();
    bool found = find_first(start, start + n) != NULL;
    unlock_maps();
    return found;
}

PUBLIC void *mremap(void *start, size_t n, size_t wanted, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    void *target = flags & MREMAP_FIXED ? va_arg(more, void *) : NULL;
    va_end(more);
    if (!memlimits_taking_part() || !has_block(start, n))
        return (void *)syscall(SYS_mremap, start, n, wanted, flags, target);
    if (flags != MREMAP_MAYMOVE) {
        errno = ENOMEM; /* which callers are prepared for */
        return MAP_FAILED;
    }
    int like = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *moved = mmap(NULL, wanted, PROT_READ | PROT_WRITE, like, -1, 0);
    if (moved != MAP_FAILED) {
        memcpy(moved, start, n < wanted ? n : wanted);
        munmap(start, n);
    }
    return moved;
}

/* What allocators try next: what was refused is not had so either. */
PUBLIC void *sbrk(intptr_t n)
{
    static void *(*libc_sbrk)(intptr_t n);
    if (n > 0 && memlimits_taking_part() && __atomic_load_n(&refused, __ATOMIC_RELAXED)) {
        errno = ENOMEM;
        return (void *)-1;
    }
    if (!libc_sbrk)
        *(void **)&libc_sbrk = dlsym(RTLD_NEXT, "sbrk");
    return libc_sbrk(n);
}
