/* For unit tests of common/ipc: the other end of a channel as a bare socket that can say anything,
 * and a loop that runs until something has happened. */
#ifndef CAF_TESTS_UNIT_IPC_PEER_H
#define CAF_TESTS_UNIT_IPC_PEER_H

#include "common/clock.h"
#include "common/ipc.h"
#include "tests/unit/suite.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000 };

/* Turns the loop until the condition holds; a test that waits in vain fails. */
#define LOOP_UNTIL(base, condition)                                                                \
    do {                                                                                           \
        int64_t began_ = clock_monotonic_ms();                                                     \
        while (!(condition)) {                                                                     \
            ASSERT_QUIETLY(clock_monotonic_ms() - began_ < PATIENCE_MS, "never: %s", #condition);  \
            loop_turn(base);                                                                       \
        }                                                                                          \
    } while (0)

static inline void loop_turn(struct event_base *base)
{
    event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    usleep(200);
}

/* Turns the loop often enough for what must not happen to happen. */
static inline void loop_settle(struct event_base *base)
{
    for (int i = 0; i < 25; i++)
        loop_turn(base);
}

static inline int open_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

/* ---- the bare end ---------------------------------------------------------------------------- */

struct peer {
    int fd; /* non-blocking */
    uint8_t *in, *payload;
    size_t in_len;
    bool ended; /* the other end closed */
};

static inline struct peer peer_of(int fd)
{
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return (struct peer){.fd = fd};
}

/* A socket pair: the peer, and the descriptor for the channel. */
static inline struct peer peer_pair(int *other)
{
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *other = ends[1];
    return peer_of(ends[0]);
}

static inline void peer_free(struct peer *peer)
{
    if (peer->fd >= 0)
        close(peer->fd);
    free(peer->in);
    free(peer->payload);
    *peer = (struct peer){.fd = -1};
}

static inline void peer_write(struct peer *peer, const void *bytes, size_t len)
{
    ck_assert_int_eq(send(peer->fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* The id that ends with that number. */
static inline struct request_id numbered(uint8_t number)
{
    return (struct request_id){{[15] = number}};
}

static inline struct frame frame_of(enum message_type type, struct request_id id, const void *body)
{
    struct frame frame;
    const char *why = NULL;

    ASSERT_QUIETLY(proto_encode(type, &id, body, &frame, &why), "%s", why);
    return frame;
}

static inline void peer_send(struct peer *peer, enum message_type type, struct request_id id,
                             const void *body)
{
    struct frame frame = frame_of(type, id, body);

    peer_write(peer, frame.bytes, frame.len);
    free(frame.bytes);
}

static inline void peer_say_hello(struct peer *peer, const char *daemon)
{
    const struct msg_hello hello = {PROTO_VERSION, str_from(daemon), STR("test")};

    peer_send(peer, MSG_hello, numbered(0), &hello);
}

/* A request that registryd takes from frontd. */
static inline void peer_ask(struct peer *peer, uint8_t number)
{
    const struct msg_mesh_self body = {STR("acme"), STR("spiffe://td/agent/acme/a")};

    peer_send(peer, MSG_mesh_self, numbered(number), &body);
}

static inline void peer_read(struct peer *peer)
{
    enum { CHUNK = 65536 };
    ssize_t got;

    if (peer->fd < 0 || peer->ended)
        return;
    peer->in = realloc(peer->in, peer->in_len + CHUNK);
    got = recv(peer->fd, peer->in + peer->in_len, CHUNK, MSG_DONTWAIT);
    if (got > 0)
        peer->in_len += (size_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR))
        peer->ended = true;
}

/* The next message that has come, sent by `sender`; its views live until the next call. */
static inline bool peer_next(struct peer *peer, enum proto_peer sender, struct message *message)
{
    const char *why;
    size_t len;

    peer_read(peer);
    if (peer->in_len < PROTO_FRAME_HEAD)
        return false;
    len = (size_t)peer->in[1] << 16 | (size_t)peer->in[2] << 8 | peer->in[3];
    if (peer->in_len < PROTO_FRAME_HEAD + len)
        return false;
    peer->payload = realloc(peer->payload, len);
    memcpy(peer->payload, peer->in + PROTO_FRAME_HEAD, len);
    peer->in_len -= PROTO_FRAME_HEAD + len;
    memmove(peer->in, peer->in + PROTO_FRAME_HEAD + len, peer->in_len);
    ASSERT_QUIETLY(proto_decode(peer->payload, len, sender, message, &why), "%s", why);
    return true;
}

/* Whether the other end has closed, and nothing is left to be read. */
static inline bool peer_is_left(struct peer *peer)
{
    peer_read(peer);
    return peer->ended && peer->in_len == 0;
}

/* Waits for the next message and asserts what it is. */
static inline void peer_expect(struct event_base *base, struct peer *peer, enum proto_peer sender,
                               enum message_type type, struct message *message)
{
    LOOP_UNTIL(base, peer_next(peer, sender, message));
    ASSERT_QUIETLY(message->type == type, "%s instead of %s", proto_name(message->type),
                   proto_name(type));
}

#endif
