/* The asking side against a bare peer: every call is answered exactly once, whatever becomes of the
 * channel meanwhile; what was in flight is sent again under the same id, in its order. */
#include "tests/unit/ipc_peer.h"

enum { CALLS_MAX = 16, LONG_MS = 60000 };

struct answered {
    struct ipc_call *call;
    int count;
    enum message_type type; /* 0: the deadline passed */
    char agent[64];
};

/* frontd's client of registryd, and what became of its calls. */
static struct world {
    struct event_base *base;
    struct ipc_client *client;
    struct answered calls[CALLS_MAX];
    int lost, last; /* last: the index of the call answered last */
    bool calling;
    void (*on_answer)(void);
    void (*on_lost)(void);
    uint64_t refusals[IPC_REFUSAL_COUNT], uncounted;
} world;

static void take_answer(void *arg, const struct message *answer)
{
    struct answered *answered = arg;

    ck_assert(!world.calling);
    answered->count++;
    answered->call = NULL;
    answered->type = answer ? answer->type : (enum message_type)0;
    if (answer && answer->type == MSG_mesh_agent)
        snprintf(answered->agent, sizeof(answered->agent), "%.*s",
                 STR_ARGS(answer->body.mesh_agent.agent));
    world.last = (int)(answered - world.calls);
    if (world.on_answer)
        world.on_answer();
}

static void take_loss(void *arg, enum proto_peer peer)
{
    ck_assert_ptr_eq(arg, &world);
    ck_assert_int_eq(peer, PEER_REGISTRYD);
    ck_assert(!world.calling);
    world.lost++;
    if (world.on_lost)
        world.on_lost();
}

static void open_world(void)
{
    const struct ipc_client_options options = {.self = PEER_FRONTD,
                                               .peer = PEER_REGISTRYD,
                                               .max_in_flight = 5,
                                               .counters = {&world.uncounted, &world.uncounted,
                                                            &world.uncounted, &world.uncounted,
                                                            &world.uncounted, world.refusals},
                                               .lost = take_loss,
                                               .arg = &world};

    world = (struct world){.base = event_base_new(), .last = -1};
    world.client = ipc_client_new(world.base, &options);
}

static void close_world(void)
{
    if (world.client)
        ipc_client_free(world.client);
    event_base_free(world.base);
}

static bool call_for(int index, int64_t deadline_ms)
{
    const struct msg_mesh_self body = {STR("acme"), STR("spiffe://td/agent/acme/a")};

    world.calling = true;
    world.calls[index].call = ipc_client_call(world.client, MSG_mesh_self, &body, deadline_ms,
                                              take_answer, &world.calls[index]);
    world.calling = false;
    return world.calls[index].call != NULL;
}

static void call(int index)
{
    ck_assert(call_for(index, LONG_MS));
}

/* A bare registryd that the client has been given, and that has said HELLO. */
static struct peer attach(void)
{
    struct message message;
    struct peer peer;
    int fd;

    peer = peer_pair(&fd);
    ipc_client_attach(world.client, fd);
    peer_expect(world.base, &peer, PEER_FRONTD, MSG_hello, &message);
    peer_say_hello(&peer, "registryd");
    LOOP_UNTIL(world.base, ipc_client_connected(world.client));
    return peer;
}

/* The id of the next request that the peer gets. */
static struct request_id take_request(struct peer *peer)
{
    struct message message;

    peer_expect(world.base, peer, PEER_FRONTD, MSG_mesh_self, &message);
    return message.id;
}

static void answer(struct peer *peer, struct request_id id)
{
    const struct msg_mesh_agent body = {STR("{\"a\":1}")};

    peer_send(peer, MSG_mesh_agent, id, &body);
}

static void assert_answered_once(int index)
{
    LOOP_UNTIL(world.base, world.calls[index].count > 0);
    ck_assert_int_eq(world.calls[index].count, 1);
    ck_assert_int_eq(world.calls[index].type, MSG_mesh_agent);
    ck_assert_str_eq(world.calls[index].agent, "{\"a\":1}");
}

/* ---- calls and answers ----------------------------------------------------------------------- */

START_TEST(a_call_is_answered_once_whatever_else_comes)
{
    struct peer peer = attach();
    struct request_id first, second;

    call(0);
    call(1);
    first = take_request(&peer);
    second = take_request(&peer);
    ck_assert(memcmp(&first, &second, sizeof(first)) != 0);
    answer(&peer, second);
    answer(&peer, second);
    assert_answered_once(1);
    answer(&peer, first);
    assert_answered_once(0);
    loop_settle(world.base);
    ck_assert_int_eq(world.calls[1].count, 1);
    ck_assert_uint_eq(ipc_client_in_flight(world.client), 0);
    ck_assert_int_eq(world.lost, 0);
    peer_free(&peer);
}
END_TEST

/* ids that this client never gave out: another one's, the next, the one before the first. */
START_TEST(an_answer_that_nobody_asked_for_is_refused)
{
    struct peer peer = attach();
    struct request_id id;

    call(0);
    id = take_request(&peer);
    if (_i == 0)
        id.bytes[0]++;
    else
        id.bytes[15] = _i == 1 ? 2 : 0;
    answer(&peer, id);
    LOOP_UNTIL(world.base, world.lost == 1);
    for (int i = 0; i < IPC_REFUSAL_COUNT; i++)
        ck_assert_uint_eq(world.refusals[i], i == IPC_REFUSED_unasked);
    peer_free(&peer);
    peer = attach();
    answer(&peer, take_request(&peer));
    assert_answered_once(0);
    peer_free(&peer);
}
END_TEST

START_TEST(a_failure_is_an_answer)
{
    const struct msg_fail fail = {STR("NOT_FOUND"), STR("nobody")};
    struct peer peer = attach();

    call(0);
    peer_send(&peer, MSG_fail, take_request(&peer), &fail);
    LOOP_UNTIL(world.base, world.calls[0].count == 1);
    ck_assert_int_eq(world.calls[0].type, MSG_fail);
    peer_free(&peer);
}
END_TEST

START_TEST(a_call_may_come_before_its_channel)
{
    struct peer peer;

    call(0);
    ck_assert(!ipc_client_connected(world.client));
    ck_assert_uint_eq(ipc_client_in_flight(world.client), 1);
    peer = attach();
    answer(&peer, take_request(&peer));
    assert_answered_once(0);
    peer_free(&peer);
}
END_TEST

START_TEST(calls_in_flight_are_bounded)
{
    const struct msg_mesh_self bad = {STR(""), STR("spiffe://td/agent/acme/a")};
    struct peer peer = attach();

    for (int i = 0; i < 5; i++)
        call(i);
    ck_assert(!call_for(5, LONG_MS));
    ck_assert_uint_eq(ipc_client_in_flight(world.client), 5);
    answer(&peer, take_request(&peer));
    assert_answered_once(0);
    ck_assert(ipc_client_call(world.client, MSG_mesh_self, &bad, LONG_MS, take_answer, NULL) ==
              NULL);
    call(5);
    ck_assert(!call_for(6, LONG_MS));
    peer_free(&peer);
}
END_TEST

/* ---- channels that end ----------------------------------------------------------------------- */

START_TEST(what_is_in_flight_is_sent_again_under_its_id_in_its_order)
{
    struct request_id ids[5], again;
    struct peer peer = attach();

    for (int i = 0; i < 5; i++)
        call(i);
    for (int i = 0; i < 5; i++)
        ids[i] = take_request(&peer);
    answer(&peer, ids[2]);
    assert_answered_once(2);
    for (int life = 0; life < 3; life++) {
        peer_free(&peer);
        LOOP_UNTIL(world.base, world.lost == life + 1);
        ck_assert(!ipc_client_connected(world.client));
        if (life == 1)
            call(2); /* made while there is no channel: goes behind the others */
        peer = attach();
        for (int i = 0; i < 5; i++) {
            if (i == 2)
                continue;
            again = take_request(&peer);
            ck_assert_mem_eq(&again, &ids[i], sizeof(again));
        }
        if (life >= 1)
            ids[2] = take_request(&peer);
    }
    for (int i = 0; i < 5; i++) {
        answer(&peer, ids[i]);
        answer(&peer, ids[i]);
    }
    LOOP_UNTIL(world.base, ipc_client_in_flight(world.client) == 0);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(world.calls[i].count, i == 2 ? 2 : 1); /* index 2 asked twice */
    peer_free(&peer);
}
END_TEST

START_TEST(a_new_channel_replaces_the_old)
{
    struct peer old = attach(), fresh;
    struct request_id id;

    call(0);
    id = take_request(&old);
    fresh = attach();
    LOOP_UNTIL(world.base, peer_is_left(&old));
    ck_assert_int_eq(world.lost, 0); /* the owner knows */
    answer(&fresh, id);
    assert_answered_once(0);
    peer_free(&old);
    peer_free(&fresh);
}
END_TEST

START_TEST(a_broken_or_wrong_peer_is_a_lost_channel)
{
    static const char *const daemons[] = {"eventd", "frontd", "registryd"};
    struct message message;
    struct peer peer;
    int fd;

    call(0);
    peer = peer_pair(&fd);
    ipc_client_attach(world.client, fd);
    peer_expect(world.base, &peer, PEER_FRONTD, MSG_hello, &message);
    peer_say_hello(&peer, daemons[_i]);
    if (_i == 2)
        peer_write(&peer, "\0\0\0\0", 4);
    LOOP_UNTIL(world.base, world.lost == 1);
    ck_assert_uint_eq(world.refusals[_i == 2 ? IPC_REFUSED_length : IPC_REFUSED_hello], 1);
    ck_assert(!ipc_client_connected(world.client));
    peer_free(&peer);
    peer = attach();
    answer(&peer, take_request(&peer));
    assert_answered_once(0);
    peer_free(&peer);
}
END_TEST

START_TEST(nothing_is_told_from_within_a_call)
{
    struct peer peer = attach();

    peer_free(&peer);
    for (int i = 0; i < 5; i++) /* take_loss and take_answer see whether a call is on the stack */
        call(i);
    LOOP_UNTIL(world.base, world.lost == 1);
    ck_assert_uint_eq(ipc_client_in_flight(world.client), 5);
}
END_TEST

static struct peer attached_in_callback;

static void attach_at_once(void)
{
    int fd;

    attached_in_callback = peer_pair(&fd);
    ipc_client_attach(world.client, fd);
}

START_TEST(the_next_channel_may_be_given_as_soon_as_one_is_lost)
{
    struct peer peer = attach();
    struct message message;

    world.on_lost = attach_at_once;
    call(0);
    take_request(&peer);
    peer_free(&peer);
    LOOP_UNTIL(world.base, world.lost == 1);
    peer_expect(world.base, &attached_in_callback, PEER_FRONTD, MSG_hello, &message);
    peer_say_hello(&attached_in_callback, "registryd");
    answer(&attached_in_callback, take_request(&attached_in_callback));
    assert_answered_once(0);
    world.on_lost = NULL;
    peer_free(&attached_in_callback);
}
END_TEST

/* ---- deadlines and cancelling ---------------------------------------------------------------- */

START_TEST(a_call_waits_as_long_as_its_deadline)
{
    struct peer peer = attach();
    int64_t began = clock_monotonic_ms();
    struct request_id id;

    call(0);
    ck_assert(call_for(1, 60));
    take_request(&peer);
    id = take_request(&peer);
    if (_i == 1)
        peer_free(&peer); /* a deadline goes on without a channel */
    LOOP_UNTIL(world.base, world.calls[1].count == 1);
    ck_assert_int_ge(clock_monotonic_ms() - began, 50);
    ck_assert_int_eq(world.calls[1].type, 0);
    if (_i == 0)
        answer(&peer, id); /* too late */
    loop_settle(world.base);
    ck_assert_int_eq(world.calls[1].count, 1);
    ck_assert_int_eq(world.calls[0].count, 0);
    ck_assert_uint_eq(ipc_client_in_flight(world.client), 1);
    peer_free(&peer);
}
END_TEST

START_TEST(a_cancelled_call_is_never_answered_nor_sent_again)
{
    struct peer peer = attach();
    struct request_id ids[2], again;

    call(0);
    call(1);
    ids[0] = take_request(&peer);
    ids[1] = take_request(&peer);
    ipc_call_cancel(world.calls[0].call);
    ck_assert_uint_eq(ipc_client_in_flight(world.client), 1);
    answer(&peer, ids[0]);
    loop_settle(world.base);
    peer_free(&peer);
    LOOP_UNTIL(world.base, world.lost == 1);
    peer = attach();
    again = take_request(&peer);
    ck_assert_mem_eq(&again, &ids[1], sizeof(again));
    answer(&peer, again);
    assert_answered_once(1);
    loop_settle(world.base);
    ck_assert_int_eq(world.calls[0].count, 0);
    ck_assert_uint_eq(peer.in_len, 0);
    peer_free(&peer);
}
END_TEST

static void cancel_all_others(void)
{
    for (int i = 0; i < CALLS_MAX; i++) {
        if (world.calls[i].call)
            ipc_call_cancel(world.calls[i].call);
        world.calls[i].call = NULL;
    }
}

static void call_once_more(void)
{
    world.on_answer = NULL;
    call(9);
}

static void free_client(void)
{
    ipc_client_free(world.client);
    world.client = NULL;
}

START_TEST(an_answer_may_lead_to_anything)
{
    static void (*const deeds[])(void) = {cancel_all_others, call_once_more, free_client};
    struct peer peer = attach();
    struct request_id ids[3];

    for (int i = 0; i < 3; i++)
        call(i);
    for (int i = 0; i < 3; i++)
        ids[i] = take_request(&peer);
    world.on_answer = deeds[_i];
    for (int i = 0; i < 3; i++)
        answer(&peer, ids[i]); /* all three arrive at once */
    assert_answered_once(0);
    loop_settle(world.base);
    ck_assert_int_eq(world.calls[1].count, _i == 1);
    ck_assert_int_eq(world.calls[2].count, _i == 1);
    if (_i == 1) {
        answer(&peer, take_request(&peer));
        assert_answered_once(9);
    }
    peer_free(&peer);
}
END_TEST

START_TEST(no_two_clients_share_an_id)
{
    struct request_id ids[2];

    for (int i = 0; i < 2; i++) {
        struct peer peer = attach();

        call(i);
        ids[i] = take_request(&peer);
        peer_free(&peer);
        close_world();
        open_world();
    }
    ck_assert(memcmp(&ids[0], &ids[1], 8) != 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ipc_client");
    TCase *calls = suite_case(suite, "calls");
    TCase *losses = suite_case(suite, "losses");
    TCase *ends = suite_case(suite, "ends");

    tcase_add_checked_fixture(calls, open_world, close_world);
    tcase_add_checked_fixture(losses, open_world, close_world);
    tcase_add_checked_fixture(ends, open_world, close_world);
    tcase_add_test(calls, a_call_is_answered_once_whatever_else_comes);
    tcase_add_loop_test(calls, an_answer_that_nobody_asked_for_is_refused, 0, 3);
    tcase_add_test(calls, a_failure_is_an_answer);
    tcase_add_test(calls, a_call_may_come_before_its_channel);
    tcase_add_test(calls, calls_in_flight_are_bounded);
    tcase_add_test(losses, what_is_in_flight_is_sent_again_under_its_id_in_its_order);
    tcase_add_test(losses, a_new_channel_replaces_the_old);
    tcase_add_loop_test(losses, a_broken_or_wrong_peer_is_a_lost_channel, 0, 3);
    tcase_add_test(losses, nothing_is_told_from_within_a_call);
    tcase_add_test(losses, the_next_channel_may_be_given_as_soon_as_one_is_lost);
    tcase_add_loop_test(ends, a_call_waits_as_long_as_its_deadline, 0, 2);
    tcase_add_test(ends, a_cancelled_call_is_never_answered_nor_sent_again);
    tcase_add_loop_test(ends, an_answer_may_lead_to_anything, 0, 3);
    tcase_add_test(ends, no_two_clients_share_an_id);
    return suite_run(suite);
}
