/* The worker's state: everything it was handed, and its clients. */
#ifndef CAF_FRONTD_WORKER_H
#define CAF_FRONTD_WORKER_H

#include "common/ipc.h"
#include "common/service.h"
#include "frontd/admission.h"
#include "frontd/deny.h"
#include "frontd/exchange.h"
#include "frontd/lingering.h"
#include "frontd/metrics.h"
#include "frontd/notes.h"
#include "frontd/options.h"
#include "frontd/signer_client.h"
#include "frontd/signer_provider.h"
#include "frontd/tls.h"

enum { WORKER_CONTROL_DESCRIPTOR = 3 }; /* the supervisor's end is at the other side */

struct connection;
struct admin;

struct worker {
    struct service service;
    struct frontd_options options;
    struct metrics_memory metrics_memory;
    struct frontd_metrics *metrics; /* this worker's own */
    struct event *metrics_timer;
    uint64_t cpu_seen_us;
    struct ipc_channel *control;
    struct ipc_client *backends[BACKEND_COUNT];
    struct signer_client *signer;
    struct signer_provider *provider;
    SSL_CTX *tls;
    struct tls_ticket_keys ticket_keys;
    uint64_t trust;            /* grows when CA bundle or CRLs change */
    uint64_t cut;              /* connections, by the change under way */
    struct event *check_trust; /* NULL until the first change */
    int listener;
    struct event *acceptable, *accept_again; /* NULL: does not accept */
    struct networks trusted_proxies;
    struct admission admission;
    struct lingering lingering;
    struct connection *connections;
    struct connection *queue; /* handshakes with something to do, in line */
    struct event *turn;       /* theirs */
    int64_t turn_asked_us;    /* monotonic: when it was asked for */
    bool turn_held;           /* it waits for answers */
    size_t answers_due;       /* requests that wait for a back daemon */
    struct deny deny;
    struct event *deny_timer;   /* asks for the list again */
    struct ipc_call *deny_call; /* NULL: has been answered */
    struct notes *notes;        /* NULL until configured */
    bool configured, has_ticket_keys, ready;
    struct admin *admin; /* NULL: none */
};

/* The client of that peer. */
struct ipc_client *worker_backend(struct worker *worker, enum proto_peer peer);

/* Sends a request whose answer nobody waits for; it is sent again until the peer has answered.
 * False: too many wait. */
bool worker_tell(struct worker *worker, enum proto_peer peer, enum message_type type,
                 const void *body);

/* Whether a request of that caller may go to a backend just now, or all room is taken but for the
 * operators' share; counted when not. */
bool worker_may_call(struct worker *worker, enum proto_peer peer, bool is_operator);

/* To be called when a connection has gone, or a note or a scrape is answered: a drain ends with the
 * last. */
void worker_finish_when_done(struct worker *worker);

/* ---- metrics (worker_metrics.c) ------------------------------------------------------------- */

/* Counts from now on in the memory that came with the message. Where the supervisor's build lays
 * metrics out in another way (it has been replaced under way), the worker counts apart, which is
 * not shown, and serves all the same. */
void worker_metrics_share(struct worker *worker, const struct msg_metrics_memory *body);

void worker_metrics_close(struct worker *worker);

/* ---- accepting (accept.c) ------------------------------------------------------------------- */

/* Takes connections from the listener from now on. */
void accept_start(struct worker *worker);

/* Takes no more, and closes the listener. Harmless a second time, and before accept_start. */
void accept_stop(struct worker *worker);

/* ---- the admin listener (admin.c) ----------------------------------------------------------- */

/* Answers GET /metrics on the listening descriptor, which is its own from now on. */
struct admin *admin_open(struct worker *worker, int listener);

/* Accepts no more; harmless with NULL. */
void admin_stop(struct admin *admin);

/* Whether nobody there waits for an answer; true with NULL. */
bool admin_is_done(const struct admin *admin);

/* Closes listener and connections; harmless with NULL. */
void admin_close(struct admin *admin);

/* ---- connections (connection.c) ------------------------------------------------------------- */

/* Takes a freshly accepted, non-blocking socket, which admission_check has let pass, and its peer's
 * address. */
void connection_open(struct worker *worker, int fd, const struct address *address);

/* Makes and frees what handshakes queue up for (connection_queue.c). */
void connection_queue_open(struct worker *worker);
void connection_queue_close(struct worker *worker);

/* Every connection ends after the answer it owes; idle ones at once. */
void connection_drain_all(struct worker *worker);

/* Closes them all now. */
void connection_close_all(struct worker *worker);

/* The CA bundle or the CRLs have changed: cuts every connection whose client would be refused now
 * (connection_trust.c); the others notice nothing. */
void connection_check_all(struct worker *worker);

/* The operators' roles have changed: every live connection gets its own anew. */
void connection_update_roles(struct worker *worker);

/* Closes each connection whose identity is on the deny list, whatever it is doing; who is still in
 * the handshake is refused at its end. */
void connection_cut_denied(struct worker *worker);

/* ---- the deny list (deny_link.c) ------------------------------------------------------------ */

/* Once the worker is configured. */
void deny_link_open(struct worker *worker);

/* registryd has a new channel: asks it for the list. */
void deny_link_subscribe(struct worker *worker);

/* What registryd pushed; false: it has nothing of that kind to push. */
bool deny_link_take(struct worker *worker, const struct message *message);

void deny_link_close(struct worker *worker);

/* ---- dispatch (routes.c) -------------------------------------------------------------------- */

/* Finds the route, checks the caller's right and the media type, and runs the handler or answers
 * with the error. */
void routes_dispatch(struct exchange *exchange);

#endif
