/* The loops that every allocator is put through, over its malloc and free.
 *
 * Each returns nanoseconds, from when the last thread was ready until a thread was done, the mean
 * over the threads. What a loop needs is allocated, and what is left is freed, outside that time.
 * One thread is the caller's own. Sizes and order were made before: a step reads them, writes one
 * byte to each new block, or all of it where blocks are resized, and does nothing else of its own.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct heap {
    void *(*malloc)(size_t n);
    void (*free)(void *start);
    void *(*realloc)(void *start, size_t n); /* NULL where there is none */
} heap;

typedef struct work {
    const uint32_t *sizes; /* bytes to ask for, in this order and again from the start */
    const uint32_t *slots; /* which of the live blocks a step replaces */
    size_t length;         /* of both */
    size_t live;           /* blocks a thread holds */
} work;

typedef struct outcome {
    size_t refused; /* blocks that were not to be had; added to */
    double longest; /* ns of the longest allocation, by a loop that looks; 0 by others */
    double slowest; /* time of the slowest thread, over the mean of all */
} outcome;

typedef struct thread thread;
typedef void phase(thread *self);

typedef struct loop {
    phase *before, *timed, *after; /* before and after may be NULL */
} loop;

struct thread {
    const loop *loop;
    heap heap;
    const work *work;
    size_t steps;
    int number;   /* of the thread */
    size_t first; /* where in the work it starts */
    pthread_barrier_t *together;
    void **blocks;
    size_t refused;
    double longest;
    double took;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void *run_thread(void *argument)
{
    thread *self = argument;
    if (self->loop->before)
        self->loop->before(self);
    pthread_barrier_wait(self->together);
    double start = now();
    self->loop->timed(self);
    self->took = now() - start;
    pthread_barrier_wait(self->together);
    if (self->loop->after)
        self->loop->after(self);
    return NULL;
}

static double run(const loop *loop, const heap *heap, const work *work, int count, size_t steps,
                  outcome *out)
{
    thread *threads = calloc((size_t)count, sizeof *threads);
    pthread_t *handles = calloc((size_t)count, sizeof *handles);
    pthread_barrier_t together;
    double took = 0, most = 0;
    out->longest = 0;
    pthread_barrier_init(&together, NULL, (unsigned)count);
    for (int i = 0; i < count; i++)
        threads[i] = (thread){.loop = loop,
                              .heap = *heap,
                              .work = work,
                              .steps = steps,
                              .number = i,
                              .first = work->length / (size_t)count * (size_t)i,
                              .together = &together};
    for (int i = 1; i < count; i++)
        if (pthread_create(&handles[i], NULL, run_thread, &threads[i]) != 0)
            abort();
    run_thread(&threads[0]);
    for (int i = 1; i < count; i++)
        pthread_join(handles[i], NULL);
    for (int i = 0; i < count; i++) {
        took += threads[i].took / count;
        most = threads[i].took > most ? threads[i].took : most;
        out->refused += threads[i].refused;
        out->longest = threads[i].longest > out->longest ? threads[i].longest : out->longest;
    }
    out->slowest = most / took;
    pthread_barrier_destroy(&together);
    free(handles);
    free(threads);
    return took;
}

static inline void *take(thread *self, size_t n)
{
    char *start = self->heap.malloc(n);
    if (start)
        *(volatile char *)start = 1;
    else
        self->refused++;
    return start;
}

/* ---- hits: a block is taken and given back at once ---- */

__attribute__((noinline)) static void hit(thread *self)
{
    const work *work = self->work;
    size_t at = self->first;
    for (size_t i = 0; i < self->steps; i++) {
        self->heap.free(take(self, work->sizes[at]));
        at = at + 1 < work->length ? at + 1 : 0;
    }
}

double loop_hits(const heap *heap, const work *work, int threads, size_t steps, outcome *out)
{
    static const loop hits = {NULL, hit, NULL};
    return run(&hits, heap, work, threads, steps, out);
}

/* The same for callgrind, which is told to count what `hit` executes. */
size_t counted_hits(const heap *heap, const work *work, size_t steps)
{
    thread self = {.heap = *heap, .work = work, .steps = steps};
    hit(&self);
    return self.refused;
}

/* ---- replacement: one of many live blocks, at random, makes room for a new one ---- */

static void make_places(thread *self)
{
    self->blocks = calloc(self->work->live, sizeof *self->blocks);
}

static void take_all(thread *self)
{
    const work *work = self->work;
    for (size_t i = 0; i < work->live; i++)
        self->blocks[i] = take(self, work->sizes[(self->first + i) % work->length]);
}

static void fill(thread *self)
{
    make_places(self);
    take_all(self);
}

/* `watched`, by a clock that takes longer than an allocation: the longest of them. */
static inline void replace_each(thread *self, int watched)
{
    const work *work = self->work;
    size_t at = self->first;
    for (size_t i = 0; i < self->steps; i++) {
        void **slot = &self->blocks[work->slots[at]];
        self->heap.free(*slot);
        double start = watched ? now() : 0;
        *slot = take(self, work->sizes[at]);
        if (watched) {
            double took = now() - start;
            self->longest = took > self->longest ? took : self->longest;
        }
        at = at + 1 < work->length ? at + 1 : 0;
    }
}

static void replace(thread *self)
{
    replace_each(self, 0);
}

static void replace_watched(thread *self)
{
    replace_each(self, 1);
}

static void give_all(thread *self)
{
    for (size_t i = 0; i < self->work->live; i++)
        self->heap.free(self->blocks[i]);
}

static void drop_places(thread *self)
{
    free(self->blocks);
}

static void empty(thread *self)
{
    give_all(self);
    drop_places(self);
}

double loop_replacement(const heap *heap, const work *work, int threads, size_t steps, outcome *out)
{
    static const loop replacement = {fill, replace, empty};
    return run(&replacement, heap, work, threads, steps, out);
}

double loop_waits(const heap *heap, const work *work, int threads, size_t steps, outcome *out)
{
    static const loop waits = {fill, replace_watched, empty};
    return run(&waits, heap, work, threads, steps, out);
}

/* ---- short lives: a step is a thread that starts, takes blocks, gives them back and ends ---- */

static void *live_shortly(void *argument)
{
    take_all(argument);
    give_all(argument);
    return NULL;
}

static void start_and_join(thread *self)
{
    for (size_t i = 0; i < self->steps; i++) {
        pthread_t handle;
        if (pthread_create(&handle, NULL, live_shortly, self) != 0)
            abort();
        pthread_join(handle, NULL);
        self->first = (self->first + self->work->live) % self->work->length;
    }
}

double loop_short_lives(const heap *heap, const work *work, int threads, size_t steps, outcome *out)
{
    static const loop short_lives = {make_places, start_and_join, drop_places};
    return run(&short_lives, heap, work, threads, steps, out);
}

/* ---- growth: nothing is given back ---- */

static void make_room(thread *self)
{
    self->blocks = malloc(self->steps * sizeof *self->blocks);
    for (size_t i = 0; i < self->steps; i++)
        self->blocks[i] = NULL; /* touches the pages */
}

static void grow(thread *self)
{
    const work *work = self->work;
    size_t at = self->first;
    for (size_t i = 0; i < self->steps; i++) {
        self->blocks[i] = take(self, work->sizes[at]);
        at = at + 1 < work->length ? at + 1 : 0;
    }
}

static void shrink(thread *self)
{
    for (size_t i = 0; i < self->steps; i++)
        self->heap.free(self->blocks[i]);
    free(self->blocks);
}

double loop_growth(const heap *heap, const work *work, int threads, size_t steps, outcome *out)
{
    static const loop growth = {make_room, grow, shrink};
    return run(&growth, heap, work, threads, steps, out);
}

/* ---- resizing: a step makes a block as long as all sizes in turn, and writes what is new ---- */

static void lengthen(thread *self)
{
    const work *work = self->work;
    for (size_t i = 0; i < self->steps; i++) {
        size_t held = 0;
        char *start = NULL;
        for (size_t at = 0; at < work->length; at++) {
            size_t n = work->sizes[at];
            char *longer = start ? self->heap.realloc(start, n) : self->heap.malloc(n);
            if (!longer) {
                self->refused++;
                break;
            }
            memset(longer + held, 1, n - held);
            start = longer;
            held = n;
        }
        self->heap.free(start);
    }
}

double loop_resizing(const heap *heap, const work *work, int threads, size_t steps, outcome *out)
{
    static const loop resizing = {NULL, lengthen, NULL};
    return run(&resizing, heap, work, threads, steps, out);
}

/* ---- hand-over: one thread of each pair takes blocks, the other gives them back ---- */

enum { RING = 4096, BATCH = 64, SPINS = 1000 };

typedef struct ring {
    void *blocks[RING];
    _Alignas(64) atomic_size_t made;  /* blocks put in, told in batches */
    _Alignas(64) atomic_size_t freed; /* and taken out */
} ring;

static ring *rings; /* one a pair */

static void wait_for(atomic_size_t *counter, size_t least)
{
    for (int spins = 0; atomic_load_explicit(counter, memory_order_acquire) < least; spins++)
        if (spins > SPINS)
            sched_yield();
}

static void produce(thread *self, ring *ring)
{
    const work *work = self->work;
    size_t at = self->first;
    for (size_t i = 0; i < self->steps; i++) {
        if (i % BATCH == 0 && i >= RING)
            wait_for(&ring->freed, i - RING + BATCH);
        ring->blocks[i % RING] = take(self, work->sizes[at]);
        at = at + 1 < work->length ? at + 1 : 0;
        if ((i + 1) % BATCH == 0 || i + 1 == self->steps)
            atomic_store_explicit(&ring->made, i + 1, memory_order_release);
    }
    wait_for(&ring->freed, self->steps);
}

static void consume(thread *self, ring *ring)
{
    for (size_t i = 0; i < self->steps; i++) {
        if (i % BATCH == 0)
            wait_for(&ring->made, i + BATCH < self->steps ? i + BATCH : self->steps);
        self->heap.free(ring->blocks[i % RING]);
        if ((i + 1) % BATCH == 0 || i + 1 == self->steps)
            atomic_store_explicit(&ring->freed, i + 1, memory_order_release);
    }
}

static void produce_or_consume(thread *self)
{
    if (self->number % 2 == 0)
        produce(self, &rings[self->number / 2]);
    else
        consume(self, &rings[self->number / 2]);
}

/* `threads` is even. */
double loop_hand_over(const heap *heap, const work *work, int threads, size_t steps, outcome *out)
{
    static const loop hand_over = {NULL, produce_or_consume, NULL};
    size_t bytes = (size_t)threads / 2 * sizeof *rings;
    rings = memset(aligned_alloc(_Alignof(ring), bytes), 0, bytes);
    double took = run(&hand_over, heap, work, threads, steps, out);
    free(rings);
    return took;
}

/* ---- not timed: leaves `count` blocks in an allocator's cache, in no order ---- */

void leave_cached(const heap *heap, const work *work, size_t count)
{
    enum { PRIME = 7919 };
    void **blocks = malloc(count * sizeof *blocks);
    for (size_t i = 0; i < count; i++)
        blocks[i] = heap->malloc(work->sizes[i % work->length]);
    for (size_t i = 0, at = 0; i < count; i++) {
        at = (at + PRIME) % count; /* visits each, since no count is a multiple of it */
        heap->free(blocks[at]);
    }
    free(blocks);
}

/* ---- no allocator: what a loop itself takes ---- */

static _Thread_local char one_block[64] __attribute__((tls_model("initial-exec")));

void *nothing_malloc(size_t n)
{
    (void)n;
    return one_block;
}

void nothing_free(void *start)
{
    (void)start;
}
