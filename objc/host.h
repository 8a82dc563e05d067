/* What the host device's files share: the layout behind mlim.h's opaque handles. */
#ifndef MLIM_HOST_H
#define MLIM_HOST_H

#include <stdatomic.h>
#include <stdio.h>

#include "mlim.h"

#define NO_LIMIT UINT64_MAX
#define MLIM_MOST_BETWEEN ((uint64_t)64 << 20)

/* A mount of a control group hierarchy that governs memory. Inside a container it may show a part
 * of the hierarchy only, from root on. The strings are its own. */
typedef struct mlim_cgroup_mount {
    bool unified; /* version 2 */
    char *root;
    char *path;
    char *found; /* below the path: this process's group of the start, where /proc told of none */
} mlim_cgroup_mount;

enum mlim_unread_state { UNREAD_NONE, UNREAD_WRITING, UNREAD_NOTED, UNREAD_TOLD };

struct mlim_device {
    mlim_device_facts facts;
    mlim_capacities capacities;
    uint64_t batches; /* bytes by which the kernel's counts of a group may be off: some a CPU */
    size_t mounts_count;
    mlim_cgroup_mount *mounts;
    struct {
        atomic_int state;
        mlim_error error;
    } unread;           /* the first thing that could not be read */
    bool no_huge_pages; /* read and written atomically */
    mlim_cuda *cuda;    /* what joins a residency set is registered there; not owned */
};

/* The gate of a buffer's pages. The driver of a GPU goes on copying the pages that it was shown,
 * whatever becomes of the addresses: after a munmap, an mremap or an madvise that drops pages, it
 * would silently copy what is not there any more. So who does one of these closes the gate first,
 * and finds it shut while the buffer is registered; who registers waits while pages are dropped. */
enum mlim_gate { MLIM_OPEN, MLIM_DROPPING, MLIM_REGISTERED };

enum mlim_membership { MLIM_OUTSIDE, MLIM_JOINING, MLIM_INSIDE, MLIM_LEAVING };

struct mlim_buffer {
    void *base;
    size_t length;
    mlim_residency *set; /* the set it belongs to, joins or leaves; else NULL */
    enum mlim_membership membership;
    atomic_int gate;
    mlim_buffer *previous, *next; /* in the set */
};

/* Registers a buffer: it keeps its pages and its place until it is unregistered. */
bool mlim_buffer_register(mlim_buffer *buffer, mlim_cuda *cuda);
/* No driver: a forked child's own copy, which was never registered. */
void mlim_buffer_unregister(mlim_buffer *buffer, mlim_cuda *cuda);
/* Calls of the driver: false where it refuses. Taking back what is not registered (any more) is
 * not refused. */
bool mlim_cuda_register(mlim_cuda *cuda, void *start, size_t length);
bool mlim_cuda_unregister(mlim_cuda *cuda, void *start);

/* Writes what failed, and why by errno's number, to a nullable error. Returns the status. */
mlim_status mlim_fail(mlim_error *error, mlim_status status, int code, const char *what);

/* Text read from a file; its memory serves one file after another. */
typedef struct mlim_text {
    char *bytes;
    size_t capacity;
} mlim_text;

/* Reads a file of /proc or of a control group, however long. One that is not there is empty; so is
 * one that cannot be read, which is noted for mlim_device_unread where there is a device. False,
 * with errno, where it cannot be read for now only: for want of a file descriptor, or of memory. */
bool mlim_read_text(mlim_device *device, const char *path, mlim_text *text);
void mlim_text_free(mlim_text *text);
void mlim_note_unread(mlim_device *device, const char *path, int code);

/* The next line, as much of it as there is room for; the rest is skipped. */
bool mlim_next_line(FILE *file, char *line, int size);

/* One reading of the system: functions that take it are false, with errno, as mlim_read_text is,
 * and leave another file's text in it. */
typedef struct mlim_reader {
    mlim_device *device;
    bool closely; /* at what other processes have, too: that takes a millisecond each, and more */
    mlim_text text;
} mlim_reader;

/* The number that a text begins with, after blanks; `out` stays where it begins with none. */
void mlim_digits(const char *text, uint64_t *out);

/* Writes three texts after each other. False where there is not room for all. */
bool mlim_concat(char *out, size_t size, const char *first, const char *second, const char *third);

/* The number behind the line that starts with key ("MemTotal:", "total_dirty "); 0 without one. */
uint64_t mlim_number(const char *text, const char *key);

/* Whether a comma-separated list holds a word. */
bool mlim_lists(const char *list, const char *word);

/* Where a path continues below a root: "/a/b" below "/a" is "/b". NULL where it is not below. */
const char *mlim_path_below(const char *path, const char *root);

/* The machine: bytes. */
typedef struct mlim_machine {
    uint64_t memory, available, swap, swap_free, assured;
} mlim_machine;

bool mlim_machine_read(mlim_reader *reader, mlim_machine *out);
/* As the kernel itself has it, whatever is mounted over /proc; without the page cache. */
void mlim_machine_ask(mlim_machine *out);

/* This process: bytes mapped, those that RLIMIT_DATA is on, and the resident bytes that it shares
 * with nobody. */
typedef struct mlim_mapped {
    bool known;
    uint64_t all, data;
} mlim_mapped;

bool mlim_process_mapped(mlim_reader *reader, mlim_mapped *out);
/* As far as the kernel itself has it: its peak stands for what is resident. */
void mlim_process_ask(mlim_process *out);
bool mlim_process_private(mlim_reader *reader, uint64_t *out);

/* Finds the mounts of control groups once: they stay, while processes move between groups. False
 * without memory. */
bool mlim_mounts_open(mlim_device *device);
void mlim_mounts_close(mlim_device *device);

/* Bounds as mlim_device_bounds writes them. */
typedef struct mlim_bound_list {
    mlim_bound *bounds;
    size_t capacity, count;
} mlim_bound_list;

void mlim_bound_add(mlim_bound_list *list, mlim_bound_kind kind, const char *name, uint64_t room);

/* One memory control group: a directory. */
typedef struct mlim_group {
    bool unified;
    bool topmost; /* nothing above it can be seen */
    char path[4096];
} mlim_group;

/* What the group lets its members take at most, NO_LIMIT for no limit; and how much more, within
 * such a limit: RAM, and of the free swap what it allows. */
bool mlim_group_limit(mlim_reader *reader, const mlim_group *group, uint64_t *out);
bool mlim_group_room(mlim_reader *reader, const mlim_group *group, uint64_t limit,
                     uint64_t swap_free, uint64_t *out);
/* How long its members wait for memory, in percent; less than 0 where it does not tell. */
bool mlim_group_stall(mlim_reader *reader, const mlim_group *group, double *out);

/* Looks for this process's group in the directories so many levels below a path, or `own` below
 * such a one, and makes it the path; where none lists this process, the only one that is there. And
 * anywhere below a path: false where it is not found in a bounded number of them. */
void mlim_member_below(mlim_reader *reader, mlim_group *group, int levels, const char *own);
bool mlim_member_anywhere(mlim_reader *reader, mlim_group *group);

/* Other processes in the group or in one within, and what they may have been promised and not
 * touched: at most, of all of them; or, closely, of those that use this library. */
typedef struct mlim_peers {
    uint64_t count, untouched;
} mlim_peers;

bool mlim_peers_read(mlim_reader *reader, const mlim_group *group, mlim_peers *out);
/* One more of them, by its pid. */
void mlim_peers_add(mlim_reader *reader, long pid, mlim_peers *peers);

/* Other processes of this user that use this library, wherever on the machine. From the first look
 * at them on they see this one. The last is as mlim_device_claim, of them. */
void mlim_running_read(mlim_reader *reader, mlim_peers *out);
int mlim_running_claim(void);

/* Visits this process's groups in both hierarchies, the nearest first. */
typedef bool (*mlim_visit)(mlim_reader *reader, const mlim_group *group, void *data);
bool mlim_cgroups_visit(mlim_reader *reader, mlim_visit visit, void *data);

/* The least limit, and the least room, over this process's memory group and every ancestor of it;
 * NO_LIMIT where none sets any. Each group that sets a limit, the nearest first, goes to the list,
 * which may be NULL. What is left of the room with what other processes may have been promised, how
 * many share a group at most, and what each of them may take between two looks at it. The longest
 * stall of any, less than 0 where none tells. */
typedef struct mlim_cgroups {
    uint64_t limit, room, assured, sharers, between;
} mlim_cgroups;

extern const mlim_cgroups mlim_no_cgroups;

bool mlim_cgroups_read(mlim_reader *reader, uint64_t swap_free, mlim_cgroups *out,
                       mlim_bound_list *list);
/* What is left of room within a limit that is shared with others; and a bound of that kind, which
 * the sharers of the groups, and what each may take, have to heed. */
uint64_t mlim_assured(uint64_t limit, uint64_t room, const mlim_peers *peers);
void mlim_cgroups_share(mlim_cgroups *cgroups, uint64_t limit, uint64_t assured,
                        const mlim_peers *peers);
bool mlim_cgroups_stall(mlim_reader *reader, double *out);

/* What "some avg10=" says in a file of pressure; less than 0 where it says nothing. */
double mlim_stall(const char *text);

static inline uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t saturating_sub(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static inline uint64_t saturating_add(uint64_t a, uint64_t b)
{
    return a > NO_LIMIT - b ? NO_LIMIT : a + b;
}

#endif
