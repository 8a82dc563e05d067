/* A stand-in for the driver of NVIDIA's GPUs that is stricter than the driver.
 *
 * Preloaded, it sees every munmap, mremap and madvise, and mappings over others. Where the driver
 * would silently copy wrong data from then on, or says nothing of a mistake, this ends the process
 * with a sentence: registered pages that are unmapped, moved, dropped or made purgeable; memory
 * that is registered twice, or overlaps; a call from a forked child.
 *
 * fake_cuda_set has calls fail, fake_cuda_get counts; the names stand in `knobs`.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, of newer headers */
#define MOST_RANGES 4096
#define MOST_PUSHED 16

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    CONTEXT_IS_DESTROYED = 709,
    NOT_REGISTERED = 713
};

typedef int result;

typedef struct context {
    int device;
    int users;
    bool destroyed;
} context;

enum knob {
    GPUS,        /* how many there are */
    INIT_RESULT, /* what these answer, if not 0 */
    RETAIN_RESULT,
    REGISTER_RESULT,
    UNREGISTER_RESULT,
    SLOW_US,       /* how long registering takes */
    REGISTERED,    /* bytes now */
    REGISTRATIONS, /* calls that succeeded */
    UNREGISTRATIONS,
    CONTEXTS, /* alive */
    KNOBS
};

static const char *const knobs[KNOBS] = {
    "gpus",    "init_result", "retain_result", "register_result", "unregister_result",
    "slow_us", "registered",  "registrations", "unregistrations", "contexts"};

static long long values[KNOBS] = {[GPUS] = 2};

/* The driver's own lock: held during every call. `ranges` have a lock of their own, since who
 * unmaps something does not call the driver. */
static pthread_mutex_t driver = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uintptr_t start, end;
} ranges[MOST_RANGES];
static int count;
static context *primary[64];
static pid_t owner;
static __thread context *pushed[MOST_PUSHED];
static __thread int depth;

#define EXPORT __attribute__((visibility("default")))

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "fake_cuda: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    fflush(stderr);
    abort();
}

/* ---- what becomes of registered pages ---- */

static void look(const char *what, const void *start, size_t length)
{
    uintptr_t from = (uintptr_t)start, to = from + length;
    /* A forked child's pages are its own. */
    if (count == 0 || owner != getpid())
        return;
    pthread_mutex_lock(&guard);
    for (int i = 0; i < count; i++)
        if (from < ranges[i].end && ranges[i].start < to)
            die("%s of registered memory, at %#zx of %#zx to %#zx", what, (size_t)from,
                (size_t)ranges[i].start, (size_t)ranges[i].end);
    pthread_mutex_unlock(&guard);
}

EXPORT int munmap(void *start, size_t length)
{
    look("munmap", start, length);
    return (int)syscall(SYS_munmap, start, length);
}

EXPORT void *mmap(void *start, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (flags & MAP_FIXED)
        look("mmap over a part", start, length);
    return (void *)syscall(SYS_mmap, start, length, protection, flags, fd, offset);
}

EXPORT void *mmap64(void *start, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap(start, length, protection, flags, fd, offset);
}

EXPORT void *mremap(void *start, size_t before, size_t after, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *target = flags & MREMAP_FIXED ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    look("mremap", start, before);
    if (target)
        look("mremap over a part", target, after);
    return (void *)syscall(SYS_mremap, start, before, after, flags, target);
}

EXPORT int madvise(void *start, size_t length, int advice)
{
    switch (advice) {
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_REMOVE:
    case 21: /* MADV_PAGEOUT */
    case 24: /* MADV_DONTNEED_LOCKED */
        look(advice == MADV_FREE ? "MADV_FREE" : "MADV_DONTNEED", start, length);
    }
    return (int)syscall(SYS_madvise, start, length, advice);
}

/* ---- for tests ---- */

static enum knob find(const char *name)
{
    for (int i = 0; i < KNOBS; i++)
        if (strcmp(knobs[i], name) == 0)
            return (enum knob)i;
    die("there is no knob %s", name);
    return KNOBS;
}

EXPORT void fake_cuda_set(const char *name, long long value)
{
    __atomic_store_n(&values[find(name)], value, __ATOMIC_SEQ_CST);
}

EXPORT long long fake_cuda_get(const char *name)
{
    return __atomic_load_n(&values[find(name)], __ATOMIC_SEQ_CST);
}

/* Calls a function with the driver's lock held, as the driver asks malloc for memory. */
EXPORT void fake_cuda_call(void (*function)(void))
{
    pthread_mutex_lock(&driver);
    function();
    pthread_mutex_unlock(&driver);
}

static long long value(enum knob knob)
{
    return __atomic_load_n(&values[knob], __ATOMIC_SEQ_CST);
}

static void add(enum knob knob, long long n)
{
    __atomic_fetch_add(&values[knob], n, __ATOMIC_SEQ_CST);
}

/* ---- the driver ---- */

static result enter(const char *name)
{
    if (owner && owner != getpid())
        die("%s called in a forked child", name);
    return owner ? SUCCESS : NOT_INITIALIZED;
}

EXPORT result cuInit(unsigned flags)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (owner && owner != getpid())
        die("cuInit called in a forked child");
    if (flags)
        return INVALID_VALUE;
    if (value(INIT_RESULT))
        return (result)value(INIT_RESULT);
    if (visible && !*visible)
        return NO_DEVICE;
    owner = getpid();
    return SUCCESS;
}

EXPORT result cuGetErrorName(result error, const char **name)
{
    static const struct {
        result error;
        const char *name;
    } names[] = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
    };
    *name = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].error == error)
            *name = names[i].name;
    return *name ? SUCCESS : INVALID_VALUE;
}

EXPORT result cuDeviceGetCount(int *out)
{
    *out = (int)value(GPUS);
    return enter("cuDeviceGetCount");
}

EXPORT result cuDeviceGet(int *device, int ordinal)
{
    if (ordinal < 0 || ordinal >= value(GPUS))
        return INVALID_DEVICE;
    *device = ordinal + 40; /* no number that a caller may take for the ordinal */
    return enter("cuDeviceGet");
}

static context *top(void)
{
    return depth ? pushed[depth - 1] : NULL;
}

EXPORT result cuCtxGetCurrent(context **out)
{
    *out = top();
    return enter("cuCtxGetCurrent");
}

EXPORT result cuCtxGetDevice(int *device)
{
    if (!top())
        return INVALID_CONTEXT;
    *device = top()->device;
    return enter("cuCtxGetDevice");
}

EXPORT result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active)
{
    result entered = enter("cuDevicePrimaryCtxGetState");
    *flags = 0;
    pthread_mutex_lock(&guard);
    *active = primary[device - 40] != NULL;
    pthread_mutex_unlock(&guard);
    return entered;
}

EXPORT result cuDevicePrimaryCtxRetain(context **out, int device)
{
    result entered = enter("cuDevicePrimaryCtxRetain");
    if (entered != SUCCESS || value(RETAIN_RESULT))
        return entered ? entered : (result)value(RETAIN_RESULT);
    pthread_mutex_lock(&guard);
    context **made = &primary[device - 40];
    if (!*made) {
        *made = calloc(1, sizeof **made);
        (*made)->device = device;
        add(CONTEXTS, 1);
    }
    (*made)->users++;
    *out = *made;
    pthread_mutex_unlock(&guard);
    return SUCCESS;
}

/* With a context goes what was registered in it: here, of any. */
static void destroy(context **made)
{
    (*made)->destroyed = true;
    *made = NULL;
    add(CONTEXTS, -1);
    count = 0;
    values[REGISTERED] = 0;
}

#ifndef TOO_OLD
EXPORT result cuDevicePrimaryCtxRelease_v2(int device)
{
    result entered = enter("cuDevicePrimaryCtxRelease");
    pthread_mutex_lock(&guard);
    context **made = &primary[device - 40];
    if (*made && --(*made)->users == 0) {
        if (count)
            die("the last user of a context left %lld bytes registered", values[REGISTERED]);
        destroy(made);
    }
    pthread_mutex_unlock(&guard);
    return entered;
}
#endif

EXPORT result cuDevicePrimaryCtxReset_v2(int device)
{
    result entered = enter("cuDevicePrimaryCtxReset");
    pthread_mutex_lock(&guard);
    if (primary[device - 40])
        destroy(&primary[device - 40]);
    pthread_mutex_unlock(&guard);
    return entered;
}

EXPORT result cuCtxPushCurrent_v2(context *given)
{
    result entered = enter("cuCtxPushCurrent");
    if (entered != SUCCESS)
        return entered;
    if (given->destroyed)
        return CONTEXT_IS_DESTROYED;
    if (depth == MOST_PUSHED)
        die("a thread pushed %d contexts and took none away", depth);
    pushed[depth++] = given;
    return SUCCESS;
}

EXPORT result cuCtxPopCurrent_v2(context **out)
{
    if (!depth)
        return INVALID_CONTEXT;
    *out = pushed[--depth];
    return enter("cuCtxPopCurrent");
}

static result current(const char *name)
{
    result entered = enter(name);
    if (entered != SUCCESS)
        return entered;
    if (!top())
        return INVALID_CONTEXT;
    return top()->destroyed ? CONTEXT_IS_DESTROYED : SUCCESS;
}

EXPORT result cuMemHostRegister_v2(void *start, size_t length, unsigned flags)
{
    uintptr_t from = (uintptr_t)start, to = from + length;
    result entered = current("cuMemHostRegister");
    if (entered != SUCCESS || value(REGISTER_RESULT))
        return entered ? entered : (result)value(REGISTER_RESULT);
    if (!length || flags != 1)
        die("memory that is registered has a length and is portable: %zu bytes, flags %#x", length,
            flags);
    pthread_mutex_lock(&driver);
    struct timespec slow = {value(SLOW_US) / 1000000, value(SLOW_US) % 1000000 * 1000};
    nanosleep(&slow, NULL);
    /* From now on a page of it that is dropped is a fault. */
    pthread_mutex_lock(&guard);
    for (int i = 0; i < count; i++)
        if (from < ranges[i].end && ranges[i].start < to)
            die("%#zx to %#zx is registered, and registered again", (size_t)from, (size_t)to);
    if (count == MOST_RANGES)
        die("more than %d ranges are registered", count);
    ranges[count].start = from;
    ranges[count++].end = to;
    pthread_mutex_unlock(&guard);
    syscall(SYS_madvise, start, length, POPULATE_WRITE);
    add(REGISTERED, (long long)length);
    add(REGISTRATIONS, 1);
    pthread_mutex_unlock(&driver);
    return SUCCESS;
}

EXPORT result cuMemHostUnregister(void *start)
{
    result entered = current("cuMemHostUnregister");
    if (entered != SUCCESS || value(UNREGISTER_RESULT))
        return entered ? entered : (result)value(UNREGISTER_RESULT);
    entered = NOT_REGISTERED;
    pthread_mutex_lock(&driver);
    pthread_mutex_lock(&guard);
    for (int i = 0; i < count && entered != SUCCESS; i++)
        if (ranges[i].start == (uintptr_t)start) {
            add(REGISTERED, -(long long)(ranges[i].end - ranges[i].start));
            ranges[i] = ranges[--count];
            entered = SUCCESS;
        }
    add(UNREGISTRATIONS, entered == SUCCESS);
    pthread_mutex_unlock(&guard);
    pthread_mutex_unlock(&driver);
    return entered;
}

/* The memory type of an address: of the host (1), where it is registered. */
EXPORT result cuPointerGetAttribute(void *out, int attribute, unsigned long long address)
{
    result entered = current("cuPointerGetAttribute");
    if (entered != SUCCESS || attribute != 2)
        return entered ? entered : INVALID_VALUE;
    entered = INVALID_VALUE;
    pthread_mutex_lock(&guard);
    for (int i = 0; i < count; i++)
        if (ranges[i].start <= address && address < ranges[i].end) {
            *(unsigned *)out = 1;
            entered = SUCCESS;
        }
    pthread_mutex_unlock(&guard);
    return entered;
}

EXPORT result cuMemAlloc_v2(void **out, size_t length)
{
    result entered = current("cuMemAlloc");
    if (entered == SUCCESS)
        *out = malloc(length);
    return entered;
}

EXPORT result cuMemFree_v2(void *memory)
{
    free(memory);
    return current("cuMemFree");
}

EXPORT result cuMemcpyHtoD_v2(void *target, const void *source, size_t length)
{
    result entered = current("cuMemcpyHtoD");
    if (entered == SUCCESS)
        memcpy(target, source, length);
    return entered;
}

EXPORT result cuMemcpyDtoH_v2(void *target, const void *source, size_t length)
{
    result entered = current("cuMemcpyDtoH");
    if (entered == SUCCESS)
        memcpy(target, source, length);
    return entered;
}

EXPORT result cuMemHostAlloc(void **out, size_t length, unsigned flags)
{
    (void)flags;
    *out = aligned_alloc(4096, (length + 4095) & ~(size_t)4095);
    return current("cuMemHostAlloc");
}

EXPORT result cuMemFreeHost(void *memory)
{
    free(memory);
    return current("cuMemFreeHost");
}

EXPORT result cuDeviceGetName(char *name, int length, int device)
{
    snprintf(name, (size_t)length, "stand-in %d", device - 40);
    return enter("cuDeviceGetName");
}

EXPORT result cuDriverGetVersion(int *version)
{
    *version = 13000;
    return SUCCESS;
}
