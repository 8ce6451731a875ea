/* Framed messages over Unix stream sockets: one channel, a server of many, a client that resends.
 *
 * Both ends say HELLO first. A frame that is malformed, too long, from a peer that may not send it,
 * a HELLO of another version, an answer to no request, or a descriptor that found no room ends that
 * channel, never the daemon; the server and the client log and count it (ipc_refusals.def). */
#ifndef CAF_COMMON_IPC_H
#define CAF_COMMON_IPC_H

#include "common/errors.h"
#include "proto/proto.h"

#include <event2/event.h>
#include <sys/socket.h>
#include <sys/types.h>

/* ---- what is refused ------------------------------------------------------------------------ */

enum ipc_refusal {
#define IPC_REFUSAL(name, help) IPC_REFUSED_##name,
#include "common/ipc_refusals.def"
#undef IPC_REFUSAL
    IPC_REFUSAL_COUNT, /* none of them */
};

/* Their names in ipc_refusals.def, NULL behind the last. */
extern const char *const ipc_refusal_names[];

/* ---- a channel ------------------------------------------------------------------------------ */

/* One connected socket. Counted: the owner holds one reference, each unanswered ipc_reply_to
 * another. */
struct ipc_channel;

struct ipc_channel_events {
    /* A message after HELLO; it and its views live until this returns. */
    void (*message)(struct ipc_channel *channel, const struct message *message, void *arg);
    /* The channel ended (why: a literal; "end of file" for an orderly one). Called at most once and
     * never from within ipc_channel_send; the owner then calls ipc_channel_close. */
    void (*closed)(struct ipc_channel *channel, const char *why, void *arg);
};

/* Takes the connected descriptor fd, says HELLO as `self`, and expects a HELLO from one of `peers`
 * (a set of PEER_ bits). The channel is the owner's until ipc_channel_close. */
struct ipc_channel *ipc_channel_new(struct event_base *base, int fd, enum proto_peer self,
                                    unsigned peers, const struct ipc_channel_events *events,
                                    void *arg);

/* Queues one message. fd travels with it (SCM_RIGHTS) and is closed here once sent; -1 for none.
 * Returns false, logged, when body is out of the message's bounds; sending on an ended channel is
 * true and does nothing. */
bool ipc_channel_send(struct ipc_channel *channel, enum message_type type,
                      const struct request_id *id, const void *body, int fd);

/* Queues an encoded frame; the frame stays the caller's. */
void ipc_channel_send_frame(struct ipc_channel *channel, const struct frame *frame);

/* The oldest descriptor received and not yet taken, -1 for none; the caller owns it. */
int ipc_channel_take_descriptor(struct ipc_channel *channel);

/* Who the other end is: a single PEER_ bit, 0 until its HELLO. */
enum proto_peer ipc_channel_peer(const struct ipc_channel *channel);

/* Why the channel was ended on what the peer said, IPC_REFUSAL_COUNT when it was not. detail: a
 * literal that says more, for the owner's log: the channel itself logs nothing. */
enum ipc_refusal ipc_channel_refusal(const struct ipc_channel *channel, const char **detail);

/* Reads no more: what the peer sends from now on stays in the socket, so that a peer which resends
 * loses nothing. Sending goes on. */
void ipc_channel_stop_reading(struct ipc_channel *channel);

/* Bytes queued and not yet taken by the kernel. */
size_t ipc_channel_unsent(const struct ipc_channel *channel);

/* Ends the owner's use: no callback comes after. The descriptor closes at once. */
void ipc_channel_close(struct ipc_channel *channel);

/* Whether the other end of a connected Unix socket is one of these users'; of a listener that is
 * whoever called listen(2). peer: who it is. */
bool ipc_peer_is_one_of(int fd, const uid_t *uids, size_t count, struct ucred *peer);

/* ---- a server ------------------------------------------------------------------------------- */

/* Where an answer goes; copy it freely, answer exactly once by ipc_reply or ipc_fail. It is
 * harmless to answer after the peer has gone. */
struct ipc_reply_to {
    struct ipc_channel *channel;
    struct request_id id;
};

/* A request type and its handler: a daemon's dispatch table ends with a row of handler NULL. A type
 * without a row is refused. The handler must see to it that `to` is answered, now or later. */
struct ipc_handler {
    enum message_type type;
    void (*handle)(void *daemon, struct ipc_reply_to to, const struct message *message);
};

struct ipc_server_options {
    enum proto_peer self;
    unsigned peers; /* PEER_ bits that may connect */
    const struct ipc_handler *handlers;
    void *daemon;      /* passed to the handlers */
    const uid_t *uids; /* SO_PEERCRED: the peer's uid must be one of these */
    size_t uid_count;
    size_t max_channels;
};

enum { IPC_HANDLERS_MAX = 32 }; /* rows of a dispatch table */

/* What happened since ipc_server_new, and how it stands. */
struct ipc_server_counters {
    uint64_t channels;                    /* that stand */
    uint64_t refusals[IPC_REFUSAL_COUNT]; /* of connections and messages */
    uint64_t accept_failed;               /* times that accepting paused, for want of descriptors */
    uint64_t broken;                      /* ended otherwise than by the peer's closing them */
    uint64_t requests[IPC_HANDLERS_MAX];  /* taken, by the dispatch table's row */
};

struct ipc_server;

/* Serves on a listening descriptor, which it does not own. options is copied; what it points to
 * must stay. */
struct ipc_server *ipc_server_new(struct event_base *base, int listener,
                                  const struct ipc_server_options *options);

/* Answers a request. body as for ipc_channel_send. */
void ipc_reply(struct ipc_reply_to to, enum message_type type, const void *body);

/* Answers a request with MSG_fail. message: shown to the client; at most 511 bytes are kept. */
void ipc_fail(struct ipc_reply_to to, enum error_code code, const char *message);

/* The channel of a request, held for messages that answer no request (ipc_push), until
 * ipc_push_end. */
struct ipc_channel *ipc_push_begin(struct ipc_reply_to to);

/* Sends a message that answers no request: its id is all zeros. body as for ipc_channel_send.
 * Nothing holds the sender up: look at ipc_channel_unsent. False: the peer is gone. */
bool ipc_push(struct ipc_channel *channel, enum message_type type, const void *body);

/* False: the peer is gone, and ipc_push would say so. */
bool ipc_push_is_open(const struct ipc_channel *channel);

void ipc_push_end(struct ipc_channel *channel);

/* Requests handed to handlers and not yet answered. */
size_t ipc_server_unanswered(const struct ipc_server *server);

/* The counters, which live as long as the server. */
const struct ipc_server_counters *ipc_server_counters(const struct ipc_server *server);

/* Accepts and reads no more; calls done(daemon) once, when all requests are answered and sent. */
void ipc_server_drain(struct ipc_server *server, void (*done)(void *daemon));

/* Closes every channel. */
void ipc_server_free(struct ipc_server *server);

/* ---- a client ------------------------------------------------------------------------------- */

/* Requests in flight to one peer, over whatever channel there is just now. When the channel ends,
 * they wait; with a new one they are sent again, in their order, under the same ids. */
struct ipc_client;

/* answer NULL: the deadline passed. answer->type is MSG_fail, or anything else that this peer may
 * send: look at it before the body. Called exactly once per call, never from within
 * ipc_client_call. */
typedef void ipc_answer_fn(void *arg, const struct message *answer);

/* Where a client counts: all of them, or none. */
struct ipc_client_counters {
    uint64_t *calls;     /* requests made */
    uint64_t *in_flight; /* those that wait for their answer now */
    uint64_t *resent;    /* requests sent once more, on another channel */
    uint64_t *expired;   /* requests whose deadline passed */
    uint64_t *lost;      /* channels that ended */
    uint64_t *refusals;  /* IPC_REFUSAL_COUNT of them: of what the peer said */
};

struct ipc_client_options {
    enum proto_peer self, peer;
    size_t max_in_flight;
    struct ipc_client_counters counters;
    void (*lost)(void *arg, enum proto_peer peer); /* the channel ended: attach another, please */
    bool (*pushed)(void *arg, const struct message *message); /* what answers no request; false, or
                                                                 NULL: it is refused */
    void *arg;
};

struct ipc_client *ipc_client_new(struct event_base *base,
                                  const struct ipc_client_options *options);

/* Gives the client a connected descriptor; what is in flight is sent on it. */
void ipc_client_attach(struct ipc_client *client, int fd);

/* Whether a channel stands and its HELLO has been exchanged. */
bool ipc_client_connected(const struct ipc_client *client);

struct ipc_call;

/* Sends a request and waits for its answer for deadline_ms. Returns the call, to be cancelled or
 * forgotten; NULL when max_in_flight are waiting already or body is out of bounds: the caller
 * answers UNAVAILABLE or INTERNAL. */
struct ipc_call *ipc_client_call(struct ipc_client *client, enum message_type type,
                                 const void *body, int64_t deadline_ms, ipc_answer_fn *answer,
                                 void *arg);

/* Sends now what this turn of the loop has queued, as far as the socket takes it. */
void ipc_client_flush(struct ipc_client *client);

/* Forgets a call: answer will not be called, a late answer is dropped. */
void ipc_call_cancel(struct ipc_call *call);

/* Calls not yet answered. */
size_t ipc_client_in_flight(const struct ipc_client *client);

/* Cancels every call and closes the channel. */
void ipc_client_free(struct ipc_client *client);

#endif
