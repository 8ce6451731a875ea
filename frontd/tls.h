/* TLS for the worker: one context per set of material, and what a handshake proves. */
#ifndef CAF_FRONTD_TLS_H
#define CAF_FRONTD_TLS_H

#include "frontd/deny.h"
#include "frontd/identity.h"
#include "frontd/signer_provider.h"
#include "frontd/tls_material.h"
#include "frontd/tls_tickets.h"

#include <openssl/ssl.h>

/* What a handshake found out about the client; a part of each connection, set as the SSL's app
 * data. */
struct tls_peer {
    const struct frontd_options *options;
    const struct deny *deny;
    struct identity identity; /* nobody without a certificate */
    int64_t good_until; /* the last second, since 1970, in which its whole chain is within its dates
                           and clock_skew_seconds; means nothing without an identity */
    bool is_denied;     /* the certificate was good, but the identity is revoked */
    char reason[128];   /* why the certificate was refused; empty: it was not */
    char *claimed;      /* the SPIFFE ID of a refused certificate, NULL for none */
    bool resumed;       /* by a ticket */
    /* Called once, before the client hears that its handshake failed; NULL: nobody asks (any more).
     * Runs on the small stack of a handshake's job. */
    void (*refused)(const struct tls_peer *peer);
    int reads_left; /* from the socket, before OpenSSL is told to come back */
};

enum { TLS_READS_PER_TURN = 64 }; /* what reads_left is set to; a record takes two */

/* A context for new connections, or NULL with the reason in error. TLS 1.2 and 1.3, AEAD suites
 * with forward secrecy; client certificates requested (required by listen.client_cert) and verified
 * by frontd/tls_verify; sessions resumed by tickets with these keys (by tls.resumption), which must
 * outlive the context; no early data. */
SSL_CTX *tls_context_new(const struct frontd_options *options, const struct signer_provider *signer,
                         struct tls_ticket_keys *keys, const struct tls_material *material,
                         char *error, size_t error_size);

/* Starts a server-side connection on a connected, non-blocking socket. peer becomes its app data
 * and must outlive it. OpenSSL reads on by itself past records that bring no data, as long as there
 * are any: with peer->reads_left used up it wants to read, though there is more. NULL when OpenSSL
 * refuses. */
SSL *tls_connection_new(SSL_CTX *context, int fd, struct tls_peer *peer);

/* Must follow a complete handshake, before anybody asks who the peer is: what a ticket said about a
 * client counts only if OpenSSL did use that ticket, which proves that the client owns it. */
void tls_connection_settle(SSL *ssl);

/* Whether context, now, would accept the client of this connection, too; a client without a
 * certificate always. The peer's good_until becomes that of the chain found now, or its reason says
 * why not. */
bool tls_connection_holds(SSL *ssl, SSL_CTX *context);

/* Why the handshake failed: what was wrong with the certificate, else OpenSSL's reason, which stays
 * in its queue. */
const char *tls_refusal_reason(const struct tls_peer *peer);

void tls_peer_clear(struct tls_peer *peer);

#endif
