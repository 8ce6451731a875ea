/* The public half of TLS, put into an OpenSSL context: by the workers, which serve with it, and by
 * the supervisor, which only wants to know whether they could. */
#ifndef CAF_FRONTD_TLS_MATERIAL_H
#define CAF_FRONTD_TLS_MATERIAL_H

#include "common/str.h"

#include <openssl/ssl.h>

/* PEM texts: certificates are leaf-first chains, one chain per key, one behind the other; client_ca
 * the CAs that client certificates must chain to; crls may be empty. */
struct tls_material {
    struct str certificates, client_ca, crls;
};

/* Gives a leaf's public key the means to sign: the key is the caller's (EVP_PKEY_free), NULL with a
 * literal in *why when it is none that can serve. */
struct tls_key_maker {
    EVP_PKEY *(*make)(const struct tls_key_maker *maker, const X509 *leaf, const char **why);
    void *arg;
};

/* A server's context at the security level and with the cipher suites of this daemon, without
 * material. NULL with the reason in error. */
SSL_CTX *tls_material_context(char *error, size_t error_size);

/* Each takes one part of the material into the context; false with the reason in error. */
bool tls_material_use_certificates(SSL_CTX *context, const struct tls_key_maker *maker,
                                   struct str text, char *error, size_t error_size);
bool tls_material_use_client_ca(SSL_CTX *context, struct str text, char *error, size_t error_size);
bool tls_material_use_crls(SSL_CTX *context, struct str text, char *error, size_t error_size);

/* Seconds since 1970; 0 for what is no time. */
int64_t tls_time_seconds(const ASN1_TIME *time);

/* The oldest entry of OpenSSL's error queue as a short text; the queue is emptied. */
const char *tls_error_text(void);

#endif
