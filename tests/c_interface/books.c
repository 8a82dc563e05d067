/* Preloaded before the library that stands in for malloc: books of what all who call malloc's
 * family hold of memlimits' memory, the interpreter among them.
 *
 * `low` counts a block from when it is had until it is given back, `high` from when it is asked for
 * until it is gone: what is active lies between the two at every instant, and they agree when
 * nobody is in a call. What an alignment above the page skips is active, and not in these books. */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "interpose.h"

static _Atomic(int64_t) low, high, highest_low, highest_high;
/* Set once, while the process has one thread. */
static const memlimits_interposed *core;

static int64_t add(_Atomic(int64_t) *to, size_t n)
{
    return atomic_fetch_add(to, (int64_t)n) + (int64_t)n;
}

static void raise_to(_Atomic(int64_t) *most, int64_t value)
{
    int64_t seen = atomic_load(most);
    while (seen < value && !atomic_compare_exchange_weak(most, &seen, value))
        ;
}

/* The bytes of a block; none of one of the C library's. */
static size_t bytes(const void *start)
{
    return core && start && core->is_own(start) ? core->usable_size(start) : 0;
}

/* How long the block may be that serves this. Three times as long, if it is idle. */
static size_t most_of(size_t n, size_t alignment)
{
    size_t most = n < SIZE_MAX / 4 ? 3 * (n + alignment + 65536) : 0;
    raise_to(&highest_high, add(&high, most));
    return most;
}

static void *had(void *start, size_t most)
{
    size_t n = bytes(start);
    atomic_fetch_sub(&high, (int64_t)(most - n));
    raise_to(&highest_low, add(&low, n));
    return start;
}

static size_t leave(const void *start)
{
    size_t n = bytes(start);
    atomic_fetch_sub(&low, (int64_t)n);
    return n;
}

int64_t books_held(int64_t out[4])
{
    out[0] = atomic_load(&low);
    out[1] = atomic_load(&high);
    out[2] = atomic_load(&highest_low);
    out[3] = atomic_load(&highest_high);
    return out[0];
}

void books_reset_peak(void)
{
    atomic_store(&highest_low, atomic_load(&low));
    atomic_store(&highest_high, atomic_load(&high));
}

#define NEXT(name, result, ...)         \
    static result (*next)(__VA_ARGS__); \
    if (!next)                          \
    *(void **)&next = dlsym(RTLD_NEXT, name)

int memlimits_interpose(const memlimits_interposed *functions, memlimits_interposer *out)
{
    NEXT("memlimits_interpose", int, const memlimits_interposed *, memlimits_interposer *);
    int takes_part = next(functions, out);
    if (functions && takes_part)
        core = functions;
    return takes_part;
}

void *malloc(size_t n)
{
    NEXT("malloc", void *, size_t);
    size_t most = most_of(n, 0);
    return had(next(n), most);
}

void *calloc(size_t count, size_t n)
{
    NEXT("calloc", void *, size_t, size_t);
    size_t most = most_of(n && count > SIZE_MAX / n ? SIZE_MAX : count * n, 0);
    return had(next(count, n), most);
}

void free(void *start)
{
    NEXT("free", void, void *);
    size_t n = leave(start);
    next(start);
    atomic_fetch_sub(&high, (int64_t)n);
}

/* The new block and the old one count until it is done. */
static void *moved(size_t before, void *new, bool gone, size_t most)
{
    new = had(new, most);
    if (gone)
        atomic_fetch_sub(&high, (int64_t)before);
    else
        add(&low, before);
    return new;
}

void *realloc(void *start, size_t n)
{
    NEXT("realloc", void *, void *, size_t);
    size_t before = leave(start), most = most_of(n, 0);
    void *new = next(start, n);
    return moved(before, new, new || (start && n == 0), most);
}

void *reallocarray(void *start, size_t count, size_t n)
{
    NEXT("reallocarray", void *, void *, size_t, size_t);
    bool overflows = n && count > SIZE_MAX / n;
    size_t before = leave(start), most = most_of(overflows ? SIZE_MAX : count * n, 0);
    void *new = next(start, count, n);
    return moved(before, new, new || (start && !overflows && count * n == 0), most);
}

int posix_memalign(void **out, size_t alignment, size_t n)
{
    NEXT("posix_memalign", int, void **, size_t, size_t);
    size_t most = most_of(n, alignment);
    int status = next(out, alignment, n);
    had(status ? NULL : *out, most);
    return status;
}

#define ALIGNED(name)                         \
    void *name(size_t alignment, size_t n)    \
    {                                         \
        NEXT(#name, void *, size_t, size_t);  \
        size_t most = most_of(n, alignment);  \
        return had(next(alignment, n), most); \
    }
ALIGNED(memalign)
ALIGNED(aligned_alloc)

#define PAGES(name)                     \
    void *name(size_t n)                \
    {                                   \
        NEXT(#name, void *, size_t);    \
        size_t most = most_of(n, 4096); \
        return had(next(n), most);      \
    }
PAGES(valloc)
PAGES(pvalloc)
