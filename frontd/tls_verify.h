/* The verification of client certificates: one rule for full handshakes, resumed ones, and
 * connections that stand when the rule changes. */
#ifndef CAF_FRONTD_TLS_VERIFY_H
#define CAF_FRONTD_TLS_VERIFY_H

#include "frontd/tls.h"

enum { TLS_CHAIN_DEPTH_MAX = 8 }; /* CAs between a leaf and the bundle */

/* OpenSSL's hook for what a client shows in a full handshake, SSL_CTX_set_cert_verify_callback(3).
 * Fills the connection's struct tls_peer: its identity, or the reason of the refusal. */
int tls_verify_shown(X509_STORE_CTX *store, void *arg);

/* Whether context would accept these certificates, now, in a full handshake of this connection.
 * intermediates: what came behind the leaf, may be NULL. found (cleared before, the caller's to
 * clear) gets the identity, or with false the reason. */
bool tls_verify_again(SSL *ssl, SSL_CTX *context, X509 *leaf, STACK_OF(X509) * intermediates,
                      struct tls_peer *found);

#endif
