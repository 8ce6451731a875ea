/* For unit tests of one channel: the channel, the bare socket at its other end, and what the
 * channel's callbacks saw. */
#ifndef CAF_TESTS_UNIT_IPC_WORLD_H
#define CAF_TESTS_UNIT_IPC_WORLD_H

#include "tests/unit/ipc_peer.h"

enum { SEEN_MAX = 1000 };

static struct world {
    struct event_base *base;
    struct ipc_channel *channel; /* NULL once closed */
    struct peer peer;
    uint8_t seen[SEEN_MAX]; /* the ends of the messages' ids */
    size_t messages, last_length;
    int ends, descriptors_before;
    char why[64];
    enum ipc_refusal refusal;
    bool sending;             /* a test is inside ipc_channel_send */
    void (*on_message)(void); /* NULL: only note */
} world;

static inline void take_message(struct ipc_channel *channel, const struct message *message,
                                void *arg)
{
    ck_assert_ptr_eq(arg, &world);
    ck_assert_ptr_eq(channel, world.channel);
    ASSERT_QUIETLY(world.messages < SEEN_MAX, "too many messages");
    world.seen[world.messages++] = message->id.bytes[15];
    if (message->type == MSG_event_page)
        world.last_length = message->body.event_page.page.len;
    if (world.on_message)
        world.on_message();
}

static inline void take_end(struct ipc_channel *channel, const char *why, void *arg)
{
    const char *detail;

    ck_assert_ptr_eq(arg, &world);
    ck_assert_ptr_eq(channel, world.channel);
    ck_assert(!world.sending);
    world.ends++;
    snprintf(world.why, sizeof(world.why), "%s", why);
    world.refusal = ipc_channel_refusal(channel, &detail);
    ck_assert_int_eq(*detail != '\0', world.refusal != IPC_REFUSAL_COUNT);
    ipc_channel_close(channel);
    world.channel = NULL;
}

static const struct ipc_channel_events events = {take_message, take_end};

static inline void open_as(enum proto_peer self, unsigned peers)
{
    int fd;

    world = (struct world){.descriptors_before = open_descriptors()};
    world.base = event_base_new();
    world.peer = peer_pair(&fd);
    world.channel = ipc_channel_new(world.base, fd, self, peers, &events, &world);
}

/* The fixture: registryd's channel to a bare frontd. */
static inline void open_world(void)
{
    open_as(PEER_REGISTRYD, PEER_FRONTD);
}

static inline void close_world(void)
{
    if (world.channel)
        ipc_channel_close(world.channel);
    world.channel = NULL;
    peer_free(&world.peer);
    event_base_free(world.base);
    ck_assert_int_eq(open_descriptors(), world.descriptors_before);
}

/* What the channel says of itself is taken, and the peer has said HELLO. */
static inline void shake_hands(void)
{
    struct message message;

    peer_say_hello(&world.peer, "frontd");
    peer_expect(world.base, &world.peer, PEER_REGISTRYD, MSG_hello, &message);
    LOOP_UNTIL(world.base, ipc_channel_peer(world.channel) == PEER_FRONTD);
}

#endif
