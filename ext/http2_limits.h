/* The bounds of the HTTP/2 server: everything that a client can make grow, in one place.
 *
 * What an operator may set is in gl_server_settings (server.h); what stands here follows from
 * the protocols, from what real clients send, or from the time that a turn may take.
 */
#ifndef GEOLOOKUP_HTTP2_LIMITS_H
#define GEOLOOKUP_HTTP2_LIMITS_H

enum {
    /* Bytes of a stream that a client may send before they are asked for: a roster of 100,000
     * IPv4 addresses needs no more. A message that is wanted gets more, as it is read. */
    GL_STREAM_WINDOW = 512 * 1024,
    /* The same of a connection: eight such rosters. */
    GL_CONNECTION_WINDOW = 4 * 1024 * 1024,
    /* Bytes of the largest frame in either direction. The least that HTTP/2 allows for what
     * comes in; what goes out takes what the client allows, up to this. */
    GL_FRAME_IN = 16384,
    GL_FRAME_OUT = 65536,
    /* Bytes of HPACK's tables, each way. HTTP/2's own default. */
    GL_HEADER_TABLE = 4096,
    /* Header bytes (name, value and 32 each, RFC 9113 6.5.2) of one request after which the
     * connection is closed, as multiples of the limit above which the call is refused: the rest
     * has to be decoded, or the next request could not be. */
    GL_METADATA_EXCESS = 16,
    /* CONTINUATION frames of one header block: some clients send 20 kB of headers. */
    GL_CONTINUATIONS = 64,
    /* Streams of a connection of which is known that their clients have ended them: DATA on one
     * of these closes the connection. DATA on a stream that the server has ended may have been on
     * its way, and is ignored; so is what comes later than this many streams. */
    GL_FINISHED = 16,
    GL_FRAME_HEAD = 9, /* bytes, of which libnghttp2 exports no name */
    GL_PREFACE = 24,
    /* Settings in one frame; six are defined. */
    GL_SETTINGS = 32,
    /* Answers to pings and settings that wait to be sent. */
    GL_ACKNOWLEDGEMENTS = 64,

    /* Bytes that are read from a connection in a turn, and while a large message comes. */
    GL_TURN = 16384,
    GL_LARGE_TURN = 262144,
    /* Bytes that are written to a connection in a turn. More waits in libnghttp2. */
    GL_OUTPUT = 131072,
    /* Pieces of a write: see GL_UNCOPIED. */
    GL_PIECES = 128,
    /* Connections that are accepted in a turn. */
    GL_ACCEPTS = 64,
    /* Events that are taken from the system in a turn. */
    GL_EVENTS = 256,

    /* Frames that carry no work (empty DATA, WINDOW_UPDATE, PRIORITY, SETTINGS, PING,
     * RST_STREAM and unknown ones): so many at once, and so many a second. grpc-go sends a PING
     * and a WINDOW_UPDATE with each call, grpcio two WINDOW_UPDATEs; a call that is answered
     * pays for GL_FRAMES_A_CALL. */
    GL_IDLE_FRAMES = 20000,
    GL_IDLE_FRAMES_A_SECOND = 10000,
    GL_FRAMES_A_CALL = 8,
    /* Streams that clients reset: libnghttp2's own limit (1,000, then 33 a second) would send
     * honest clients away whose deadlines pass. Ours is the one above. */
    GL_RESETS = 100000,
    GL_RESETS_A_SECOND = 10000,

    /* Seconds between pings without a call between them, and how many may come earlier. gRPC's
     * own 300 s would cut off proxies that keep connections alive with the usual 10 to 60. */
    GL_PING_INTERVAL = 10,
    GL_PING_STRIKES = 2,
    /* Milliseconds that a client has to answer a probe. gRPC's own default. */
    GL_KEEPALIVE_ANSWER = 20000,
    /* Milliseconds between the news that a connection will end and the last call that it
     * takes, if the client does not acknowledge it before. */
    GL_RETIREMENT = 250,
    /* Milliseconds for which a connection that was closed is still read, so that the system
     * does not discard what was sent. */
    GL_LINGER = 500,
    /* Milliseconds without a roster after which a stream is ended by a stop, so that its client
     * goes on elsewhere; one in use has the whole grace. */
    GL_STREAM_PAUSE = 1000,
    /* Milliseconds in which a health watch has to take the news of a stop. */
    GL_LAST_STATE = 1000,

    /* Bytes of a health check's request, which holds no slot. */
    GL_HEALTH_REQUEST = 4096,
    /* Header fields that a handler in Python may add to headers and to trailers, and bytes of
     * their names and values. */
    GL_OWN_FIELDS = 64,
    GL_OWN_FIELD_BYTES = 16384,
    /* Bytes of an answer that are kept in the call itself. */
    GL_SMALL_ANSWER = 320,
    /* Region sets with a policy whose verdicts a dataset keeps at hand. */
    GL_PERSPECTIVES = 256,
    /* Bytes of a region set's expression that is kept; longer ones go the long way. */
    GL_EXPRESSION = 256,
    /* Rules of Envoy's routes that a dataset keeps at hand, bytes of what a route says of its
     * rule, and rules that may apply to one request: more go the long way. */
    GL_ROUTES = 64,
    GL_ROUTE = 1024,
    GL_RULES_APPLIED = 16,
};

/* Bytes of a request above which its answer is made by a thread: others would wait. A fuzz target
 * has another. */
#ifndef GL_LARGE
#define GL_LARGE 65536
#endif

/* Bytes of an answer in a frame from which on they are not copied before they are written: a piece
 * costs as much as to copy a thousand. The same. */
#ifndef GL_UNCOPIED
#define GL_UNCOPIED 4096
#endif

#endif
