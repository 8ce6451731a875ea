/* OpenSSL's contexts and connections for the worker. Holds public material and ticket keys: the
 * private keys are the keeper's, behind EVP_PKEYs that frontd/signer_provider makes. Opens no file:
 * PEM texts come from the supervisor. */
#include "frontd/tls.h"

#include "frontd/tls_verify.h"

#include <openssl/err.h>
#include <stdlib.h>

void tls_peer_clear(struct tls_peer *peer)
{
    identity_clear(&peer->identity);
    free(peer->claimed);
    peer->claimed = NULL;
    peer->good_until = 0;
    peer->is_denied = false;
    peer->reason[0] = '\0';
}

/* ---- contexts ------------------------------------------------------------------------------- */

static int choose_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_len,
                           const unsigned char *offered, unsigned offered_len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *found;

    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&found, chosen_len, ours, sizeof(ours) - 1, offered, offered_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
}

static void set_rules(SSL_CTX *context, const struct frontd_options *options)
{
    static const unsigned char session_context[] = "caf";
    int verify = SSL_VERIFY_PEER;

    if (options->listen_client_cert == CLIENT_CERT_REQUIRED)
        verify |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(context, session_context, sizeof(session_context) - 1);
    SSL_CTX_set_max_early_data(context, 0);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(context, verify, NULL);
    SSL_CTX_set_verify_depth(context, TLS_CHAIN_DEPTH_MAX);
    SSL_CTX_set_max_cert_list(context, (long)options->limits_certificate_bytes);
    SSL_CTX_set_cert_verify_callback(context, tls_verify_shown, NULL);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
}

static EVP_PKEY *make_key(const struct tls_key_maker *maker, const X509 *leaf, const char **why)
{
    return signer_provider_make_key(maker->arg, leaf, why);
}

SSL_CTX *tls_context_new(const struct frontd_options *options, const struct signer_provider *signer,
                         struct tls_ticket_keys *keys, const struct tls_material *material,
                         char *error, size_t error_size)
{
    const struct tls_key_maker maker = {make_key, (void *)signer};
    SSL_CTX *context = tls_material_context(error, error_size);

    if (!context)
        return NULL;
    set_rules(context, options);
    if (options->tls_resumption)
        tls_tickets_enable(context, options, keys);
    else
        tls_tickets_disable(context);
    if (tls_material_use_certificates(context, &maker, material->certificates, error, error_size) &&
        tls_material_use_client_ca(context, material->client_ca, error, error_size) &&
        tls_material_use_crls(context, material->crls, error, error_size))
        return context;
    SSL_CTX_free(context);
    return NULL;
}

/* ---- connections ---------------------------------------------------------------------------- */

const char *tls_refusal_reason(const struct tls_peer *peer)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());

    if (*peer->reason)
        return peer->reason;
    return reason ? reason : "no reason given";
}

/* What OpenSSL writes when its handshake has failed is the alert that says so. */
static void tell_refusal(const SSL *ssl, struct tls_peer *peer)
{
    if (!peer->refused || strcmp(SSL_state_string(ssl), "SSLERR") != 0)
        return;
    peer->refused(peer);
    peer->refused = NULL;
}

/* Counts the reads from a socket, and stops them; sees each write before it happens. */
static long watch_socket(BIO *socket, int operation, const char *bytes, size_t len, int command,
                         long value, int result, size_t *processed)
{
    const SSL *ssl = (const SSL *)BIO_get_callback_arg(socket);
    struct tls_peer *peer = SSL_get_app_data(ssl);

    (void)bytes, (void)len, (void)command, (void)value, (void)processed;
    if (operation == BIO_CB_WRITE)
        tell_refusal(ssl, peer);
    if (operation != BIO_CB_READ || peer->reads_left-- > 0)
        return result;
    BIO_set_retry_read(socket);
    return -1;
}

SSL *tls_connection_new(SSL_CTX *context, int fd, struct tls_peer *peer)
{
    SSL *ssl = SSL_new(context);

    if (!ssl || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_app_data(ssl, peer);
    BIO_set_callback_arg(SSL_get_rbio(ssl), (char *)ssl);
    BIO_set_callback_ex(SSL_get_rbio(ssl), watch_socket);
    SSL_set_accept_state(ssl);
    return ssl;
}

void tls_connection_settle(SSL *ssl)
{
    struct tls_peer *peer = SSL_get_app_data(ssl);

    peer->resumed = SSL_session_reused(ssl);
    if (!SSL_get0_peer_certificate(ssl))
        tls_peer_clear(peer);
}

bool tls_connection_holds(SSL *ssl, SSL_CTX *context)
{
    struct tls_peer *peer = SSL_get_app_data(ssl);
    struct tls_peer found = {.options = peer->options, .deny = peer->deny};
    STACK_OF(X509) * intermediates;
    bool holds;

    if (peer->identity.kind == IDENTITY_NONE)
        return true;
    intermediates = tls_tickets_intermediates(ssl);
    holds = tls_verify_again(ssl, context, SSL_get0_peer_certificate(ssl), intermediates, &found);
    memcpy(peer->reason, found.reason, sizeof(peer->reason));
    peer->good_until = found.good_until;
    sk_X509_pop_free(intermediates, X509_free);
    tls_peer_clear(&found);
    return holds;
}
