/* The memory control groups this process is in, versions 1 and 2: their limits and their room. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "host.h"

/* One memory control group: a directory, of version 1 or 2. */
struct cgroup {
    char path[4096];
    bool unified;
};

/* A limit or a usage of the group; NO_LIMIT where the file is missing or says "max". */
static uint64_t cgroup_number(const struct cgroup *group, const char *v1, const char *v2)
{
    char path[sizeof group->path + 64], text[64];
    uint64_t number;
    snprintf(path, sizeof path, "%s/%s", group->path, group->unified ? v2 : v1);
    if (!mlim_read_text(path, text, sizeof text) || sscanf(text, "%" SCNu64, &number) != 1)
        return NO_LIMIT;
    return number;
}

static uint64_t cgroup_limit(const struct cgroup *group)
{
    uint64_t limit = cgroup_number(group, "memory.limit_in_bytes", "memory.max");
    return limit >> 62 ? NO_LIMIT : limit; /* version 1 writes "none" as the largest page count */
}

/* File pages that the kernel drops before it kills: cached, clean, and not mapped. */
static uint64_t cgroup_reclaimable(const struct cgroup *group)
{
    static const char *const v1[] = {"total_inactive_file ", "total_active_file ",
                                     "total_mapped_file ", "total_dirty ", "total_writeback "};
    static const char *const v2[] = {"inactive_file ", "active_file ", "file_mapped ",
                                     "file_dirty ", "file_writeback "};
    const char *const *keys = group->unified ? v2 : v1;
    char path[sizeof group->path + 64], text[8192];
    snprintf(path, sizeof path, "%s/memory.stat", group->path);
    if (!mlim_read_text(path, text, sizeof text))
        return 0;
    uint64_t cached = mlim_number(text, keys[0]) + mlim_number(text, keys[1]);
    uint64_t kept = mlim_number(text, keys[2]) + mlim_number(text, keys[3]) +
                    mlim_number(text, keys[4]);
    return minus(cached, kept);
}

/* What the group lets its members take: RAM, and swap as far as it allows any. */
static uint64_t cgroup_room(const struct cgroup *group, uint64_t swap_free)
{
    uint64_t limit = cgroup_limit(group);
    if (limit == NO_LIMIT)
        return NO_LIMIT;
    uint64_t usage = cgroup_number(group, "memory.usage_in_bytes", "memory.current");
    if (usage == NO_LIMIT)
        return NO_LIMIT;
    uint64_t reclaimable = cgroup_reclaimable(group);
    /* The limits are compared before what is in use is taken off: over is not the same as full. */
    uint64_t ram = minus(plus(limit, reclaimable), usage);
    uint64_t swap_limit = cgroup_number(group, "memory.memsw.limit_in_bytes", "memory.swap.max");
    uint64_t swap_usage = cgroup_number(group, "memory.memsw.usage_in_bytes", "memory.swap.current");
    if (swap_limit == NO_LIMIT || swap_usage == NO_LIMIT)
        return plus(ram, swap_free);
    if (group->unified)
        return plus(ram, least(swap_free, minus(swap_limit, swap_usage)));
    return least(plus(ram, swap_free), minus(plus(swap_limit, reclaimable), swap_usage));
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

/* The path of this process in the memory hierarchy, as /proc/self/cgroup names it. */
static bool own_cgroup(bool unified, char *path, size_t size)
{
    char text[8192], *save = NULL;
    if (!mlim_read_text("/proc/self/cgroup", text, sizeof text))
        return false;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *name = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!name)
            continue;
        *name++ = 0;
        controllers++;
        if (unified ? *controllers == 0 : lists(controllers, "memory")) {
            snprintf(path, size, "%s", name);
            return true;
        }
    }
    return false;
}

/* Finds the group of this process below one mount of a hierarchy. Inside a container the mount may
 * show a part of the hierarchy only, from root on: the group's path is then relative to that. Where
 * the mount does not hold the group, its own top is the nearest that can be seen. */
static bool locate(bool unified, const char *root, const char *mount, struct cgroup *group)
{
    char own[2048];
    if (!own_cgroup(unified, own, sizeof own))
        return false;
    const char *below = own;
    size_t length = strlen(root);
    if (strcmp(root, "/") != 0)
        below = strncmp(own, root, length) == 0 && (own[length] == '/' || own[length] == 0)
                    ? own + length
                    : "";
    if (strncmp(below, "/..", 3) == 0)
        below = "";
    group->unified = unified;
    int written = snprintf(group->path, sizeof group->path, "%s%s", mount, below);
    while (written > 1 && group->path[written - 1] == '/')
        group->path[--written] = 0;
    return written > 0 && (size_t)written < sizeof group->path;
}

/* The least of number(group) over this process's memory group and every ancestor of it. */
static uint64_t least_over_cgroups(uint64_t (*number)(const struct cgroup *, uint64_t), uint64_t arg)
{
    uint64_t result = NO_LIMIT;
    char line[4096], root[1024], mount[1024], type[64], options[1024];
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (!mounts)
        return result;
    while (fgets(line, sizeof line, mounts)) {
        const char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*s %*s %*s %1023s %1023s", root, mount) != 2 ||
            sscanf(dash, " - %63s %*s %1023s", type, options) != 2)
            continue;
        bool unified = strcmp(type, "cgroup2") == 0;
        if (!unified && (strcmp(type, "cgroup") != 0 || !lists(options, "memory")))
            continue;
        struct cgroup group;
        if (!locate(unified, root, mount, &group))
            continue;
        size_t top = strlen(mount);
        for (;;) {
            result = least(result, number(&group, arg));
            char *slash = strrchr(group.path, '/');
            if (!slash || (size_t)(slash - group.path) < top)
                break;
            *slash = 0;
        }
    }
    fclose(mounts);
    return result;
}

static uint64_t limit_of(const struct cgroup *group, uint64_t unused)
{
    (void)unused;
    return cgroup_limit(group);
}

uint64_t mlim_cgroups_limit(void)
{
    return least_over_cgroups(limit_of, 0);
}

uint64_t mlim_cgroups_room(uint64_t swap_free)
{
    return least_over_cgroups(cgroup_room, swap_free);
}
