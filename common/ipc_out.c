/* The sending half of a channel: frames queued, and descriptors at their places among them. Touches
 * the channel's socket only. A peer that reads no more ends the sending, not the channel: what it
 * had said before is still read, to the last byte. */
#include "common/ipc_channel.h"

#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void forget_outgoing(struct ipc_channel *channel)
{
    struct ipc_outgoing *first = channel->outgoing;

    channel->outgoing = first->next;
    close(first->fd);
    free(first);
}

/* Bytes that may go in one sendmsg: up to the next byte that a descriptor travels with. */
static size_t next_run(const struct ipc_channel *channel, int *fd)
{
    const struct ipc_outgoing *first = channel->outgoing;
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

bool ipc_out_is_full(const struct ipc_channel *channel)
{
    return channel->unsent_max && evbuffer_get_length(channel->out) > channel->unsent_max;
}

void ipc_out_clear(struct ipc_channel *channel)
{
    while (channel->outgoing)
        forget_outgoing(channel);
    evbuffer_drain(channel->out, evbuffer_get_length(channel->out));
}

static void resume_when_there_is_room(struct ipc_channel *channel)
{
    if (channel->paused && !ipc_out_is_full(channel))
        ipc_in_resume(channel);
}

/* The peer takes no more, because it died as a rule. What it said before that waits in the socket
 * still, and counts: the channel ends when all of it is read. */
static void fall_mute(struct ipc_channel *channel)
{
    if (channel->reading_stopped) {
        ipc_channel_end(channel, "cannot send");
        return;
    }
    channel->mute = true;
    ipc_out_clear(channel);
    resume_when_there_is_room(channel);
}

void ipc_out_send(struct ipc_channel *channel)
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
            fall_mute(channel);
            return;
        }
        if (fd >= 0)
            forget_outgoing(channel);
        evbuffer_drain(channel->out, (size_t)sent);
        channel->sent += (uint64_t)sent;
        resume_when_there_is_room(channel);
    }
}

void ipc_out_on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ipc_out_send(arg);
}

static void queue_descriptor(struct ipc_channel *channel, int fd)
{
    struct ipc_outgoing **tail = &channel->outgoing;

    while (*tail)
        tail = &(*tail)->next;
    *tail = memory_new(1, sizeof(**tail));
    **tail = (struct ipc_outgoing){.fd = fd, .at = channel->queued};
}

static void queue_frame(struct ipc_channel *channel, const struct frame *frame, int fd)
{
    if (channel->closed || channel->end_reason || channel->mute) {
        if (fd >= 0)
            close(fd);
        return;
    }
    if (fd >= 0)
        queue_descriptor(channel, fd);
    if (evbuffer_add(channel->out, frame->bytes, frame->len) != 0)
        log_fatal("out of memory");
    channel->queued += frame->len;
    if (ipc_out_is_full(channel))
        ipc_out_send(channel);
    else if (!event_pending(channel->writable, EV_WRITE, NULL))
        event_active(channel->writable, EV_WRITE, 0); /* with all else that is said in this turn */
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
