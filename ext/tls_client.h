/* TLS of a client: whom it trusts, what it shows, and why a handshake failed.
 *
 * Plain C11; tls.h has what server and client share.
 */
#ifndef GEOLOOKUP_TLS_CLIENT_H
#define GEOLOOKUP_TLS_CLIENT_H

#include "tls.h"

#include <stdio.h>

#ifdef GEOLOOKUP_TLS

/* Returns NULL for what OpenSSL does not take. Without `authorities` (NULL) those of the system
 * are trusted; without `chain` (NULL) no certificate is shown. All are PEM. */
static inline gl_tls_context *glc_tls_context_new(const char *authorities, int authorities_bytes,
                                                  const char *chain, int chain_bytes,
                                                  const char *key, int key_bytes)
{
    static const unsigned char protocols[] = "\2h2";
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    int good;

    if (context == NULL)
        return NULL;
    good = SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1 &&
           SSL_CTX_set_alpn_protos(context, protocols, sizeof protocols - 1) == 0 &&
           (authorities != NULL ? gl_trust(context, authorities, authorities_bytes)
                                : SSL_CTX_set_default_verify_paths(context) == 1);
    if (good && chain != NULL)
        good = gl_use_chain(context, chain, chain_bytes) && gl_use_key(context, key, key_bytes) &&
               SSL_CTX_check_private_key(context) == 1;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    ERR_clear_error();
    if (good)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

/* A connection whose server must have a certificate for this name, or IP address. Its alternative
 * names say what it is for, and its subject says nothing: anybody may be a "common name". */
static inline gl_tls *glc_tls_new(gl_tls_context *context, int descriptor, const char *name)
{
    SSL *ssl = SSL_new(context);
    int good = ssl != NULL && gl_tls_attach(ssl, descriptor);

    if (good && gl_is_ip(name))
        good = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    else if (good) {
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
                                   X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        good = SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
    }
    if (good) {
        SSL_set_connect_state(ssl);
        return ssl;
    }
    SSL_free(ssl);
    return NULL;
}

enum { GLC_TLS_PROBLEM = 128 };

/* As gl_tls_handshake; sets what went wrong where something did, perhaps to what it writes to
 * `room`, of GLC_TLS_PROBLEM bytes. */
static inline int glc_tls_handshake(gl_tls *ssl, const char **problem, char *room)
{
    const unsigned char *protocol;
    unsigned int bytes;
    unsigned long error;
    long verified;
    int result;

    ERR_clear_error();
    result = SSL_do_handshake(ssl);
    if (result == 1) {
        SSL_get0_alpn_selected(ssl, &protocol, &bytes);
        if (bytes == 2 && memcmp(protocol, "h2", 2) == 0)
            return 0;
        *problem = "missing selected ALPN property";
        return GL_TLS_FAILED;
    }
    error = ERR_peek_error();
    verified = SSL_get_verify_result(ssl);
    switch (verified) {
    case X509_V_OK:
        *problem = ERR_GET_REASON(error) == SSL_R_WRONG_VERSION_NUMBER ||
                           ERR_GET_REASON(error) == SSL_R_PACKET_LENGTH_TOO_LONG ||
                           ERR_GET_REASON(error) == SSL_R_HTTP_REQUEST
                       ? "TLS handshake: WRONG_VERSION_NUMBER"
                       : "TLS handshake failed";
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        *problem = "Hostname Verification Check failed";
        break;
    default: /* OpenSSL's text is one of a list, and holds nothing of the certificate */
        snprintf(room, GLC_TLS_PROBLEM, "CERTIFICATE_VERIFY_FAILED: %s",
                 X509_verify_cert_error_string(verified));
        *problem = room;
    }
    return gl_tls_result(ssl, result);
}

#else

#define glc_tls_context_new(a, b, c, d, e, f) NULL
static inline gl_tls *glc_tls_new(gl_tls_context *context, int descriptor, const char *name)
{
    (void)context;
    (void)descriptor;
    (void)name;
    return NULL;
}
enum { GLC_TLS_PROBLEM = 1 };
static inline int glc_tls_handshake(gl_tls *tls, const char **problem, char *room)
{
    (void)tls;
    (void)room;
    *problem = "no TLS";
    return GL_TLS_FAILED;
}

#endif

#endif
