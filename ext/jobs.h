/* Work that the event loop gives to threads: what a call asks for, and what came of it.
 *
 * A job belongs to one thread at a time: to the loop, then, by way of a queue, to a thread that
 * works on it, and by way of the list of those that are done to the loop again. The one exception
 * is `gone`, which the loop sets while a thread works.
 */
#ifndef GEOLOOKUP_JOBS_H
#define GEOLOOKUP_JOBS_H

#include "slots.h"
#include "snapshot.h"

#include <pthread.h>

typedef enum {
    GL_JOB_ROSTER,  /* a roster, for threads without the interpreter lock */
    GL_JOB_UNARY,   /* the rest is for Python: a unary call */
    GL_JOB_MESSAGE, /* a message of a call of StreamRosters that is counted here */
    GL_JOB_BEGIN,   /* a stream that Python counts begins, */
    GL_JOB_NEXT,    /* has a message, */
    GL_JOB_MORE,    /* has sent an answer that is to be followed by another, */
    GL_JOB_LAST,    /* has all its client's messages, */
    GL_JOB_END,     /* and has ended */
    GL_JOB_UNPACK,  /* a compressed message */
    GL_JOB_DROP,    /* a snapshot that nobody uses any more */
} gl_job_kind;

/* Header fields: of each two sizes (4 bytes each, of this machine), its name and its value. */
typedef struct {
    uint8_t *at;
    size_t bytes;
} gl_fields;

struct gl_call;

typedef struct gl_job {
    struct gl_job *next;
    struct gl_call *call; /* the loop's; NULL: the call is over */
    gl_snapshot *snapshot;
    gl_perspective *perspective;
    gl_rule *route; /* that Python found out */
    gl_job_kind kind;
    unsigned method;   /* the meter's number */
    const char *path;  /* the method's */
    uint64_t serial;   /* of the stream */
    uint64_t position; /* of the message in its stream */
    uint64_t accepted, deadline;
    uint8_t *body;
    size_t size;
    int wrapped; /* a StreamRostersRequest */
    int python;  /* of a stream that Python knows */
    uint64_t charged; /* of the budget of memory */
    gl_slots *slots;  /* of which it holds one, when its call is over */
    uint8_t *metadata, *identities;
    size_t metadata_bytes, identities_bytes;
    int gone; /* GL_CANCELLED or GL_DEADLINE_EXCEEDED: no client waits; 0: one does */
    /* What came of it: an answer after room for its prefix, or a code and a text. */
    int code;
    int shed;
    int finished; /* the call ends with it, though it is a stream */
    int more;     /* it is asked for another answer when this one was taken */
    char *text;
    uint8_t *answer; /* in `memory` */
    uint8_t *memory;
    size_t answer_bytes;
    gl_fields headers, trailers;
} gl_job;

static inline int gl_job_gone(const gl_job *job)
{
    return __atomic_load_n(&job->gone, __ATOMIC_RELAXED);
}

static inline void gl_job_cancel(gl_job *job, int code)
{
    __atomic_store_n(&job->gone, code, __ATOMIC_RELAXED);
}

/* Frees a job whose snapshot was released. */
static inline void gl_job_free(gl_job *job)
{
    gl_perspective_release(job->perspective);
    free(job->route);
    free(job->body);
    free(job->metadata);
    free(job->identities);
    free(job->text);
    free(job->memory);
    free(job->headers.at);
    free(job->trailers.at);
    free(job);
}

/* Jobs in the order in which they came. The lock is held for as long as it takes to link one. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t ready;
    gl_job *first, **last;
    int closed;
} gl_job_queue;

static inline void gl_jobs_open(gl_job_queue *q)
{
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->ready, NULL);
    q->first = NULL;
    q->last = &q->first;
    q->closed = 0;
}

static inline void gl_jobs_destroy(gl_job_queue *q)
{
    pthread_cond_destroy(&q->ready);
    pthread_mutex_destroy(&q->lock);
}

static inline void gl_jobs_put(gl_job_queue *q, gl_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&q->lock);
    *q->last = job;
    q->last = &job->next;
    pthread_cond_signal(&q->ready);
    pthread_mutex_unlock(&q->lock);
}

/* Waits for the next one; NULL: there will be none. */
static inline gl_job *gl_jobs_get(gl_job_queue *q)
{
    gl_job *job;

    pthread_mutex_lock(&q->lock);
    while (q->first == NULL && !q->closed)
        pthread_cond_wait(&q->ready, &q->lock);
    job = q->first;
    if (job != NULL) {
        q->first = job->next;
        if (q->first == NULL)
            q->last = &q->first;
    }
    pthread_mutex_unlock(&q->lock);
    return job;
}

/* Takes out all that wait. */
static inline gl_job *gl_jobs_take(gl_job_queue *q)
{
    gl_job *jobs;

    pthread_mutex_lock(&q->lock);
    jobs = q->first;
    q->first = NULL;
    q->last = &q->first;
    pthread_mutex_unlock(&q->lock);
    return jobs;
}

/* Has all threads that wait, or come later, find nothing once it is empty. */
static inline void gl_jobs_close(gl_job_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = 1;
    pthread_cond_broadcast(&q->ready);
    pthread_mutex_unlock(&q->lock);
}

#endif
