/* Requests that are never given up: each is done once, whatever the database's queue and the
 * database do meanwhile. The server is this test's own. */
#include "eventd/insist.h"

#include "tests/unit/ipc_peer.h"
#include "tests/unit/scratch_postgres.h"

enum { QUEUE_MAX = 2, MANY = 300 };

static const struct pg_statement statements[] = {
    {"put", "INSERT INTO row (id, note) VALUES ($1::int, $2)", 2, false},
    {.name = NULL},
};

static struct {
    struct event_base *base;
    struct pg *pg;
    struct insist *insist;
    int answers[MANY];
    int done, refused, unavailable, told;
    bool submitting, again; /* inside insist_submit; submit one more from the next answer */
} world;

static void open_world(void)
{
    const struct pg_options options = {.conninfo = server.conninfo,
                                       .application_name = "caf-test",
                                       .connections = 1,
                                       .batch_max = 10,
                                       .queue_max = QUEUE_MAX,
                                       .statement_ms = 10000,
                                       .statements = statements};

    memset(&world, 0, sizeof(world));
    server_start();
    server_run("CREATE TABLE IF NOT EXISTS row (id int CHECK (id >= 0), note text)");
    server_run("TRUNCATE row");
    world.base = event_base_new();
    world.pg = pg_new(world.base, &options);
    world.insist = insist_new(world.base, world.pg);
}

static void close_world(void)
{
    if (world.insist)
        insist_free(world.insist);
    pg_free(world.pg);
    event_base_free(world.base);
    server_signal_and_wait(SIGQUIT);
}

static void submit(int id, int *answers);

static void on_answer(void *arg, const struct pg_answer *answer)
{
    int *answers = arg;

    ck_assert(!world.submitting);
    ++*answers;
    world.done += answer->outcome == PG_OK;
    world.refused += answer->outcome == PG_REFUSED;
    world.unavailable += answer->outcome == PG_UNAVAILABLE;
    if (world.again) {
        world.again = false;
        submit(MANY - 1, &world.answers[MANY - 1]);
    }
}

/* The parameters are gone when it returns. */
static void submit(int id, int *answers)
{
    char text[STR_NUMBER_BYTES];
    struct str params[] = {str_from_number(id, text), STR_ABSENT};

    world.submitting = true;
    insist_submit(world.insist, statements, params, on_answer, answers);
    world.submitting = false;
    memset(text, 'x', sizeof(text));
}

static void submit_many(int count)
{
    for (int i = 0; i < count; i++)
        submit(i, &world.answers[i]);
}

static void assert_each_answered_once(int count)
{
    for (int i = 0; i < count; i++)
        ASSERT_QUIETLY(world.answers[i] == 1, "%d: %d answers", i, world.answers[i]);
}

static void on_done(void *arg)
{
    ck_assert_ptr_eq(arg, &world);
    ck_assert_uint_eq(insist_pending(world.insist), 0);
    world.told++;
}

START_TEST(more_than_the_queue_takes_wait_and_are_done_in_order)
{
    submit_many(MANY);
    ck_assert_uint_eq(insist_pending(world.insist), MANY);
    ck_assert_uint_le(pg_pending(world.pg), QUEUE_MAX + 1);
    LOOP_UNTIL(world.base, insist_pending(world.insist) == 0);
    ck_assert_int_eq(world.done, MANY);
    assert_each_answered_once(MANY);
    ck_assert_int_eq(server_number("SELECT count(*) FROM row WHERE note IS NULL"), MANY);
    ck_assert_int_eq(server_number("SELECT count(*) FROM (SELECT id, lag(id) OVER (ORDER BY ctid) "
                                   "AS before FROM row) r WHERE id <= before"),
                     0);
}
END_TEST

START_TEST(what_is_refused_is_told_once_and_holds_up_nobody)
{
    submit(0, &world.answers[0]);
    submit(-1, &world.answers[1]);
    submit(2, &world.answers[2]);
    LOOP_UNTIL(world.base, insist_pending(world.insist) == 0);
    ck_assert_int_eq(world.done, 2);
    ck_assert_int_eq(world.refused, 1);
    assert_each_answered_once(3);
}
END_TEST

START_TEST(an_answer_may_submit_the_next)
{
    world.again = true;
    submit(0, &world.answers[0]);
    LOOP_UNTIL(world.base, world.done == 2);
    ck_assert_int_eq(world.answers[MANY - 1], 1);
    ck_assert_uint_eq(insist_pending(world.insist), 0);
}
END_TEST

START_TEST(while_the_server_is_away_all_wait)
{
    submit(0, &world.answers[0]);
    LOOP_UNTIL(world.base, world.done == 1);
    server_signal_and_wait(SIGKILL);
    LOOP_UNTIL(world.base, !pg_writable(world.pg));
    for (int i = 1; i < 20; i++)
        submit(i, &world.answers[i]);
    loop_settle(world.base);
    ck_assert_uint_eq(insist_pending(world.insist), 19);
    server_start();
    LOOP_UNTIL(world.base, insist_pending(world.insist) == 0);
    ck_assert_int_eq(world.done, 20);
    assert_each_answered_once(20);
}
END_TEST

START_TEST(with_nothing_pending_done_is_told_from_the_loop)
{
    insist_when_done(world.insist, on_done, &world);
    ck_assert_int_eq(world.told, 0);
    LOOP_UNTIL(world.base, world.told == 1);
    submit(0, &world.answers[0]);
    LOOP_UNTIL(world.base, world.done == 1);
    loop_settle(world.base);
    ck_assert_int_eq(world.told, 1); /* once */
}
END_TEST

START_TEST(done_is_told_after_the_last)
{
    submit_many(20);
    insist_when_done(world.insist, on_done, &world);
    LOOP_UNTIL(world.base, world.told == 1);
    ck_assert_int_eq(world.done, 20);
    loop_settle(world.base);
    ck_assert_int_eq(world.told, 1);
}
END_TEST

START_TEST(what_is_submitted_before_done_is_told_is_waited_for)
{
    submit(0, &world.answers[0]);
    world.again = true; /* with the last answer comes another request */
    insist_when_done(world.insist, on_done, &world);
    LOOP_UNTIL(world.base, world.told == 1);
    ck_assert_int_eq(world.done, 2);
}
END_TEST

START_TEST(at_the_end_all_that_wait_and_run_are_told_once)
{
    server_signal_and_wait(SIGKILL);
    submit_many(20);
    loop_settle(world.base);
    insist_free(world.insist);
    world.insist = NULL;
    ck_assert_int_eq(world.unavailable, 20);
    ck_assert_int_eq(world.done, 0);
    assert_each_answered_once(20);
    server_start();
}
END_TEST

START_TEST(an_end_with_nothing_to_do)
{
    insist_free(world.insist);
    world.insist = NULL;
    ck_assert_int_eq(world.unavailable, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("insist");
    TCase *tests = suite_case(suite, "all");

    tcase_add_unchecked_fixture(tests, server_make, server_remove);
    tcase_add_checked_fixture(tests, open_world, close_world);
    tcase_add_test(tests, more_than_the_queue_takes_wait_and_are_done_in_order);
    tcase_add_test(tests, what_is_refused_is_told_once_and_holds_up_nobody);
    tcase_add_test(tests, an_answer_may_submit_the_next);
    tcase_add_test(tests, while_the_server_is_away_all_wait);
    tcase_add_test(tests, with_nothing_pending_done_is_told_from_the_loop);
    tcase_add_test(tests, done_is_told_after_the_last);
    tcase_add_test(tests, what_is_submitted_before_done_is_told_is_waited_for);
    tcase_add_test(tests, at_the_end_all_that_wait_and_run_are_told_once);
    tcase_add_test(tests, an_end_with_nothing_to_do);
    return suite_run(suite);
}
