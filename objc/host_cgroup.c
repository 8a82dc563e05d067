/* The memory control groups that this process is in, versions 1 and 2. */
#include <string.h>

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
    bool told;
    char path[2][4096];
};

static bool read_own(mlim_reader *reader, struct own *own)
{
    char *save = NULL;
    if (!mlim_read_text(reader->device, "/proc/self/cgroup", &reader->text))
        return false;
    own->told = strchr(reader->text.bytes, ':') != NULL;
    for (int unified = 0; unified < 2; unified++)
        strcpy(own->path[unified], own->told ? "" : "/");
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
            mlim_concat(own->path[unified], sizeof own->path[unified], name, "", "");
    }
    return true;
}

/* Takes off the levels that a path begins above the top of this process's group namespace. */
static int levels_above(const char **path)
{
    int levels = 0;
    for (; strncmp(*path, "/..", 3) == 0 && ((*path)[3] == '/' || (*path)[3] == 0); *path += 3)
        levels++;
    return levels;
}

/* Goes from a mount's top, which lies outside of this process's group namespace, to its group: the
 * namespace does not tell the names in between. */
static void go_into_namespace(mlim_reader *reader, const char *root, const char *own,
                              mlim_group *group)
{
    int levels = levels_above(&root) - levels_above(&own);
    if (levels > 0 && !*root)
        mlim_member_below(reader, group, levels, strcmp(own, "/") == 0 ? "" : own);
}

/* Finds this process's group in a hierarchy, and the mount that shows it with most of what is
 * above. Where no mount shows it, the top of one is the nearest group that can be seen. */
static const mlim_cgroup_mount *locate(mlim_reader *reader, bool unified, const struct own *all,
                                       mlim_group *group)
{
    const char *own = all->path[unified];
    const mlim_device *device = reader->device;
    const mlim_cgroup_mount *nearest = NULL;
    const char *below = NULL;
    for (size_t i = 0; i < device->mounts_count; i++) {
        const mlim_cgroup_mount *mount = &device->mounts[i];
        const char *at =
            !all->told && mount->found ? mount->found : mlim_path_below(own, mount->root);
        if (mount->unified == unified &&
            (!below || (at && strlen(mount->root) < strlen(nearest->root)))) {
            nearest = mount;
            below = at;
        }
    }
    if (!nearest)
        return NULL;
    group->unified = unified;
    if (!mlim_concat(group->path, sizeof group->path, nearest->path, below ? below : "", ""))
        return NULL; /* too long for any file in it to be opened */
    for (size_t end = strlen(group->path); end > 1 && group->path[end - 1] == '/';)
        group->path[--end] = 0;
    if (!below)
        go_into_namespace(reader, nearest->root, own, group);
    return nearest;
}

bool mlim_cgroups_visit(mlim_reader *reader, mlim_visit visit, void *data)
{
    struct own own;
    mlim_group group;
    if (!read_own(reader, &own))
        return false;
    for (int unified = 0; unified < 2; unified++) {
        const mlim_cgroup_mount *mount =
            *own.path[unified] ? locate(reader, unified, &own, &group) : NULL;
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

static uint64_t between_looks(uint64_t limit, const mlim_peers *peers)
{
    return least(limit / 64 / (peers->count + 1), MLIM_MOST_BETWEEN);
}

uint64_t mlim_assured(uint64_t limit, uint64_t room, const mlim_peers *peers)
{
    uint64_t taken = peers->count * between_looks(limit, peers);
    return saturating_sub(room, saturating_add(peers->untouched, taken));
}

void mlim_cgroups_share(mlim_cgroups *cgroups, uint64_t limit, uint64_t assured,
                        const mlim_peers *peers)
{
    cgroups->assured = least(cgroups->assured, assured);
    if (peers->count) {
        cgroups->sharers =
            peers->count + 1 > cgroups->sharers ? peers->count + 1 : cgroups->sharers;
        cgroups->between = least(cgroups->between, between_looks(limit, peers));
    }
}

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
    cgroups->limit = least(cgroups->limit, limit);
    cgroups->room = least(cgroups->room, room);
    uint64_t assured = mlim_assured(limit, room, &peers);
    mlim_cgroups_share(cgroups, limit, assured, &peers);
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
