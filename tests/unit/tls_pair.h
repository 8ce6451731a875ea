/* For unit tests: certificates made on the spot, and a TLS client and server that talk in memory.
 */
#ifndef CAF_TESTS_UNIT_TLS_PAIR_H
#define CAF_TESTS_UNIT_TLS_PAIR_H

#include <check.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

struct identity {
    EVP_PKEY *key;
    X509 *certificate;
};

static inline X509 *certificate_make(EVP_PKEY *key, EVP_PKEY *subject_key)
{
    X509 *certificate = X509_new();
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"test", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_set_pubkey(certificate, subject_key);
    ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
    return certificate;
}

static inline struct identity identity_make(EVP_PKEY *key)
{
    ck_assert_ptr_nonnull(key);
    return (struct identity){key, certificate_make(key, key)};
}

static inline void identity_free(struct identity *identity)
{
    EVP_PKEY_free(identity->key);
    X509_free(identity->certificate);
}

struct pair {
    SSL_CTX *server_context, *client_context;
    SSL *server, *client;
    int server_result, client_result; /* of SSL_do_handshake */
    int waits;                        /* times that the server waited for its signature */
};

/* A connection of the two contexts, which it owns from now on. */
static inline struct pair pair_make(SSL_CTX *server_context, SSL_CTX *client_context)
{
    struct pair pair = {.server_context = server_context, .client_context = client_context};
    BIO *server_side, *client_side;
    pair.server = SSL_new(server_context);
    pair.client = SSL_new(client_context);
    BIO_new_bio_pair(&server_side, 0, &client_side, 0);
    SSL_set_bio(pair.server, server_side, server_side);
    SSL_set_bio(pair.client, client_side, client_side);
    SSL_set_accept_state(pair.server);
    SSL_set_connect_state(pair.client);
    SSL_set_mode(pair.server, SSL_MODE_ASYNC);
    return pair;
}

static inline void pair_free(struct pair *pair)
{
    SSL_free(pair->server);
    SSL_free(pair->client);
    SSL_CTX_free(pair->server_context);
    SSL_CTX_free(pair->client_context);
}

static inline int handshake_step(SSL *ssl, int *result)
{
    ERR_clear_error();
    *result = SSL_do_handshake(ssl);
    return SSL_get_error(ssl, *result);
}

#endif
