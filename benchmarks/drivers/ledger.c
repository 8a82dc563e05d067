/* Two threads under a strict limit, and an account of their own of what they asked for and got.
 *
 * `low` counts a block from when it was got until it is about to be given back, `high` from before
 * it is asked for until it has been given back: at every instant low <= bytes in use <= high. So
 * low above the limit is bytes over it; and a refusal is wrong if high, the refused bytes included,
 * was never above the limit while the call lasted. Sizes must be capacities of whole resources, or
 * other bytes than these would count too.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct heap {
    void *(*malloc)(size_t n);
    void (*free)(void *start);
} heap;

typedef struct outcome {
    uint64_t highest; /* bytes that were in use at once, at least */
    uint64_t allocations;
    uint64_t refusals;
    uint64_t wrong_refusals;
} outcome;

enum { THREADS = 2, KEEP = 64 };

typedef struct ledger {
    heap heap;
    const uint32_t *sizes;
    size_t count;
    uint64_t limit;
    size_t steps;
    atomic_uint_fast64_t low, high, highest_low;
    atomic_uint_fast64_t highest_high[THREADS]; /* since that thread began its call */
    atomic_uint_fast64_t allocations, refusals, wrong_refusals;
} ledger;

typedef struct thread {
    ledger *ledger;
    int number;
} thread;

static void raise_to(atomic_uint_fast64_t *highest, uint_fast64_t value)
{
    uint_fast64_t seen = atomic_load(highest);
    while (seen < value && !atomic_compare_exchange_weak(highest, &seen, value))
        ;
}

static void *allocate(ledger *ledger, int number, size_t n)
{
    atomic_store(&ledger->highest_high[number], 0);
    uint_fast64_t high = atomic_fetch_add(&ledger->high, n) + n;
    for (int i = 0; i < THREADS; i++)
        raise_to(&ledger->highest_high[i], high);
    char *start = ledger->heap.malloc(n);
    if (start) {
        *(volatile char *)start = 1;
        raise_to(&ledger->highest_low, atomic_fetch_add(&ledger->low, n) + n);
        atomic_fetch_add(&ledger->allocations, 1);
        return start;
    }
    /* The other thread may have added to `high` and not told yet; then it is still in it. */
    high = atomic_load(&ledger->high);
    atomic_fetch_add(&ledger->refusals, 1);
    if (high <= ledger->limit && atomic_load(&ledger->highest_high[number]) <= ledger->limit)
        atomic_fetch_add(&ledger->wrong_refusals, 1);
    atomic_fetch_sub(&ledger->high, n);
    return NULL;
}

static void release(ledger *ledger, void *start, size_t n)
{
    atomic_fetch_sub(&ledger->low, n);
    ledger->heap.free(start);
    atomic_fetch_sub(&ledger->high, n);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *churn(void *argument)
{
    thread *self = argument;
    ledger *ledger = self->ledger;
    uint64_t random = 88172645463325252u + (uint64_t)self->number;
    void *blocks[KEEP] = {NULL};
    size_t sizes[KEEP];
    for (size_t i = 0; i < ledger->steps; i++) {
        size_t slot = next_random(&random) % KEEP;
        if (blocks[slot]) {
            release(ledger, blocks[slot], sizes[slot]);
            blocks[slot] = NULL;
        } else {
            sizes[slot] = ledger->sizes[next_random(&random) % ledger->count];
            blocks[slot] = allocate(ledger, self->number, sizes[slot]);
        }
    }
    for (size_t slot = 0; slot < KEEP; slot++)
        if (blocks[slot])
            release(ledger, blocks[slot], sizes[slot]);
    return NULL;
}

void ledger_churn(const heap *heap, const uint32_t *sizes, size_t count, uint64_t limit,
                  size_t steps, outcome *out)
{
    ledger ledger = {.heap = *heap, .sizes = sizes, .count = count, .limit = limit, .steps = steps};
    thread threads[THREADS];
    pthread_t handles[THREADS];
    for (int i = 0; i < THREADS; i++) {
        threads[i] = (thread){&ledger, i};
        if (pthread_create(&handles[i], NULL, churn, &threads[i]) != 0)
            abort();
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(handles[i], NULL);
    *out =
        (outcome){ledger.highest_low, ledger.allocations, ledger.refusals, ledger.wrong_refusals};
}
