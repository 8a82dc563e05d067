/* Memory that can be closed, and a fault handler that says why a touch was wrong. */
#include "ranges.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rules.h"

#define UNMAPPED 1024 /* ranges kept out of reach after their end */
#define RUBBISH 0xA5

struct fake_range {
    struct fake_range *next, *previous;
    char *outer, *start; /* outer: with the guards */
    size_t outer_size, size, length;
    const char *what;
    const char *closed; /* why, when it is */
    bool mapped, emptied;
};

static fake_range mapped = {.next = &mapped, .previous = &mapped};
static fake_range unmapped = {.next = &unmapped, .previous = &unmapped};
static long unmapped_count;
static struct sigaction otherwise;

static void append(fake_range *list, fake_range *range)
{
    range->previous = list->previous;
    range->next = list;
    list->previous = range->previous->next = range;
}

static void take_out(fake_range *range)
{
    range->previous->next = range->next;
    range->next->previous = range->previous;
}

/* Runs in a signal handler of a program that is about to end, so it looks without the lock. */
static const fake_range *range_at(const fake_range *list, const char *address)
{
    for (const fake_range *range = list->next; range != list; range = range->next)
        if (address >= range->outer && address < range->outer + range->outer_size)
            return range;
    return NULL;
}

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        abort();
}

static void faulted(int number, siginfo_t *info, void *context)
{
    (void)context;
    const char *address = info->si_addr;
    const fake_range *range = NULL;
    if (info->si_code > 0 && !(range = range_at(&mapped, address)))
        range = range_at(&unmapped, address);
    if (!range) {
        sigaction(SIGSEGV, &otherwise, NULL);
        if (info->si_code <= 0)
            raise(number);
        return; /* and fault again */
    }
    say("fake_metal: ");
    say(range->what);
    if (!range->mapped)
        say(" were touched after they were released\n");
    else if (address < range->start)
        say(" were touched before their start\n");
    else if (address >= range->start + range->size)
        say(" were touched past their end\n");
    else if (range->closed) {
        say(" were touched while ");
        say(range->closed);
        say("\n");
    } else
        say(" were touched in a forked child, which does not have them\n");
    abort();
}

static void watch_faults(void)
{
    static bool watching;
    struct sigaction action = {.sa_sigaction = faulted, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (!watching)
        sigaction(SIGSEGV, &action, &otherwise);
    watching = true;
}

static size_t round_up(size_t size, size_t to)
{
    return (size + to - 1) / to * to;
}

fake_range *fake_range_map(size_t length, size_t page, const char *what)
{
    size_t machines_page = (size_t)sysconf(_SC_PAGESIZE);
    fake_range *range = calloc(1, sizeof *range);
    if (!range)
        return NULL;
    range->what = what;
    range->length = length;
    range->size = round_up(length, machines_page);
    range->outer_size = round_up(length, page) + 2 * page;
    range->outer = mmap(NULL, range->outer_size, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range->outer == MAP_FAILED) {
        free(range);
        return NULL;
    }
    range->start = (char *)round_up((size_t)range->outer + machines_page, page);
    if (mprotect(range->start, range->size, PROT_READ | PROT_WRITE) != 0) {
        munmap(range->outer, range->outer_size);
        free(range);
        return NULL;
    }
    if (!fake_settings.fork_keeps_memory)
        madvise(range->start, range->size, MADV_DONTFORK);
    range->mapped = true;
    fake_lock();
    watch_faults();
    append(&mapped, range);
    fake_unlock();
    return range;
}

/* Between a buffer's length and the end of its last page there is no guard, only zeros. */
static void check_tail(const fake_range *range)
{
    for (size_t i = range->length; i < range->size; i++)
        if (range->start[i])
            fake_break("%s were written past their length", range->what);
}

/* Under the lock. */
static void forget_oldest_unmapped(void)
{
    while (unmapped_count > UNMAPPED || unmapped_count > fake_settings.dead_kept) {
        fake_range *oldest = unmapped.next;
        take_out(oldest);
        unmapped_count--;
        munmap(oldest->outer, oldest->outer_size);
        free(oldest);
    }
}

void fake_range_unmap(fake_range *range)
{
    if (!range)
        return;
    if (!range->closed)
        check_tail(range);
    if (mmap(range->outer, range->outer_size, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
        mprotect(range->start, range->size, PROT_NONE);
        madvise(range->start, range->size, MADV_DONTNEED);
    }
    fake_lock();
    take_out(range);
    range->mapped = false;
    append(&unmapped, range);
    unmapped_count++;
    forget_oldest_unmapped();
    fake_unlock();
}

char *fake_range_start(const fake_range *range)
{
    return range->start;
}

void fake_range_close(fake_range *range, const char *because)
{
    range->closed = because;
    if (mprotect(range->start, range->size, PROT_NONE) != 0)
        fake_break("the stand-in itself could not close memory");
}

void fake_range_empty(fake_range *range)
{
    madvise(range->start, range->size, MADV_DONTNEED);
    range->emptied = true;
}

void fake_range_open(fake_range *range)
{
    if (mprotect(range->start, range->size, PROT_READ | PROT_WRITE) != 0)
        fake_break("the stand-in itself could not open memory");
    range->closed = NULL;
    if (range->emptied)
        memset(range->start, RUBBISH, range->length);
    range->emptied = false;
}
