/* Threads that allocate and free at once, without the GIL, and keep books of their own.
 *
 * `low` counts bytes from when a block was had until it is given back, `high` from when it is asked
 * for until it is gone: what is active lies between them at every instant. Sizes are capacities.
 */
#define PY_SSIZE_T_CLEAN
#include "memlimits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { MOST_THREADS = 64, MOST_HELD = 1024 };

static const size_t sizes[] = {64,     128,     512,     1024,    4096,   8192,   24576,  32768,  65536,
                               131072, 262144,  524288,  1048576, 2097152, 3145728, 4194304, 8388608};

static _Atomic(int64_t) low, high, highest_low, highest_high;
static _Atomic(long) refused, spoiled, passed_over;
static int64_t limit;
static _Atomic(void *) passed[MOST_THREADS]; /* a block for the next thread to free */

struct worker {
    pthread_t thread;
    int number, workers, held, first, last;
    long operations;
    bool resizes;
    uint64_t seed;
};

struct mark {
    size_t n;
    uint64_t stamp;
};

static void raise_to(_Atomic(int64_t) *most, int64_t value)
{
    int64_t seen = atomic_load(most);
    while (seen < value && !atomic_compare_exchange_weak(most, &seen, value))
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
    raise_to(&highest_high, atomic_fetch_add(&high, (int64_t)n) + (int64_t)n);
    char *block = memlimits->malloc(n);
    if (!block) {
        atomic_fetch_sub(&high, (int64_t)n);
        atomic_fetch_add(&refused, 1);
        return NULL;
    }
    int64_t now = atomic_fetch_add(&low, (int64_t)n) + (int64_t)n;
    raise_to(&highest_low, now);
    if (now > limit)
        atomic_fetch_add(&passed_over, 1);
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
        atomic_fetch_add(&spoiled, 1);
    memset(block, 0xee, sizeof first);
    atomic_fetch_sub(&low, (int64_t)first.n);
    memlimits->free(block);
    atomic_fetch_sub(&high, (int64_t)first.n);
}

/* Whether a block of one capacity gets another: between half and all of it nothing happens, and below
 * half a MiB a refusal leaves it as it was without saying so. */
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
    raise_to(&highest_high, atomic_fetch_add(&high, (int64_t)n) + (int64_t)n);
    if (n < before)
        atomic_fetch_sub(&low, (int64_t)(before - n));
    char *resized = memlimits->realloc(block, n);
    if (!resized) {
        atomic_fetch_sub(&high, (int64_t)n);
        atomic_fetch_add(&refused, 1);
        return block;
    }
    if (n > before) {
        int64_t now = atomic_fetch_add(&low, (int64_t)(n - before)) + (int64_t)(n - before);
        raise_to(&highest_low, now);
        if (now > limit)
            atomic_fetch_add(&passed_over, 1);
        memcpy(&last, resized + before - sizeof last, sizeof last);
    }
    atomic_fetch_sub(&high, (int64_t)before);
    if (memcmp(&mark, resized, sizeof mark) || memcmp(&mark, &last, sizeof mark))
        atomic_fetch_add(&spoiled, 1);
    mark.n = n;
    memcpy(resized, &mark, sizeof mark);
    memcpy(resized + n - sizeof mark, &mark, sizeof mark);
    return resized;
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

static PyObject *storm(PyObject *self, PyObject *args)
{
    struct worker workers[MOST_THREADS];
    int count, held, first, last, resizes = 0;
    long operations;
    long long most;
    (void)self;
    if (!PyArg_ParseTuple(args, "iliiiL|p", &count, &operations, &held, &first, &last, &most,
                          &resizes))
        return NULL;
    low = high = highest_low = highest_high = 0;
    refused = spoiled = passed_over = 0;
    limit = most;
    Py_BEGIN_ALLOW_THREADS
    for (int i = 0; i < count; i++) {
        workers[i] = (struct worker){.number = i,
                                     .workers = count,
                                     .held = held,
                                     .first = first,
                                     .last = last,
                                     .operations = operations,
                                     .resizes = resizes,
                                     .seed = 88172645463325252u + (uint64_t)i * 1234567};
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (int i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < count; i++) {
        char *left = atomic_exchange(&passed[i], NULL);
        if (left)
            give(left);
    }
    Py_END_ALLOW_THREADS
    return Py_BuildValue("{sLsLslslsl}", "highest_low", (long long)highest_low, "highest_high",
                         (long long)highest_high, "refused", (long)refused, "spoiled",
                         (long)spoiled, "over", (long)passed_over);
}

static PyMethodDef methods[] = {
    {"storm", storm, METH_VARARGS,
     "storm(threads, operations, held, first size, last size, limit, resizes=False) -> what was seen"},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "storm", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_storm(void)
{
    if (memlimits_import() < 0)
        return NULL;
    return PyModule_Create(&module);
}
