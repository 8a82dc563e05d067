/* Forks of a process whose malloc a core serves.
 *
 * A library's handler may wait for a lock of its own, whose holder waits for malloc: the core's
 * locks are to be taken after all handlers have run, as the C library takes its malloc's, and given
 * back before any runs again. So these come before those of others: the library is initialised
 * before all others (setup.py). */
#include <pthread.h>
#include <stddef.h>

#include "interpose.h"

/* Of the thread that forks: what holds its locks for that. A core may take part meanwhile. */
static __thread const memlimits_interposed *held __attribute__((tls_model("initial-exec")));

static void prepare(void)
{
    held = memlimits_core();
    if (held)
        held->before_fork();
    memlimits_lock_maps();
}

static void resume(int child)
{
    memlimits_unlock_maps();
    if (held)
        held->after_fork(child);
}

static void resume_parent(void)
{
    resume(0);
}

static void resume_child(void)
{
    resume(1);
}

__attribute__((constructor)) static void follow_forks(void)
{
    pthread_atfork(prepare, resume_parent, resume_child);
}
