/* What an allocator has in RAM, all that it gave out written.
 *
 * Bytes are those of the process: whoever asks subtracts what it had before, and has it have few of
 * its own that come and go.
 */
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct heap {
    void *(*malloc)(size_t n);
    void (*free)(void *start);
} heap;

/* Not the pages of files: which of those are there is no allocator's doing. */
uint64_t resident(void)
{
    unsigned long long all, pages = 0, shared = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%llu %llu %llu", &all, &pages, &shared) != 3)
        abort();
    fclose(file);
    return (pages - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void *written(const heap *heap, size_t n)
{
    void *start = heap->malloc(n);
    if (!start)
        abort();
    return memset(start, 1, n);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* From low to high, each power of two as often as the next. */
static size_t random_size(uint64_t *state, double low, double high)
{
    double part = (double)(next_random(state) >> 11) / (double)(1ull << 53);
    return (size_t)(exp2(log2(low) + part * (log2(high) - log2(low))) + 0.5);
}

/* ---- threads that hold some blocks, all at once, and end ---- */

typedef struct threads {
    heap heap;
    size_t blocks, low, high;
    pthread_barrier_t hold, end;
} threads;

typedef struct member {
    threads *all;
    uint64_t random;
} member;

static void *hold(void *argument)
{
    member *self = argument;
    threads *all = self->all;
    void *blocks[all->blocks + 1]; /* on the stack: malloc is one of those that are looked at */
    for (size_t i = 0; i < all->blocks; i++)
        blocks[i] = written(&all->heap, random_size(&self->random, all->low, all->high));
    pthread_barrier_wait(&all->hold);
    pthread_barrier_wait(&all->end);
    for (size_t i = 0; i < all->blocks; i++)
        all->heap.free(blocks[i]);
    return NULL;
}

typedef struct bytes {
    uint64_t resident, malloc; /* in RAM; and in use of the C library's malloc, but what it maps */
} bytes;

static bytes look(void)
{
    return (bytes){resident(), mallinfo2().uordblks};
}

/* Writes what there was before, while all hold their blocks, and after all have ended. */
void hold_and_end(const heap *heap, size_t count, size_t blocks, size_t low, size_t high, bytes *at)
{
    threads all = {.heap = *heap, .blocks = blocks, .low = low, .high = high};
    pthread_t *handles = calloc(count, sizeof *handles);
    member *members = calloc(count, sizeof *members);
    pthread_barrier_init(&all.hold, NULL, (unsigned)count + 1);
    pthread_barrier_init(&all.end, NULL, (unsigned)count + 1);
    at[0] = look();
    for (size_t i = 0; i < count; i++) {
        members[i] = (member){&all, 88172645463325252u + i * 7919};
        if (pthread_create(&handles[i], NULL, hold, &members[i]) != 0)
            abort();
    }
    pthread_barrier_wait(&all.hold);
    at[1] = look();
    pthread_barrier_wait(&all.end);
    for (size_t i = 0; i < count; i++)
        pthread_join(handles[i], NULL);
    at[2] = look();
    pthread_barrier_destroy(&all.hold);
    pthread_barrier_destroy(&all.end);
    free(members);
    free(handles);
}

/* ---- blocks of random sizes, replaced in no order ---- */

enum { PLACES = 1 << 23 };

static struct {
    void **blocks;
    uint32_t *sizes;
    size_t count;
    uint64_t bytes, random;
} live;

/* Has the places for blocks in RAM, before anybody looks. */
void churn_start(void)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    live.blocks = mmap(NULL, PLACES * sizeof *live.blocks, PROT_READ | PROT_WRITE, flags, -1, 0);
    live.sizes = mmap(NULL, PLACES * sizeof *live.sizes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (live.blocks == MAP_FAILED || live.sizes == MAP_FAILED)
        abort();
    live.random = 88172645463325252u;
}

static void free_one(const heap *heap)
{
    size_t at = next_random(&live.random) % live.count--;
    live.bytes -= live.sizes[at];
    heap->free(live.blocks[at]);
    live.blocks[at] = live.blocks[live.count];
    live.sizes[at] = live.sizes[live.count];
}

/* Takes so many bytes in all, of blocks of `low` to `high`, and gives others back so that at most
 * `most` are live. */
void churn(const heap *heap, double low, double high, uint64_t most, uint64_t bytes)
{
    while (live.bytes > most)
        free_one(heap);
    for (uint64_t taken = 0; taken < bytes;) {
        size_t n = random_size(&live.random, low, high);
        while (live.count > 0 && (live.bytes + n > most || live.count == PLACES))
            free_one(heap);
        live.blocks[live.count] = written(heap, n);
        live.sizes[live.count++] = (uint32_t)n;
        live.bytes += n;
        taken += n;
    }
}

uint64_t churn_live(void)
{
    return live.bytes;
}
