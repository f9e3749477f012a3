/* The HTTP/2 server of one worker: what it is told, its connections and their calls.
 *
 * Plain C11. One thread runs the event loop (event_loop.h) and owns everything here but what is
 * marked as shared. It takes no lock but those of the queues, one at a time and for as long as
 * it takes to link a job, and never the interpreter's.
 */
#ifndef GEOLOOKUP_SERVER_H
#define GEOLOOKUP_SERVER_H

#include "grpc_frame.h"
#include "http2_memory.h"
#include "jobs.h"
#include "meter.h"
#include "slots.h"
#include "tls.h"

#include <sys/uio.h>

enum { GL_LISTENERS = 16 };

/* How a method is answered. */
typedef enum {
    GL_LOOKUP,         /* in place */
    GL_ROSTER,         /* in place, or by a thread where it is large */
    GL_ROSTERS,        /* the same for each message of a stream */
    GL_AUTHORIZATION,  /* in place */
    GL_HEALTH_CHECK,   /* in place */
    GL_HEALTH_WATCH,   /* in place, whenever the health changes */
    GL_PYTHON,         /* by a handler in Python */
    GL_PYTHON_STREAM,  /* the same for each message of a stream */
} gl_method_kind;

typedef struct {
    char *path;
    size_t size;
    unsigned number; /* the meter's */
    gl_method_kind kind;
    int lasting;         /* it lasts as long as its client likes, and does not hold up a stop */
    gl_slots *slots;     /* NULL: it is never shed */
    const char *shed;    /* what a call is told that finds none */
    const char *refused; /* and one whose client may not make it */
} gl_method;

/* What a server is told; times in milliseconds, 0 is never. */
typedef struct {
    uint64_t message_bytes;
    uint64_t roster;
    uint64_t metadata_bytes;
    uint32_t streams; /* of one connection at a time */
    uint64_t connections;
    /* Bytes that all messages above GL_LARGE and their answers may take together, so that what
     * max_calls allows does not come to gigabytes. One alone may take more. */
    uint64_t memory;
    uint64_t handshake_timeout, transfer_timeout, idle, keepalive, age, grace;
    uint32_t policies; /* a bit for each number of a policy */
    int unanimous;     /* the number that 0 stands for */
    int compression;
    int metadata; /* whether Python wants to see it */
    int identities;
    const char *service; /* whose health it is, beside "" */
} gl_server_settings;

typedef struct gl_server gl_server;
typedef struct gl_connection gl_connection;
typedef struct gl_call gl_call;

enum gl_stage {
    GL_READING, /* its next message is awaited */
    GL_BUSY,    /* a thread has it */
    GL_SENDING, /* an answer, or what ends it, is being sent */
    GL_WATCHING,
};

struct gl_call {
    gl_call *previous, *next;             /* in its connection */
    gl_call *previous_timed, *next_timed; /* of those with a deadline */
    gl_connection *connection;
    gl_call *pumped; /* the next one whose answer was taken */
    const gl_method *method; /* NULL: there is none of this path */
    int32_t stream;
    uint8_t stage;
    uint8_t timed;
    uint8_t post, grpc, path_seen;
    uint8_t encoding;   /* 0: none; 1: gzip; 2: another */
    uint8_t ended;      /* the client has said all */
    uint8_t begun;      /* response headers are on their way */
    uint8_t ending;     /* after what is being sent comes the end */
    uint8_t more;       /* after what is being sent Python has another answer */
    uint8_t all_given;  /* Python knows that the client has said all */
    uint8_t ended_here; /* the end is on its way */
    uint8_t reset;      /* by us */
    uint8_t in_place;   /* answered, and its slot given back before that was sent */
    uint8_t unslotted;  /* it found no slot, and is shed if it is not answered in this turn */
    uint8_t counted;    /* as in flight, here */
    uint8_t python;     /* a stream that Python knows */
    uint8_t in_pump;
    uint8_t ours;       /* a watch of what changes */
    uint8_t state;      /* that a watch was sent last */
    char retry[12];     /* milliseconds after which it may come again; empty: it is not said */
    int code;
    gl_slots *slots;    /* which it holds one of */
    uint64_t accepted, deadline;
    uint64_t since; /* when its request, a message of it began, or some of an answer was taken */
    uint64_t metadata_bytes;
    uint64_t position, serial;
    gl_call *older, *younger; /* of those whose large message is coming */
    uint8_t receiving;  /* whether it is one of them */
    uint64_t charged;   /* of the budget of memory */
    gl_snapshot *snapshot; /* a stream's */
    gl_job *job;        /* that is out */
    /* The message that is being read. */
    uint8_t prefix[GL_PREFIX];
    uint8_t have_prefix;
    uint8_t whole; /* a unary call's message, which is answered when its client has said all */
    uint8_t *body;
    size_t have, size;
    /* What came while the one before was answered; not yet taken from the windows. */
    uint8_t *ahead;
    size_t ahead_bytes, ahead_room;
    /* What is being sent. */
    const uint8_t *out;
    size_t out_bytes, sent;
    uint8_t *owned; /* where it is not `small` or static */
    uint64_t lent; /* the last write that had pieces of it: gl_output.number */
    char *text;     /* of the status */
    gl_fields headers, trailers; /* of a handler's own */
    uint8_t *metadata; /* for Python: name, 0, value, 0, ... as sizes and bytes */
    size_t metadata_kept, metadata_room;
    uint8_t small[GL_SMALL_ANSWER];
};

struct gl_connection {
    gl_connection *previous, *next;
    gl_connection *again_next; /* of those with something to do that epoll does not know of */
    gl_server *server;
    gl_meter *meter; /* of its calls: the server's, or one that is not read */
    nghttp2_session *session;
    gl_call *calls;
    gl_call *pump; /* whose answers were taken, and that may have another message */
    gl_tls *tls;
    uint8_t *pending; /* what the socket did not take */
    size_t pending_at, pending_bytes;
    int descriptor;
    uint32_t events; /* that epoll looks for */
    uint32_t allowed; /* a bit for each method */
    uint8_t handshaking, settled, in_again, closed;
    uint8_t large;    /* a large message is being read */
    uint8_t retiring; /* 1: the client knows that it ends; 2: nothing new is taken */
    uint8_t closing;  /* nothing more is sent after what is pending; 2: only read */
    gl_connection *longer, *shorter; /* of those that wait for their first call */
    uint8_t private;  /* the supervisor's: it has calls of `private_method` alone */
    uint8_t probing;  /* a probe was not answered yet */
    uint8_t strikes;
    uint8_t pinged;
    uint8_t unread;   /* OpenSSL may hold bytes that epoll does not know of */
    unsigned open;      /* calls */
    unsigned unslotted; /* of these without a slot: see gl_settle_slots */
    unsigned answered;  /* of these answered in place, whose slots were given back */
    int32_t last_stream; /* that its client has opened */
    int32_t finished[GL_FINISHED]; /* the last streams whose client has ended them */
    unsigned finished_next;
    uint8_t frame_head[GL_FRAME_HEAD]; /* of a frame that has not come whole */
    uint8_t frame_head_bytes;
    uint32_t frame_left; /* bytes of the frame that is being read */
    int64_t credit;     /* frames without work */
    uint64_t credited;  /* when that was reckoned */
    uint64_t made, heard, idle_since, pinged_at, probed_at, retire_by, close_by, age_due;
    uint8_t *identities;
    size_t identities_bytes;
};

/* What is about to be written to a connection: bytes of libnghttp2, which are copied, and pieces of
 * large answers, which are not. */
typedef struct {
    uint8_t *copied; /* room for 2 * GL_OUTPUT */
    size_t copied_bytes;
    size_t bytes; /* of all pieces, as far as they are not written */
    struct iovec pieces[GL_PIECES];
    unsigned piece_count, first_piece; /* the ones before it are written */
    uint64_t number; /* of this write */
    /* Answers with pieces in this write whose calls are over. */
    uint8_t *over[GL_PIECES];
    unsigned over_count;
} gl_output;

struct gl_server {
    gl_server_settings settings;
    gl_method *methods;
    size_t method_count;
    gl_slots *other_slots; /* for requests that are no calls */
    gl_method private_method; /* a lookup that holds no slot, which any load leaves answered */
    gl_meter *private_meter;
    const gl_core_api *core;
    gl_meter *meter;
    gl_allow allow;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    gl_blocks blocks;
    nghttp2_mem memory;
    int epoll;
    int listeners[GL_LISTENERS];
    unsigned listener_count;
    int paused; /* no descriptor is free for another connection */
    gl_connection *connections, *again, *gone;
    gl_connection *uncalled_longest, *uncalled_last; /* that have made no call yet */
    uint64_t connection_count;
    gl_call *timed;
    gl_call *youngest; /* whose large message is coming */
    gl_call *spare; /* calls to use again */
    unsigned spare_count;
    uint64_t now, next_deadline, next_look;
    uint64_t serial, random;
    uint64_t out;   /* jobs that are in threads' hands */
    gl_snapshot *snapshot;
    gl_tls_context *context;
    int serving;
    int stopping;
    uint64_t stop_at, cut_off_at, next_pause;
    uint8_t *input;
    gl_output output;

    /* Shared. The queues have their own locks; `lock` guards what stands behind it. */
    gl_job_queue rosters, rare, done;
    int wake; /* an eventfd */
    pthread_mutex_t lock;
    gl_snapshot *next_snapshot;
    gl_tls_context *next_context;
    int next_serving;
    int retire_asked;
    int next_private; /* a socket that is connected; -1: none */
    int stop_asked;
    uint64_t stop_asked_at;
};

enum { GL_SPARE_CALLS = 1024 };

static const uint64_t GL_MILLISECOND = 1000000;
static const uint64_t GL_SECOND = 1000000000;
static const uint64_t GL_NEVER = UINT64_MAX;

static inline uint64_t gl_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * GL_SECOND + (uint64_t)t.tv_nsec;
}

static inline uint64_t gl_after(uint64_t now, uint64_t milliseconds)
{
    return milliseconds ? now + milliseconds * GL_MILLISECOND : GL_NEVER;
}

/* Wakes the loop. Any thread may. */
static inline void gl_wake(gl_server *s)
{
    uint64_t one = 1;
    ssize_t written = write(s->wake, &one, sizeof one);

    (void)written; /* full: it is awake anyway */
}

/* Notes that a call's share of the budget of memory changes. Calls in JSON have a share of it, too,
 * so what is taken in all is the meter's number. */
static inline void gl_recharge(gl_server *s, uint64_t *charged, uint64_t charge)
{
    if (*charged == charge)
        return;
    gl_meter_add_memory(s->meter, charge - *charged);
    *charged = charge;
}

/* Bytes of the budget that are taken, by whichever calls. */
static inline uint64_t gl_large(const gl_server *s)
{
    return gl_load(&s->meter->memory);
}

/* Lets go of a snapshot; the last one to do so has Python free it. Any thread may. */
static inline void gl_snapshot_drop(gl_server *s, gl_snapshot *snapshot)
{
    if (snapshot != NULL && gl_snapshot_release(snapshot)) {
        /* Its first bytes of memory for jobs were set aside: this can't fail. */
        gl_job *job = snapshot->last_job;

        job->kind = GL_JOB_DROP;
        job->snapshot = snapshot;
        gl_jobs_put(&s->rare, job);
    }
}

#endif
