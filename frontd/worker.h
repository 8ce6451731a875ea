/* The worker's state: everything it was handed, and its clients. */
#ifndef CAF_FRONTD_WORKER_H
#define CAF_FRONTD_WORKER_H

#include "common/ipc.h"
#include "common/service.h"
#include "frontd/exchange.h"
#include "frontd/options.h"
#include "frontd/signer_client.h"
#include "frontd/signer_provider.h"
#include "frontd/tls.h"

enum { WORKER_CONTROL_DESCRIPTOR = 3 }; /* the supervisor's end is at the other side */

enum backend { BACKEND_KEEPER, BACKEND_REGISTRYD, BACKEND_AUDITD, BACKEND_EVENTD, BACKEND_COUNT };

struct connection;

struct worker {
    struct service service;
    struct frontd_options options;
    struct ipc_channel *control;
    struct ipc_client *backends[BACKEND_COUNT];
    struct signer_client *signer;
    struct signer_provider *provider;
    SSL_CTX *tls;
    int listener;
    struct event *acceptable, *accept_again; /* NULL: does not accept */
    struct connection *connections;
    size_t connection_count;
    uint64_t refused; /* connections, at limits.connections */
    uint64_t notes_dropped;
    bool configured, ready;
};

/* The client of that peer. */
struct ipc_client *worker_backend(struct worker *worker, enum proto_peer peer);

/* Sends a request whose answer nobody waits for; it is sent again until the peer has answered.
 * False: too many wait. */
bool worker_tell(struct worker *worker, enum proto_peer peer, enum message_type type,
                 const void *body);

/* The worker has let a connection go: a drain ends with the last. */
void worker_connection_gone(struct worker *worker);

/* ---- accepting (accept.c) ------------------------------------------------------------------- */

/* Takes connections from the listener from now on. */
void accept_start(struct worker *worker);

/* Takes no more, and closes the listener. Harmless a second time, and before accept_start. */
void accept_stop(struct worker *worker);

/* ---- connections (connection.c) ------------------------------------------------------------- */

/* Takes a freshly accepted, non-blocking socket. */
void connection_open(struct worker *worker, int fd, const char *source_ip);

/* Every connection ends after the answer it owes; idle ones at once. */
void connection_drain_all(struct worker *worker);

/* Closes them all now. */
void connection_close_all(struct worker *worker);

/* ---- dispatch (routes.c) -------------------------------------------------------------------- */

/* Finds the route, checks the caller's right and the media type, and runs the handler or answers
 * with the error. */
void routes_dispatch(struct exchange *exchange);

/* ---- security events (notes.c) -------------------------------------------------------------- */

/* Tells eventd how a handshake ended: auth.mtls_success for an identity, auth.mtls_failure with a
 * reason; nothing for a client that was accepted without a certificate. */
void notes_handshake(struct worker *worker, const struct tls_peer *peer, const char *source_ip,
                     const char *protocol, const char *failure);

#endif
