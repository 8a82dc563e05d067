/* The memory control groups this process is in, versions 1 and 2: their limits and their room. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "host.h"

/* One memory control group: a directory. */
struct cgroup {
    bool unified;
    char path[4096];
};

static bool read_group_file(const struct cgroup *group, const char *name, char *text, size_t size)
{
    char path[sizeof group->path + 64];
    snprintf(path, sizeof path, "%s/%s", group->path, name);
    return mlim_read_text(path, text, size);
}

/* A limit or a usage of the group; NO_LIMIT where there is no such file or it says "max". */
static bool read_group_number(const struct cgroup *group, const char *v1, const char *v2,
                              uint64_t *out)
{
    char text[64];
    *out = NO_LIMIT;
    if (!read_group_file(group, group->unified ? v2 : v1, text, sizeof text))
        return false;
    sscanf(text, "%" SCNu64, out);
    if (*out >> 62)
        *out = NO_LIMIT; /* version 1 writes "none" as the largest count of pages */
    return true;
}

static bool read_limit(const struct cgroup *group, uint64_t *out)
{
    return read_group_number(group, "memory.limit_in_bytes", "memory.max", out);
}

/* File pages that the kernel drops before it kills: cached, clean, and not mapped. */
static bool read_reclaimable(const struct cgroup *group, uint64_t *out)
{
    static const char *const v1[] = {"total_inactive_file ", "total_active_file ",
                                     "total_mapped_file ", "total_dirty ", "total_writeback "};
    static const char *const v2[] = {"inactive_file ", "active_file ", "file_mapped ",
                                     "file_dirty ", "file_writeback "};
    const char *const *keys = group->unified ? v2 : v1;
    char text[8192];
    if (!read_group_file(group, "memory.stat", text, sizeof text))
        return false;
    uint64_t cached = mlim_number(text, keys[0]) + mlim_number(text, keys[1]);
    uint64_t kept =
        mlim_number(text, keys[2]) + mlim_number(text, keys[3]) + mlim_number(text, keys[4]);
    *out = minus(cached, kept);
    return true;
}

/* What the group lets its members take: RAM, and swap as far as it allows any. */
static bool read_room(const struct cgroup *group, uint64_t swap_free, uint64_t *out)
{
    uint64_t limit, usage, reclaimable, swap_limit, swap_usage;
    *out = NO_LIMIT;
    if (!read_limit(group, &limit))
        return false;
    if (limit == NO_LIMIT)
        return true;
    if (!read_group_number(group, "memory.usage_in_bytes", "memory.current", &usage) ||
        !read_group_number(group, "memory.memsw.limit_in_bytes", "memory.swap.max", &swap_limit) ||
        !read_group_number(group, "memory.memsw.usage_in_bytes", "memory.swap.current",
                           &swap_usage) ||
        !read_reclaimable(group, &reclaimable))
        return false;
    uint64_t ram = minus(plus(limit, reclaimable), usage);
    if (swap_limit == NO_LIMIT || swap_usage == NO_LIMIT)
        *out = plus(ram, swap_free);
    else if (group->unified)
        *out = plus(ram, least(swap_free, minus(swap_limit, swap_usage)));
    else /* version 1 limits RAM and swap together */
        *out = least(plus(ram, swap_free), minus(plus(swap_limit, reclaimable), swap_usage));
    return true;
}

/* Whether a comma-separated list holds a word. */
static bool lists(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == 0 || at[length] == ','))
            return true;
    return false;
}

bool mlim_cgroups_open(mlim_device *device)
{
    char line[4096], type[64], options[1024];
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (!mounts)
        return errno == ENOENT;
    while (device->mounts_count < MLIM_MOST_MOUNTS && fgets(line, sizeof line, mounts)) {
        mlim_cgroup_mount *mount = &device->mounts[device->mounts_count];
        const char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*s %*s %*s %1023s %1023s", mount->root, mount->path) != 2 ||
            sscanf(dash, " - %63s %*s %1023s", type, options) != 2)
            continue;
        mount->unified = strcmp(type, "cgroup2") == 0;
        if (mount->unified || (strcmp(type, "cgroup") == 0 && lists(options, "memory")))
            device->mounts_count++;
    }
    fclose(mounts);
    return true;
}

/* The path of this process in a hierarchy, as /proc/self/cgroup names it; empty without one. */
static bool read_own_path(bool unified, char *path, size_t size)
{
    char text[8192], *save = NULL;
    *path = 0;
    if (!mlim_read_text("/proc/self/cgroup", text, sizeof text))
        return false;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *name = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!name)
            continue;
        *name++ = 0;
        controllers++;
        if (unified ? *controllers == 0 : lists(controllers, "memory"))
            snprintf(path, size, "%s", name);
    }
    return true;
}

/* Where a path continues below a root: "/a/b" below "/a" is "/b". NULL where it is not below. */
static const char *path_below(const char *path, const char *root)
{
    size_t length = strlen(root);
    if (length == 1)
        length = 0; /* "/" */
    bool below = strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
    return below && strncmp(path + length, "/..", 3) != 0 ? path + length : NULL;
}

/* Finds this process's group in a hierarchy, and where its mount begins in the path. Where no mount
 * shows it, the top of one is the nearest group that can be seen. */
static const mlim_cgroup_mount *locate(const mlim_device *device, bool unified, const char *own,
                                       struct cgroup *group)
{
    const mlim_cgroup_mount *nearest = NULL;
    const char *below = NULL;
    for (int i = 0; i < device->mounts_count && !below; i++)
        if (device->mounts[i].unified == unified) {
            nearest = &device->mounts[i];
            below = path_below(own, nearest->root);
        }
    if (!nearest)
        return NULL;
    group->unified = unified;
    snprintf(group->path, sizeof group->path, "%s%s", nearest->path, below ? below : "");
    for (size_t end = strlen(group->path); end > 1 && group->path[end - 1] == '/';)
        group->path[--end] = 0;
    return nearest;
}

/* What each group is asked, the nearest first, and the answer so far. */
struct question {
    bool (*ask)(const struct cgroup *group, struct question *question);
    uint64_t swap_free;
    uint64_t least;
    mlim_bound_list *list;
    double stall;
};

static bool ask_groups(const mlim_device *device, struct question *question)
{
    for (int unified = 0; unified < 2; unified++) {
        char own[2048];
        struct cgroup group;
        if (!read_own_path(unified, own, sizeof own))
            return false;
        const mlim_cgroup_mount *mount = *own ? locate(device, unified, own, &group) : NULL;
        while (mount) {
            if (!question->ask(&group, question))
                return false;
            char *slash = strrchr(group.path, '/');
            if (!slash || (size_t)(slash - group.path) < strlen(mount->path))
                break;
            *slash = 0;
        }
    }
    return true;
}

static bool ask_limit(const struct cgroup *group, struct question *question)
{
    uint64_t limit;
    if (!read_limit(group, &limit))
        return false;
    question->least = least(question->least, limit);
    return true;
}

static bool ask_room(const struct cgroup *group, struct question *question)
{
    uint64_t room;
    if (!read_room(group, question->swap_free, &room))
        return false;
    question->least = least(question->least, room);
    if (question->list && room != NO_LIMIT)
        mlim_bound_add(question->list, MLIM_CGROUP, group->path, room);
    return true;
}

static bool ask_stall(const struct cgroup *group, struct question *question)
{
    char text[512];
    if (!group->unified)
        return true; /* version 1 has none */
    if (!read_group_file(group, "memory.pressure", text, sizeof text))
        return errno == EOPNOTSUPP; /* turned off */
    double stall = mlim_stall(text);
    if (stall > question->stall)
        question->stall = stall;
    return true;
}

bool mlim_cgroups_limit(const mlim_device *device, uint64_t *out)
{
    struct question question = {.ask = ask_limit, .least = NO_LIMIT};
    bool known = ask_groups(device, &question);
    *out = question.least;
    return known;
}

bool mlim_cgroups_room(const mlim_device *device, uint64_t swap_free, uint64_t *out)
{
    struct question question = {.ask = ask_room, .swap_free = swap_free, .least = NO_LIMIT};
    bool known = ask_groups(device, &question);
    *out = question.least;
    return known;
}

bool mlim_cgroups_bounds(const mlim_device *device, uint64_t swap_free, mlim_bound_list *list)
{
    struct question question = {.ask = ask_room, .swap_free = swap_free, .list = list};
    return ask_groups(device, &question);
}

bool mlim_cgroups_stall(const mlim_device *device, double *out)
{
    struct question question = {.ask = ask_stall, .stall = -1};
    bool known = ask_groups(device, &question);
    *out = question.stall;
    return known;
}
