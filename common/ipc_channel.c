/* One framed channel over a connected Unix stream socket: bytes in, whole checked messages out, and
 * descriptors beside them. Touches the one socket it was given; it opens none. What a peer sends is
 * hostile until proto_decode has checked it. */
#include "common/ipc.h"

#include "common/ipc_internal.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <event2/buffer.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 65536,
    DESCRIPTORS_MAX = 16, /* received and not yet taken */
    DESCRIPTORS_PER_READ = 4,
};

/* A descriptor that goes out with the byte at this place of the stream. */
struct outgoing_descriptor {
    int fd;
    uint64_t at;
    struct outgoing_descriptor *next;
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
    struct outgoing_descriptor *outgoing;
    int received[DESCRIPTORS_MAX];
    size_t received_count;
    size_t unsent_max; /* 0: no limit */
    bool paused;       /* it was passed: frames wait unread */
    const char *end_reason;
    bool closed, reading_stopped;
};

/* ---- life ----------------------------------------------------------------------------------- */

static void forget_outgoing(struct ipc_channel *channel)
{
    struct outgoing_descriptor *first = channel->outgoing;

    channel->outgoing = first->next;
    close(first->fd);
    free(first);
}

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
    event_del(channel->readable);
    event_del(channel->writable);
    event_del(channel->ended);
    if (channel->fd >= 0)
        close(channel->fd);
    channel->fd = -1;
    while (channel->outgoing)
        forget_outgoing(channel);
    while (channel->received_count)
        close(ipc_channel_take_descriptor(channel));
    ipc_channel_release(channel);
}

bool ipc_channel_is_closed(const struct ipc_channel *channel)
{
    return channel->closed;
}

/* The end is told from the loop, never from within a call of the owner's. */
static void end_channel(struct ipc_channel *channel, const char *why)
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

/* ---- out ------------------------------------------------------------------------------------ */

/* Bytes that may go in one sendmsg: up to the next byte that a descriptor travels with. */
static size_t next_run(const struct ipc_channel *channel, int *fd)
{
    const struct outgoing_descriptor *first = channel->outgoing;
    size_t waiting = evbuffer_get_length(channel->out);

    *fd = -1;
    if (!first)
        return waiting;
    if (first->at > channel->sent)
        return first->at - channel->sent;
    *fd = first->fd;
    return first->next ? first->next->at - channel->sent : waiting;
}

static ssize_t send_run(struct ipc_channel *channel, size_t run, int fd)
{
    char control[CMSG_SPACE(sizeof(int))]
        __attribute__((aligned(__alignof__(struct cmsghdr)))) = {0};
    struct evbuffer_iovec chunk;
    struct iovec part;
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

    evbuffer_peek(channel->out, -1, NULL, &chunk, 1);
    part = (struct iovec){chunk.iov_base, chunk.iov_len < run ? chunk.iov_len : run};
    if (fd >= 0) {
        struct cmsghdr *attached;

        header.msg_control = control;
        header.msg_controllen = sizeof(control);
        attached = CMSG_FIRSTHDR(&header);
        attached->cmsg_level = SOL_SOCKET;
        attached->cmsg_type = SCM_RIGHTS;
        attached->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(attached), &fd, sizeof(fd));
    }
    return sendmsg(channel->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static bool too_much_unsent(const struct ipc_channel *channel)
{
    return channel->unsent_max && evbuffer_get_length(channel->out) > channel->unsent_max;
}

static void resume_reading(struct ipc_channel *channel)
{
    channel->paused = false;
    if (channel->reading_stopped)
        return;
    event_add(channel->readable, NULL);
    event_active(channel->readable, EV_READ, 0); /* for the frames that are here already */
}

static void send_queued(struct ipc_channel *channel)
{
    while (evbuffer_get_length(channel->out) > 0) {
        int fd;
        size_t run = next_run(channel, &fd);
        ssize_t sent = send_run(channel, run, fd);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            event_add(channel->writable, NULL);
            return;
        }
        if (sent < 0) {
            end_channel(channel, "cannot send");
            return;
        }
        if (fd >= 0)
            forget_outgoing(channel);
        evbuffer_drain(channel->out, (size_t)sent);
        channel->sent += (uint64_t)sent;
        if (channel->paused && !too_much_unsent(channel))
            resume_reading(channel);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    send_queued(arg);
}

static void queue_descriptor(struct ipc_channel *channel, int fd)
{
    struct outgoing_descriptor **tail = &channel->outgoing;

    while (*tail)
        tail = &(*tail)->next;
    *tail = memory_new(1, sizeof(**tail));
    **tail = (struct outgoing_descriptor){.fd = fd, .at = channel->queued};
}

static void queue_frame(struct ipc_channel *channel, const struct frame *frame, int fd)
{
    if (channel->closed || channel->end_reason) {
        if (fd >= 0)
            close(fd);
        return;
    }
    if (fd >= 0)
        queue_descriptor(channel, fd);
    if (evbuffer_add(channel->out, frame->bytes, frame->len) != 0)
        log_fatal("out of memory");
    channel->queued += frame->len;
    if (!event_pending(channel->writable, EV_WRITE, NULL))
        send_queued(channel);
}

void ipc_channel_send_frame(struct ipc_channel *channel, const struct frame *frame)
{
    queue_frame(channel, frame, -1);
}

bool ipc_channel_send(struct ipc_channel *channel, enum message_type type,
                      const struct request_id *id, const void *body, int fd)
{
    struct frame frame;
    const char *why;

    if (!proto_encode(type, id, body, &frame, &why)) {
        log_error("message not sent: a field is out of bounds",
                  LOG_TEXT("message", proto_name(type)), LOG_TEXT("field", why));
        if (fd >= 0)
            close(fd);
        return false;
    }
    queue_frame(channel, &frame, fd);
    free(frame.bytes);
    return true;
}

/* ---- in ------------------------------------------------------------------------------------- */

static void keep_descriptors(struct ipc_channel *channel, struct msghdr *header)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (channel->received_count < DESCRIPTORS_MAX)
                channel->received[channel->received_count++] = fd;
            else
                close(fd);
        }
    }
}

int ipc_channel_take_descriptor(struct ipc_channel *channel)
{
    int first = channel->received[0];

    if (channel->received_count == 0)
        return -1;
    channel->received_count--;
    memmove(channel->received, channel->received + 1, channel->received_count * sizeof(int));
    return first;
}

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

/* Handles one payload; false ends the channel. */
static bool deliver(struct ipc_channel *channel, const uint8_t *payload, size_t len)
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

/* The payload length that the four bytes at the buffer's front claim. */
static size_t claimed_length(struct evbuffer *in)
{
    uint8_t head[PROTO_FRAME_HEAD];

    evbuffer_copyout(in, head, sizeof(head));
    return (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
}

static void pause_reading(struct ipc_channel *channel)
{
    channel->paused = true;
    event_del(channel->readable);
}

/* Hands over every whole frame. The channel is held meanwhile: a handler may close it. */
static void deliver_frames(struct ipc_channel *channel)
{
    ipc_channel_hold(channel);
    while (!channel->closed && !channel->end_reason && !channel->reading_stopped &&
           !channel->paused && evbuffer_get_length(channel->in) >= PROTO_FRAME_HEAD) {
        size_t len = claimed_length(channel->in);
        const uint8_t *frame;

        if (len == 0 || len > PROTO_FRAME_MAX) {
            log_warn("frame of a forbidden length", LOG_NUMBER("bytes", (long long)len),
                     LOG_TEXT("peer", proto_peer_name(channel->peer)));
            end_channel(channel, "malformed frame");
            break;
        }
        if (evbuffer_get_length(channel->in) < PROTO_FRAME_HEAD + len)
            break;
        frame = evbuffer_pullup(channel->in, (ev_ssize_t)(PROTO_FRAME_HEAD + len));
        if (!deliver(channel, frame + PROTO_FRAME_HEAD, len)) {
            end_channel(channel, "malformed frame");
            break;
        }
        evbuffer_drain(channel->in, PROTO_FRAME_HEAD + len);
        if (too_much_unsent(channel))
            pause_reading(channel);
    }
    ipc_channel_release(channel);
}

static ssize_t receive(struct ipc_channel *channel)
{
    char control[CMSG_SPACE(DESCRIPTORS_PER_READ * sizeof(int))]
        __attribute__((aligned(__alignof__(struct cmsghdr))));
    struct evbuffer_iovec space;
    struct iovec part;
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control)};
    ssize_t got;

    if (evbuffer_reserve_space(channel->in, READ_BYTES, &space, 1) != 1)
        log_fatal("out of memory");
    part = (struct iovec){space.iov_base, space.iov_len};
    got = recvmsg(channel->fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    space.iov_len = got > 0 ? (size_t)got : 0;
    evbuffer_commit_space(channel->in, &space, 1);
    if (got > 0)
        keep_descriptors(channel, &header);
    return got;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct ipc_channel *channel = arg;
    ssize_t got = receive(channel);

    (void)fd;
    (void)what;
    if (got == 0)
        end_channel(channel, "end of file");
    else if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        end_channel(channel, "cannot receive");
    else
        deliver_frames(channel);
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
    channel->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, channel);
    channel->writable = event_new(base, fd, EV_WRITE, on_writable, channel);
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
