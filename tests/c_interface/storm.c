/* Threads that allocate and free at once, without the GIL, and keep books of their own.
 *
 * `low` counts bytes from when a block was had until it is given back, `high` from when it is asked
 * for until it is gone: what is active lies between them at every instant. Sizes are capacities;
 * but where an idle block serves that is longer, `longer` counts, for all of the time, what it has
 * more.
 */
#define PY_SSIZE_T_CLEAN
#include "memlimits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __APPLE__
#include <malloc/malloc.h>
#define malloc_usable_size malloc_size
#else
#include <malloc.h>
#endif

enum { MOST_THREADS = 64, MOST_HELD = 1024 };

/* The process's own functions, which may be of memlimits, too. */
static const memlimits_functions of_the_process = {
    .malloc = malloc,
    .calloc = calloc,
    .realloc = realloc,
    .free = free,
    .aligned_alloc = aligned_alloc,
    .usable_size = (size_t (*)(const void *))malloc_usable_size,
};
static const memlimits_functions *functions;

static const size_t sizes[] = {64,      128,     512,     1024,    4096,   8192,
                               24576,   32768,   65536,   131072,  262144, 524288,
                               1048576, 2097152, 3145728, 4194304, 8388608};

/* Threads are to be ordered by what memlimits does. The sanitizer would take it that the books
 * order them, too, and see no race. */
#ifdef __SANITIZE_THREAD__
enum { ORDER = memory_order_relaxed };
#else
enum { ORDER = memory_order_seq_cst };
#endif

static _Atomic(int64_t) low, high, highest_low, highest_high;
static _Atomic(int64_t) longer, refused, spoiled, passed_over;
static int64_t limit;
static _Atomic(void *) passed[MOST_THREADS]; /* a block for the next thread to free */

struct worker {
    pthread_t thread;
    int number, workers, held, first, last;
    long operations;
    bool resizes, mixes;
    uint64_t seed;
};

struct mark {
    size_t n;
    uint64_t stamp;
};

static int64_t add(_Atomic(int64_t) *to, size_t n)
{
    return atomic_fetch_add_explicit(to, (int64_t)n, ORDER) + (int64_t)n;
}

static void subtract(_Atomic(int64_t) *from, size_t n)
{
    atomic_fetch_sub_explicit(from, (int64_t)n, ORDER);
}

static void raise_to(_Atomic(int64_t) *most, int64_t value)
{
    int64_t seen = atomic_load_explicit(most, ORDER);
    while (seen < value && !atomic_compare_exchange_weak_explicit(most, &seen, value, ORDER, ORDER))
        ;
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void *take(size_t n, uint64_t stamp)
{
    struct mark mark = {n, stamp};
    raise_to(&highest_high, add(&high, n));
    bool zeros = stamp % 8 == 0;
    char *block = zeros ? functions->calloc(1, n) : functions->malloc(n);
    if (!block) {
        subtract(&high, n);
        add(&refused, 1);
        return NULL;
    }
    add(&longer, functions->usable_size(block) - n);
    int64_t now = add(&low, n);
    raise_to(&highest_low, now);
    if (now > limit)
        add(&passed_over, 1);
    if (zeros && (block[0] || block[n / 2] || block[n - 1]))
        add(&spoiled, 1);
    memcpy(block, &mark, sizeof mark);
    memcpy(block + n - sizeof mark, &mark, sizeof mark);
    return block;
}

static void give(char *block)
{
    struct mark first, last;
    memcpy(&first, block, sizeof first);
    memcpy(&last, block + first.n - sizeof last, sizeof last);
    if (memcmp(&first, &last, sizeof first))
        add(&spoiled, 1);
    memset(block, 0xee, sizeof first);
    subtract(&low, first.n);
    functions->free(block);
    subtract(&high, first.n);
}

/* Whether a block of one capacity gets another: between half and all of it nothing happens, and
 * below half a MiB a refusal leaves it as it was without saying so. */
static bool is_another(size_t n, size_t capacity)
{
    return n > capacity || (n < capacity / 2 && n >= 524288);
}

/* Contents may move from one block to another, so both count until it is done. */
static char *resize(char *block, size_t n)
{
    struct mark mark, last;
    memcpy(&mark, block, sizeof mark);
    size_t before = mark.n;
    if (!is_another(n, before))
        return block;
    memcpy(&last, block + before - sizeof last, sizeof last);
    raise_to(&highest_high, add(&high, n));
    if (n < before)
        subtract(&low, before - n);
    char *resized = functions->realloc(block, n);
    if (!resized) {
        subtract(&high, n);
        add(&refused, 1);
        return block;
    }
    if (n > before) {
        int64_t now = add(&low, n - before);
        raise_to(&highest_low, now);
        if (now > limit)
            add(&passed_over, 1);
        memcpy(&last, resized + before - sizeof last, sizeof last);
    }
    subtract(&high, before);
    if (memcmp(&mark, resized, sizeof mark) || memcmp(&mark, &last, sizeof mark))
        add(&spoiled, 1);
    mark.n = n;
    memcpy(resized, &mark, sizeof mark);
    memcpy(resized + n - sizeof mark, &mark, sizeof mark);
    return resized;
}

/* Blocks of every function, under books of their own: of what a block has more than was asked for
 * only usable_size knows, so `low` counts that, and `high` the most it can be: a long one may be
 * three times as long as asked for, where no limit is near; what an alignment skips counts. */
struct mixed {
    size_t n, usable, most;
    uint64_t stamp;
    bool is_zeroed;
};

static void write_stamp(char *block, size_t n, uint64_t stamp)
{
    memcpy(block, &stamp, sizeof stamp);
    memcpy(block + n - sizeof stamp, &stamp, sizeof stamp);
}

static bool has_stamp(const char *block, size_t n, uint64_t stamp)
{
    return !memcmp(block, &stamp, sizeof stamp) &&
           !memcmp(block + n - sizeof stamp, &stamp, sizeof stamp);
}

static size_t most_of(size_t n, size_t alignment)
{
    if (n <= 32768 && alignment <= 4096)
        return 2 * (n > alignment ? n : alignment);
    return 3 * (n + alignment + 65536);
}

static void count_had(struct mixed *mixed, char *block)
{
    mixed->usable = functions->usable_size(block);
    if (mixed->usable < mixed->n || mixed->usable > mixed->most)
        add(&spoiled, 1);
    int64_t now = add(&low, mixed->usable);
    raise_to(&highest_low, now);
    if (now > limit)
        add(&passed_over, 1);
}

static char *take_mixed(struct mixed *mixed, size_t n, uint64_t random)
{
    size_t alignment = random % 3 ? 64 : (size_t)1 << (random >> 8) % 20;
    char *block;
    *mixed = (struct mixed){.n = n, .stamp = random};
    mixed->is_zeroed = functions->rezalloc && random % 3 == 1;
    mixed->most = most_of(n, alignment);
    raise_to(&highest_high, add(&high, mixed->most));
    block =
        mixed->is_zeroed ? functions->rezalloc(NULL, n) : functions->aligned_alloc(alignment, n);
    if (!block) {
        subtract(&high, mixed->most);
        add(&refused, 1);
        return NULL;
    }
    if ((uintptr_t)block % alignment ||
        (mixed->is_zeroed && (block[0] || block[n / 2] || block[n - 1])))
        add(&spoiled, 1);
    count_had(mixed, block);
    write_stamp(block, n, mixed->stamp);
    return block;
}

static void give_mixed(struct mixed *mixed, char *block)
{
    if (!has_stamp(block, mixed->n, mixed->stamp))
        add(&spoiled, 1);
    subtract(&low, mixed->usable);
    functions->free(block);
    subtract(&high, mixed->most);
}

static char *resize_mixed(struct mixed *mixed, char *block, size_t n)
{
    struct mixed before = *mixed;
    mixed->n = n;
    mixed->most = most_of(n, 64) + before.usable; /* what is between half and all stays */
    raise_to(&highest_high, add(&high, mixed->most));
    subtract(&low, before.usable);
    char *resized = before.is_zeroed ? functions->rezalloc(block, n) : functions->realloc(block, n);
    if (!resized) {
        add(&refused, 1);
        *mixed = before;
        subtract(&high, most_of(n, 64) + before.usable);
        add(&low, before.usable);
        return block;
    }
    subtract(&high, before.most);
    count_had(mixed, resized);
    size_t kept = before.n < n ? before.n : n;
    if (memcmp(resized, &before.stamp, sizeof before.stamp))
        add(&spoiled, 1);
    if (before.n <= n && !has_stamp(resized, before.n, before.stamp))
        add(&spoiled, 1);
    if (before.is_zeroed && n > kept &&
        (resized[kept] || resized[(kept + n) / 2] || resized[n - 1]))
        add(&spoiled, 1);
    write_stamp(resized, n, before.stamp);
    return resized;
}

static void *work_mixed(void *argument)
{
    struct worker *me = argument;
    char *held[MOST_HELD] = {0};
    struct mixed books[MOST_HELD];
    for (long i = 0; i < me->operations; i++) {
        uint64_t random = next_random(&me->seed);
        size_t slot = random % (uint64_t)me->held;
        size_t n = sizes[me->first + (int)((random >> 32) % (uint64_t)(me->last - me->first))];
        n -= (random >> 16) % (n / 3);
        if (held[slot] && (random >> 56) % 2) {
            held[slot] = resize_mixed(&books[slot], held[slot], n);
            continue;
        }
        if (held[slot])
            give_mixed(&books[slot], held[slot]);
        held[slot] = take_mixed(&books[slot], n, random >> 3);
    }
    for (int i = 0; i < me->held; i++)
        if (held[i])
            give_mixed(&books[i], held[i]);
    return NULL;
}

static void *work(void *argument)
{
    struct worker *me = argument;
    char *held[MOST_HELD] = {0};
    for (long i = 0; i < me->operations; i++) {
        uint64_t random = next_random(&me->seed);
        char **slot = &held[random % (uint64_t)me->held];
        size_t n = sizes[me->first + (int)((random >> 32) % (uint64_t)(me->last - me->first))];
        if (*slot && (random >> 60) == 0) {
            /* One in sixteen is freed by another thread. */
            char *other = atomic_exchange(&passed[(me->number + 1) % me->workers], *slot);
            *slot = other;
        }
        if (*slot && me->resizes && (random >> 56) % 4) {
            *slot = resize(*slot, n);
            continue;
        }
        if (*slot)
            give(*slot);
        *slot = take(n, random);
    }
    for (int i = 0; i < me->held; i++)
        if (held[i])
            give(held[i]);
    return NULL;
}

static void start(struct worker *worker)
{
    if (pthread_create(&worker->thread, NULL, worker->mixes ? work_mixed : work, worker))
        abort();
}

static PyObject *storm(PyObject *self, PyObject *args)
{
    struct worker workers[MOST_THREADS];
    int count, held, first, last, resizes = 0, times = 1, mixes = 0, process = 0;
    long operations;
    long long most;
    (void)self;
    if (!PyArg_ParseTuple(args, "iliiiL|pipp", &count, &operations, &held, &first, &last, &most,
                          &resizes, &times, &mixes, &process))
        return NULL;
    low = high = highest_low = highest_high = 0;
    longer = refused = spoiled = passed_over = 0;
    limit = most;
    functions = process ? &of_the_process : memlimits;
    Py_BEGIN_ALLOW_THREADS
    for (int i = 0; i < count; i++) {
        workers[i] = (struct worker){.number = i,
                                     .workers = count,
                                     .held = held,
                                     .first = first,
                                     .last = last,
                                     .operations = operations,
                                     .resizes = resizes,
                                     .mixes = mixes,
                                     .seed = 88172645463325252u + (uint64_t)i * 1234567};
        start(&workers[i]);
    }
    /* Each thread ends, and another starts in its place, while the others work. */
    for (int join = 0; join < count * times; join++) {
        struct worker *worker = &workers[join % count];
        pthread_join(worker->thread, NULL);
        if (join < count * (times - 1))
            start(worker);
    }
    for (int i = 0; i < count; i++) {
        char *left = atomic_exchange(&passed[i], NULL);
        if (left)
            give(left);
    }
    Py_END_ALLOW_THREADS
    return Py_BuildValue("{sLsLsLsLsLsL}", "longer", (long long)longer, "highest_low",
                         (long long)highest_low, "highest_high", (long long)highest_high, "refused",
                         (long long)refused, "spoiled", (long long)spoiled, "over",
                         (long long)passed_over);
}

static PyMethodDef methods[] = {
    {"storm", storm, METH_VARARGS,
     "storm(threads, operations, held, first size, last size, limit, resizes=False, times=1, mixes=False,"
     " process=False) -> what was seen"},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "storm", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_storm(void)
{
    if (memlimits_import() < 0)
        return NULL;
    return PyModule_Create(&module);
}
