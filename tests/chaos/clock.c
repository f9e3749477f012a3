/* The clock of the wall as a process sees it, put ahead or back by what a file says.
 *
 * Preloaded, these take the place of libc's functions. The file holds an int64, seconds to add,
 * and may be written at any time. The kernel's clock stays as it is: where a process asks to
 * wait until a time of the wall, that is put right by the same seconds. A wait that is under way
 * is not touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t none = 0;
static const volatile int64_t *ahead = &none;

/* Seconds since the machine was started are fewer, those since 1970 more. */
#define LATEST_UPTIME 315360000

#define LIBC(name)                                     \
    static __typeof__(&name) real;                     \
    if (!real)                                         \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *memory = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (memory != MAP_FAILED)
        ahead = memory;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    LIBC(clock_gettime);
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    LIBC(gettimeofday);
    int failed = real(now, zone);
    if (!failed)
        now->tv_sec += *ahead;
    return failed;
}

time_t time(time_t *into)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into)
        *into = now.tv_sec;
    return now.tv_sec;
}

static struct timespec until(const struct timespec *time)
{
    struct timespec right = *time;
    right.tv_sec -= *ahead;
    return right;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict time)
{
    LIBC(pthread_cond_timedwait);
    if (time->tv_sec < LATEST_UPTIME) /* a condition of the clock that does not jump */
        return real(condition, mutex, time);
    struct timespec right = until(time);
    return real(condition, mutex, &right);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict time)
{
    LIBC(sem_timedwait);
    struct timespec right = until(time);
    return real(semaphore, &right);
}

/* gRPC waits so: FUTEX_WAIT_BITSET, until a time. */
long syscall(long number, ...)
{
    LIBC(syscall);
    long rest[6];
    va_list list;
    va_start(list, number);
    for (int at = 0; at < 6; at++)
        rest[at] = va_arg(list, long);
    va_end(list);
    struct timespec right;
    if (number == SYS_futex && rest[1] & FUTEX_CLOCK_REALTIME && rest[3]) {
        right = until((const struct timespec *)rest[3]);
        rest[3] = (long)&right;
    }
    return real(number, rest[0], rest[1], rest[2], rest[3], rest[4], rest[5]);
}
