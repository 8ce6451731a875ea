/* Makes and reads session tickets with keys that the supervisor made and every worker has. A ticket
 * is hostile until its MAC is checked (OpenSSL does), and then only a claim about the past: the
 * certificates in it are verified again. Never logs a key. Talks to nobody. Runs on the small stack
 * of a handshake's job (frontd/signer_client.h). */
#include "frontd/tls_tickets.h"

#include "common/memory.h"
#include "frontd/tls_verify.h"

#include <openssl/core_names.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

/* Of intermediates in a ticket, whose own length is a u16. Who shows more gets a ticket that will
 * not be used. */
enum { INTERMEDIATES_MAX = 16384 };

/* ---- the client's certificates -------------------------------------------------------------- */

static size_t encoded_size(STACK_OF(X509) * certificates)
{
    size_t size = 0;

    for (int i = 0; i < sk_X509_num(certificates); i++)
        size += (size_t)i2d_X509(sk_X509_value(certificates, i), NULL);
    return size;
}

/* DER certificates, one behind the other, size bytes in all; the caller frees. */
static unsigned char *encode(STACK_OF(X509) * certificates, size_t size)
{
    unsigned char *bytes = memory_new(1, size + 1), *cursor = bytes;

    for (int i = 0; i < sk_X509_num(certificates); i++)
        i2d_X509(sk_X509_value(certificates, i), &cursor);
    return bytes;
}

static STACK_OF(X509) * decode(const unsigned char *bytes, size_t size)
{
    const unsigned char *cursor = bytes, *end = bytes + size;
    STACK_OF(X509) *certificates = sk_X509_new_null();
    X509 *certificate;

    while (cursor < end && (certificate = d2i_X509(NULL, &cursor, end - cursor)))
        sk_X509_push(certificates, certificate);
    return certificates;
}

static STACK_OF(X509) * session_intermediates(SSL_SESSION *session)
{
    void *bytes = NULL;
    size_t size = 0;

    SSL_SESSION_get0_ticket_appdata(session, &bytes, &size);
    return size > 0 ? decode(bytes, size) : NULL;
}

STACK_OF(X509) * tls_tickets_intermediates(SSL *ssl)
{
    STACK_OF(X509) *shown = SSL_get_peer_cert_chain(ssl);

    return shown ? X509_chain_up_ref(shown) : session_intermediates(SSL_get_session(ssl));
}

/* ---- a ticket is made ----------------------------------------------------------------------- */

/* OpenSSL asks what else belongs into the session's ticket: the session holds the client's own
 * certificate only. What a ticket brought goes on into the next. */
static int on_make(SSL *ssl, void *arg)
{
    STACK_OF(X509) *shown = SSL_get_peer_cert_chain(ssl);
    size_t size = encoded_size(shown);
    cleanup_free unsigned char *bytes = NULL;

    (void)arg;
    if (SSL_session_reused(ssl) || size == 0 || size > INTERMEDIATES_MAX)
        return 1;
    bytes = encode(shown, size);
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), bytes, size);
}

/* ---- a ticket comes back -------------------------------------------------------------------- */

/* The connection's peer becomes who the ticket says if a full handshake would let it in now. It is
 * not proven yet: see tls_connection_settle. */
static bool may_resume(SSL *ssl, SSL_SESSION *session)
{
    struct tls_peer *peer = SSL_get_app_data(ssl);
    X509 *leaf = SSL_SESSION_get0_peer(session);
    STACK_OF(X509) * intermediates;
    bool accepted;

    if (!leaf)
        return !(SSL_get_verify_mode(ssl) & SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
    intermediates = session_intermediates(session);
    accepted = tls_verify_again(ssl, SSL_get_SSL_CTX(ssl), leaf, intermediates, peer);
    sk_X509_pop_free(intermediates, X509_free);
    return accepted;
}

/* OpenSSL asks whether to use a ticket that it has decrypted. A ticket that is not used means a
 * full handshake, which finds the reason, and a new ticket. */
static SSL_TICKET_RETURN on_read(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                 size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
    struct tls_peer *peer = SSL_get_app_data(ssl);
    bool decrypted = status == SSL_TICKET_SUCCESS;

    (void)name, (void)name_len, (void)arg;
    tls_peer_clear(peer); /* of an earlier ticket: a client may show several */
    if (decrypted && may_resume(ssl, session))
        return SSL_TICKET_RETURN_USE_RENEW; /* else whoever comes often would come too late once */
    tls_peer_clear(peer);
    return SSL_TICKET_RETURN_IGNORE_RENEW;
}

/* ---- keys ----------------------------------------------------------------------------------- */

static struct tls_ticket_key *find_key(struct tls_ticket_keys *keys, const unsigned char *name)
{
    struct tls_ticket_key *const known[] = {&keys->current, &keys->previous, &keys->next};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (memcmp(known[i]->name, name, sizeof(known[i]->name)) == 0)
            return known[i];
    return NULL;
}

static bool use_key(struct tls_ticket_key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher,
                    EVP_MAC_CTX *mac, int encrypts)
{
    OSSL_PARAM mac_parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof(key->mac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };

    return EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv, encrypts) == 1 &&
           EVP_MAC_CTX_set_params(mac, mac_parameters) == 1;
}

/* OpenSSL asks for the key of a ticket that it makes or reads, SSL_CTX_set_tlsext_ticket_key_cb(3):
 * 0: no such key, 1: use it. */
static int on_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                  EVP_MAC_CTX *mac, int encrypts)
{
    struct tls_ticket_keys *keys = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct tls_ticket_key *key = encrypts ? &keys->current : find_key(keys, name);

    if (!key)
        return 0;
    if (encrypts) {
        memcpy(name, key->name, sizeof(key->name));
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
            return -1;
    }
    if (!use_key(key, iv, cipher, mac, encrypts))
        return -1;
    return 1;
}

/* ---- contexts ------------------------------------------------------------------------------- */

void tls_tickets_enable(SSL_CTX *context, const struct frontd_options *options,
                        struct tls_ticket_keys *keys)
{
    SSL_CTX_set_app_data(context, keys);
    SSL_CTX_set_timeout(context, (long)tls_tickets_seconds(options));
    SSL_CTX_set_num_tickets(context, 1);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_key);
    SSL_CTX_set_session_ticket_cb(context, on_make, on_read, NULL);
}

void tls_tickets_disable(SSL_CTX *context)
{
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(context, 0);
}
