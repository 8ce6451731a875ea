/* The accepting side when answers do not go out at once: peers that ask and do not listen, and when
 * a drain is over. */
#include "tests/unit/ipc_daemon.h"

/* ---- peers that do not listen ---------------------------------------------------------------- */

enum { PAGE = 500000, ASKED = 40 };

static char *use_large_answers(void)
{
    char *text = malloc(PAGE);

    world.answer.agent = (struct str){memset(text, 'x', PAGE), PAGE};
    return text;
}

START_TEST(who_does_not_listen_is_not_served_without_end)
{
    char *text = use_large_answers();
    struct peer peer = join(), other = join();
    size_t served;

    for (uint8_t i = 0; i < ASKED; i++)
        peer_ask(&peer, i);
    loop_settle(world.base);
    served = world.served;
    ck_assert_uint_gt(served, 0);
    ck_assert_uint_lt(served, ASKED * 3 / 4);
    peer_ask(&other, 1); /* the others are served as before */
    assert_answered(&other, MSG_mesh_agent, 1);
    for (uint8_t i = 0; i < ASKED; i++)
        assert_answered(&peer, MSG_mesh_agent, i);
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 0);
    peer_ask(&peer, 99); /* and it is as good as any again */
    assert_answered(&peer, MSG_mesh_agent, 99);
    peer_free(&peer);
    peer_free(&other);
    free(text);
}
END_TEST

START_TEST(who_does_not_listen_may_leave_or_be_drained)
{
    char *text = use_large_answers();
    struct peer peer = join();

    for (uint8_t i = 0; i < ASKED; i++)
        peer_ask(&peer, i);
    loop_settle(world.base);
    if (_i == 1) {
        ipc_server_drain(world.server, drained);
        loop_settle(world.base);
        ck_assert_int_eq(world.drained, 0);
    }
    peer_free(&peer);
    if (_i == 1)
        LOOP_UNTIL(world.base, world.drained == 1);
    loop_settle(world.base);
    ck_assert_uint_eq(ipc_server_unanswered(world.server), 0);
    if (_i == 1) /* the rest is for the next life */
        ck_assert_uint_lt(world.served, ASKED);
    else /* what it had asked is done, though nobody hears of it */
        ck_assert_uint_eq(world.served, ASKED);
    free(text);
}
END_TEST

/* ---- the drain ------------------------------------------------------------------------------ */

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
    usleep(30000); /* longer than the drain's looks are apart */
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
    Suite *suite = suite_create("ipc_drain");
    TCase *deaf = suite_case(suite, "deaf");
    TCase *drains = suite_case(suite, "drains");

    tcase_add_checked_fixture(deaf, open_world, close_world);
    tcase_add_checked_fixture(drains, open_world, close_world);
    tcase_add_test(deaf, who_does_not_listen_is_not_served_without_end);
    tcase_add_loop_test(deaf, who_does_not_listen_may_leave_or_be_drained, 0, 2);
    tcase_add_test(drains, a_drain_ends_when_all_is_answered_and_sent);
    tcase_add_test(drains, a_drain_of_nothing_ends_at_once);
    tcase_add_test(drains, a_drain_waits_until_a_slow_peer_has_its_answer);
    tcase_add_test(drains, a_drain_does_not_wait_for_peers_that_have_gone);
    return suite_run(suite);
}
