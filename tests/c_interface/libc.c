/* Preloaded: munmap changes errno though it succeeds, as a function of C's may; and whoever reads
 * the clock of the day reads that of an hour later, as if it was set back at that moment. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int munmap(void *start, size_t length)
{
    int status = (int)syscall(SYS_munmap, start, length);
    errno = status < 0 ? errno : EIO;
    return status;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status = (int)syscall(SYS_clock_gettime, clock, now);
    now->tv_sec += clock == CLOCK_REALTIME ? 3600 : 0;
    return status;
}
