/* What every part of the stand-in needs. */
#include "rules.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static _Atomic bool made, forked;

void fake_break(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "fake_metal: %s\n", text);
    abort();
}

void fake_lock(void)
{
    pthread_mutex_lock(&lock);
}

void fake_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

static void after_fork(void)
{
    /* Held across the fork, so nothing is half done; but not by this process's thread. */
    static const pthread_mutex_t fresh = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    lock = fresh;
    if (made)
        forked = true;
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(fake_lock, fake_unlock, after_fork);
}

void fake_made_object(void)
{
    if (!made)
        made = true;
}

bool fake_is_forked(void)
{
    return forked;
}

void fake_not_forked(const char *what)
{
    if (forked)
        fake_break("%s in a forked child: Metal and Foundation objects do not survive fork", what);
}

void fake_gauge_raise(_Atomic int64_t *gauge, _Atomic int64_t *peak, int64_t by)
{
    *gauge += by;
    int64_t value = *gauge;
    if (value < 0)
        fake_break("the stand-in's own count fell below 0");
    if (value > *peak)
        *peak = value;
}
