/* What a server says to a peer that asked nothing of the kind, and what a client makes of it. */
#include "tests/unit/ipc_daemon.h"

static const struct msg_deny_list part = {7, true, true, STR("")};

/* ---- the server ------------------------------------------------------------------------------ */

static struct ipc_channel *hold_channel(struct peer *peer)
{
    ask_to_wait(peer, 1);
    return ipc_push_begin(world.kept[world.kept_count - 1]);
}

START_TEST(a_push_answers_no_request)
{
    struct peer peer = join();
    struct ipc_channel *channel = hold_channel(&peer);
    struct message message;

    ck_assert(ipc_push(channel, MSG_deny_list, &part));
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_deny_list, &message);
    ck_assert_int_eq(memcmp(&message.id, &(struct request_id){{0}}, sizeof(message.id)), 0);
    ck_assert_uint_eq(message.body.deny_list.serial, 7);
    answer_kept(0); /* the request itself is answered beside it */
    assert_answered(&peer, MSG_mesh_agent, 1);
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 0);
    ck_assert(ipc_push(channel, MSG_deny_list, &part));
    peer_expect(world.base, &peer, PEER_REGISTRYD, MSG_deny_list, &message);
    ipc_push_end(channel);
    peer_free(&peer);
}
END_TEST

START_TEST(a_push_to_who_has_left_says_so_and_is_harmless)
{
    struct peer peer = join();
    struct ipc_channel *channel = hold_channel(&peer);

    answer_kept(0);
    peer_free(&peer);
    LOOP_UNTIL(world.base, !ipc_push(channel, MSG_deny_list, &part));
    ck_assert_uint_eq(ipc_channel_unsent(channel), 0);
    ipc_push_end(channel);
}
END_TEST

START_TEST(a_held_channel_outlives_the_server)
{
    struct peer peer = join();
    struct ipc_channel *channel = hold_channel(&peer);

    answer_kept(0);
    ipc_server_free(world.server);
    world.server = NULL;
    ck_assert(!ipc_push(channel, MSG_deny_list, &part));
    ipc_push_end(channel);
    peer_free(&peer);
}
END_TEST

/* ---- the client ------------------------------------------------------------------------------ */

static struct {
    int pushed, answered, lost;
    enum message_type type;
} seen;

static uint64_t refusals[IPC_REFUSAL_COUNT], uncounted;

static bool on_pushed(void *arg, const struct message *message)
{
    ck_assert_ptr_eq(arg, &seen);
    seen.pushed++;
    seen.type = message->type;
    return message->type == MSG_deny_list;
}

static void on_lost(void *arg, enum proto_peer peer)
{
    (void)arg;
    (void)peer;
    seen.lost++;
}

static void on_answer(void *arg, const struct message *answer)
{
    (void)arg;
    seen.answered += answer != NULL;
}

static struct ipc_client *client_of(struct peer *peer, bool listens)
{
    const struct ipc_client_options options = {
        .self = PEER_FRONTD,
        .peer = PEER_REGISTRYD,
        .max_in_flight = 10,
        .counters = {&uncounted, &uncounted, &uncounted, &uncounted, &uncounted, refusals},
        .lost = on_lost,
        .pushed = listens ? on_pushed : NULL,
        .arg = &seen};
    struct ipc_client *client = ipc_client_new(world.base, &options);
    int fd;

    memset(&seen, 0, sizeof(seen));
    memset(refusals, 0, sizeof(refusals));
    *peer = peer_pair(&fd);
    ipc_client_attach(client, fd);
    peer_say_hello(peer, "registryd");
    LOOP_UNTIL(world.base, ipc_client_connected(client));
    return client;
}

START_TEST(a_client_hears_what_answers_no_call)
{
    const struct msg_mesh_agent answer = {STR("{}")};
    struct peer peer;
    struct ipc_client *client = client_of(&peer, true);

    peer_send(&peer, MSG_deny_list, numbered(0), &part);
    LOOP_UNTIL(world.base, seen.pushed == 1);
    ck_assert_int_eq(seen.type, MSG_deny_list);
    peer_send(&peer, MSG_deny_list, numbered(0), &part);
    LOOP_UNTIL(world.base, seen.pushed == 2);
    ck_assert_int_eq(seen.lost, 0);
    peer_send(&peer, MSG_mesh_agent, numbered(0), &answer); /* not what is pushed */
    LOOP_UNTIL(world.base, seen.lost == 1);
    ck_assert_uint_eq(refusals[IPC_REFUSED_unasked], 1);
    ipc_client_free(client);
    peer_free(&peer);
}
END_TEST

START_TEST(a_push_is_no_calls_answer)
{
    const struct msg_mesh_self body = {STR("acme"), STR("spiffe://td/a")};
    const struct msg_mesh_agent answer = {STR("{}")};
    struct peer peer;
    struct ipc_client *client = client_of(&peer, true);
    struct message request;

    ipc_client_call(client, MSG_mesh_self, &body, PATIENCE_MS, on_answer, NULL);
    peer_expect(world.base, &peer, PEER_FRONTD, MSG_hello, &request);
    peer_expect(world.base, &peer, PEER_FRONTD, MSG_mesh_self, &request);
    peer_send(&peer, MSG_deny_list, numbered(0), &part);
    LOOP_UNTIL(world.base, seen.pushed == 1);
    ck_assert_int_eq(seen.answered, 0);
    peer_send(&peer, MSG_mesh_agent, request.id, &answer);
    LOOP_UNTIL(world.base, seen.answered == 1);
    ipc_client_free(client);
    peer_free(&peer);
}
END_TEST

START_TEST(a_push_to_who_listens_to_none_is_refused)
{
    struct peer peer;
    struct ipc_client *client = client_of(&peer, false);

    peer_send(&peer, MSG_deny_list, numbered(0), &part);
    LOOP_UNTIL(world.base, seen.lost == 1);
    ck_assert(!ipc_client_connected(client));
    ck_assert_uint_eq(refusals[IPC_REFUSED_unasked], 1);
    ipc_client_free(client);
    peer_free(&peer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ipc_push");
    TCase *tests = suite_case(suite, "all");

    tcase_add_checked_fixture(tests, open_world, close_world);
    tcase_add_test(tests, a_push_answers_no_request);
    tcase_add_test(tests, a_push_to_who_has_left_says_so_and_is_harmless);
    tcase_add_test(tests, a_held_channel_outlives_the_server);
    tcase_add_test(tests, a_client_hears_what_answers_no_call);
    tcase_add_test(tests, a_push_is_no_calls_answer);
    tcase_add_test(tests, a_push_to_who_listens_to_none_is_refused);
    return suite_run(suite);
}
