/* Where the control group hierarchies that govern memory are mounted, and can be seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

/* A line of /proc/self/mountinfo. The strings lie in its text. */
struct line {
    long id, parent;
    char *root, *path;
    bool unified, governs; /* a hierarchy; one that governs memory */
};

struct lines {
    struct line *at;
    size_t count;
};

bool mlim_lists(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == 0 || at[length] == ','))
            return true;
    return false;
}

/* Cuts the next field off; fields are parted by one blank each, and may be empty. */
static char *next_field(char **rest)
{
    char *field = *rest ? *rest : (char *)"";
    char *blank = *rest ? strchr(*rest, ' ') : NULL;
    if (blank)
        *blank = 0;
    *rest = blank ? blank + 1 : NULL;
    return field;
}

static bool is_octal(const char *digits)
{
    return digits[0] >= '0' && digits[0] <= '3' && digits[1] >= '0' && digits[1] <= '7' &&
           digits[2] >= '0' && digits[2] <= '7';
}

/* The kernel writes blanks, tabs, line ends and backslashes in names as \040 and so on. */
static char *unescape(char *name)
{
    char *to = name;
    for (const char *from = name; *from; from++) {
        if (*from == '\\' && is_octal(from + 1)) {
            *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 3;
        } else {
            *to++ = *from;
        }
    }
    *to = 0;
    return name;
}

static bool parse(char *text, struct line *line)
{
    char *after = strstr(text, " - ");
    if (!after)
        return false;
    *after = 0;
    after += 3;
    line->id = strtol(next_field(&text), NULL, 10);
    line->parent = strtol(next_field(&text), NULL, 10);
    next_field(&text); /* the device */
    line->root = unescape(next_field(&text));
    line->path = unescape(next_field(&text));
    const char *type = next_field(&after);
    next_field(&after); /* the source */
    line->unified = strcmp(type, "cgroup2") == 0;
    line->governs =
        line->unified || (strcmp(type, "cgroup") == 0 && mlim_lists(after ? after : "", "memory"));
    return line->path[0] == '/';
}

static bool parse_all(char *text, struct lines *lines)
{
    size_t most = 1;
    for (const char *at = text; (at = strchr(at, '\n')); at++)
        most++;
    lines->count = 0;
    lines->at = malloc(most * sizeof *lines->at);
    if (!lines->at)
        return false;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        lines->count += parse(line, &lines->at[lines->count]);
    return true;
}

static bool is_ancestor(const struct lines *lines, const struct line *upper,
                        const struct line *lower)
{
    long id = lower->parent;
    for (size_t steps = 0; steps < lines->count; steps++) {
        const struct line *parent = NULL;
        for (size_t i = 0; i < lines->count && !parent; i++)
            if (lines->at[i].id == id)
                parent = &lines->at[i];
        if (!parent || parent == upper)
            return parent != NULL;
        id = parent->parent;
    }
    return false;
}

/* Whether something else is mounted over it, or over a directory that it lies in. What it lies in
 * itself is an ancestor of its. */
static bool is_hidden(const struct lines *lines, const struct line *line)
{
    for (const struct line *other = lines->at; other < lines->at + lines->count; other++)
        if (other != line && mlim_path_below(line->path, other->path) &&
            (other > line || is_ancestor(lines, line, other)) && !is_ancestor(lines, other, line))
            return true;
    return false;
}

static bool add(mlim_device *device, bool unified, const char *root, const char *path)
{
    size_t size = (device->mounts_count + 1) * sizeof *device->mounts;
    mlim_cgroup_mount *mounts = realloc(device->mounts, size);
    if (!mounts)
        return false;
    device->mounts = mounts;
    mlim_cgroup_mount *mount = &mounts[device->mounts_count];
    *mount = (mlim_cgroup_mount){unified, strdup(root), strdup(path), NULL};
    device->mounts_count++; /* to be freed in any case */
    return mount->root && mount->path;
}

/* Where nothing tells, the usual places: what is not there bounds nothing. */
static bool add_usual(mlim_device *device)
{
    return add(device, true, "/", "/sys/fs/cgroup") &&
           add(device, true, "/", "/sys/fs/cgroup/unified") &&
           add(device, false, "/", "/sys/fs/cgroup/memory");
}

/* Where /proc does not tell this process's groups, looks for it in every hierarchy. That takes
 * long: only once, and a move to another group is not seen then. */
static bool find_without_proc(mlim_device *device)
{
    mlim_reader reader = {device, false, {NULL, 0}};
    mlim_group group;
    bool done = true;
    bool told =
        mlim_read_text(device, "/proc/self/cgroup", &reader.text) && strchr(reader.text.bytes, ':');
    for (size_t i = 0; !told && done && i < device->mounts_count; i++) {
        mlim_cgroup_mount *mount = &device->mounts[i];
        char procs[sizeof group.path];
        int length = snprintf(procs, sizeof procs, "%s/cgroup.procs", mount->path);
        if (length >= (int)sizeof procs || access(procs, F_OK) != 0)
            continue; /* no hierarchy is there */
        snprintf(group.path, sizeof group.path, "%s", mount->path);
        if (mlim_member_anywhere(&reader, &group))
            done = (mount->found = strdup(group.path + strlen(mount->path))) != NULL;
    }
    mlim_text_free(&reader.text);
    return done;
}

bool mlim_mounts_open(mlim_device *device)
{
    mlim_text text = {NULL, 0};
    struct lines lines = {NULL, 0};
    bool told = mlim_read_text(device, "/proc/self/mountinfo", &text) && *text.bytes;
    bool done = told ? parse_all(text.bytes, &lines) : add_usual(device);
    for (const struct line *line = lines.at; done && line < lines.at + lines.count; line++)
        if (line->governs && !is_hidden(&lines, line))
            done = add(device, line->unified, line->root, line->path);
    free(lines.at);
    mlim_text_free(&text);
    return done && find_without_proc(device);
}

void mlim_mounts_close(mlim_device *device)
{
    for (size_t i = 0; i < device->mounts_count; i++) {
        free(device->mounts[i].root);
        free(device->mounts[i].path);
        free(device->mounts[i].found);
    }
    free(device->mounts);
}
