/* The accepting side on a real Unix socket: who is let in, who is answered and how, and what
 * happens when peers leave early. */
#include "tests/unit/ipc_daemon.h"

#include <sys/resource.h>
#include <sys/wait.h>

enum { NOBODY = 65534 };

/* How many the server has refused for that reason; and it has refused nothing else. */
static uint64_t refusals(enum ipc_refusal reason)
{
    const uint64_t *counts = ipc_server_counters(world.server)->refusals;

    for (int i = 0; i < IPC_REFUSAL_COUNT; i++)
        ck_assert(i == (int)reason || counts[i] == 0);
    return counts[reason];
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
    ck_assert_uint_eq(refusals(IPC_REFUSED_user), 1);
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
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_hello, &message);
    LOOP_UNTIL(world.base, peer_is_left(&peer));
    ck_assert_uint_eq(ipc_server_counters(world.server)->broken, 1);
    ck_assert_uint_eq(refusals(IPC_REFUSED_hello), 1);
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
    ck_assert_uint_eq(refusals(IPC_REFUSED_channels), 3);
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

START_TEST(without_descriptors_it_waits_and_goes_on)
{
    struct peer peer = dial();
    struct message message;
    struct rlimit before, none;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    loop_settle(world.base);
    ck_assert_uint_eq(ipc_server_counters(world.server)->accept_failed, 1);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_hello, &message);
    peer_free(&peer);
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
    ck_assert_uint_eq(refusals(IPC_REFUSED_unserved), 1);
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
    ck_assert_uint_eq(ipc_server_counters(world.server)->broken, 1);
    ck_assert_uint_eq(refusals(IPC_REFUSED_length), 1);
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

START_TEST(a_server_may_be_freed_while_a_channels_end_is_on_its_way)
{
    struct peer peer = join();

    ask_to_wait(&peer, 1);
    ask_to_wait(&peer, 2);
    peer_free(&peer);
    answer_kept(0); /* finds the peer gone, which the loop will tell */
    ipc_server_free(world.server);
    world.server = NULL;
    loop_settle(world.base);
    answer_kept(0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ipc_server");
    TCase *doors = suite_case(suite, "doors");
    TCase *answers = suite_case(suite, "answers");

    tcase_add_checked_fixture(doors, open_world, close_world);
    tcase_add_checked_fixture(answers, open_world, close_world);
    tcase_add_test(doors, our_user_is_served);
    tcase_add_test(doors, another_user_hears_nothing);
    tcase_add_test(doors, a_process_of_another_user_hears_nothing);
    tcase_add_test(doors, one_of_several_users_is_served);
    tcase_add_loop_test(doors, another_daemon_is_not_served, 0, 5);
    tcase_add_test(doors, channels_are_bounded_and_come_free_again);
    tcase_add_test(doors, without_descriptors_it_waits_and_goes_on);
    tcase_add_test(answers, a_message_without_a_handler_is_answered_all_the_same);
    tcase_add_test(answers, answers_go_to_whom_they_are_for_in_any_order);
    tcase_add_test(answers, an_answer_out_of_bounds_is_a_failure_instead);
    tcase_add_loop_test(answers, any_reason_of_a_failure_can_be_told, 0, 5);
    tcase_add_test(answers, one_peers_broken_frame_ends_that_peer_alone);
    tcase_add_test(answers, an_answer_may_come_after_its_peer_has_gone);
    tcase_add_test(answers, a_server_may_be_freed_while_a_channels_end_is_on_its_way);
    return suite_run(suite);
}
