/* What the library that stands in for malloc, and the core that serves it, know of each other.
 *
 * interpose.c is a library of its own, which the loader puts before all others (LD_PRELOAD). Until
 * a core takes part it hands everything on to the C library; from then on what is asked for comes
 * from the core, and what comes back goes to whoever it is of. That is never undone: blocks of
 * either live as long as the process. */
#ifndef MEMLIMITS_INTERPOSE_H
#define MEMLIMITS_INTERPOSE_H

#include <stddef.h>

enum { MEMLIMITS_INTERPOSE_VERSION = 3 };

/* The core's functions: those of <stdlib.h>, of which the last three are for its own blocks; its
 * `free` hands others' on. `give_back` frees one, too, whose memory goes to the system and to
 * nobody here. Around a fork the core takes its locks and gives them back. */
typedef struct memlimits_interposed {
    unsigned int version;
    void *(*malloc)(size_t n);
    void *(*calloc)(size_t count, size_t n);
    void *(*aligned_alloc)(size_t alignment, size_t n);
    void (*free)(void *start);
    int (*is_own)(const void *start);
    void *(*realloc)(void *start, size_t n);
    size_t (*usable_size)(const void *start);
    void (*give_back)(void *start);
    void (*before_fork)(void);
    void (*after_fork)(int child);
} memlimits_interposed;

/* What the core calls. Between `begin` and `end`, which nest, this thread's malloc is the C
 * library's: the core says so where it holds a lock, or calls the C library or a device, which may
 * ask for memory themselves. `free` is for blocks that are not the core's. */
typedef struct memlimits_interposer {
    void (*begin)(void);
    void (*end)(void);
    void (*free)(void *start);
} memlimits_interposer;

/* Has the core serve this process from now on; `functions` stay where they are. Before that, with
 * NULL, it gives what the core is to call. False: it is another version, or a core takes part
 * already. */
typedef int (*memlimits_interpose_function)(const memlimits_interposed *functions,
                                            memlimits_interposer *out);

/* Within the library: the core, once one takes part; and the same, where it serves what this thread
 * asks for now. */
const memlimits_interposed *memlimits_core(void);
const memlimits_interposed *memlimits_taking_part(void);
/* And around a fork what guards the mappings. */
void memlimits_lock_maps(void);
void memlimits_unlock_maps(void);

/* By these names the library is found in the process. The second says whose malloc a program gets
 * that asks for it: NULL, this library's; else the path of the one that was there before, or no
 * path, where the calls come to no library. */
#define MEMLIMITS_INTERPOSE "memlimits_interpose"
#define MEMLIMITS_INTERPOSE_OTHER "memlimits_interpose_other"
typedef const char *(*memlimits_interpose_other_function)(void);

#endif
