/* Threads of C code, each of which calls what it is told to of malloc's family. To tell them takes
 * no memory. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    MALLOC,
    CALLOC,
    REALLOC,
    REALLOCARRAY,
    FREE,
    MEMALIGN,
    ALIGNED_ALLOC,
    POSIX_MEMALIGN,
    VALLOC
};
enum { MOST = 8 };

static struct caller {
    sem_t told, done;
    int function, error;
    void *start, *result;
    size_t a, b;
} callers[MOST];

static void *call(int function, void *start, size_t a, size_t b)
{
    void *out = NULL;
    switch (function) {
    case MALLOC:
        return malloc(a);
    case CALLOC:
        return calloc(a, b);
    case REALLOC:
        return realloc(start, a);
    case REALLOCARRAY:
        return reallocarray(start, a, b);
    case MEMALIGN:
        return memalign(a, b);
    case ALIGNED_ALLOC:
        return aligned_alloc(a, b);
    case POSIX_MEMALIGN:
        errno = posix_memalign(&out, a, b);
        return out;
    case VALLOC:
        return valloc(a);
    }
    free(start);
    return NULL;
}

static void *serve(void *argument)
{
    struct caller *me = argument;
    for (;;) {
        while (sem_wait(&me->told) != 0)
            ;
        errno = 0;
        me->result = call(me->function, me->start, me->a, me->b);
        me->error = errno;
        sem_post(&me->done);
    }
    return NULL;
}

int callers_start(int number)
{
    pthread_t thread;
    struct caller *caller = &callers[number];
    sem_init(&caller->told, 0, 0);
    sem_init(&caller->done, 0, 0);
    return pthread_create(&thread, NULL, serve, caller);
}

void callers_tell(int number, int function, void *start, size_t a, size_t b)
{
    struct caller *caller = &callers[number];
    caller->function = function;
    caller->start = start;
    caller->a = a;
    caller->b = b;
    sem_post(&caller->told);
}

/* What it returned; the other is errno, which was 0. */
void *callers_result(int number, int *error)
{
    struct caller *caller = &callers[number];
    while (sem_wait(&caller->done) != 0)
        ;
    *error = caller->error;
    return caller->result;
}
