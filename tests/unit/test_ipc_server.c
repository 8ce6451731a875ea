/* The accepting side on a real Unix socket: who is let in, who is answered and how, what happens
 * when peers leave early, and when a drain is over. */
#include "tests/unit/ipc_peer.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { NOBODY = 65534, MAX_CHANNELS = 3, KEPT_MAX = 32 };

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
    size_t kept_count;
    int drained;
} world;

static const struct msg_mesh_agent an_agent = {STR("{}")};

static void answer_now(void *daemon, struct ipc_reply_to to, const struct message *message)
{
    ck_assert_ptr_eq(daemon, &world);
    ck_assert(str_equal(message->body.mesh_self.tenant_id, STR("acme")));
    ipc_reply(to, MSG_mesh_agent, &an_agent);
}

static void keep(void *daemon, struct ipc_reply_to to, const struct message *message)
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

static void drained(void *daemon)
{
    ck_assert_ptr_eq(daemon, &world);
    world.drained++;
}

static void listen_somewhere(void)
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

static void open_world(void)
{
    world = (struct daemon){.base = event_base_new(), .uid = getuid()};
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

static void close_world(void)
{
    if (world.server)
        ipc_server_free(world.server);
    for (size_t i = 0; i < world.kept_count; i++) /* harmless, and gives the channels back */
        ipc_reply(world.kept[i], MSG_mesh_agent, &an_agent);
    close(world.listener);
    unlink(world.address.sun_path);
    rmdir(world.folder);
    event_base_free(world.base);
}

static struct peer dial(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(connect(fd, (struct sockaddr *)&world.address, sizeof(world.address)), 0);
    return peer_of(fd);
}

/* A frontd that has exchanged HELLO. */
static struct peer join(void)
{
    struct peer peer = dial();
    struct message message;

    peer_say_hello(&peer, "frontd");
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_hello, &message);
    return peer;
}

static void ask_to_wait(struct peer *peer, uint8_t number)
{
    const struct msg_mesh_heartbeat body = {.tenant_id = STR("acme"),
                                            .spiffe_id = STR("spiffe://td/a")};
    size_t before = world.kept_count;

    peer_send(peer, MSG_mesh_heartbeat, numbered(number), &body);
    LOOP_UNTIL(world.base, world.kept_count == before + 1);
}

static void answer_kept(size_t index)
{
    ipc_reply(world.kept[index], MSG_mesh_agent, &an_agent);
    world.kept[index] = world.kept[--world.kept_count];
}

static void assert_answered(struct peer *peer, enum message_type type, uint8_t number)
{
    struct message message;

    peer_expect(world.base, peer, PEER_REGISTRYD, type, &message);
    ck_assert_int_eq(message.id.bytes[15], number);
}

/* ---- who is let in --------------------------------------------------------------------------- */

START_TEST(our_user_is_served)
{
    struct peer peer = join();

    peer_ask(&peer, 1);
    assert_answered(&peer, MSG_mesh_agent, 1);
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 0);
    peer_free(&peer);
}
END_TEST

START_TEST(another_user_hears_nothing)
{
    struct peer peer;

    world.uid = getuid() + 1;
    peer = dial();
    LOOP_UNTIL(world.base, peer.ended || peer_is_left(&peer));
    ck_assert_uint_eq(peer.in_len, 0);
    peer_free(&peer);
}
END_TEST

/* As a child: connects, and exits with the number of bytes that came before the end; 99 when it is
 * not even let to connect. */
static void connect_and_count(void)
{
    char bytes[64];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (connect(fd, (struct sockaddr *)&world.address, sizeof(world.address)) != 0)
        _exit(99);
    _exit((int)recv(fd, bytes, sizeof(bytes), 0));
}

START_TEST(a_process_of_another_user_hears_nothing)
{
    uid_t other = getuid() == 0 ? NOBODY : getuid();
    int status = -1;
    pid_t child;

    world.uid = getuid() == 0 ? 0 : getuid() + 1; /* only root can become somebody else */
    child = fork();
    if (child == 0) {
        if (getuid() == 0 && (setgid(NOBODY) != 0 || setuid(other) != 0))
            _exit(98);
        connect_and_count();
    }
    LOOP_UNTIL(world.base, waitpid(child, &status, WNOHANG) == child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

START_TEST(one_of_several_users_is_served)
{
    const uid_t uids[] = {getuid() + 1, getuid() + 2, getuid()};
    struct peer peer;

    ipc_server_free(world.server);
    world.options.uids = uids;
    world.options.uid_count = 3;
    world.server = ipc_server_new(world.base, world.listener, &world.options);
    peer = join();
    ipc_server_free(world.server);
    world.options.uid_count = 0;
    world.server = ipc_server_new(world.base, world.listener, &world.options);
    peer_free(&peer);
    peer = dial();
    LOOP_UNTIL(world.base, peer_is_left(&peer));
    peer_free(&peer);
}
END_TEST

START_TEST(another_daemon_is_not_served)
{
    static const char *const others[] = {"supervisor", "registryd", "eventd", "keeper", "auditd"};
    struct peer peer = dial();
    struct message message;

    peer_say_hello(&peer, others[_i]);
    peer_ask(&peer, 1);
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_hello, &message);
    LOOP_UNTIL(world.base, peer_is_left(&peer));
    peer_free(&peer);
}
END_TEST

START_TEST(channels_are_bounded_and_come_free_again)
{
    struct peer peers[MAX_CHANNELS], more;

    for (int i = 0; i < MAX_CHANNELS; i++)
        peers[i] = join();
    for (int i = 0; i < 3; i++) {
        more = dial();
        LOOP_UNTIL(world.base, peer_is_left(&more));
        peer_free(&more);
    }
    peer_ask(&peers[0], 1); /* who is in stays in */
    assert_answered(&peers[0], MSG_mesh_agent, 1);
    peer_free(&peers[1]);
    loop_settle(world.base);
    more = join();
    peer_free(&more);
    peer_free(&peers[0]);
    peer_free(&peers[2]);
}
END_TEST

/* ---- answers --------------------------------------------------------------------------------- */

START_TEST(a_message_without_a_handler_is_answered_all_the_same)
{
    static const struct msg_status_get nothing;
    struct peer peer = join();
    struct message message;

    peer_send(&peer, MSG_status_get, numbered(5), &nothing);
    peer_ask(&peer, 6);
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_fail, &message);
    ck_assert_int_eq(message.id.bytes[15], 5);
    ck_assert(str_equal(message.body.fail.code, STR("INTERNAL")));
    assert_answered(&peer, MSG_mesh_agent, 6);
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 0);
    peer_free(&peer);
}
END_TEST

START_TEST(answers_go_to_whom_they_are_for_in_any_order)
{
    struct peer one = join(), other = join();

    ask_to_wait(&one, 1);
    ask_to_wait(&other, 1);
    ask_to_wait(&one, 2);
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 3);
    answer_kept(2);
    assert_answered(&one, MSG_mesh_agent, 2);
    answer_kept(1);
    assert_answered(&other, MSG_mesh_agent, 1);
    answer_kept(0);
    assert_answered(&one, MSG_mesh_agent, 1);
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 0);
    peer_free(&one);
    peer_free(&other);
}
END_TEST

START_TEST(an_answer_out_of_bounds_is_a_failure_instead)
{
    const struct msg_mesh_agent empty = {STR("")};
    struct peer peer = join();
    struct message message;

    ask_to_wait(&peer, 1);
    ipc_reply(world.kept[0], MSG_mesh_agent, &empty);
    world.kept_count = 0;
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_fail, &message);
    ck_assert(str_equal(message.body.fail.code, STR("INTERNAL")));
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 0);
    peer_free(&peer);
}
END_TEST

START_TEST(any_reason_of_a_failure_can_be_told)
{
    char longest[600], cut[600];
    const struct {
        const char *message;
        size_t len; /* of what arrives; 0: something else that is readable */
    } reasons[] = {{"no", 2}, {longest, 511}, {cut, 0}, {"\xff", 0}, {"", 0}};
    struct peer peer = join();
    struct message message;

    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    strcpy(cut, longest);
    cut[510] = '\xc3'; /* the first half of a character, whose second half is cut off */
    cut[511] = '\xa9';
    ask_to_wait(&peer, 1);
    ipc_fail(world.kept[0], ERROR_CONFLICT, reasons[_i].message);
    world.kept_count = 0;
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_fail, &message);
    if (reasons[_i].len)
        ck_assert_uint_eq(message.body.fail.message.len, reasons[_i].len);
    if (*reasons[_i].message)
        ck_assert(str_equal(message.body.fail.code, STR("CONFLICT")));
    ck_assert_uint_gt(message.body.fail.message.len, 0);
    peer_free(&peer);
}
END_TEST

START_TEST(one_peers_broken_frame_ends_that_peer_alone)
{
    struct peer good = join(), bad = join();

    ask_to_wait(&good, 1);
    ask_to_wait(&bad, 1);
    peer_write(&bad, "\xff\xff\xff\xff", 4);
    LOOP_UNTIL(world.base, peer_is_left(&bad));
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 1);
    answer_kept(1);
    answer_kept(0);
    assert_answered(&good, MSG_mesh_agent, 1);
    peer_free(&good);
    peer_free(&bad);
}
END_TEST

START_TEST(an_answer_may_come_after_its_peer_has_gone)
{
    struct peer peer = join();

    ask_to_wait(&peer, 1);
    ask_to_wait(&peer, 2);
    peer_free(&peer);
    LOOP_UNTIL(world.base, ipc_server_unanswered(world.server) == 0);
    answer_kept(0);
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 0);
    ipc_server_free(world.server); /* and after the server has */
    world.server = NULL;
    answer_kept(0);
}
END_TEST

/* ---- the drain ------------------------------------------------------------------------------- */

START_TEST(a_drain_ends_when_all_is_answered_and_sent)
{
    struct peer one = join(), other = join(), late;
    const struct msg_mesh_self body = {STR("acme"), STR("spiffe://td/a")};

    ask_to_wait(&one, 1);
    ask_to_wait(&other, 2);
    ipc_server_drain(world.server, drained);
    late = dial(); /* waits in the socket's queue for the next life */
    peer_send(&one, MSG_mesh_self, numbered(9), &body); /* and so does this */
    loop_settle(world.base);
    ck_assert_int_eq(world.drained, 0);
    answer_kept(0);
    loop_settle(world.base);
    ck_assert_int_eq(world.drained, 0);
    answer_kept(0);
    LOOP_UNTIL(world.base, world.drained == 1);
    assert_answered(&one, MSG_mesh_agent, 1);
    assert_answered(&other, MSG_mesh_agent, 2);
    loop_settle(world.base);
    ck_assert_int_eq(world.drained, 1);
    peer_read(&one);
    peer_read(&late);
    ck_assert(one.in_len == 0 && late.in_len == 0 && !late.ended);
    peer_free(&one);
    peer_free(&other);
    peer_free(&late);
}
END_TEST

START_TEST(a_drain_of_nothing_ends_at_once)
{
    struct peer peer = join();

    ipc_server_drain(world.server, drained);
    ck_assert_int_eq(world.drained, 0); /* told from the loop */
    LOOP_UNTIL(world.base, world.drained == 1);
    peer_free(&peer);
}
END_TEST

START_TEST(a_drain_waits_until_a_slow_peer_has_its_answer)
{
    enum { PAGE = 500000 };
    char *text = malloc(PAGE);
    const struct msg_mesh_agent page = {{memset(text, 'x', PAGE), PAGE}};
    struct peer peer = join();

    for (uint8_t i = 0; i < 8; i++)
        ask_to_wait(&peer, i);
    ipc_server_drain(world.server, drained);
    while (world.kept_count)
        ipc_reply(world.kept[--world.kept_count], MSG_mesh_agent, &page);
    loop_settle(world.base);
    usleep(30000);
    loop_settle(world.base);
    ck_assert_int_eq(world.drained, 0);
    for (uint8_t i = 8; i-- > 0;)
        assert_answered(&peer, MSG_mesh_agent, i);
    LOOP_UNTIL(world.base, world.drained == 1);
    peer_free(&peer);
    free(text);
}
END_TEST

START_TEST(a_drain_does_not_wait_for_peers_that_have_gone)
{
    struct peer peer = join();

    ask_to_wait(&peer, 1);
    ipc_server_drain(world.server, drained);
    peer_free(&peer);
    loop_settle(world.base);
    ck_assert_int_eq(world.drained, 0);
    answer_kept(0);
    LOOP_UNTIL(world.base, world.drained == 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ipc_server");
    TCase *doors = suite_case(suite, "doors");
    TCase *answers = suite_case(suite, "answers");
    TCase *drains = suite_case(suite, "drains");

    tcase_add_checked_fixture(doors, open_world, close_world);
    tcase_add_checked_fixture(answers, open_world, close_world);
    tcase_add_checked_fixture(drains, open_world, close_world);
    tcase_add_test(doors, our_user_is_served);
    tcase_add_test(doors, another_user_hears_nothing);
    tcase_add_test(doors, a_process_of_another_user_hears_nothing);
    tcase_add_test(doors, one_of_several_users_is_served);
    tcase_add_loop_test(doors, another_daemon_is_not_served, 0, 5);
    tcase_add_test(doors, channels_are_bounded_and_come_free_again);
    tcase_add_test(answers, a_message_without_a_handler_is_answered_all_the_same);
    tcase_add_test(answers, answers_go_to_whom_they_are_for_in_any_order);
    tcase_add_test(answers, an_answer_out_of_bounds_is_a_failure_instead);
    tcase_add_loop_test(answers, any_reason_of_a_failure_can_be_told, 0, 5);
    tcase_add_test(answers, one_peers_broken_frame_ends_that_peer_alone);
    tcase_add_test(answers, an_answer_may_come_after_its_peer_has_gone);
    tcase_add_test(drains, a_drain_ends_when_all_is_answered_and_sent);
    tcase_add_test(drains, a_drain_of_nothing_ends_at_once);
    tcase_add_test(drains, a_drain_waits_until_a_slow_peer_has_its_answer);
    tcase_add_test(drains, a_drain_does_not_wait_for_peers_that_have_gone);
    return suite_run(suite);
}
