/* A file that several processes map, and parts of it that each of them owns. No part of a device:
 * the same over both. Mechanism only; what the words mean is said above it (_ledger/pool).
 *
 * Ownership   A part is owned by whoever has its lock, a record lock of the file, which the kernel
 *             takes back when the process ends, however it ends. A forked child has the mapping and
 *             none of the locks. What an open function hands out belongs to the caller until
 *             mlim_shared_close, which returns nothing and accepts NULL.
 * Threads     Calls on one file must not overlap, but for mlim_shared_wait and mlim_shared_wake.
 * Failure     0 is success. A call that fails has changed nothing, and writes the error if there is
 *             one. Otherwise as in mlim.h.
 */
#ifndef MLIM_SHARED_H
#define MLIM_SHARED_H

#include <sys/types.h>

#include "mlim.h"

typedef struct mlim_shared mlim_shared;

/* Which of several processes a number means, for as long as the machine runs. */
typedef struct mlim_identity {
    uint64_t pid;
    uint64_t started; /* by a clock that nobody sets; 0 where the system does not tell */
    uint64_t space;   /* pids of other spaces than one's own mean nothing */
} mlim_identity;

/* Makes a file that was not there, with `size` bytes that begin with `head`. It appears whole, or
 * not at all: MLIM_UNSUPPORTED where there is one of that name. */
mlim_status mlim_shared_create(const char *path, mode_t mode, size_t size, const void *head,
                               size_t head_size, mlim_error *error);

/* Maps a file of exactly so many bytes, which must be an ordinary one, and belong to this user or
 * to root. Not one that this process has open already (mlim_shared_is): to close one of the two
 * gives up the locks of both. */
mlim_status mlim_shared_open(const char *path, size_t size, mlim_shared **out, mlim_error *error);
void mlim_shared_close(mlim_shared *shared);
void *mlim_shared_words(const mlim_shared *shared);
uint64_t mlim_shared_owner(const mlim_shared *shared); /* the user's number */
bool mlim_shared_is(const mlim_shared *shared, const char *path);

/* Opens the file again if the program closed what it knows nothing of. False: it is gone. */
bool mlim_shared_reopen(mlim_shared *shared);

/* Takes a part, of which there are as many as fit into an off_t. False where another process has
 * it, or where no lock can be had. This process's own it always gets. */
bool mlim_shared_take(mlim_shared *shared, uint64_t part);
void mlim_shared_leave(mlim_shared *shared, uint64_t part);
/* Whether another process has it. */
bool mlim_shared_is_taken(mlim_shared *shared, uint64_t part);

void mlim_identity_of_self(mlim_identity *out);
/* Whether a process that says that it maps the file does: of use where its lock is gone, since it
 * closed all files it found. */
bool mlim_shared_is_mapped_by(mlim_shared *shared, const mlim_identity *who);

/* What this process was started with, on one line, cut to what fits. */
void mlim_shared_command(char *out, size_t size);

/* Sleeps while a word is as it was, for so many ns at most; returns early now and then. */
void mlim_shared_wait(uint32_t *word, uint32_t was, uint64_t ns);
void mlim_shared_wake(uint32_t *word);

#endif
