/* Mappings of allocators that bring their own pages, such as jemalloc in polars and duckdb: once a
 * core takes part they are blocks of it, within its limits and in its counters.
 *
 * Such an allocator maps memory for which no swap is set aside, a MiB and more at a time, and
 * less where that is refused. It may unmap a part of that, and map something else over it: a block
 * goes back when nothing of it is left, and then to the system, with whatever it was advised or
 * protected. All else is the kernel's. */
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

enum { LEAST = 1 << 20, LEAST_AFTER_REFUSAL = 64 << 10, MOST_MAPS = 4096 };

typedef struct {
    char *start;
    size_t length;
    char *gone;    /* of each page, whether it was unmapped; NULL: none was */
    size_t n_gone; /* bytes */
    bool foreign;  /* something else was mapped over a part */
} block_map;

/* In no order; those that do not fit in are the kernel's. The core is never called under the lock,
 * which a fork takes. */
static block_map maps[MOST_MAPS];
static size_t n_maps;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool refused; /* the last one that was long enough */

void memlimits_lock_maps(void)
{
    pthread_mutex_lock(&lock);
}

void memlimits_unlock_maps(void)
{
    pthread_mutex_unlock(&lock);
}

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t whole_pages(size_t n)
{
    return (n + page_size() - 1) & ~(page_size() - 1);
}

static bool starts_page(const void *start)
{
    return (uintptr_t)start % page_size() == 0;
}

static void *kernel_mmap(void *start, size_t n, int protection, int more_flags)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | more_flags;
    return (void *)syscall(SYS_mmap, start, n, protection, flags, -1, 0);
}

static bool is_an_allocators(size_t n, int protection, int flags)
{
    const int wanted = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    /* jemalloc goes on with short ones where it gets no long one. */
    size_t least = __atomic_load_n(&refused, __ATOMIC_RELAXED) ? LEAST_AFTER_REFUSAL : LEAST;
    return n >= least && n <= PTRDIFF_MAX && protection == (PROT_READ | PROT_WRITE) &&
           flags == wanted;
}

static bool note(char *start, size_t n)
{
    memlimits_lock_maps();
    bool fits = n_maps < MOST_MAPS;
    if (fits)
        maps[n_maps++] = (block_map){.start = start, .length = n};
    memlimits_unlock_maps();
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
    if (n >= LEAST)
        __atomic_store_n(&refused, false, __ATOMIC_RELAXED);
    if (starts_page(start) && note(start, n))
        return start;
    core->free(start);
    return NULL;
}

/* Under the lock: which part of a block a range has. */
static bool intersect(const block_map *map, char **start, char **end)
{
    *start = *start > map->start ? *start : map->start;
    *end = *end < map->start + map->length ? *end : map->start + map->length;
    return *start < *end;
}

/* Under the lock: its pages are gone, or there is something again. */
static void mark(block_map *map, char *start, char *end, bool gone)
{
    size_t page = page_size();
    for (size_t at = (size_t)(start - map->start) / page; start < end; at++, start += page) {
        map->n_gone += gone && !map->gone[at] ? page : 0;
        map->n_gone -= !gone && map->gone[at] ? page : 0;
        map->gone[at] = gone;
    }
}

/* Under the lock: what is there now is the program's, until it unmaps that. */
static void note_foreign(char *start, size_t n)
{
    for (block_map *map = maps; map < maps + n_maps; map++) {
        char *from = start, *to = start + whole_pages(n);
        if (!intersect(map, &from, &to))
            continue;
        map->foreign = true;
        if (map->gone)
            mark(map, from, to, false);
    }
}

static void *map_over(void *start, size_t n, int protection, int flags, int fd, off_t offset)
{
    memlimits_lock_maps();
    void *mapped = (void *)syscall(SYS_mmap, start, n, protection, flags, fd, offset);
    if (mapped != MAP_FAILED)
        note_foreign(mapped, n);
    memlimits_unlock_maps();
    return mapped;
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
    if (core && flags & MAP_FIXED)
        return map_over(start, n, protection, flags, fd, offset);
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

/* Under the lock: what the kernel would have, nothing; and nobody else maps anything there. */
static int take_out(block_map *map, char *start, char *end)
{
    if (start == map->start && end == start + map->length) {
        map->n_gone = map->length; /* it goes back at once */
        return 0;
    }
    if (!map->gone) {
        void *gone = kernel_mmap(NULL, map->length / page_size(), PROT_READ | PROT_WRITE, 0);
        if (gone == MAP_FAILED)
            return -1;
        map->gone = gone;
    }
    if (kernel_mmap(start, (size_t)(end - start), PROT_NONE, MAP_FIXED) == MAP_FAILED)
        return -1;
    mark(map, start, end, true);
    return 0;
}

/* Under the lock: the block that is to go back, once nothing of it is left. */
static void *forget_if_gone(block_map *map)
{
    if (map->n_gone < map->length)
        return NULL;
    void *start = map->start;
    if (map->gone)
        syscall(SYS_munmap, map->gone, map->length / page_size());
    *map = maps[--n_maps];
    return start;
}

/* Unmaps what is of one block, or before the next one. Returns up to where, NULL if it cannot. */
static char *unmap_first(const memlimits_interposed *core, char *start, char *end)
{
    void *gone = NULL;
    memlimits_lock_maps();
    block_map *map = find_first(start, end);
    if (!map || map->start > start) {
        end = map ? map->start : end;
        if (syscall(SYS_munmap, start, (size_t)(end - start)) != 0)
            end = NULL;
    } else {
        intersect(map, &start, &end);
        if (take_out(map, start, end) != 0)
            end = NULL;
        else
            gone = forget_if_gone(map);
    }
    memlimits_unlock_maps();
    if (gone)
        core->give_back(gone);
    return end;
}

PUBLIC int munmap(void *start, size_t n)
{
    const memlimits_interposed *core = memlimits_taking_part();
    size_t whole = whole_pages(n);
    if (!core || n == 0 || whole < n || !starts_page(start))
        return (int)syscall(SYS_munmap, start, n);
    char *at = start, *end = at + whole;
    while (at && at < end)
        at = unmap_first(core, at, end);
    return at ? 0 : -1;
}

typedef enum { KERNELS, WHOLE, MIXED } owner;

/* Under the lock. MIXED: not all of the range is there, or of one block, or as it was given. */
static owner owner_of(const char *start, size_t n)
{
    const block_map *map = find_first(start, start + n);
    if (!map)
        return KERNELS;
    const char *end = map->start + map->length;
    bool within = start >= map->start && n <= (size_t)(end - start);
    return within && !map->foreign && map->n_gone == 0 ? WHOLE : MIXED;
}

PUBLIC void *mremap(void *start, size_t n, size_t wanted, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    void *target = flags & MREMAP_FIXED ? va_arg(more, void *) : NULL;
    va_end(more);
    if (!memlimits_taking_part() || n == 0 || !starts_page(start))
        return (void *)syscall(SYS_mremap, start, n, wanted, flags, target);
    memlimits_lock_maps();
    owner has = owner_of(start, n);
    void *moved = MAP_FAILED;
    if (has == KERNELS) {
        moved = (void *)syscall(SYS_mremap, start, n, wanted, flags, target);
        if (moved != MAP_FAILED)
            note_foreign(moved, wanted);
    }
    memlimits_unlock_maps();
    if (has == KERNELS)
        return moved;
    if (has == MIXED || flags != MREMAP_MAYMOVE) {
        errno = ENOMEM; /* which callers are prepared for */
        return MAP_FAILED;
    }
    int like = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    moved = mmap(NULL, wanted, PROT_READ | PROT_WRITE, like, -1, 0);
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
