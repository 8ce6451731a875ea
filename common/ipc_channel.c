/* One framed channel over a connected Unix stream socket: its life, HELLO, and the check of each
 * message; its bytes are sent by ipc_out.c and received by ipc_in.c. Touches the one socket it was
 * given; it opens none. What a peer sends is hostile until proto_decode has checked it. */
#include "common/ipc_channel.h"

#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- life ----------------------------------------------------------------------------------- */

void ipc_channel_hold(struct ipc_channel *channel)
{
    channel->references++;
}

void ipc_channel_release(struct ipc_channel *channel)
{
    if (--channel->references > 0)
        return;
    event_free(channel->readable);
    event_free(channel->writable);
    event_free(channel->ended);
    evbuffer_free(channel->in);
    evbuffer_free(channel->out);
    free(channel);
}

void ipc_channel_close(struct ipc_channel *channel)
{
    channel->closed = true;
    ipc_out_send(channel);
    event_del(channel->readable);
    event_del(channel->writable);
    event_del(channel->ended);
    if (channel->fd >= 0)
        close(channel->fd);
    channel->fd = -1;
    ipc_out_clear(channel);
    while (channel->received_count)
        close(ipc_channel_take_descriptor(channel));
    ipc_channel_release(channel);
}

bool ipc_channel_is_closed(const struct ipc_channel *channel)
{
    return channel->closed;
}

void ipc_channel_end(struct ipc_channel *channel, const char *why)
{
    if (channel->end_reason || channel->closed)
        return;
    channel->end_reason = why;
    event_del(channel->readable);
    event_del(channel->writable);
    event_active(channel->ended, EV_TIMEOUT, 0);
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
    struct ipc_channel *channel = arg;

    (void)fd;
    (void)what;
    channel->events->closed(channel, channel->end_reason, channel->arg);
}

/* ---- messages ------------------------------------------------------------------------------- */

static bool accept_hello(struct ipc_channel *channel, const struct message *message)
{
    const struct msg_hello *hello = &message->body.hello;

    if (message->type != MSG_hello || hello->version != PROTO_VERSION)
        return false;
    for (unsigned bit = 1; bit < PEER_ANY; bit <<= 1) {
        if ((channel->peers & bit) &&
            str_equal(hello->daemon, str_from(proto_peer_name((enum proto_peer)bit)))) {
            channel->peer = (enum proto_peer)bit;
            return true;
        }
    }
    return false;
}

bool ipc_channel_deliver(struct ipc_channel *channel, const uint8_t *payload, size_t len)
{
    enum proto_peer sender = channel->peer ? channel->peer : PEER_ANY;
    struct message message;
    const char *why;

    if (!proto_decode(payload, len, sender, &message, &why)) {
        log_warn("malformed frame", LOG_TEXT("peer", proto_peer_name(channel->peer)),
                 LOG_TEXT("reason", why), LOG_NUMBER("bytes", (long long)len));
        return false;
    }
    if (!channel->peer) {
        if (!accept_hello(channel, &message)) {
            log_warn("wrong HELLO", LOG_TEXT("message", proto_name(message.type)));
            return false;
        }
        return true;
    }
    if (message.type == MSG_hello) {
        log_warn("HELLO twice", LOG_TEXT("peer", proto_peer_name(channel->peer)));
        return false;
    }
    channel->events->message(channel, &message, channel->arg);
    return true;
}

void ipc_channel_flush(struct ipc_channel *channel)
{
    if (!channel->closed && !channel->end_reason)
        ipc_out_send(channel);
}

void ipc_channel_limit_unsent(struct ipc_channel *channel, size_t max)
{
    channel->unsent_max = max;
}

void ipc_channel_stop_reading(struct ipc_channel *channel)
{
    channel->reading_stopped = true;
    event_del(channel->readable);
}

/* ---- making and asking ---------------------------------------------------------------------- */

static void say_hello(struct ipc_channel *channel)
{
    const struct request_id nobody = {{0}};
    const struct msg_hello hello = {.version = PROTO_VERSION,
                                    .daemon = str_from(proto_peer_name(channel->self)),
                                    .build = STR(CAF_VERSION)};

    ipc_channel_send(channel, MSG_hello, &nobody, &hello, -1);
}

struct ipc_channel *ipc_channel_new(struct event_base *base, int fd, enum proto_peer self,
                                    unsigned peers, const struct ipc_channel_events *events,
                                    void *arg)
{
    struct ipc_channel *channel = memory_new(1, sizeof(*channel));

    *channel = (struct ipc_channel){.references = 1,
                                    .base = base,
                                    .fd = fd,
                                    .self = self,
                                    .peers = peers,
                                    .events = events,
                                    .arg = arg};
    evutil_make_socket_nonblocking(fd);
    evutil_make_socket_closeonexec(fd);
    channel->in = evbuffer_new();
    channel->out = evbuffer_new();
    channel->readable = event_new(base, fd, EV_READ | EV_PERSIST, ipc_in_on_readable, channel);
    channel->writable = event_new(base, fd, EV_WRITE, ipc_out_on_writable, channel);
    channel->ended = event_new(base, -1, 0, on_ended, channel);
    if (!channel->in || !channel->out || !channel->readable || !channel->writable ||
        !channel->ended)
        log_fatal("out of memory");
    event_add(channel->readable, NULL);
    say_hello(channel);
    return channel;
}

enum proto_peer ipc_channel_peer(const struct ipc_channel *channel)
{
    return channel->peer;
}

size_t ipc_channel_unsent(const struct ipc_channel *channel)
{
    return channel->fd < 0 ? 0 : evbuffer_get_length(channel->out);
}

void *ipc_channel_arg(const struct ipc_channel *channel)
{
    return channel->arg;
}
