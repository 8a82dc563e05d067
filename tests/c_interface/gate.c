/* Preloaded: holds the thread that makes a mapping of one length longer, unmaps that many bytes, or
 * offers them to the system, and lets there be only so many nodes of the page map. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

volatile size_t held_length; /* of the calls that are held */
volatile bool held_after;    /* once they are done, not before */
volatile int milliseconds;   /* for how long still */
volatile bool is_held;       /* whether one is now */
volatile int nodes_left = INT32_MAX;

static void hold(size_t length, bool after)
{
    if (length != held_length || after != held_after)
        return;
    is_held = true;
    while (milliseconds-- > 0)
        usleep(1000);
    is_held = false;
}

void *mremap(void *start, size_t length, size_t longer, int flags, ...)
{
    static void *(*next)(void *, size_t, size_t, int, ...);
    void *target = NULL;
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "mremap");
    if (flags & MREMAP_FIXED) {
        va_list rest;
        va_start(rest, flags);
        target = va_arg(rest, void *);
        va_end(rest);
        hold(longer, false);
    }
    void *moved = next(start, length, longer, flags, target);
    if (flags & MREMAP_FIXED)
        hold(longer, true);
    return moved;
}

int munmap(void *start, size_t length)
{
    static int (*next)(void *, size_t);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "munmap");
    hold(length, false);
    int status = next(start, length);
    hold(length, true);
    return status;
}

int madvise(void *start, size_t length, int advice)
{
    static int (*next)(void *, size_t, int);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "madvise");
    if (advice == MADV_FREE)
        hold(length, false);
    return next(start, length, advice);
}

void *calloc(size_t count, size_t n)
{
    static void *(*next)(size_t, size_t);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "calloc");
    return count == 1 << 18 && n == 8 && nodes_left-- <= 0 ? NULL : next(count, n);
}
