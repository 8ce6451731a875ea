/* OpenSSL's contexts and the verification of client certificates. Holds public material only: the
 * private keys are the keeper's, behind EVP_PKEYs that frontd/signer_provider makes. Opens no file:
 * PEM texts come from the supervisor. */
#include "frontd/tls.h"

#include "common/log.h"
#include "common/memory.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

static const char cipher_list[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

enum { SECURITY_LEVEL = 2, CHAIN_DEPTH_MAX = 8 };

const char *tls_error_text(void)
{
    const char *reason = ERR_reason_error_string(ERR_get_error());

    ERR_clear_error();
    return reason ? reason : "no reason given";
}

void tls_peer_clear(struct tls_peer *peer)
{
    identity_clear(&peer->identity);
    free(peer->claimed);
    peer->claimed = NULL;
    peer->is_denied = false;
}

/* ---- client certificates -------------------------------------------------------------------- */

/* Whether now is at most `skew` seconds outside of the certificate's dates. */
static bool within_skew(const X509 *certificate, int64_t skew)
{
    int days, seconds;
    int64_t early, late;

    if (!ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notBefore(certificate)))
        return false;
    early = (int64_t)days * 86400 + seconds;
    if (!ASN1_TIME_diff(&days, &seconds, X509_get0_notAfter(certificate), NULL))
        return false;
    late = (int64_t)days * 86400 + seconds;
    return early <= skew && late <= skew;
}

static struct tls_peer *peer_of(X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());

    return SSL_get_app_data(ssl);
}

/* OpenSSL asks here at each fault it finds in the chain: two of them can be forgiven. */
static int forgive(int ok, X509_STORE_CTX *store)
{
    int64_t skew = peer_of(store)->options->identity_clock_skew_seconds;

    switch (X509_STORE_CTX_get_error(store)) {
    case X509_V_ERR_CERT_NOT_YET_VALID:
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return ok || within_skew(X509_STORE_CTX_get_current_cert(store), skew);
    case X509_V_ERR_UNABLE_TO_GET_CRL: /* an upper CA without a list; the leaf's issuer must have
                                          one */
        return ok || X509_STORE_CTX_get_error_depth(store) > 0;
    default:
        return ok;
    }
}

static int refuse(X509_STORE_CTX *store, struct tls_peer *peer, const char *why)
{
    snprintf(peer->reason, sizeof(peer->reason), "%s", why);
    if (X509_STORE_CTX_get_error(store) == X509_V_OK)
        X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

/* Verifies a client's certificate: the chain by OpenSSL, the identity by frontd/identity. Runs on
 * the small stack of a handshake's job: no large buffers here. */
static int verify_client(X509_STORE_CTX *store, void *arg)
{
    struct tls_peer *peer = peer_of(store);
    X509 *leaf = X509_STORE_CTX_get0_cert(store);
    const char *why;
    char *claimed;

    (void)arg;
    X509_STORE_CTX_set_verify_cb(store, forgive);
    why = X509_verify_cert(store) > 0
              ? NULL
              : X509_verify_cert_error_string(X509_STORE_CTX_get_error(store));
    tls_peer_clear(peer);
    if (!why) {
        why = identity_from_certificate(peer->options, leaf, &peer->identity, &claimed);
    } else {
        const char *ignored =
            identity_from_certificate(peer->options, leaf, &peer->identity, &claimed);

        if (!ignored)
            claimed = steal_pointer(peer->identity.spiffe_id);
        identity_clear(&peer->identity);
    }
    peer->claimed = claimed;
    if (!why) {
        why = deny_refusal(peer->deny, &peer->identity);
        peer->is_denied = why != NULL;
    }
    if (why)
        return refuse(store, peer, why);
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

/* ---- contexts ------------------------------------------------------------------------------- */

/* PEM objects one after the other. */
static BIO *open_text(struct str text)
{
    BIO *bio = BIO_new_mem_buf(text.ptr, (int)text.len);

    if (!bio)
        log_fatal("out of memory");
    return bio;
}

static bool use_leaf(SSL_CTX *context, const struct signer_provider *signer, X509 *leaf,
                     char *error, size_t error_size)
{
    const char *why;
    EVP_PKEY *key = signer_provider_make_key(signer, leaf, &why);
    bool used;

    if (!key) {
        snprintf(error, error_size, "server certificate: %s", why);
        return false;
    }
    used = SSL_CTX_use_certificate(context, leaf) == 1 && SSL_CTX_use_PrivateKey(context, key) == 1;
    if (!used)
        snprintf(error, error_size, "server certificate: %s", tls_error_text());
    EVP_PKEY_free(key);
    return used;
}

/* Leaf, its chain, the next leaf, its chain…: a certificate that is no CA's begins a new chain. */
static bool use_certificates(SSL_CTX *context, const struct signer_provider *signer,
                             struct str text, char *error, size_t error_size)
{
    BIO *bio = open_text(text);
    bool good = true;
    int leaves = 0;
    X509 *certificate;

    while (good && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        if (X509_check_ca(certificate) == 0) {
            leaves++;
            good = use_leaf(context, signer, certificate, error, error_size);
        } else {
            good = leaves > 0 && SSL_CTX_add1_chain_cert(context, certificate) == 1;
            if (!good)
                snprintf(error, error_size,
                         "server certificates: a chain does not begin with a leaf");
        }
        X509_free(certificate);
    }
    BIO_free(bio);
    ERR_clear_error(); /* the end of the text is an error to PEM_read_bio */
    if (good && leaves == 0)
        snprintf(error, error_size, "server certificates: none found");
    return good && leaves > 0;
}

static bool use_client_ca(SSL_CTX *context, struct str text, char *error, size_t error_size)
{
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    BIO *bio = open_text(text);
    int count = 0;
    X509 *ca;

    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN); /* whom it names, a root or not */
    while ((ca = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        if (X509_STORE_add_cert(store, ca) == 1 && SSL_CTX_add_client_CA(context, ca) == 1)
            count++;
        X509_free(ca);
    }
    BIO_free(bio);
    ERR_clear_error();
    if (count == 0)
        snprintf(error, error_size, "client CA bundle: no certificate found");
    return count > 0;
}

static bool use_crls(SSL_CTX *context, struct str text, char *error, size_t error_size)
{
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    BIO *bio;
    int count = 0;
    X509_CRL *crl;

    if (text.len == 0)
        return true;
    bio = open_text(text);
    while ((crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
        count += X509_STORE_add_crl(store, crl) == 1;
        X509_CRL_free(crl);
    }
    BIO_free(bio);
    ERR_clear_error();
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    if (count == 0)
        snprintf(error, error_size, "CRL file: no CRL found");
    return count > 0;
}

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
    int verify = SSL_VERIFY_PEER;

    if (options->listen_client_cert == CLIENT_CERT_REQUIRED)
        verify |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_security_level(context, SECURITY_LEVEL);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(context, verify, NULL);
    SSL_CTX_set_verify_depth(context, CHAIN_DEPTH_MAX);
    SSL_CTX_set_cert_verify_callback(context, verify_client, NULL);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
}

SSL_CTX *tls_context_new(const struct frontd_options *options, const struct signer_provider *signer,
                         const struct tls_material *material, char *error, size_t error_size)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (!context || SSL_CTX_set_cipher_list(context, cipher_list) != 1) {
        snprintf(error, error_size, "OpenSSL: %s", tls_error_text());
        SSL_CTX_free(context);
        return NULL;
    }
    set_rules(context, options);
    if (use_certificates(context, signer, material->certificates, error, error_size) &&
        use_client_ca(context, material->client_ca, error, error_size) &&
        use_crls(context, material->crls, error, error_size))
        return context;
    SSL_CTX_free(context);
    return NULL;
}

/* Counts the reads from a socket, and stops them. */
static long count_read(BIO *socket, int operation, const char *bytes, size_t len, int command,
                       long value, int result, size_t *processed)
{
    struct tls_peer *peer = (struct tls_peer *)BIO_get_callback_arg(socket);

    (void)bytes, (void)len, (void)command, (void)value, (void)processed;
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
    BIO_set_callback_arg(SSL_get_rbio(ssl), (char *)peer);
    BIO_set_callback_ex(SSL_get_rbio(ssl), count_read);
    SSL_set_accept_state(ssl);
    return ssl;
}
