/* A channel's inside, shared by its three parts: ipc_channel.c (its life and its messages),
 * ipc_in.c and ipc_out.c (its bytes). Nobody else includes it. */
#ifndef CAF_COMMON_IPC_CHANNEL_H
#define CAF_COMMON_IPC_CHANNEL_H

#include "common/ipc.h"
#include "common/ipc_internal.h"

#include <event2/buffer.h>

enum { IPC_DESCRIPTORS_MAX = 16 }; /* received and not yet taken: one more ends the channel */

/* A descriptor that goes out with the byte at this place of the stream. */
struct ipc_outgoing {
    int fd;
    uint64_t at;
    struct ipc_outgoing *next;
};

struct ipc_channel {
    int references;
    struct event_base *base;
    int fd;
    enum proto_peer self, peer;
    unsigned peers;
    const struct ipc_channel_events *events;
    void *arg;
    struct event *readable, *writable, *ended;
    struct evbuffer *in, *out;
    uint64_t queued, sent; /* bytes ever */
    struct ipc_outgoing *outgoing;
    int received[IPC_DESCRIPTORS_MAX];
    size_t received_count;
    size_t unsent_max; /* 0: no limit */
    bool paused;       /* it was passed: frames wait unread */
    bool mute;         /* the peer reads no more: nothing is sent, what it said is read */
    const char *end_reason;
    enum ipc_refusal refusal; /* IPC_REFUSAL_COUNT: none */
    const char *refusal_detail;
    bool closed, reading_stopped;
};

/* ---- ipc_channel.c -------------------------------------------------------------------------- */

/* The channel ends: its owner is told from the loop, never from within a call of its own. */
void ipc_channel_end(struct ipc_channel *channel, const char *why);

/* Checks one payload and hands the message over, or refuses it. */
void ipc_channel_deliver(struct ipc_channel *channel, const uint8_t *payload, size_t len);

/* ---- ipc_in.c ------------------------------------------------------------------------------- */

void ipc_in_on_readable(evutil_socket_t fd, short what, void *channel);

/* Reads on where ipc_channel_limit_unsent had stopped it. */
void ipc_in_resume(struct ipc_channel *channel);

/* ---- ipc_out.c ------------------------------------------------------------------------------ */

void ipc_out_on_writable(evutil_socket_t fd, short what, void *channel);

/* Whether more waits to be sent than ipc_channel_limit_unsent allows. */
bool ipc_out_is_full(const struct ipc_channel *channel);

/* Sends what is queued, as far as the socket takes it. */
void ipc_out_send(struct ipc_channel *channel);

/* Forgets what is queued; descriptors in it are closed. */
void ipc_out_clear(struct ipc_channel *channel);

#endif
