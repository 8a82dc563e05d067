/* Where in a control group hierarchy this process is, where no path tells: the directory that lists
 * it in cgroup.procs. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

/* How deep, and in how many groups at most, a process is looked for that could be anywhere. */
#define MOST_LEVELS 12
#define MOST_GROUPS 2000

struct search {
    mlim_reader *reader;
    const char *own; /* what follows the directory that is looked for, empty or "/..." */
    int levels;      /* how deep that lies; less than 0 where it may be anywhere */
    int groups;      /* that may still be looked at */
    int seen;        /* groups that could be it */
    char last[sizeof((mlim_group *)0)->path]; /* such a one */
};

/* Whether this process is a member of the group in a directory. */
static bool is_member(mlim_reader *reader, const char *path)
{
    char file[4096 + 16], *save = NULL;
    snprintf(file, sizeof file, "%s/cgroup.procs", path);
    if (!mlim_read_text(NULL, file, &reader->text))
        return false;
    for (char *line = strtok_r(reader->text.bytes, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save))
        if (strtol(line, NULL, 10) == getpid())
            return true;
    return false;
}

static bool append(char *path, const char *slash, const char *name)
{
    const size_t size = sizeof((mlim_group *)0)->path;
    size_t length = strlen(path);
    int written = snprintf(path + length, size - length, "%s%s", slash, name);
    bool fits = written >= 0 && (size_t)written < size - length;
    if (!fits)
        path[length] = 0;
    return fits;
}

/* Looks at one directory, and makes the group there the path if it is this process's. */
static bool look_at(struct search *search, char *path)
{
    size_t length = strlen(path);
    if (!append(path, "", search->own))
        return false;
    if (is_member(search->reader, path))
        return true;
    if (access(path, F_OK) == 0) {
        search->seen++;
        strcpy(search->last, path);
    }
    path[length] = 0;
    return false;
}

static bool walk(struct search *search, char *path, int level)
{
    if (search->groups-- <= 0)
        return false;
    if ((search->levels < 0 || level == search->levels) && look_at(search, path))
        return true;
    if (level == (search->levels < 0 ? MOST_LEVELS : search->levels))
        return false;
    size_t length = strlen(path);
    bool found = false;
    DIR *directory = opendir(path);
    struct dirent *entry;
    search->seen += !directory; /* what lies in it cannot be told apart */
    while (directory && !found && (entry = readdir(directory))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.' || !append(path, "/", entry->d_name))
            continue;
        found = walk(search, path, level + 1);
        if (!found)
            path[length] = 0;
    }
    if (directory)
        closedir(directory);
    return found;
}

void mlim_member_below(mlim_reader *reader, mlim_group *group, int levels, const char *own)
{
    struct search search = {reader, own, levels, MOST_GROUPS, 0, {0}};
    char *path = group->path;
    if (walk(&search, path, 0))
        return;
    /* One alone is there: it has the processes that may be seen in it, or none. */
    if (search.seen == 1 && search.groups > 0 && *search.last)
        strcpy(path, search.last);
}

bool mlim_member_anywhere(mlim_reader *reader, mlim_group *group)
{
    struct search search = {reader, "", -1, MOST_GROUPS, 0, {0}};
    return walk(&search, group->path, 0);
}
