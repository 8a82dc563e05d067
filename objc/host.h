/* What the host device's files share: the layout behind mlim.h's opaque handles. */
#ifndef MLIM_HOST_H
#define MLIM_HOST_H

#include "mlim.h"

#define NO_LIMIT UINT64_MAX

/* A mount of a control group hierarchy that governs memory. Inside a container it may show a part
 * of the hierarchy only, from root on. */
typedef struct mlim_cgroup_mount {
    bool unified; /* version 2 */
    char root[1024];
    char path[1024];
} mlim_cgroup_mount;

enum { MLIM_MOST_MOUNTS = 8 };

struct mlim_device {
    mlim_device_facts facts;
    int mounts_count;
    mlim_cgroup_mount mounts[MLIM_MOST_MOUNTS];
};

enum mlim_membership { MLIM_OUTSIDE, MLIM_JOINING, MLIM_INSIDE, MLIM_LEAVING };

struct mlim_buffer {
    void *base;
    size_t length;
    mlim_residency *set; /* the set it belongs to, joins or leaves; else NULL */
    enum mlim_membership membership;
    mlim_buffer *previous, *next; /* in the set */
};

/* Writes what failed, and why by errno's number, to a nullable error. Returns the status. */
mlim_status mlim_fail(mlim_error *error, mlim_status status, int code, const char *what);

/* Reads a small file of /proc or of a control group as text; one that is not there is empty. False,
 * with errno, where it is there and cannot be read. */
bool mlim_read_text(const char *path, char *text, size_t size);

/* The number behind the line that starts with key ("MemTotal:", "total_dirty "); 0 without one. */
uint64_t mlim_number(const char *text, const char *key);

/* Finds the mounts of control groups once: they stay, while processes move between groups. */
bool mlim_cgroups_open(mlim_device *device);

/* Bounds as mlim_device_bounds writes them. */
typedef struct mlim_bound_list {
    mlim_bound *bounds;
    size_t capacity, count;
} mlim_bound_list;

void mlim_bound_add(mlim_bound_list *list, mlim_bound_kind kind, const char *name, uint64_t room);

/* The least limit, and the least room, over this process's memory group and every ancestor of it;
 * NO_LIMIT where none sets any. The room counts free swap as far as a group allows swap. Every group
 * that sets a limit, the nearest first. The longest stall of any in percent, less than 0 where none
 * tells. False, with errno, where something could not be read. */
bool mlim_cgroups_limit(const mlim_device *device, uint64_t *out);
bool mlim_cgroups_room(const mlim_device *device, uint64_t swap_free, uint64_t *out);
bool mlim_cgroups_bounds(const mlim_device *device, uint64_t swap_free, mlim_bound_list *list);
bool mlim_cgroups_stall(const mlim_device *device, double *out);

/* What "some avg10=" says in a file of pressure; less than 0 where it says nothing. */
double mlim_stall(const char *text);

static inline uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static inline uint64_t plus(uint64_t a, uint64_t b)
{
    return a > NO_LIMIT - b ? NO_LIMIT : a + b;
}

#endif
