/* The processes of this user that use this library, wherever on the machine they run: each has a
 * file that is named by its pid, its page. Only the kernel is asked what such a process has: what
 * stands in a page is for people. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host.h"
#include "page.h"
#include "shared.h"

static atomic_bool absent;
static atomic_ulong pid_space; /* pids of other namespaces are no pids here */
static atomic_long entered;    /* the process that has a file */
static pthread_mutex_t entering = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(mlim_page *) page;

/* Where this user's pools are; and below it the files. */
struct places {
    char above[48], directory[64], own_file[112];
};

static void find_places(struct places *out)
{
    unsigned user = geteuid();
    snprintf(out->above, sizeof out->above, "/dev/shm/memlimits-%u", user);
    snprintf(out->directory, sizeof out->directory, "/dev/shm/memlimits-%u/running", user);
    snprintf(out->own_file, sizeof out->own_file, "/dev/shm/memlimits-%u/running/%ld@%lu", user,
             (long)getpid(), atomic_load(&pid_space));
}

static bool is_ours(const char *path)
{
    struct stat facts;
    return lstat(path, &facts) == 0 && S_ISDIR(facts.st_mode) && facts.st_uid == geteuid() &&
           !(facts.st_mode & (S_IWGRP | S_IWOTH));
}

static bool make_directories(const struct places *places)
{
    mkdir(places->above, 0700);
    if (!is_ours(places->above))
        return false;
    mkdir(places->directory, 0700);
    return is_ours(places->directory);
}

__attribute__((destructor)) static void leave(void)
{
    struct places places;
    find_places(&places);
    if (atomic_load(&entered) == getpid())
        unlink(places.own_file);
}

mlim_page *mlim_page_of_self(void)
{
    return atomic_load_explicit(&page, memory_order_acquire);
}

void mlim_page_forget(void)
{
    mlim_page *parents = atomic_exchange(&page, NULL);
    if (parents)
        munmap(parents, sizeof *parents);
}

/* Its bytes are all there before anything is written: a file system that is full is no crash. */
static void make_page(int fd)
{
    mlim_identity self;
    struct timespec now;
    if (posix_fallocate(fd, 0, sizeof(mlim_page)) != 0)
        return;
    mlim_page *made = mmap(NULL, sizeof *made, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (made == MAP_FAILED)
        return;
    mlim_identity_of_self(&self);
    clock_gettime(CLOCK_REALTIME, &now);
    *made = (mlim_page){
        .magic = MLIM_PAGE_MAGIC,
        .version = MLIM_PAGE_VERSION,
        .pid = self.pid,
        .started = self.started,
        .space = self.space,
        .began = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
    };
    atomic_store_explicit(&page, made, memory_order_release);
}

static bool is_in(void)
{
    return atomic_load(&entered) == getpid() || atomic_load(&absent);
}

static void enter_now(void)
{
    struct places places;
    struct stat facts;
    int fd = -1;
    atomic_store(&pid_space, stat("/proc/self/ns/pid", &facts) == 0 ? facts.st_ino : 0);
    find_places(&places);
    if (make_directories(&places))
        fd = open(places.own_file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        make_page(fd);
        close(fd);
        atomic_store(&entered, getpid());
    } else if (errno != EMFILE && errno != ENFILE) {
        atomic_store(&absent, true);
    }
}

static void add_file(mlim_reader *reader, DIR *all, const char *name, mlim_peers *peers)
{
    long pid;
    unsigned long space;
    if (sscanf(name, "%ld@%lu", &pid, &space) != 2 || space != atomic_load(&pid_space) || pid <= 0)
        return;
    if (kill((pid_t)pid, 0) != 0 && errno == ESRCH)
        unlinkat(dirfd(all), name, 0);
    else
        mlim_peers_add(reader, pid, peers);
}

/* Before a process looks at the others: of two at least one sees the other. No fork is under way.
 */
static void enter(void)
{
    if (is_in())
        return;
    pthread_mutex_lock(&entering);
    if (!is_in())
        enter_now();
    pthread_mutex_unlock(&entering);
}

void mlim_running_read(mlim_reader *reader, mlim_peers *out)
{
    struct places places;
    *out = (mlim_peers){0, 0};
    enter();
    find_places(&places);
    DIR *all = atomic_load(&absent) ? NULL : opendir(places.directory);
    struct dirent *entry;
    while (all && (entry = readdir(all)))
        add_file(reader, all, entry->d_name, out);
    if (all)
        closedir(all);
}

int mlim_running_claim(void)
{
    struct places places;
    find_places(&places);
    return atomic_load(&absent) ? -1 : open(places.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}
