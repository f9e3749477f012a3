/* A dataset as the HTTP/2 server answers from it: beside the core's tables the beginnings of
 * responses to lookups, and the outcomes of region sets that were asked for.
 *
 * Plain C11. A snapshot is counted by its users, in any thread. Its perspectives belong to the
 * event loop's thread, which adds and drops them; each is counted, too. So do the rules of routes.
 */
#ifndef GEOLOOKUP_SNAPSHOT_H
#define GEOLOOKUP_SNAPSHOT_H

#include "authorization.h"
#include "core_api.h"
#include "outcome.h"

#include <stdlib.h>
#include <time.h>

/* Added to a policy's number where covering networks are ignored. */
#define GL_IGNORE_NETWORKS 256

/* The outcomes of a region set under a policy. */
typedef struct gl_perspective {
    int users;
    uint64_t used; /* when it was used last, in calls */
    int32_t policy;
    int stale;   /* whether they are those of a dataset that is too old */
    size_t size; /* of the expression */
    uint8_t expression[GL_EXPRESSION];
    unsigned number;    /* under which the meter counts it */
    uint8_t outcomes[]; /* by claim */
} gl_perspective;

typedef struct gl_snapshot {
    int users;
    void *owner; /* the Python object that keeps all of this alive */
    struct gl_job *last_job; /* by which Python hears that nobody uses it any more */
    const gl_table_handle *table;
    const gl_results *results;
    size_t claims;
    int has_regions; /* whether claims have subdivisions: Python answers requests for them */
    const uint8_t *statuses; /* by claim */
    const uint8_t *networks; /* by claim, a bit for each kind; NULL: no lists of networks */
    /* Of a LookupResponse what stands before the verdict: by claim, from begin[claim] to
     * begin[claim + 1]; and what stands behind it. */
    const uint8_t *heads;
    const uint32_t *begin;
    const uint8_t *tail;
    size_t tail_bytes;
    /* Of a ClassifyRosterResponse what follows its bitmaps. */
    const uint8_t *named;
    size_t named_bytes;
    /* Seconds since 1970 UTC from which other verdicts apply, since it is too old; 0: never. */
    int64_t stale_from;
    gl_authorization *authorization; /* NULL: Python answers Envoy's checks */
    uint64_t asked;
    size_t count;
    gl_perspective *perspectives[GL_PERSPECTIVES];
} gl_snapshot;

static inline void gl_perspective_release(gl_perspective *p)
{
    if (p != NULL && __atomic_sub_fetch(&p->users, 1, __ATOMIC_ACQ_REL) == 0)
        free(p);
}

static inline gl_perspective *gl_perspective_hold(gl_perspective *p)
{
    __atomic_fetch_add(&p->users, 1, __ATOMIC_RELAXED);
    return p;
}

/* Returns NULL for an expression that is too long, or when there is no memory. */
static inline gl_perspective *gl_perspective_new(const uint8_t *expression, size_t size,
                                                 int32_t policy, int stale, unsigned number,
                                                 const uint8_t *outcomes, size_t claims)
{
    gl_perspective *p = NULL;

    if (size > 0 && size <= GL_EXPRESSION)
        p = malloc(sizeof *p + claims);
    if (p == NULL)
        return NULL;
    p->users = 1;
    p->used = 0;
    p->policy = policy;
    p->stale = stale;
    p->size = size;
    memcpy(p->expression, expression, size);
    p->number = number;
    memcpy(p->outcomes, outcomes, claims);
    return p;
}

/* Whether it is too old by now. By the calendar's clock, so that it becomes so while it is in
 * service, and after the machine has slept. */
static inline int gl_snapshot_is_stale(const gl_snapshot *s)
{
    struct timespec now;

    if (s->stale_from == 0)
        return 0;
    clock_gettime(CLOCK_REALTIME, &now); /* time() would be some milliseconds behind Python's */
    return (int64_t)now.tv_sec >= s->stale_from;
}

/* The perspective of a region set under a policy, as a fresh or a stale dataset has it; NULL: it
 * is not at hand. The ones that are asked for most stand first. */
static inline gl_perspective *gl_snapshot_find(gl_snapshot *s, const uint8_t *expression,
                                               size_t size, int32_t policy, int stale)
{
    s->asked++;
    for (size_t i = 0; i < s->count; i++) {
        gl_perspective *p = s->perspectives[i];
        if (p->size != size || p->policy != policy || p->stale != stale ||
            memcmp(p->expression, expression, size) != 0)
            continue;
        p->used = s->asked;
        if (i > 0) {
            s->perspectives[i] = s->perspectives[i - 1];
            s->perspectives[i - 1] = p;
        }
        return p;
    }
    return NULL;
}

/* Takes a perspective over, in the place of the one that was used longest ago if there are
 * as many as can be. */
static inline void gl_snapshot_add(gl_snapshot *s, gl_perspective *p)
{
    size_t oldest = 0;

    if (gl_snapshot_find(s, p->expression, p->size, p->policy, p->stale) != NULL) {
        gl_perspective_release(p);
        return;
    }
    p->used = s->asked;
    if (s->count < GL_PERSPECTIVES) {
        s->perspectives[s->count++] = p;
        return;
    }
    for (size_t i = 1; i < s->count; i++)
        if (s->perspectives[i]->used < s->perspectives[oldest]->used)
            oldest = i;
    gl_perspective_release(s->perspectives[oldest]);
    s->perspectives[oldest] = p;
}

static inline gl_snapshot *gl_snapshot_hold(gl_snapshot *s)
{
    __atomic_fetch_add(&s->users, 1, __ATOMIC_RELAXED);
    return s;
}

/* Whether nobody uses it any more, and it is the caller's to free. */
static inline int gl_snapshot_release(gl_snapshot *s)
{
    return __atomic_sub_fetch(&s->users, 1, __ATOMIC_ACQ_REL) == 0;
}

static inline void gl_snapshot_free(gl_snapshot *s)
{
    for (size_t i = 0; i < s->count; i++)
        gl_perspective_release(s->perspectives[i]);
    gl_authorization_free(s->authorization);
    free(s);
}

/* Bytes of a LookupResponse, of which the verdict and the reason are left out where they are 0;
 * and writes it. */
static inline size_t gl_lookup_bytes(const gl_snapshot *s, unsigned claim, unsigned outcome)
{
    return s->begin[claim + 1] - s->begin[claim] + s->tail_bytes +
           (gl_outcome_verdict(outcome) ? 2 : 0) + (gl_outcome_reason(outcome) ? 2 : 0);
}

static inline void gl_write_lookup(const gl_snapshot *s, unsigned claim, unsigned outcome,
                                   uint8_t *out)
{
    unsigned verdict = gl_outcome_verdict(outcome), reason = gl_outcome_reason(outcome);
    size_t size = s->begin[claim + 1] - s->begin[claim];

    memcpy(out, s->heads + s->begin[claim], size);
    out += size;
    if (verdict)
        out = gl_put_number(out, 4, verdict);
    memcpy(out, s->tail, s->tail_bytes);
    if (reason)
        gl_put_number(out + s->tail_bytes, 6, reason);
}

#endif
