/* TLS by OpenSSL: contexts made of PEM in memory, connections over sockets, and who a client is.
 *
 * Plain C11. Without OpenSSL (no GEOLOOKUP_TLS) there are no contexts and all of this is empty.
 */
#ifndef GEOLOOKUP_TLS_H
#define GEOLOOKUP_TLS_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "meter.h"

/* Who may call what: for each method its names, or that all may. */
enum { GL_ALLOW_METHODS = 10 };

typedef struct {
    int any; /* whether any method has a list */
    int listed[GL_ALLOW_METHODS];
    size_t count[GL_ALLOW_METHODS];
    char **names[GL_ALLOW_METHODS];
} gl_allow;

/* Adds the methods that a caller with this name may call to a mask of them. */
static inline uint32_t gl_allow_name(const gl_allow *allow, const char *name, size_t size,
                                     uint32_t mask)
{
    for (unsigned m = 0; m < GL_ALLOW_METHODS; m++)
        for (size_t i = 0; allow->listed[m] && i < allow->count[m]; i++)
            if (strlen(allow->names[m][i]) == size && memcmp(allow->names[m][i], name, size) == 0)
                mask |= 1u << m;
    return mask;
}

/* The methods that everybody may call. */
static inline uint32_t gl_allow_all(const gl_allow *allow)
{
    uint32_t mask = 0;

    for (unsigned m = 0; m < GL_ALLOW_METHODS; m++)
        if (!allow->listed[m])
            mask |= 1u << m;
    return mask;
}

/* What a read or a write came to, beside a number of bytes. */
enum { GL_TLS_AGAIN = -1, GL_TLS_END = -2, GL_TLS_FAILED = -3, GL_TLS_WANTS_WRITE = -4 };

#ifdef GEOLOOKUP_TLS

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

typedef SSL_CTX gl_tls_context;
typedef SSL gl_tls;

static const int gl_has_tls = 1;

/* A socket for OpenSSL, which by its own BIO would have the system send SIGPIPE to a process that
 * writes to a connection whose peer is gone, and end one that does not ignore it. */
static inline int gl_socket_read(BIO *bio, char *out, int size)
{
    int n = (int)recv((int)(intptr_t)BIO_get_data(bio), out, (size_t)size, 0);

    BIO_clear_retry_flags(bio);
    if (n == 0)
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    else if (n < 0 && BIO_sock_should_retry(n))
        BIO_set_retry_read(bio);
    return n;
}

static inline int gl_socket_write(BIO *bio, const char *data, int size)
{
    int n = (int)send((int)(intptr_t)BIO_get_data(bio), data, (size_t)size, MSG_NOSIGNAL);

    BIO_clear_retry_flags(bio);
    if (n < 0 && BIO_sock_should_retry(n))
        BIO_set_retry_write(bio);
    return n;
}

static inline long gl_socket_control(BIO *bio, int command, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF)
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    return command == BIO_CTRL_FLUSH; /* done: nothing is kept here */
}

/* Has a connection use a socket, which it does not close; 0: there is no memory. */
static inline int gl_tls_attach(SSL *ssl, int descriptor)
{
    static BIO_METHOD *made;
    BIO_METHOD *method = __atomic_load_n(&made, __ATOMIC_ACQUIRE);
    BIO *bio;

    if (method == NULL) {
        BIO_METHOD *none = NULL;
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket");
        if (method == NULL || BIO_meth_set_read(method, gl_socket_read) != 1 ||
            BIO_meth_set_write(method, gl_socket_write) != 1 ||
            BIO_meth_set_ctrl(method, gl_socket_control) != 1) {
            BIO_meth_free(method);
            return 0;
        }
        if (!__atomic_compare_exchange_n(&made, &none, method, 0, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE)) {
            BIO_meth_free(method); /* another thread was quicker */
            method = none;
        }
    }
    bio = BIO_new(method);
    if (bio == NULL)
        return 0;
    BIO_set_data(bio, (void *)(intptr_t)descriptor);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    return 1;
}

static inline int gl_select_h2(SSL *ssl, const unsigned char **out, unsigned char *size,
                        const unsigned char *offered, unsigned int bytes, void *unused)
{
    (void)ssl;
    (void)unused;
    for (unsigned int at = 0; at + 1 <= bytes && at + 1 + offered[at] <= bytes;
         at += 1u + offered[at]) {
        if (offered[at] == 2 && memcmp(offered + at + 1, "h2", 2) == 0) {
            *out = offered + at + 1;
            *size = 2;
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Adds the certificates of a PEM text: the first as the server's own, the rest of its chain. */
static inline int gl_use_chain(SSL_CTX *context, const char *pem, int size)
{
    BIO *bio = BIO_new_mem_buf(pem, size);
    X509 *one = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL;
    int good = one != NULL && SSL_CTX_use_certificate(context, one) == 1;

    X509_free(one);
    while (good && (one = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL)
        if (SSL_CTX_add0_chain_cert(context, one) != 1) {
            X509_free(one);
            good = 0;
        }
    ERR_clear_error(); /* the end of the text is one */
    BIO_free(bio);
    return good;
}

static inline int gl_no_password(char *out, int size, int writing, void *unused)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)unused;
    return 0;
}

static inline int gl_use_key(SSL_CTX *context, const char *pem, int size)
{
    BIO *bio = BIO_new_mem_buf(pem, size);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, gl_no_password, NULL) : NULL;
    int good = key != NULL && SSL_CTX_use_PrivateKey(context, key) == 1;

    EVP_PKEY_free(key);
    BIO_free(bio);
    return good;
}

static inline int gl_trust(SSL_CTX *context, const char *pem, int size)
{
    BIO *bio = BIO_new_mem_buf(pem, size);
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    STACK_OF(X509_INFO) *all = bio ? PEM_X509_INFO_read_bio(bio, NULL, NULL, NULL) : NULL;
    int found = 0;

    for (int i = 0; all != NULL && i < sk_X509_INFO_num(all); i++) {
        X509 *one = sk_X509_INFO_value(all, i)->x509;
        if (one == NULL)
            continue;
        found |= X509_STORE_add_cert(store, one) == 1;
        SSL_CTX_add_client_CA(context, one);
    }
    sk_X509_INFO_pop_free(all, X509_INFO_free);
    BIO_free(bio);
    ERR_clear_error();
    return found;
}

/* Returns NULL for what OpenSSL does not take. `authorities` is NULL where clients need no
 * certificates; else they must have one that comes from one of these. */
static inline gl_tls_context *gl_tls_context_new(const char *chain, int chain_bytes, const char *key,
                                          int key_bytes, const char *authorities,
                                          int authorities_bytes)
{
    static const unsigned char name[] = "geolookup";
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    int good;

    if (context == NULL)
        return NULL;
    good = SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1 &&
           gl_use_chain(context, chain, chain_bytes) && gl_use_key(context, key, key_bytes) &&
           SSL_CTX_check_private_key(context) == 1 &&
           SSL_CTX_set_session_id_context(context, name, sizeof name - 1) == 1;
    if (good && authorities != NULL) {
        good = gl_trust(context, authorities, authorities_bytes);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    /* Connections last for long, so resuming sessions would save little, and a ticket would
     * keep a client's certificate good after its authority is no longer trusted. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
                                     SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_alpn_select_cb(context, gl_select_h2, NULL);
    ERR_clear_error();
    if (good)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

static inline void gl_tls_context_free(gl_tls_context *context)
{
    SSL_CTX_free(context);
}

static inline gl_tls *gl_tls_new(gl_tls_context *context, int descriptor)
{
    SSL *ssl = SSL_new(context);

    if (ssl != NULL && gl_tls_attach(ssl, descriptor)) {
        SSL_set_accept_state(ssl);
        return ssl;
    }
    SSL_free(ssl);
    return NULL;
}

static inline void gl_tls_free(gl_tls *ssl)
{
    SSL_free(ssl);
}

static inline int gl_tls_result(gl_tls *ssl, int result)
{
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return GL_TLS_AGAIN;
    case SSL_ERROR_WANT_WRITE:
        return GL_TLS_WANTS_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return GL_TLS_END;
    default:
        ERR_clear_error();
        return GL_TLS_FAILED;
    }
}

/* Why a handshake failed: one of GL_HANDSHAKE_*. OpenSSL's errors must still be there. */
static inline unsigned gl_tls_handshake_failure(const gl_tls *ssl, int result)
{
    unsigned long error = ERR_peek_error();

    if (error == 0)
        return SSL_get_error(ssl, result) == SSL_ERROR_SSL ? GL_HANDSHAKE_OTHER
                                                           : GL_HANDSHAKE_CLOSED;
    if (ERR_GET_LIB(error) != ERR_LIB_SSL)
        return GL_HANDSHAKE_OTHER;
    if (ERR_GET_REASON(error) > SSL_AD_REASON_OFFSET) /* an alert, which only clients send here */
        return GL_HANDSHAKE_REFUSED;
    switch (ERR_GET_REASON(error)) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return GL_HANDSHAKE_NO_CERTIFICATE;
    case SSL_R_NO_APPLICATION_PROTOCOL:
        return GL_HANDSHAKE_NO_HTTP2;
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
        return GL_HANDSHAKE_NO_TLS;
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return GL_HANDSHAKE_CLOSED;
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        break;
    default:
        return GL_HANDSHAKE_OTHER;
    }
    switch (SSL_get_verify_result(ssl)) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return GL_HANDSHAKE_EXPIRED;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE: /* another authority of the same name */
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        return GL_HANDSHAKE_UNKNOWN_AUTHORITY;
    default:
        return GL_HANDSHAKE_BAD_CERTIFICATE;
    }
}

/* 0: it is done. Where it failed, *failure is why. */
static inline int gl_tls_handshake(gl_tls *ssl, unsigned *failure)
{
    int result, code;

    ERR_clear_error();
    result = SSL_do_handshake(ssl);
    if (result == 1)
        return 0;
    code = SSL_get_error(ssl, result);
    if (code != SSL_ERROR_WANT_READ && code != SSL_ERROR_WANT_WRITE)
        *failure = gl_tls_handshake_failure(ssl, result);
    return gl_tls_result(ssl, result);
}

static inline ssize_t gl_tls_read(gl_tls *ssl, uint8_t *out, size_t size)
{
    int result;

    ERR_clear_error();
    result = SSL_read(ssl, out, (int)size);
    return result > 0 ? result : gl_tls_result(ssl, result);
}

static inline ssize_t gl_tls_write(gl_tls *ssl, const uint8_t *data, size_t size)
{
    int result;

    ERR_clear_error();
    result = SSL_write(ssl, data, size > 0x7FFFFFFF ? 0x7FFFFFFF : (int)size);
    return result > 0 ? result : gl_tls_result(ssl, result);
}

static inline int gl_tls_has_more(const gl_tls *ssl)
{
    return SSL_has_pending(ssl);
}

static inline void gl_tls_goodbye(gl_tls *ssl)
{
    ERR_clear_error();
    SSL_shutdown(ssl);
    ERR_clear_error();
}

static inline int gl_is_ip(const char *name)
{
    uint8_t out[16];

    return inet_pton(AF_INET, name, out) == 1 || inet_pton(AF_INET6, name, out) == 1;
}

/* Whether a name of this kind looks like none of another: an authority that may issue DNS names
 * must not thereby issue URIs. `name` ends with a zero that is not of its size. */
static inline int gl_name_fits(int kind, const char *name, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (name[i] < 0x20 || name[i] > 0x7E)
            return 0;
    switch (kind) {
    case GEN_URI:
        return strstr(name, "://") != NULL;
    case GEN_EMAIL:
        return strchr(name, '@') != NULL && strstr(name, "://") == NULL;
    case GEN_DNS:
        return strpbrk(name, ":/@") == NULL && !gl_is_ip(name);
    default:
        return gl_is_ip(name);
    }
}

/* Reads the alternative names of the client's certificate. Returns the methods that it may
 * call, and its names as gRPC's auth context calls them: "kind", 0, "name", 0, ... in memory
 * that the caller frees. */
static inline uint32_t gl_tls_identities(const gl_tls *ssl, const gl_allow *allow, uint8_t **names,
                                  size_t *bytes)
{
    uint32_t mask = gl_allow_all(allow);
    X509 *certificate = SSL_get1_peer_certificate(ssl);
    GENERAL_NAMES *all = NULL;

    *names = NULL;
    *bytes = 0;
    if (certificate != NULL)
        all = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; all != NULL && i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *one = sk_GENERAL_NAME_value(all, i);
        const char *kind = one->type == GEN_URI     ? "peer_uri"
                           : one->type == GEN_EMAIL ? "peer_email"
                           : one->type == GEN_DNS   ? "peer_dns"
                           : one->type == GEN_IPADD ? "peer_ip"
                                                    : NULL;
        char name[1024];
        size_t size, more;
        uint8_t *grown;
        if (kind == NULL)
            continue;
        if (one->type == GEN_IPADD) {
            const ASN1_OCTET_STRING *ip = one->d.iPAddress;
            int family = ASN1_STRING_length(ip) == 4 ? AF_INET : AF_INET6;
            if ((ASN1_STRING_length(ip) != 4 && ASN1_STRING_length(ip) != 16) ||
                inet_ntop(family, ASN1_STRING_get0_data(ip), name, sizeof name) == NULL)
                continue;
            size = strlen(name);
        } else {
            const ASN1_IA5STRING *text = one->d.ia5;
            size = (size_t)ASN1_STRING_length(text);
            if (size == 0 || size >= sizeof name)
                continue;
            memcpy(name, ASN1_STRING_get0_data(text), size);
            name[size] = 0;
        }
        if (!gl_name_fits(one->type, name, size))
            continue;
        mask = gl_allow_name(allow, name, size, mask);
        more = strlen(kind) + 1 + size + 1;
        grown = realloc(*names, *bytes + more);
        if (grown == NULL)
            break;
        memcpy(grown + *bytes, kind, strlen(kind) + 1);
        memcpy(grown + *bytes + strlen(kind) + 1, name, size + 1);
        *names = grown;
        *bytes += more;
    }
    GENERAL_NAMES_free(all);
    X509_free(certificate);
    ERR_clear_error();
    return mask;
}

#else

typedef struct gl_tls_context gl_tls_context;
typedef struct gl_tls gl_tls;

static const int gl_has_tls = 0;

#define gl_tls_context_new(a, b, c, d, e, f) NULL
static inline void gl_tls_context_free(gl_tls_context *context) { (void)context; }
static inline gl_tls *gl_tls_new(gl_tls_context *context, int descriptor)
{
    (void)context;
    (void)descriptor;
    return NULL;
}
static inline void gl_tls_free(gl_tls *tls) { (void)tls; }
static inline int gl_tls_handshake(gl_tls *tls, unsigned *failure)
{
    (void)tls;
    *failure = GL_HANDSHAKE_OTHER;
    return GL_TLS_FAILED;
}
static inline ssize_t gl_tls_read(gl_tls *tls, uint8_t *out, size_t size)
{
    (void)tls;
    (void)out;
    (void)size;
    return GL_TLS_FAILED;
}
static inline ssize_t gl_tls_write(gl_tls *tls, const uint8_t *data, size_t size)
{
    (void)tls;
    (void)data;
    (void)size;
    return GL_TLS_FAILED;
}
static inline int gl_tls_has_more(const gl_tls *tls) { (void)tls; return 0; }
static inline void gl_tls_goodbye(gl_tls *tls) { (void)tls; }
static inline uint32_t gl_tls_identities(const gl_tls *tls, const gl_allow *allow,
                                         uint8_t **names, size_t *bytes)
{
    (void)tls;
    *names = NULL;
    *bytes = 0;
    return gl_allow_all(allow);
}

#endif

#endif
