/* The receiving half of a channel: bytes become whole frames, which ipc_channel.c checks and
 * delivers, and the descriptors beside them are kept until they are taken. Touches the channel's
 * socket only. */
#include "common/ipc_channel.h"

#include "common/log.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 65536, DESCRIPTORS_PER_READ = 4 };

/* Keeps what came. False: something did not, for want of room in the process, in the control
 * buffer, or among those that wait to be taken. */
static bool keep_descriptors(struct ipc_channel *channel, struct msghdr *header)
{
    bool whole = !(header->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (channel->received_count < IPC_DESCRIPTORS_MAX) {
                channel->received[channel->received_count++] = fd;
            } else {
                close(fd);
                whole = false;
            }
        }
    }
    return whole;
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

void ipc_in_resume(struct ipc_channel *channel)
{
    channel->paused = false;
    if (channel->reading_stopped)
        return;
    event_add(channel->readable, NULL);
    event_active(channel->readable, EV_READ, 0); /* for the frames that are here already */
}

/* Hands over every whole frame. A handler may close the channel, which its caller holds. */
static void deliver_frames(struct ipc_channel *channel)
{
    while (!channel->closed && !channel->end_reason && !channel->reading_stopped &&
           !channel->paused && evbuffer_get_length(channel->in) >= PROTO_FRAME_HEAD) {
        size_t len = claimed_length(channel->in);
        const uint8_t *frame;

        if (len == 0 || len > PROTO_FRAME_MAX) {
            ipc_channel_refuse(channel, IPC_REFUSED_length, len == 0 ? "none" : "beyond 1 MiB");
            break;
        }
        if (evbuffer_get_length(channel->in) < PROTO_FRAME_HEAD + len)
            break;
        frame = evbuffer_pullup(channel->in, (ev_ssize_t)(PROTO_FRAME_HEAD + len));
        ipc_channel_deliver(channel, frame + PROTO_FRAME_HEAD, len);
        evbuffer_drain(channel->in, PROTO_FRAME_HEAD + len);
        if (ipc_out_is_full(channel))
            pause_reading(channel);
    }
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
    if (got > 0 && !keep_descriptors(channel, &header)) /* each that follows would be mistaken */
        ipc_channel_refuse(channel, IPC_REFUSED_descriptors,
                           "RLIMIT_NOFILE, or more than are taken");
    return got;
}

void ipc_in_on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct ipc_channel *channel = arg;
    ssize_t got = receive(channel);
    bool failed = got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;

    (void)fd;
    (void)what;
    ipc_channel_hold(channel);
    deliver_frames(channel);
    if ((got == 0 || failed) && !channel->paused) /* else it ends when it reads on */
        ipc_channel_end(channel, failed ? "cannot receive" : "end of file");
    ipc_channel_release(channel);
}
