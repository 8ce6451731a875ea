/* Session tickets (RFC 5077, RFC 8446 4.6.1): resumption without a cache. A ticket holds the
 * session and the client's certificates, and gives no shortcut: what a full handshake would refuse
 * now is not resumed. */
#ifndef CAF_FRONTD_TLS_TICKETS_H
#define CAF_FRONTD_TLS_TICKETS_H

#include "frontd/options.h"

#include <openssl/ssl.h>
#include <stdint.h>

/* All random; the name goes with each ticket, in the clear. */
struct tls_ticket_key {
    uint8_t name[16];
    uint8_t cipher[32]; /* AES-256-CBC */
    uint8_t mac[32];    /* HMAC-SHA256 */
};

/* Tickets are made with current and read with all three: next is known to every worker long before
 * one of them makes a ticket with it. Where there is no previous key it is random bytes that no
 * ticket was made with. As bytes it goes through a pipe from the supervisor to the workers. */
struct tls_ticket_keys {
    struct tls_ticket_key next, current, previous;
};

/* How long a key waits, then makes tickets, and then only reads them; no ticket lives longer than
 * that: none outlives its key, no key lives longer than tls.ticket_key_seconds. */
static inline int64_t tls_tickets_seconds(const struct frontd_options *options)
{
    return options->tls_ticket_key_seconds / 3;
}

/* Has the context give out tickets and resume sessions by them. keys may change at any time, and
 * must outlive the context's connections. */
void tls_tickets_enable(SSL_CTX *context, const struct frontd_options *options,
                        struct tls_ticket_keys *keys);

/* Has the context do neither. */
void tls_tickets_disable(SSL_CTX *context);

/* The certificates that came behind the client's own, whether it showed them on this connection or
 * they are in its ticket. The caller frees with OSSL_STACK_OF_X509_free or sk_X509_pop_free; NULL
 * when there are none, or too many for a ticket to hold. */
STACK_OF(X509) * tls_tickets_intermediates(SSL *ssl);

#endif
