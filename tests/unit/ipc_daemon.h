/* For unit tests of the accepting side: a server on a real Unix socket, and bare peers that dial.
 */
#ifndef CAF_TESTS_UNIT_IPC_DAEMON_H
#define CAF_TESTS_UNIT_IPC_DAEMON_H

#include "tests/unit/ipc_peer.h"

#include <sys/stat.h>
#include <sys/un.h>

enum { MAX_CHANNELS = 3, KEPT_MAX = 32 };

/* registryd as a server: mesh_self is answered at once, mesh_heartbeat when a test says so. */
static struct daemon {
    struct event_base *base;
    struct ipc_server *server;
    struct ipc_server_options options;
    uid_t uid; /* the one allowed */
    int listener;
    char folder[32];
    struct sockaddr_un address;
    struct ipc_reply_to kept[KEPT_MAX];
    size_t kept_count, served;
    struct msg_mesh_agent answer; /* to everything that is asked */
    int drained;
} world;

static inline void answer_now(void *daemon, struct ipc_reply_to to, const struct message *message)
{
    ck_assert_ptr_eq(daemon, &world);
    ck_assert(str_equal(message->body.mesh_self.tenant_id, STR("acme")));
    world.served++;
    ipc_reply(to, MSG_mesh_agent, &world.answer);
}

static inline void keep(void *daemon, struct ipc_reply_to to, const struct message *message)
{
    ck_assert_ptr_eq(daemon, &world);
    ck_assert_int_eq(message->type, MSG_mesh_heartbeat);
    ck_assert_uint_lt(world.kept_count, KEPT_MAX);
    world.kept[world.kept_count++] = to;
}

static const struct ipc_handler handlers[] = {
    {MSG_mesh_self, answer_now},
    {MSG_mesh_heartbeat, keep},
    {0, NULL},
};

static inline void drained(void *daemon)
{
    ck_assert_ptr_eq(daemon, &world);
    world.drained++;
}

static inline void listen_somewhere(void)
{
    strcpy(world.folder, "/tmp/caf-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(world.folder));
    chmod(world.folder, 0755);
    world.address.sun_family = AF_UNIX;
    snprintf(world.address.sun_path, sizeof(world.address.sun_path), "%s/s", world.folder);
    world.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(world.listener, (struct sockaddr *)&world.address, sizeof(world.address)),
                     0);
    chmod(world.address.sun_path, 0777);
    ck_assert_int_eq(listen(world.listener, 16), 0);
}

static inline void open_world(void)
{
    world = (struct daemon){.base = event_base_new(), .uid = getuid(), .answer = {STR("{}")}};
    listen_somewhere();
    world.options = (struct ipc_server_options){.self = PEER_REGISTRYD,
                                                .peers = PEER_FRONTD,
                                                .handlers = handlers,
                                                .daemon = &world,
                                                .uids = &world.uid,
                                                .uid_count = 1,
                                                .max_channels = MAX_CHANNELS};
    world.server = ipc_server_new(world.base, world.listener, &world.options);
}

static inline void close_world(void)
{
    if (world.server)
        ipc_server_free(world.server);
    for (size_t i = 0; i < world.kept_count; i++) /* harmless, and gives the channels back */
        ipc_reply(world.kept[i], MSG_mesh_agent, &world.answer);
    close(world.listener);
    unlink(world.address.sun_path);
    rmdir(world.folder);
    event_base_free(world.base);
}

static inline struct peer dial(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(connect(fd, (struct sockaddr *)&world.address, sizeof(world.address)), 0);
    return peer_of(fd);
}

/* A frontd that has exchanged HELLO. */
static inline struct peer join(void)
{
    struct peer peer = dial();
    struct message message;

    peer_say_hello(&peer, "frontd");
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_hello, &message);
    return peer;
}

static inline void ask_to_wait(struct peer *peer, uint8_t number)
{
    const struct msg_mesh_heartbeat body = {.tenant_id = STR("acme"),
                                            .spiffe_id = STR("spiffe://td/a")};
    size_t before = world.kept_count;

    peer_send(peer, MSG_mesh_heartbeat, numbered(number), &body);
    LOOP_UNTIL(world.base, world.kept_count == before + 1);
}

static inline void answer_kept(size_t index)
{
    ipc_reply(world.kept[index], MSG_mesh_agent, &world.answer);
    world.kept[index] = world.kept[--world.kept_count];
}

static inline void assert_answered(struct peer *peer, enum message_type type, uint8_t number)
{
    struct message message;

    peer_expect(world.base, peer, PEER_REGISTRYD, type, &message);
    ck_assert_int_eq(message.id.bytes[15], number);
}

#endif
