/* So many at once: a counter that any thread may take from and give back to. */
#ifndef GEOLOOKUP_SLOTS_H
#define GEOLOOKUP_SLOTS_H

#include <stdint.h>

typedef struct {
    int64_t free; /* below 0 where more were taken than there are, see gl_slots_charge */
} gl_slots;

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
    __atomic_fetch_add(&slots->free, 1, __ATOMIC_ACQ_REL);
}

static inline int64_t gl_slots_free(const gl_slots *slots)
{
    return __atomic_load_n(&slots->free, __ATOMIC_ACQUIRE);
}

#endif
