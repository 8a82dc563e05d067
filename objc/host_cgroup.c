/* The memory control groups that this process is in, versions 1 and 2. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

const char *mlim_path_below(const char *path, const char *root)
{
    size_t length = strlen(root);
    if (length == 1)
        length = 0; /* "/" */
    bool below = strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
    return below && strncmp(path + length, "/..", 3) != 0 ? path + length : NULL;
}

/* The paths of this process in a hierarchy of version 1 that governs memory, and in that of version
 * 2, as /proc/self/cgroup names them: empty where there is none, the top where nothing tells. */
struct own {
    char path[2][4096];
};

static bool read_own(mlim_reader *reader, struct own *own)
{
    char *save = NULL;
    if (!mlim_read_text(reader->device, "/proc/self/cgroup", &reader->text))
        return false;
    bool told = *reader->text.bytes;
    for (int unified = 0; unified < 2; unified++)
        snprintf(own->path[unified], sizeof own->path[unified], "%s", told ? "" : "/");
    for (char *line = strtok_r(reader->text.bytes, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *name = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!name)
            continue;
        *name++ = 0;
        controllers++;
        bool unified = *controllers == 0;
        if (unified || mlim_lists(controllers, "memory"))
            snprintf(own->path[unified], sizeof own->path[unified], "%s", name);
    }
    return true;
}

/* Whether this process is a member of the group in a directory. */
static bool is_member(mlim_reader *reader, const char *path)
{
    char file[4096 + 16], *save = NULL;
    snprintf(file, sizeof file, "%s/cgroup.procs", path);
    if (!mlim_read_text(reader->device, file, &reader->text))
        return false;
    for (char *line = strtok_r(reader->text.bytes, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save))
        if (strtol(line, NULL, 10) == getpid())
            return true;
    return false;
}

/* Looks for this process's group so many levels below a path, and makes it the path. */
static bool find_member(mlim_reader *reader, char *path, size_t size, int levels)
{
    if (levels == 0)
        return is_member(reader, path);
    size_t length = strlen(path);
    bool found = false;
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory && !found && (entry = readdir(directory))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.' ||
            length + strlen(entry->d_name) + 2 > size)
            continue;
        snprintf(path + length, size - length, "/%s", entry->d_name);
        found = find_member(reader, path, size, levels - 1);
    }
    if (directory)
        closedir(directory);
    if (!found)
        path[length] = 0;
    return found;
}

/* How many levels above the top of this process's group namespace a mount begins. */
static int levels_above(const char *root)
{
    int levels = 0;
    for (; strncmp(root, "/..", 3) == 0; root += 3)
        levels++;
    return *root ? 0 : levels;
}

/* Finds this process's group in a hierarchy, and the mount that shows it with most of what is above.
 * Where no mount shows it, the top of one is the nearest group that can be seen. */
static const mlim_cgroup_mount *locate(mlim_reader *reader, bool unified, const char *own,
                                       mlim_group *group)
{
    const mlim_device *device = reader->device;
    const mlim_cgroup_mount *nearest = NULL;
    const char *below = NULL;
    for (size_t i = 0; i < device->mounts_count; i++) {
        const mlim_cgroup_mount *mount = &device->mounts[i];
        const char *at = mlim_path_below(own, mount->root);
        if (mount->unified == unified &&
            (!below || (at && strlen(mount->root) < strlen(nearest->root)))) {
            nearest = mount;
            below = at;
        }
    }
    if (!nearest)
        return NULL;
    group->unified = unified;
    int written = snprintf(group->path, sizeof group->path, "%s%s", nearest->path,
                           below ? below : "");
    if (written >= (int)sizeof group->path)
        return NULL; /* too long for any file in it to be opened */
    for (size_t end = strlen(group->path); end > 1 && group->path[end - 1] == '/';)
        group->path[--end] = 0;
    int levels = below ? 0 : levels_above(nearest->root);
    if (levels)
        find_member(reader, group->path, sizeof group->path, levels);
    return nearest;
}

bool mlim_cgroups_visit(mlim_reader *reader, mlim_visit visit, void *data)
{
    struct own own;
    mlim_group group;
    if (!read_own(reader, &own))
        return false;
    for (int unified = 0; unified < 2; unified++) {
        const char *path = own.path[unified];
        const mlim_cgroup_mount *mount = *path ? locate(reader, unified, path, &group) : NULL;
        while (mount) {
            char *slash = strrchr(group.path, '/');
            group.topmost = !slash || (size_t)(slash - group.path) < strlen(mount->path);
            if (!visit(reader, &group, data))
                return false;
            if (group.topmost)
                break;
            *slash = 0;
        }
    }
    return true;
}

const mlim_cgroups mlim_no_cgroups = {NO_LIMIT, NO_LIMIT, NO_LIMIT, 1, MLIM_MOST_BETWEEN};

struct totals {
    uint64_t swap_free;
    mlim_cgroups *cgroups;
    mlim_bound_list *list;
};

static bool add_group(mlim_reader *reader, const mlim_group *group, void *data)
{
    struct totals *totals = data;
    mlim_cgroups *cgroups = totals->cgroups;
    mlim_peers peers;
    uint64_t limit, room;
    if (!mlim_group_limit(reader, group, &limit))
        return false;
    if (limit == NO_LIMIT)
        return true;
    /* What is touched between the two is counted twice, and not left out. */
    if (!mlim_peers_read(reader, group, &peers) ||
        !mlim_group_room(reader, group, limit, totals->swap_free, &room))
        return false;
    uint64_t between = least(limit / 64 / (peers.count + 1), MLIM_MOST_BETWEEN);
    cgroups->limit = least(cgroups->limit, limit);
    cgroups->room = least(cgroups->room, room);
    uint64_t assured = minus(room, plus(peers.untouched, peers.count * between));
    cgroups->assured = least(cgroups->assured, assured);
    if (peers.count) {
        cgroups->sharers = peers.count + 1 > cgroups->sharers ? peers.count + 1 : cgroups->sharers;
        cgroups->between = least(cgroups->between, between);
    }
    if (totals->list)
        mlim_bound_add(totals->list, MLIM_CGROUP, group->path, assured);
    return true;
}

bool mlim_cgroups_read(mlim_reader *reader, uint64_t swap_free, mlim_cgroups *out,
                       mlim_bound_list *list)
{
    struct totals totals = {swap_free, out, list};
    *out = mlim_no_cgroups;
    return mlim_cgroups_visit(reader, add_group, &totals);
}

static bool add_stall(mlim_reader *reader, const mlim_group *group, void *data)
{
    double stall, *longest = data;
    if (!mlim_group_stall(reader, group, &stall))
        return false;
    if (stall > *longest)
        *longest = stall;
    return true;
}

bool mlim_cgroups_stall(mlim_reader *reader, double *out)
{
    *out = -1;
    return mlim_cgroups_visit(reader, add_stall, out);
}
