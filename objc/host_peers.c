/* Other processes in a control group that limits them together with this one, and what those of
 * them that use this library were promised and have not touched, which no other figures tell. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

/* What marks a process as one that uses this library. */
#define MODULE "/memlimits/_modules."

/* At most what a process could still touch: its writable private memory that is not resident. */
static bool read_untouched_roughly(mlim_reader *reader, long pid, uint64_t *out)
{
    char path[64];
    uint64_t resident, shared, data;
    snprintf(path, sizeof path, "/proc/%ld/statm", pid);
    if (!mlim_read_text(NULL, path, &reader->text) ||
        sscanf(reader->text.bytes, "%*u %" SCNu64 " %" SCNu64 " %*u %*u %" SCNu64, &resident,
               &shared, &data) != 3 ||
        resident == 0)
        return false; /* it is gone */
    *out = saturating_sub(data, saturating_sub(resident, shared)) * reader->device->facts.page_size;
    return true;
}

/* Where this library lies in a process; 0 where it does not, or may not be looked for. */
static uintptr_t find_library(mlim_reader *reader, long pid)
{
    char path[64];
    uintptr_t start = 0;
    snprintf(path, sizeof path, "/proc/%ld/maps", pid);
    if (!mlim_read_text(NULL, path, &reader->text))
        return 0;
    const char *line = strstr(reader->text.bytes, MODULE);
    while (line && line > reader->text.bytes && line[-1] != '\n')
        line--;
    if (line)
        sscanf(line, "%" SCNxPTR "-", &start);
    return start;
}

/* The mappings of buffers are private, anonymous, writable, without a reservation, and where the
 * kernel puts what may lie anywhere, as the library does. What allocators reserve at addresses of
 * their own choice, as that of Python without the GIL a GiB, is at least 12 TiB from there. */
#define NEAR ((uintptr_t)8 << 40)

struct mapping {
    bool may_be_buffer;
    uint64_t size, touched;
};

static void start_mapping(struct mapping *mapping, const char *line, uintptr_t distance)
{
    uint64_t inode = 1;
    sscanf(line, "%*s %*s %*s %*s %" SCNu64, &inode);
    *mapping = (struct mapping){.may_be_buffer = inode == 0 && distance < NEAR};
}

static void add_line(struct mapping *mapping, const char *line, uint64_t *untouched)
{
    uint64_t size;
    if (sscanf(line, "Size: %" SCNu64, &size) == 1)
        mapping->size = size * 1024;
    else if (sscanf(line, "Anonymous: %" SCNu64, &size) == 1 ||
             sscanf(line, "Swap: %" SCNu64, &size) == 1)
        mapping->touched += size * 1024;
    else if (strncmp(line, "VmFlags:", 8) == 0 && mapping->may_be_buffer && strstr(line, " wr ") &&
             strstr(line, " nr "))
        *untouched += saturating_sub(mapping->size, mapping->touched);
}

static uint64_t read_untouched(long pid, uintptr_t library)
{
    char path[64], line[512];
    struct mapping mapping = {0};
    uint64_t untouched = 0;
    uintptr_t start, end;
    snprintf(path, sizeof path, "/proc/%ld/smaps", pid);
    FILE *mappings = fopen(path, "re");
    while (mappings && mlim_next_line(mappings, line, sizeof line)) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2)
            start_mapping(&mapping, line, start > library ? start - library : library - start);
        else
            add_line(&mapping, line, &untouched);
    }
    if (mappings)
        fclose(mappings);
    return untouched;
}

void mlim_peers_add(mlim_reader *reader, long pid, mlim_peers *peers)
{
    uint64_t untouched = 0;
    if (pid <= 0 || pid == getpid() || !read_untouched_roughly(reader, pid, &untouched))
        return;
    if (reader->closely) {
        uintptr_t library = find_library(reader, pid);
        if (!library)
            return;
        untouched = least(untouched, read_untouched(pid, library));
    }
    peers->count++;
    peers->untouched = saturating_add(peers->untouched, untouched);
}

static bool add_directory(mlim_reader *reader, const char *path, mlim_peers *peers);

/* The groups within; a directory without any has as many links as it has names for itself. */
static bool add_directories(mlim_reader *reader, const char *path, mlim_peers *peers)
{
    struct stat facts;
    if (stat(path, &facts) != 0 || facts.st_nlink == 2)
        return true;
    bool known = true;
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory && known && (entry = readdir(directory))) {
        char below[4096];
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
            snprintf(below, sizeof below, "%s/%s", path, entry->d_name) < (int)sizeof below)
            known = add_directory(reader, below, peers);
    }
    if (directory)
        closedir(directory);
    return known;
}

static bool add_directory(mlim_reader *reader, const char *path, mlim_peers *peers)
{
    char file[4096 + 16], *save = NULL;
    mlim_text members = {NULL, 0};
    mlim_concat(file, sizeof file, path, "/", "cgroup.procs");
    bool known = mlim_read_text(NULL, file, &members);
    for (char *line = known ? strtok_r(members.bytes, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save))
        mlim_peers_add(reader, strtol(line, NULL, 10), peers);
    mlim_text_free(&members);
    return known && add_directories(reader, path, peers);
}

bool mlim_peers_read(mlim_reader *reader, const mlim_group *group, mlim_peers *out)
{
    *out = (mlim_peers){0, 0};
    return add_directory(reader, group->path, out);
}

static bool note_shared(mlim_reader *reader, const mlim_group *group, void *data)
{
    uint64_t limit;
    mlim_peers peers;
    mlim_group *outermost = data;
    if (!mlim_group_limit(reader, group, &limit))
        return false;
    if (limit != NO_LIMIT && mlim_peers_read(reader, group, &peers) && peers.count)
        *outermost = *group;
    return true;
}

static void take_turn(int fd)
{
    static const struct timespec a_moment = {.tv_nsec = 500000};
    /* One that was stopped while it has the turn must not stop all others. */
    for (int i = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && i < 400; i++)
        nanosleep(&a_moment, NULL);
}

static void end_turn(int fd)
{
    if (fd < 0)
        return;
    flock(fd, LOCK_UN);
    close(fd);
}

void mlim_device_claim(mlim_device *device, mlim_claim *out)
{
    mlim_group outermost = {.path = ""};
    mlim_reader reader = {.device = device};
    mlim_cgroups_visit(&reader, note_shared, &outermost);
    mlim_text_free(&reader.text);
    out->group = *outermost.path ? open(outermost.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    out->machine = mlim_running_claim();
    take_turn(out->group);
    take_turn(out->machine);
}

void mlim_device_unclaim(mlim_device *device, const mlim_claim *claim)
{
    (void)device;
    end_turn(claim->machine);
    end_turn(claim->group);
}
