/* So many at once: a counter that any thread may take from and give back to; and when those that
 * found none should come again. */
#ifndef GEOLOOKUP_SLOTS_H
#define GEOLOOKUP_SLOTS_H

#include <stdint.h>

typedef struct {
    int64_t free; /* below 0 where more were taken than there are, see gl_slots_charge */
    /* Of the present window: */
    uint64_t given_back, shed;
    uint64_t began; /* nanoseconds of the monotonic clock */
    uint64_t random;
    uint32_t wait; /* milliseconds; 0: none was shed yet */
} gl_slots;

enum {
    GL_WINDOW = 100000000, /* nanoseconds */
    /* Milliseconds. A worker answers thousands of calls in the first. With the second and half
     * as much more, most clients' deadlines still leave room for another attempt. */
    GL_SHORTEST_WAIT = 100,
    GL_LONGEST_WAIT = 2000
};

/* Takes one, if there is one. */
static inline int gl_slots_take(gl_slots *slots)
{
    int64_t free = __atomic_load_n(&slots->free, __ATOMIC_RELAXED);

    while (free > 0)
        if (__atomic_compare_exchange_n(&slots->free, &free, free - 1, 1, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return 1;
    return 0;
}

/* Takes so many, whether or not there are as many. */
static inline void gl_slots_charge(gl_slots *slots, int64_t n)
{
    __atomic_fetch_sub(&slots->free, n, __ATOMIC_ACQ_REL);
}

static inline void gl_slots_give_back(gl_slots *slots)
{
    __atomic_fetch_add(&slots->given_back, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&slots->free, 1, __ATOMIC_ACQ_REL);
}

static inline int64_t gl_slots_free(const gl_slots *slots)
{
    return __atomic_load_n(&slots->free, __ATOMIC_ACQUIRE);
}

/* Notes that a call found no slot, and returns the milliseconds after which it may come again.
 *
 * They follow the load: where three calls are shed for one that ends, all of them would find
 * room if they came back within three times as long. Each gets another time, half as long to
 * half as long again, so that those who were shed together don't come together. Threads that race
 * may lose a number, which does no harm. */
static inline uint32_t gl_slots_shed(gl_slots *slots, uint64_t now)
{
    uint64_t shed = __atomic_add_fetch(&slots->shed, 1, __ATOMIC_RELAXED);
    uint64_t began = __atomic_load_n(&slots->began, __ATOMIC_RELAXED);
    uint64_t random = __atomic_load_n(&slots->random, __ATOMIC_RELAXED);
    uint64_t wait = __atomic_load_n(&slots->wait, __ATOMIC_RELAXED);

    if (wait == 0)
        wait = GL_SHORTEST_WAIT;
    if (now - began >= GL_WINDOW &&
        __atomic_compare_exchange_n(&slots->began, &began, now, 0, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED)) {
        uint64_t ended = __atomic_exchange_n(&slots->given_back, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&slots->shed, 0, __ATOMIC_RELAXED);
        /* Half of what was: the load of one window is not that of the next. */
        wait = (wait + GL_SHORTEST_WAIT * shed / (ended ? ended : 1)) / 2;
        if (wait < GL_SHORTEST_WAIT)
            wait = GL_SHORTEST_WAIT;
        if (wait > GL_LONGEST_WAIT)
            wait = GL_LONGEST_WAIT;
        __atomic_store_n(&slots->wait, (uint32_t)wait, __ATOMIC_RELAXED);
    }
    if (random == 0)
        random = now | 1;
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    __atomic_store_n(&slots->random, random, __ATOMIC_RELAXED);
    return (uint32_t)(wait / 2 + random % (wait + 1));
}

#endif
