/* TLS for the worker: one context per set of material, and what a handshake proves. */
#ifndef CAF_FRONTD_TLS_H
#define CAF_FRONTD_TLS_H

#include "frontd/deny.h"
#include "frontd/identity.h"
#include "frontd/signer_provider.h"

#include <openssl/ssl.h>

/* What a handshake found out about the client; a part of each connection, set as the SSL's app
 * data. */
struct tls_peer {
    const struct frontd_options *options;
    const struct deny *deny;
    struct identity identity; /* nobody without a certificate */
    bool is_denied;           /* the certificate was good, but the identity is revoked */
    char reason[128];         /* why the certificate was refused; empty: it was not */
    char *claimed;            /* the SPIFFE ID of a refused certificate, NULL for none */
    int reads_left;           /* from the socket, before OpenSSL is told to come back */
};

enum { TLS_READS_PER_TURN = 64 }; /* what reads_left is set to; a record takes two */

/* The public half of TLS, PEM texts: certificates are leaf-first chains, one chain per key, one
 * behind the other; client_ca the CAs that client certificates must chain to; crls may be empty. */
struct tls_material {
    struct str certificates, client_ca, crls;
};

/* A context for new connections, or NULL with the reason in error. TLS 1.2 and 1.3, AEAD suites
 * with forward secrecy; client certificates requested (required by listen.client_cert) and verified
 * here; no resumption: every handshake is whole. */
SSL_CTX *tls_context_new(const struct frontd_options *options, const struct signer_provider *signer,
                         const struct tls_material *material, char *error, size_t error_size);

/* Starts a server-side connection on a connected, non-blocking socket. peer becomes its app data
 * and must outlive it. OpenSSL reads on by itself past records that bring no data, as long as there
 * are any: with peer->reads_left used up it wants to read, though there is more. NULL when OpenSSL
 * refuses. */
SSL *tls_connection_new(SSL_CTX *context, int fd, struct tls_peer *peer);

/* The oldest entry of OpenSSL's error queue as a short text; the queue is emptied. */
const char *tls_error_text(void);

void tls_peer_clear(struct tls_peer *peer);

#endif
