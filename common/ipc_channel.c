/* One framed channel over a connected Unix stream socket: its life, HELLO, and the check of each
 * message; its bytes are sent by ipc_out.c and received by ipc_in.c. Touches the one socket it was
 * given; it opens none. What a peer sends is hostile until proto_decode has checked it. */
#include "common/ipc_channel.h"

#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <unistd.h>

const char *const ipc_refusal_names[] = {
#define IPC_REFUSAL(name, help) #name,
#include "common/ipc_refusals.def"
#undef IPC_REFUSAL
    NULL,
};

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

void ipc_channel_refuse(struct ipc_channel *channel, enum ipc_refusal refusal, const char *detail)
{
    static const char *const reasons[] = {
#define IPC_REFUSAL(name, help) help,
#include "common/ipc_refusals.def"
#undef IPC_REFUSAL
    };

    if (channel->end_reason || channel->closed)
        return;
    channel->refusal = refusal;
    channel->refusal_detail = detail;
    ipc_channel_end(channel, reasons[refusal]);
}

enum ipc_refusal ipc_channel_refusal(const struct ipc_channel *channel, const char **detail)
{
    *detail = channel->refusal_detail;
    return channel->refusal;
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
    struct ipc_channel *channel = arg;

    (void)fd;
    (void)what;
    channel->events->closed(channel, channel->end_reason, channel->arg);
}

/* ---- messages ------------------------------------------------------------------------------- */

/* Notes who the peer is; what is wrong with its HELLO, NULL for nothing. */
static const char *take_hello(struct ipc_channel *channel, const struct message *message)
{
    const struct msg_hello *hello = &message->body.hello;

    if (message->type != MSG_hello)
        return "another message came before it";
    if (channel->peer)
        return "a second one";
    if (hello->version != PROTO_VERSION)
        return "another version of the protocol";
    for (unsigned bit = 1; bit < PEER_ANY; bit <<= 1) {
        if ((channel->peers & bit) &&
            str_equal(hello->daemon, str_from(proto_peer_name((enum proto_peer)bit)))) {
            channel->peer = (enum proto_peer)bit;
            return NULL;
        }
    }
    return "not a daemon that is expected here";
}

void ipc_channel_deliver(struct ipc_channel *channel, const uint8_t *payload, size_t len)
{
    enum proto_peer sender = channel->peer ? channel->peer : PEER_ANY;
    struct message message;
    const char *why;

    if (!proto_decode(payload, len, sender, &message, &why)) {
        ipc_channel_refuse(channel, IPC_REFUSED_malformed, why);
        return;
    }
    if (channel->peer && message.type != MSG_hello) {
        channel->events->message(channel, &message, channel->arg);
        return;
    }
    why = take_hello(channel, &message);
    if (why)
        ipc_channel_refuse(channel, IPC_REFUSED_hello, why);
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
                                    .arg = arg,
                                    .refusal = IPC_REFUSAL_COUNT,
                                    .refusal_detail = ""};
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
