#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

#include "shared.h"

struct mlim_shared {
    void *words;
    size_t size;
    int fd;
    dev_t device;
    ino_t inode;
    uid_t owner;
    char path[1024];
};

/* Programs count on low numbers being free, and close ranges of them. */
#define LEAST_FD 512

static mlim_status fail(mlim_error *error, mlim_status status, int code, const char *what)
{
    if (error) {
        error->code = code;
        if (code)
            snprintf(error->message, sizeof error->message, "%s: %s", what, strerror(code));
        else
            snprintf(error->message, sizeof error->message, "%s", what);
    }
    return status;
}

static mlim_status status_of(int code)
{
    return code == EEXIST                     ? MLIM_UNSUPPORTED
           : code == ENOENT                   ? MLIM_NO_DEVICE
           : code == ENOMEM || code == ENOSPC ? MLIM_NO_MEMORY
                                              : MLIM_UNKNOWN;
}

static mlim_status fail_by_errno(mlim_error *error, const char *what)
{
    int code = errno;
    return fail(error, status_of(code), code, what);
}

/* ---- files ---- */

static bool write_all(int fd, const char *bytes, size_t size)
{
    while (size) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        size -= (size_t)written;
    }
    return true;
}

/* Every byte is there from the start: a file system that is full is no crash later. */
static bool fill(int fd, mode_t mode, size_t size, const void *head, size_t head_size)
{
    static const char zeros[4096];
    if (fchmod(fd, mode) != 0 || !write_all(fd, head, head_size))
        return false;
    for (size_t left = size - head_size; left;) {
        size_t step = left < sizeof zeros ? left : sizeof zeros;
        if (!write_all(fd, zeros, step))
            return false;
        left -= step;
    }
    return true;
}

mlim_status mlim_shared_create(const char *path, mode_t mode, size_t size, const void *head,
                               size_t head_size, mlim_error *error)
{
    char draft[4096];
    static unsigned drafts;
    if (snprintf(draft, sizeof draft, "%s.%ld.%u~", path, (long)getpid(),
                 __atomic_fetch_add(&drafts, 1, __ATOMIC_RELAXED)) >= (int)sizeof draft)
        return fail(error, MLIM_UNKNOWN, ENAMETOOLONG, path);
    unlink(draft); /* of one that ended amid this, with our pid */
    int fd = open(draft, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_by_errno(error, path);
    mlim_status status = MLIM_OK;
    if (!fill(fd, mode, size, head, head_size) || link(draft, path) != 0)
        status = fail_by_errno(error, path);
    close(fd);
    unlink(draft);
    return status;
}

static bool is_file(const mlim_shared *shared, int fd)
{
    struct stat facts;
    return fd >= 0 && fstat(fd, &facts) == 0 && facts.st_dev == shared->device &&
           facts.st_ino == shared->inode;
}

/* What another could have put in its place. */
static const char *why_foreign(const struct stat *facts, size_t size)
{
    if (!S_ISREG(facts->st_mode))
        return "it is no ordinary file";
    if (facts->st_uid != geteuid() && facts->st_uid != 0)
        return "it belongs to another user";
    if (facts->st_size != (off_t)size)
        return "it has another length: another version of memlimits made it, or it is damaged";
    return NULL;
}

static mlim_status refuse(mlim_error *error, const char *path, const char *why)
{
    char text[200];
    snprintf(text, sizeof text, "%.120s: %s", path, why);
    return fail(error, MLIM_UNKNOWN, 0, text);
}

/* Where it is as it should be, `shared` has it all. */
static mlim_status map(const char *path, int fd, size_t size, mlim_shared *shared,
                       mlim_error *error)
{
    struct stat facts;
    if (fstat(fd, &facts) != 0)
        return fail_by_errno(error, path);
    const char *why = why_foreign(&facts, size);
    if (!why && strlen(path) >= sizeof shared->path)
        why = "its path is too long";
    if (why)
        return refuse(error, path, why);
    void *words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED)
        return fail_by_errno(error, path);
    int high = fcntl(fd, F_DUPFD_CLOEXEC, LEAST_FD);
    if (high >= 0)
        close(fd); /* no lock of it was taken yet */
    *shared = (mlim_shared){.words = words,
                            .size = size,
                            .fd = high >= 0 ? high : fd,
                            .device = facts.st_dev,
                            .inode = facts.st_ino,
                            .owner = facts.st_uid};
    return MLIM_OK;
}

mlim_status mlim_shared_open(const char *path, size_t size, mlim_shared **out, mlim_error *error)
{
    mlim_shared *shared = malloc(sizeof *shared);
    if (!shared)
        return fail(error, MLIM_NO_MEMORY, ENOMEM, path);
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        free(shared);
        return fail_by_errno(error, path);
    }
    mlim_status status = map(path, fd, size, shared, error);
    if (status != MLIM_OK) {
        close(fd);
        free(shared);
        return status;
    }
    strcpy(shared->path, path);
    *out = shared;
    return MLIM_OK;
}

bool mlim_shared_reopen(mlim_shared *shared)
{
    if (is_file(shared, shared->fd))
        return true;
    int fd = open(shared->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (!is_file(shared, fd)) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    int high = fcntl(fd, F_DUPFD_CLOEXEC, LEAST_FD);
    if (high >= 0)
        close(fd);
    shared->fd = high >= 0 ? high : fd;
    return true;
}

void mlim_shared_close(mlim_shared *shared)
{
    if (!shared)
        return;
    munmap(shared->words, shared->size);
    /* The number may be another file's by now. */
    if (is_file(shared, shared->fd))
        close(shared->fd);
    free(shared);
}

void *mlim_shared_words(const mlim_shared *shared)
{
    return shared->words;
}

uint64_t mlim_shared_owner(const mlim_shared *shared)
{
    return shared->owner;
}

bool mlim_shared_is(const mlim_shared *shared, const char *path)
{
    struct stat facts;
    return lstat(path, &facts) == 0 && facts.st_dev == shared->device &&
           facts.st_ino == shared->inode;
}

/* ---- parts ---- */

static int lock(mlim_shared *shared, int command, short type, uint64_t part, struct flock *out)
{
    *out = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)part, .l_len = 1};
    int result;
    do
        result = fcntl(shared->fd, command, out);
    while (result != 0 && errno == EINTR);
    return result;
}

bool mlim_shared_take(mlim_shared *shared, uint64_t part)
{
    struct flock ignored;
    return lock(shared, F_SETLK, F_WRLCK, part, &ignored) == 0;
}

void mlim_shared_leave(mlim_shared *shared, uint64_t part)
{
    struct flock ignored;
    lock(shared, F_SETLK, F_UNLCK, part, &ignored);
}

bool mlim_shared_is_taken(mlim_shared *shared, uint64_t part)
{
    struct flock found;
    /* Where it cannot be told nobody's part is given away. */
    return lock(shared, F_GETLK, F_WRLCK, part, &found) != 0 || found.l_type != F_UNLCK;
}

/* ---- processes ---- */

#ifdef __linux__
/* When a process began, in ticks since the machine did. */
static uint64_t started(uint64_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%" PRIu64 "/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = 0;
    /* Its name may hold anything, and ends at the last bracket. */
    const char *rest = strrchr(text, ')');
    uint64_t ticks = 0;
    if (rest)
        sscanf(rest + 1,
               "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
               "%" SCNu64,
               &ticks);
    return ticks;
}

static uint64_t space(void)
{
    struct stat facts;
    return stat("/proc/self/ns/pid", &facts) == 0 ? facts.st_ino : 0;
}
#else
static uint64_t started(uint64_t pid)
{
    (void)pid;
    return 0;
}

static uint64_t space(void)
{
    return 0;
}
#endif

void mlim_identity_of_self(mlim_identity *out)
{
    *out = (mlim_identity){
        .pid = (uint64_t)getpid(), .started = started((uint64_t)getpid()), .space = space()};
}

static bool is_alive(const mlim_identity *who)
{
    if (who->pid == 0 || who->pid > INT32_MAX || (kill((pid_t)who->pid, 0) != 0 && errno == ESRCH))
        return false;
    uint64_t since = started(who->pid);
    return since == 0 || who->started == 0 || since == who->started;
}

bool mlim_shared_is_mapped_by(mlim_shared *shared, const mlim_identity *who)
{
    char path[64], line[4352];
    uint64_t inode;
    bool found = false;
    if (who->space == 0 || who->space != space() || !is_alive(who))
        return false;
    snprintf(path, sizeof path, "/proc/%" PRIu64 "/maps", who->pid);
    FILE *maps = fopen(path, "re");
    if (!maps && errno == EACCES)
        return true; /* another user's, who lives */
    while (maps && !found && fgets(line, sizeof line, maps))
        found = sscanf(line, "%*s %*s %*s %*s %" SCNu64, &inode) == 1 && inode == shared->inode;
    if (maps)
        fclose(maps);
    return found;
}

static const char *without_directories(const char *word)
{
    const char *slash = strrchr(word, '/');
    return slash ? slash + 1 : word;
}

static bool is_our_command(const char *word)
{
    const char *name = without_directories(word);
    return strcmp(name, "memlimits") == 0 || strcmp(name, "-mmemlimits") == 0 ||
           strcmp(name, "_boot.py") == 0;
}

/* Where the words of the program begin, of all that a process was started with. */
static const char *find_program(const char *words, const char *end)
{
    const char *begin = without_directories(words);
    const char *last = words;
    bool ours = false;
    for (const char *word = words; word < end; last = word, word += strlen(word) + 1) {
        const char *next = word + strlen(word) + 1;
        if (!ours && strcmp(word, "run") == 0 && is_our_command(last) && next < end) {
            ours = true;
            begin = next;
        } else if (ours && strcmp(word, "--") == 0 && next < end) {
            return next;
        }
    }
    return begin;
}

void mlim_shared_command(char *out, size_t size)
{
    char words[4096];
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, words, sizeof words - 1);
    if (fd >= 0)
        close(fd);
    char *end = words + (got > 0 ? got : 0);
    *end = 0;
    const char *word = find_program(words, end);
    size_t length = 0;
    /* Each ends with a zero. What would disturb a terminal is not shown. */
    for (; word < end && length < size - 1; word++)
        out[length++] = (unsigned char)*word < 32 || *word == 127 ? ' ' : *word;
    while (length && out[length - 1] == ' ')
        length--;
    out[length] = 0;
}

/* ---- waiting ---- */

#ifdef __linux__
void mlim_shared_wait(uint32_t *word, uint32_t was, uint64_t ns)
{
    struct timespec time = {.tv_sec = (time_t)(ns / 1000000000),
                            .tv_nsec = (long)(ns % 1000000000)};
    syscall(SYS_futex, word, FUTEX_WAIT, was, &time, NULL, 0);
}

void mlim_shared_wake(uint32_t *word)
{
    __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}
#else
/* Without a way to be woken by another process it looks again and again. */
#define LOOK_EVERY 10000000

void mlim_shared_wait(uint32_t *word, uint32_t was, uint64_t ns)
{
    for (uint64_t left = ns; left && __atomic_load_n(word, __ATOMIC_SEQ_CST) == was;) {
        uint64_t step = left < LOOK_EVERY ? left : LOOK_EVERY;
        struct timespec time = {.tv_nsec = (long)step};
        nanosleep(&time, NULL);
        left -= step;
    }
}

void mlim_shared_wake(uint32_t *word)
{
    __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
}
#endif
