/* A page of this process that others can read. What its words mean is said above
 * (memlimits/_ledger/told.pxd).
 *
 * Reading it takes no help of the process, which may compute, hang or be stopped. On Linux it is
 * the file /dev/shm/memlimits-USER/running/PID@SPACE, of mlim_page's length, whose name and first
 * words say whose it is; it is removed when the process ends, or else by whoever finds that it did.
 * A forked child has one of its own once it first asks for memory.
 */
#ifndef MLIM_PAGE_H
#define MLIM_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#define MLIM_PAGE_MAGIC "memlims"
#define MLIM_PAGE_VERSION 1
#define MLIM_PAGE_WORDS 64

typedef struct mlim_page {
    char magic[8];
    uint64_t version;
    uint64_t pid, started, space;    /* as in mlim_identity */
    uint64_t began;                  /* ns since 1970 */
    uint64_t words[MLIM_PAGE_WORDS]; /* zeros until something is written there */
} mlim_page;

/* This process's, NULL where there is none (yet). It stays for good; after a fork the child is to
 * forget it before it writes anything. */
mlim_page *mlim_page_of_self(void);
void mlim_page_forget(void);

#endif
