/* The batching client while its PostgreSQL is killed, stopped or made read-only. The server is this
 * test's own. */
#include "common/clock.h"
#include "common/memory.h"
#include "common/pg.h"
#include "tests/unit/scratch_postgres.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- the world of a test -------------------------------------------------------------------- */

enum { CALLS_MAX = 3000, KEYS = 50, LONG_MS = 60000, WAIT_MS = 50000 };

static const struct pg_statement statements[] = {
    {"put",
     "WITH input AS (SELECT * FROM unnest($1::int[], $2::text[], $3::int[]) AS i(ord, key, id)), "
     "put AS (INSERT INTO row (key, id) SELECT key, id FROM input ON CONFLICT (id) DO NOTHING) "
     "SELECT ord FROM input",
     2, true},
    {.name = NULL},
};

static struct {
    struct event_base *base;
    struct pg *pg;
    PGconn *admin;
    int submitted, answered, ok;
    int answers[CALLS_MAX];
    int kill_at; /* so many answered: the server is killed */
} world;

static void admin_open(void)
{
    world.admin = PQconnectdb(server.conninfo);
    ck_assert_msg(PQstatus(world.admin) == CONNECTION_OK, "%s", PQerrorMessage(world.admin));
}

static void admin_run(const char *sql)
{
    PGresult *result = PQexec(world.admin, sql);

    ck_assert_msg(PQresultStatus(result) == PGRES_COMMAND_OK ||
                      PQresultStatus(result) == PGRES_TUPLES_OK,
                  "%s: %s", sql, PQresultErrorMessage(result));
    PQclear(result);
}

static long long admin_number(const char *sql)
{
    PGresult *result = PQexec(world.admin, sql);
    long long number;

    ck_assert_msg(PQntuples(result) == 1, "%s: %s", sql, PQresultErrorMessage(result));
    number = atoll(PQgetvalue(result, 0, 0));
    PQclear(result);
    return number;
}

static void world_set_up(void)
{
    server_start();
    admin_open();
    admin_run("SET client_min_messages = warning; DROP TABLE IF EXISTS row; "
              "CREATE TABLE row (id int PRIMARY KEY, key text, position bigserial)");
    world.base = event_base_new();
}

static void world_tear_down(void)
{
    pg_free(world.pg);
    event_base_free(world.base);
    PQfinish(world.admin);
    server_signal_and_wait(SIGQUIT);
}

static void world_start(const char *conninfo, int64_t statement_ms)
{
    struct pg_options options = {.conninfo = conninfo,
                                 .application_name = "caf-test",
                                 .connections = 4,
                                 .batch_max = 100,
                                 .queue_max = CALLS_MAX,
                                 .statement_ms = statement_ms,
                                 .statements = statements};

    world.pg = pg_new(world.base, &options);
}

static void call_answered(void *arg, const struct pg_answer *answer)
{
    int *answers = arg;

    ++*answers;
    world.answered++;
    world.ok += answer->outcome == PG_OK && answer->row_count == 1;
    if (world.answered == world.kill_at)
        server_signal_and_wait(SIGKILL);
}

static void submit_next(void)
{
    char key[16], id[16];
    struct str params[2];

    snprintf(id, sizeof(id), "%d", world.submitted);
    snprintf(key, sizeof(key), "key %d", world.submitted % KEYS);
    params[0] = str_from(key);
    params[1] = str_from(id);
    ck_assert(pg_submit(world.pg, statements, params[0], params, LONG_MS, call_answered,
                        &world.answers[world.submitted]));
    world.submitted++;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    int *to_submit = arg;

    (void)fd;
    (void)what;
    for (int i = 0; i < 10 && *to_submit > 0; i++, --*to_submit)
        submit_next();
}

static bool all_answered(void)
{
    return world.answered == world.submitted;
}

static bool server_killed(void)
{
    return world.answered >= world.kill_at;
}

static bool writable(void)
{
    return pg_writable(world.pg);
}

static bool not_writable(void)
{
    return !pg_writable(world.pg);
}

static bool never(void)
{
    return false;
}

/* Turns the loop, submitting to_submit requests as it goes, until done. */
static bool loop_until(bool (*done)(void), int to_submit, int64_t limit_ms)
{
    struct event *tick = event_new(world.base, -1, EV_PERSIST, on_tick, &to_submit);
    int64_t end_ms = clock_monotonic_ms() + limit_ms;
    bool reached = false;

    event_add(tick, &(struct timeval){.tv_usec = 5000});
    while (!(reached = done() && to_submit == 0) && clock_monotonic_ms() < end_ms)
        event_base_loop(world.base, EVLOOP_ONCE);
    event_free(tick);
    return reached;
}

/* Each request was answered OK, once, and is one row; those of one key are in their order. */
static void assert_nothing_lost(void)
{
    ck_assert_msg(loop_until(all_answered, 0, WAIT_MS), "%d of %d answered", world.answered,
                  world.submitted);
    loop_until(never, 0, 50);
    ck_assert_int_eq(world.ok, world.submitted);
    for (int i = 0; i < world.submitted; i++)
        ck_assert_int_eq(world.answers[i], 1);
    ck_assert_int_eq(admin_number("SELECT count(*) FROM row"), world.submitted);
    ck_assert_int_eq(admin_number("SELECT count(*) FROM (SELECT id, lag(id) OVER (PARTITION BY key "
                                  "ORDER BY position) AS before FROM row) r WHERE id <= before"),
                     0);
}

/* The end of one may have ended the next already. */
static void signal_sessions(int number)
{
    PGresult *result = PQexec(world.admin, "SELECT pid FROM pg_stat_activity "
                                           "WHERE application_name = 'caf-test'");

    ck_assert_int_gt(PQntuples(result), 0);
    for (int i = 0; i < PQntuples(result); i++)
        ck_assert(kill(atoi(PQgetvalue(result, i, 0)), number) == 0 || errno == ESRCH);
    PQclear(result);
}

/* ---- outages -------------------------------------------------------------------------------- */

START_TEST(a_server_killed_under_load_loses_nothing)
{
    world_start(server.conninfo, 10000);
    world.kill_at = 700;
    ck_assert(loop_until(server_killed, 1500, WAIT_MS));
    loop_until(never, 0, 300);
    ck_assert_int_lt(world.answered, 1500);
    ck_assert(!pg_writable(world.pg));
    server_start();
    PQreset(world.admin);
    ck_assert(loop_until(all_answered, 500, WAIT_MS));
    assert_nothing_lost();
    ck_assert_int_eq(world.submitted, 2000);
}
END_TEST

START_TEST(a_killed_backend_loses_nothing)
{
    world_start(server.conninfo, 10000);
    ck_assert(loop_until(all_answered, 500, WAIT_MS));
    for (int round = 0; round < 2; round++) {
        loop_until(never, 200, 30);
        signal_sessions(SIGKILL);
        ck_assert(loop_until(all_answered, 500, WAIT_MS));
        while (PQreset(world.admin), PQstatus(world.admin) != CONNECTION_OK)
            usleep(50000);
    }
    assert_nothing_lost();
    ck_assert_uint_ge(pg_counters(world.pg)->losses, 8);
}
END_TEST

static void set_read_only(const char *change)
{
    admin_run("SET default_transaction_read_only = off");
    admin_run(change);
    admin_run("SELECT pg_reload_conf()");
}

START_TEST(a_read_only_server_is_left_until_it_takes_writes)
{
    world_start(server.conninfo, 10000);
    ck_assert(loop_until(all_answered, 100, WAIT_MS));
    set_read_only("ALTER SYSTEM SET default_transaction_read_only = on");
    loop_until(never, 0, 200);
    loop_until(not_writable, 200, WAIT_MS);
    loop_until(never, 0, 500);
    ck_assert(not_writable());
    ck_assert_int_lt(world.answered, 300);
    set_read_only("ALTER SYSTEM RESET default_transaction_read_only");
    assert_nothing_lost();
    ck_assert(writable());
}
END_TEST

START_TEST(a_server_that_says_nothing_is_given_up_and_asked_again)
{
    uint64_t losses;

    world_start(server.conninfo, 300);
    ck_assert(loop_until(all_answered, 100, WAIT_MS));
    losses = pg_counters(world.pg)->losses;
    signal_sessions(SIGSTOP);
    ck_assert(loop_until(all_answered, 100, WAIT_MS));
    signal_sessions(SIGCONT);
    ck_assert_uint_gt(pg_counters(world.pg)->losses, losses);
    assert_nothing_lost();
}
END_TEST

START_TEST(an_attempt_to_connect_that_hangs_is_bounded)
{
    char conninfo[200];

    snprintf(conninfo, sizeof(conninfo), "%s connect_timeout=1", server.conninfo);
    ck_assert_int_eq(kill(server.postmaster, SIGSTOP), 0);
    world_start(conninfo, 10000);
    loop_until(never, 100, 1500);
    ck_assert_uint_eq(pg_counters(world.pg)->losses, 4);
    ck_assert_int_eq(kill(server.postmaster, SIGCONT), 0);
    assert_nothing_lost();
}
END_TEST

/* A socket in a folder of its own that takes connections and never says a word. */
static int mute_host_open(char folder[80])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(folder, 80, "%s/mute", server.folder);
    ck_assert_int_eq(mkdir(folder, 0755), 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.5432", folder);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(listener, 16), 0);
    return listener;
}

START_TEST(a_host_that_hangs_does_not_hide_the_next)
{
    char folder[80], conninfo[300];
    int listener = mute_host_open(folder);

    snprintf(conninfo, sizeof(conninfo),
             "host=%s,%s port=5432 user=postgres dbname=postgres connect_timeout=1", folder,
             server.folder);
    world_start(conninfo, 10000);
    ck_assert(loop_until(all_answered, 100, 5000));
    assert_nothing_lost();
    ck_assert_uint_eq(pg_counters(world.pg)->losses, 4);
    close(listener);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pg_outage");
    TCase *outages = tcase_create("outages");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_unchecked_fixture(outages, server_make, server_remove);
    tcase_add_checked_fixture(outages, world_set_up, world_tear_down);
    tcase_set_timeout(outages, 120);
    tcase_add_test(outages, a_server_killed_under_load_loses_nothing);
    tcase_add_test(outages, a_killed_backend_loses_nothing);
    tcase_add_test(outages, a_read_only_server_is_left_until_it_takes_writes);
    tcase_add_test(outages, a_server_that_says_nothing_is_given_up_and_asked_again);
    tcase_add_test(outages, an_attempt_to_connect_that_hangs_is_bounded);
    tcase_add_test(outages, a_host_that_hangs_does_not_hide_the_next);
    suite_add_tcase(suite, outages);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
