/* The batching client against a real PostgreSQL, the test's own. What happens when the server dies
 * is test_pg_outage.c's part. */
#include "common/clock.h"
#include "common/memory.h"
#include "common/pg.h"
#include "tests/unit/scratch_postgres.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- the statements under test -------------------------------------------------------------- */

enum statement_id {
    PUT,
    OTHER_PUT,
    ECHO,
    REPEAT,
    SLEEP,
    SLOW,
    TOUCH,
    SINGLE,
    DOOMED,
    MISCOUNTED,
    STRAY
};

/* The insert counts its attempts on the server, in a sequence, which no rollback takes back. */
#define PUT_SQL                                                                                    \
    "WITH input AS (SELECT * FROM unnest($1::int[], $2::text[], $3::text[]) AS i(ord, id, "        \
    "value)), "                                                                                    \
    "put AS (INSERT INTO caf_test_pg.row (id, value) SELECT id, value::int FROM input "            \
    "ON CONFLICT (id) DO NOTHING) SELECT ord, id FROM input"

static const struct pg_statement statements[] = {
    [PUT] = {"put", PUT_SQL, 2, true},
    [OTHER_PUT] = {"other_put", PUT_SQL, 2, true},
    [ECHO] = {"echo",
              "SELECT ord, a, b FROM unnest($1::int[], $2::text[], $3::text[]) i(ord, a, b)", 2,
              true},
    [REPEAT] =
        {"repeat",
         "SELECT ord, g FROM unnest($1::int[], $2::int[]) i(ord, n), generate_series(1, n) g "
         "ORDER BY g, ord",
         1, true},
    [SLEEP] = {"sleep", "SELECT pg_sleep($1)", 1, false},
    [SLOW] = {"slow", "SELECT ord, pg_sleep(s) FROM unnest($1::int[], $2::float8[]) i(ord, s)", 1,
              true},
    [TOUCH] = {"touch",
               "WITH input AS (SELECT * FROM unnest($1::int[], $2::text[]) i(ord, id)) "
               "UPDATE caf_test_pg.row r SET value = value + 1 FROM input WHERE r.id = input.id "
               "RETURNING ord, r.value",
               1, true},
    [SINGLE] = {"single", "SELECT n, $1::text FROM generate_series(1, $2::int) n", 2, false},
    [DOOMED] = {"doomed", "SELECT ord, d.id FROM unnest($1::int[]) i(ord), caf_test_pg.doomed d", 0,
                true},
    [MISCOUNTED] = {"miscounted", "SELECT ord FROM unnest($1::int[]) ord", 1, true},
    [STRAY] = {"stray",
               "SELECT ord + o, ord FROM unnest($1::int[]) ord, unnest('{0,1,-9,null}'::int[]) o",
               0, true},
    {.name = NULL},
};

/* ---- the world of a test -------------------------------------------------------------------- */

enum { CALLS_MAX = 20000, LONG_MS = 60000, WAIT_MS = 40000 };

struct call {
    struct world *world;
    enum pg_outcome outcome;
    int answers, rows, order;
    char sqlstate[6], constraint[64], first[64];
    int64_t answered_ms;
};

struct world {
    struct event_base *base;
    struct pg *pg;
    PGconn *admin;
    struct call *calls;
    int call_count, answered;
    int64_t began_ms;
};

static struct world world;

/* One server for all tests of a case. */
static void server_up(void)
{
    server_make();
    server_start();
}

static void server_down(void)
{
    server_signal_and_wait(SIGKILL);
    server_remove();
}

static PGconn *session_open(void)
{
    PGconn *session = PQconnectdb(server.conninfo);

    ck_assert_msg(PQstatus(session) == CONNECTION_OK, "%s", PQerrorMessage(session));
    return session;
}

static void session_run(PGconn *session, const char *sql)
{
    PGresult *result = PQexec(session, sql);
    ExecStatusType status = PQresultStatus(result);

    ck_assert_msg(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK, "%s: %s", sql,
                  PQresultErrorMessage(result));
    PQclear(result);
}

static long long session_number(PGconn *session, const char *sql)
{
    PGresult *result = PQexec(session, sql);
    long long number;

    ck_assert_msg(PQntuples(result) == 1, "%s: %s", sql, PQresultErrorMessage(result));
    number = atoll(PQgetvalue(result, 0, 0));
    PQclear(result);
    return number;
}

static const char schema_sql[] =
    "SET client_min_messages = warning; DROP SCHEMA IF EXISTS caf_test_pg CASCADE;"
    "CREATE SCHEMA caf_test_pg;"
    "CREATE TABLE caf_test_pg.row (id text PRIMARY KEY, value int CONSTRAINT positive CHECK (value "
    "> 0),"
    "                              position bigserial);"
    "CREATE SEQUENCE caf_test_pg.attempt MINVALUE 0 START 0; SELECT nextval('caf_test_pg.attempt');"
    "CREATE FUNCTION caf_test_pg.count() RETURNS trigger LANGUAGE plpgsql AS"
    "  $$BEGIN PERFORM nextval('caf_test_pg.attempt'); RETURN NULL; END$$;"
    "CREATE TRIGGER count BEFORE INSERT ON caf_test_pg.row FOR EACH STATEMENT"
    "  EXECUTE FUNCTION caf_test_pg.count();"
    "CREATE TABLE caf_test_pg.doomed (id int)";

static void world_set_up(void)
{
    world.admin = session_open();
    session_run(world.admin, schema_sql);
    world.base = event_base_new();
    world.calls = memory_new(CALLS_MAX, sizeof(*world.calls));
}

static void world_tear_down(void)
{
    if (world.pg)
        pg_free(world.pg);
    event_base_free(world.base);
    free(world.calls);
    PQfinish(world.admin);
}

static struct pg_options default_options(void)
{
    return (struct pg_options){.conninfo = server.conninfo,
                               .application_name = "caf-test",
                               .connections = 4,
                               .batch_max = 512,
                               .queue_max = CALLS_MAX,
                               .statement_ms = 10000,
                               .statements = statements};
}

static void world_start(const struct pg_options *options)
{
    world.pg = pg_new(world.base, options);
    world.began_ms = clock_monotonic_ms();
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

/* Turns the loop until done() or the test has waited too long. */
static bool loop_until(bool (*done)(void *arg), void *arg, int64_t limit_ms)
{
    struct event *tick = event_new(world.base, -1, EV_PERSIST, on_tick, NULL);
    int64_t end_ms = clock_monotonic_ms() + limit_ms;
    bool reached;

    event_add(tick, &(struct timeval){.tv_usec = 5000});
    while (!(reached = done(arg)) && clock_monotonic_ms() < end_ms)
        event_base_loop(world.base, EVLOOP_ONCE);
    event_free(tick);
    return reached;
}

static bool answered_count_reached(void *arg)
{
    return world.answered >= *(int *)arg;
}

static bool always_later(void *arg)
{
    (void)arg;
    return false;
}

static bool is_writable(void *arg)
{
    (void)arg;
    return pg_writable(world.pg);
}

static bool is_sent(void *arg)
{
    return pg_counters(world.pg)->batches >= *(uint64_t *)arg;
}

/* Also goes on for a little, so that a second answer to the same request would be seen. */
static void loop_until_all_answered(void)
{
    ck_assert_msg(loop_until(answered_count_reached, &world.call_count, WAIT_MS),
                  "%d of %d answered", world.answered, world.call_count);
    loop_until(always_later, NULL, 20);
    ck_assert_int_eq(world.answered, world.call_count);
    ck_assert_uint_eq(pg_pending(world.pg), 0);
    for (int i = 0; i < world.call_count; i++)
        ck_assert_int_eq(world.calls[i].answers, 1);
}

static void loop_until_writable(void)
{
    ck_assert(loop_until(is_writable, NULL, WAIT_MS));
}

static void call_answered(void *arg, const struct pg_answer *answer)
{
    struct call *call = arg;
    struct str first = answer->row_count > 0 ? pg_value(answer, 0, 0) : STR_ABSENT;

    call->outcome = answer->outcome;
    call->answers++;
    call->rows = answer->row_count;
    call->order = call->world->answered++;
    call->answered_ms = clock_monotonic_ms() - call->world->began_ms;
    snprintf(call->sqlstate, sizeof(call->sqlstate), "%s", answer->sqlstate);
    snprintf(call->constraint, sizeof(call->constraint), "%s", answer->constraint);
    snprintf(call->first, sizeof(call->first), "%.*s", STR_ARGS(first));
    ck_assert((answer->outcome == PG_REFUSED) == (answer->message[0] != '\0'));
}

static struct call *call_new(void)
{
    ck_assert_int_lt(world.call_count, CALLS_MAX);
    world.calls[world.call_count].world = &world;
    return &world.calls[world.call_count++];
}

static struct call *submit(enum statement_id statement, const char *key, const char *first,
                           const char *second, int64_t deadline_ms)
{
    struct call *call = call_new();
    struct str params[] = {str_from(first), str_from(second)};

    ck_assert(pg_submit(world.pg, &statements[statement], str_from(key), params, deadline_ms,
                        call_answered, call));
    return call;
}

static struct call *submit_number(enum statement_id statement, const char *key, int number)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", number);
    return submit(statement, key, text, "1", LONG_MS);
}

static struct call *submit_sleep(const char *key, const char *seconds, int64_t deadline_ms)
{
    return submit(SLEEP, key, seconds, NULL, deadline_ms);
}

/* Keeps the only connection busy, so that what follows gathers. */
static void occupy(const char *seconds)
{
    uint64_t batches = pg_counters(world.pg)->batches + 1;

    loop_until_writable();
    submit_sleep(NULL, seconds, LONG_MS);
    ck_assert(loop_until(is_sent, &batches, WAIT_MS));
}

static void start_with_connections(int connections)
{
    struct pg_options options = default_options();

    options.connections = connections;
    world_start(&options);
}

static void assert_outcomes(enum pg_outcome outcome)
{
    for (int i = 0; i < world.call_count; i++)
        ck_assert_msg(world.calls[i].outcome == outcome, "call %d: outcome %d, sqlstate %s", i,
                      world.calls[i].outcome, world.calls[i].sqlstate);
}

static long long row_count(void)
{
    return session_number(world.admin, "SELECT count(*) FROM caf_test_pg.row");
}

static long long attempt_count(void)
{
    return session_number(world.admin, "SELECT last_value FROM caf_test_pg.attempt");
}

/* ---- batching ------------------------------------------------------------------------------- */

START_TEST(one_request_is_one_statement)
{
    struct call *call;

    start_with_connections(4);
    call = submit(PUT, "k", "a", "7", LONG_MS);
    ck_assert_int_eq(call->answers, 0);
    ck_assert_uint_eq(pg_pending(world.pg), 1);
    loop_until_all_answered();
    ck_assert_int_eq(call->outcome, PG_OK);
    ck_assert_int_eq(call->rows, 1);
    ck_assert_str_eq(call->first, "a");
    ck_assert_int_eq(attempt_count(), 1);
    ck_assert_int_eq(row_count(), 1);
}
END_TEST

START_TEST(a_thousand_that_gather_are_two_statements)
{
    start_with_connections(1);
    occupy("0.3");
    for (int i = 0; i < 1000; i++)
        submit_number(PUT, NULL, i);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_int_eq(row_count(), 1000);
    ck_assert_int_eq(attempt_count(), 2);
}
END_TEST

START_TEST(requests_of_one_turn_go_together_before_any_connection_is_up)
{
    start_with_connections(4);
    for (int i = 0; i < 100; i++)
        submit_number(PUT, NULL, i);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_int_eq(attempt_count(), 1);
}
END_TEST

START_TEST(a_batch_is_sorted_by_key)
{
    start_with_connections(1);
    occupy("0.1");
    submit(PUT, "c", "third", "1", LONG_MS);
    submit(PUT, "b", "second", "1", LONG_MS);
    submit(PUT, "bb", "between", "1", LONG_MS);
    submit(PUT, "a", "first", "1", LONG_MS);
    submit(PUT, NULL, "none", "1", LONG_MS);
    loop_until_all_answered();
    ck_assert_int_eq(attempt_count(), 1);
    ck_assert_int_eq(session_number(world.admin,
                                    "SELECT (string_agg(id, ' ' ORDER BY position) = 'none first "
                                    "second between third')::int FROM caf_test_pg.row"),
                     1);
}
END_TEST

START_TEST(each_request_gets_its_own_rows)
{
    struct call *calls[40];

    start_with_connections(1);
    for (int i = 0; i < 40; i++)
        calls[i] = submit_number(REPEAT, NULL, (i * 7) % 11);
    loop_until_all_answered();
    for (int i = 0; i < 40; i++) {
        ck_assert_int_eq(calls[i]->outcome, PG_OK);
        ck_assert_int_eq(calls[i]->rows, (i * 7) % 11);
        ck_assert_str_eq(calls[i]->first, calls[i]->rows ? "1" : "");
    }
    ck_assert_uint_eq(pg_counters(world.pg)->batches, 1);
}
END_TEST

START_TEST(a_statement_that_is_not_batched_has_its_parameters_and_rows_to_itself)
{
    struct call *call;

    start_with_connections(1);
    for (int i = 0; i < 3; i++)
        submit(SINGLE, NULL, "it's", "3", LONG_MS);
    call = submit(SINGLE, NULL, NULL, "1", LONG_MS);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_int_eq(world.calls[0].rows, 3);
    ck_assert_str_eq(world.calls[0].first, "1");
    ck_assert_int_eq(call->rows, 1);
    ck_assert_uint_eq(pg_counters(world.pg)->batches, 4);
}
END_TEST

START_TEST(the_statement_with_the_oldest_request_goes_first)
{
    struct pg_options options = default_options();
    struct call *echo;
    int before = 0;

    options.connections = 1;
    options.batch_max = 10;
    world_start(&options);
    occupy("0.1");
    submit_number(PUT, NULL, 0);
    echo = submit(ECHO, NULL, "a", "b", LONG_MS);
    for (int i = 1; i < 100; i++)
        submit_number(PUT, NULL, i);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    for (struct call *call = world.calls; call < world.calls + world.call_count; call++)
        before += call->order < echo->order;
    ck_assert_int_eq(before, 1 + 10);
}
END_TEST

/* ---- keys ----------------------------------------------------------------------------------- */

START_TEST(requests_with_one_key_run_in_their_order_whatever_their_statements)
{
    start_with_connections(4);
    for (int i = 0; i < 60; i++)
        submit_number(i % 3 ? PUT : OTHER_PUT, "same", i);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_int_eq(attempt_count(), 60);
    ck_assert_int_eq(session_number(world.admin,
                                    "SELECT count(*) FROM (SELECT id::int, row_number() OVER "
                                    "(ORDER BY position) - 1 AS place FROM caf_test_pg.row) r "
                                    "WHERE id = place"),
                     60);
}
END_TEST

START_TEST(a_long_line_behind_one_key_holds_nobody_else_up)
{
    struct call *other;

    start_with_connections(1);
    for (int i = 0; i < 10000; i++)
        submit_number(ECHO, "same", i);
    other = submit(PUT, "other", "other", "1", LONG_MS);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_int_eq(other->order, 1);
    for (int i = 1; i < 10000; i++)
        ck_assert_int_gt(world.calls[i].order, world.calls[i - 1].order);
}
END_TEST

static void answer_and_submit_again(void *arg, const struct pg_answer *answer)
{
    call_answered(arg, answer);
    if (world.call_count < 100) {
        struct str params[] = {STR("x"), STR("y")};

        ck_assert(pg_submit(world.pg, &statements[ECHO], STR("same"), params, LONG_MS,
                            answer_and_submit_again, call_new()));
    }
}

START_TEST(an_answer_may_submit_the_next_request)
{
    struct str params[] = {STR("x"), STR("y")};

    start_with_connections(2);
    ck_assert(pg_submit(world.pg, &statements[ECHO], STR("same"), params, LONG_MS,
                        answer_and_submit_again, call_new()));
    loop_until_all_answered();
    ck_assert_int_eq(world.call_count, 100);
    assert_outcomes(PG_OK);
}
END_TEST

/* ---- values --------------------------------------------------------------------------------- */

static const struct str values[] = {
    STR(""),
    STR_ABSENT,
    STR("NULL"),
    STR("plain"),
    STR("\"quoted\""),
    STR("back\\slash\\\\"),
    STR("new\nline\r\ttab"),
    STR("{braces,commas}"),
    STR(" spaces "),
    STR("'; DROP TABLE caf_test_pg.row; --"),
    STR("h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x94\x92"),
    STR("\x01\x1f\x7f"),
};

enum { VALUE_COUNT = sizeof(values) / sizeof(values[0]) };

struct echo {
    struct str a, b;
};

static void echo_answered(void *arg, const struct pg_answer *answer)
{
    const struct echo *echo = arg;

    world.answered++;
    ck_assert_int_eq(answer->outcome, PG_OK);
    ck_assert_int_eq(answer->row_count, 1);
    ck_assert(str_equal(pg_value(answer, 0, 0), echo->a));
    ck_assert(str_equal(pg_value(answer, 0, 1), echo->b));
}

START_TEST(any_text_comes_back_as_it_went)
{
    struct echo echoes[VALUE_COUNT * VALUE_COUNT];
    int count = VALUE_COUNT * VALUE_COUNT;

    start_with_connections(1);
    for (int i = 0; i < count; i++) {
        echoes[i] = (struct echo){values[i / VALUE_COUNT], values[i % VALUE_COUNT]};
        ck_assert(pg_submit(world.pg, &statements[ECHO], STR_ABSENT, &echoes[i].a, LONG_MS,
                            echo_answered, &echoes[i]));
    }
    ck_assert(loop_until(answered_count_reached, &count, WAIT_MS));
    ck_assert_uint_eq(pg_counters(world.pg)->batches, 1);
}
END_TEST

START_TEST(a_megabyte_parameter_passes)
{
    size_t len = 1 << 20;
    struct echo echoes[20];
    int count = 20;
    char *text = memory_new(1, len);

    memset(text, '\\', len);
    start_with_connections(2);
    for (int i = 0; i < count; i++) {
        echoes[i] = (struct echo){{text, len - (size_t)i}, STR("b")};
        ck_assert(pg_submit(world.pg, &statements[ECHO], STR_ABSENT, &echoes[i].a, LONG_MS,
                            echo_answered, &echoes[i]));
    }
    ck_assert(loop_until(answered_count_reached, &count, WAIT_MS));
    ck_assert_uint_gt(pg_counters(world.pg)->batches, 1);
    free(text);
}
END_TEST

START_TEST(a_nul_byte_is_refused_and_never_cuts_a_value_short)
{
    struct str params[] = {STR("1\0002"), STR("1\0002")};

    start_with_connections(1);
    submit(ECHO, NULL, "good", "good", LONG_MS);
    ck_assert(pg_submit(world.pg, &statements[ECHO], STR_ABSENT, params, LONG_MS, call_answered,
                        call_new()));
    ck_assert(pg_submit(world.pg, &statements[SINGLE], STR_ABSENT, params, LONG_MS, call_answered,
                        call_new()));
    loop_until_all_answered();
    ck_assert_int_eq(world.calls[0].outcome, PG_OK);
    for (int i = 1; i < 3; i++) {
        ck_assert_int_eq(world.calls[i].outcome, PG_REFUSED);
        ck_assert_str_eq(world.calls[i].sqlstate, "22021");
    }
}
END_TEST

/* ---- errors --------------------------------------------------------------------------------- */

static void submit_hundred_with_a_bad_one(const char *bad_value)
{
    char id[16];

    start_with_connections(4);
    for (int i = 0; i < 100; i++) {
        snprintf(id, sizeof(id), "%d", i);
        submit(PUT, id, id, i == 37 ? bad_value : "1", LONG_MS);
    }
    loop_until_all_answered();
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(world.calls[i].outcome, i == 37 ? PG_REFUSED : PG_OK);
    ck_assert_int_eq(row_count(), 99);
    ck_assert_uint_eq(pg_counters(world.pg)->refused, 1);
    ck_assert_uint_le(pg_counters(world.pg)->batches, 2 * 7 + 1);
    ck_assert_uint_eq(pg_counters(world.pg)->losses, 0);
}

START_TEST(a_row_that_cannot_be_read_fails_alone)
{
    submit_hundred_with_a_bad_one("bad");
    ck_assert_str_eq(world.calls[37].sqlstate, "22P02");
}
END_TEST

START_TEST(a_row_that_a_constraint_forbids_fails_alone_and_says_which)
{
    submit_hundred_with_a_bad_one("-1");
    ck_assert_str_eq(world.calls[37].sqlstate, "23514");
    ck_assert_str_eq(world.calls[37].constraint, "positive");
}
END_TEST

START_TEST(a_batch_of_bad_rows_only_refuses_each)
{
    start_with_connections(2);
    for (int i = 0; i < 20; i++)
        submit(PUT, NULL, "x", "bad", LONG_MS);
    loop_until_all_answered();
    assert_outcomes(PG_REFUSED);
    ck_assert_int_eq(row_count(), 0);
}
END_TEST

/* The constraint is checked at the commit, after CommandComplete: the result alone looks fine. */
START_TEST(a_commit_that_fails_is_no_success)
{
    session_run(world.admin,
                "CREATE FUNCTION caf_test_pg.refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN IF NEW.value = 13 THEN RAISE check_violation; END IF; RETURN NULL; END$$;"
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON caf_test_pg.row "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION caf_test_pg.refuse()");
    submit_hundred_with_a_bad_one("13");
    ck_assert_str_eq(world.calls[37].sqlstate, "23514");
}
END_TEST

START_TEST(a_missing_table_refuses_all_of_the_batch_at_once)
{
    start_with_connections(1);
    loop_until_writable();
    session_run(world.admin, "DROP TABLE caf_test_pg.doomed");
    for (int i = 0; i < 50; i++)
        submit(DOOMED, NULL, NULL, NULL, LONG_MS);
    loop_until_all_answered();
    assert_outcomes(PG_REFUSED);
    ck_assert_str_eq(world.calls[0].sqlstate, "42P01");
    ck_assert_uint_eq(pg_counters(world.pg)->batches, 1);
}
END_TEST

START_TEST(a_statement_with_other_parameters_is_refused_at_once)
{
    start_with_connections(1);
    submit(MISCOUNTED, NULL, "a", NULL, LONG_MS);
    submit(MISCOUNTED, NULL, "b", NULL, LONG_MS);
    loop_until_all_answered();
    assert_outcomes(PG_REFUSED);
    ck_assert_str_eq(world.calls[0].sqlstate, "08P01");
    ck_assert_uint_eq(pg_counters(world.pg)->losses, 0);
}
END_TEST

START_TEST(rows_that_answer_no_request_are_left_out)
{
    start_with_connections(1);
    submit(STRAY, NULL, NULL, NULL, LONG_MS);
    submit(STRAY, NULL, NULL, NULL, LONG_MS);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_int_eq(world.calls[0].rows, 1);
    ck_assert_int_eq(world.calls[1].rows, 2);
}
END_TEST

START_TEST(a_migration_under_a_prepared_statement_is_survived)
{
    start_with_connections(1);
    submit(DOOMED, NULL, NULL, NULL, LONG_MS);
    loop_until_all_answered();
    session_run(world.admin, "ALTER TABLE caf_test_pg.doomed ALTER id TYPE text");
    submit(DOOMED, NULL, NULL, NULL, LONG_MS);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_uint_eq(pg_counters(world.pg)->losses, 1);
}
END_TEST

static bool has_lock_waiter(void *arg)
{
    return session_number(arg, "SELECT count(*) FROM pg_locks WHERE NOT granted") > 0;
}

/* Another session holds b and then asks for a, while the batch holds a and waits for b. */
START_TEST(a_deadlock_is_tried_again)
{
    PGconn *rival = session_open();

    session_run(rival, "INSERT INTO caf_test_pg.row VALUES ('a', 1), ('b', 1)");
    session_run(rival, "SET deadlock_timeout = '30s'; BEGIN;"
                       "UPDATE caf_test_pg.row SET value = 10 WHERE id = 'b'");
    start_with_connections(2);
    submit(TOUCH, "a", "a", NULL, LONG_MS);
    submit(TOUCH, "b", "b", NULL, LONG_MS);
    ck_assert(loop_until(has_lock_waiter, world.admin, WAIT_MS));
    ck_assert_int_eq(PQsendQuery(rival, "UPDATE caf_test_pg.row SET value = 10 WHERE id = 'a'"), 1);
    loop_until(always_later, NULL, 2000);
    PQclear(PQgetResult(rival));
    ck_assert_ptr_null(PQgetResult(rival));
    session_run(rival, "COMMIT");
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_str_eq(world.calls[0].first, "11");
    ck_assert_str_eq(world.calls[1].first, "11");
    ck_assert_uint_ge(pg_counters(world.pg)->retries, 1);
    ck_assert_uint_eq(pg_counters(world.pg)->losses, 0);
    PQfinish(rival);
}
END_TEST

START_TEST(a_lock_held_elsewhere_is_waited_for_until_the_deadline)
{
    struct pg_options options = default_options();
    PGconn *rival = session_open();

    session_run(rival, "INSERT INTO caf_test_pg.row VALUES ('a', 1)");
    session_run(rival, "BEGIN; UPDATE caf_test_pg.row SET value = 10");
    options.statement_ms = 400;
    world_start(&options);
    submit(TOUCH, "a", "a", NULL, 1500);
    loop_until_all_answered();
    assert_outcomes(PG_UNAVAILABLE);
    submit(TOUCH, "a", "a", NULL, LONG_MS);
    loop_until(always_later, NULL, 500);
    session_run(rival, "COMMIT");
    loop_until_all_answered();
    ck_assert_int_eq(world.calls[1].outcome, PG_OK);
    ck_assert_str_eq(world.calls[1].first, "11");
    ck_assert_uint_ge(pg_counters(world.pg)->retries, 3);
    PQfinish(rival);
}
END_TEST

START_TEST(a_row_locked_elsewhere_holds_only_itself_up)
{
    struct pg_options options = default_options();
    PGconn *rival = session_open();
    char id[16];
    int others = 15;

    session_run(rival, "INSERT INTO caf_test_pg.row SELECT n, 1 FROM generate_series(0, 15) n");
    session_run(rival, "BEGIN; UPDATE caf_test_pg.row SET value = 10 WHERE id = '5'");
    options.connections = 1;
    options.statement_ms = 800;
    world_start(&options);
    for (int i = 0; i < 16; i++) {
        snprintf(id, sizeof(id), "%d", i);
        submit(TOUCH, id, id, NULL, LONG_MS);
    }
    ck_assert(loop_until(answered_count_reached, &others, WAIT_MS));
    ck_assert_int_eq(world.calls[5].answers, 0);
    session_run(rival, "COMMIT");
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_str_eq(world.calls[5].first, "11");
    ck_assert_str_eq(world.calls[6].first, "2");
    PQfinish(rival);
}
END_TEST

START_TEST(a_batch_that_is_too_slow_is_tried_in_halves)
{
    struct pg_options options = default_options();

    options.connections = 1;
    options.statement_ms = 500;
    world_start(&options);
    for (int i = 0; i < 4; i++)
        submit(SLOW, NULL, "0.2", NULL, LONG_MS);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_uint_eq(pg_counters(world.pg)->splits, 1);
    ck_assert_uint_eq(pg_counters(world.pg)->batches, 3);
}
END_TEST

START_TEST(a_session_that_is_terminated_is_replaced_and_its_batch_sent_again)
{
    start_with_connections(2);
    loop_until_writable();
    for (int i = 0; i < 20; i++)
        submit(SLOW, NULL, "0.02", NULL, LONG_MS);
    loop_until(always_later, NULL, 100);
    session_run(world.admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                             "WHERE application_name = 'caf-test'");
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert_uint_ge(pg_counters(world.pg)->losses, 2);
}
END_TEST

/* ---- bounds --------------------------------------------------------------------------------- */

START_TEST(a_deadline_answers_what_waits_and_what_runs)
{
    struct call *running, *waiting, *behind;

    start_with_connections(1);
    loop_until_writable();
    world.began_ms = clock_monotonic_ms();
    running = submit_sleep("k", "1", 300);
    behind = submit_sleep("k", "0", 200);
    waiting = submit(ECHO, NULL, "a", "b", 100);
    loop_until_all_answered();
    assert_outcomes(PG_UNAVAILABLE);
    ck_assert_int_lt(waiting->order, behind->order);
    ck_assert_int_lt(behind->order, running->order);
    ck_assert_int_ge(running->answered_ms, 290); /* the loop's clock is coarse */
    ck_assert_int_lt(running->answered_ms, 900);
    ck_assert_uint_eq(pg_counters(world.pg)->unavailable, 3);
    submit(ECHO, "k", "a", "b", LONG_MS);
    loop_until_all_answered();
    ck_assert_int_eq(world.calls[3].outcome, PG_OK);
    ck_assert_uint_eq(pg_counters(world.pg)->batches, 2);
}
END_TEST

START_TEST(a_key_stays_locked_while_a_given_up_request_may_still_run)
{
    start_with_connections(4);
    loop_until_writable();
    world.began_ms = clock_monotonic_ms();
    submit_sleep("k", "1", 100);
    submit(ECHO, "k", "a", "b", LONG_MS);
    submit(ECHO, "other", "a", "b", LONG_MS);
    loop_until_all_answered();
    ck_assert_int_eq(world.calls[0].outcome, PG_UNAVAILABLE);
    ck_assert_int_ge(world.calls[1].answered_ms, 990);
    ck_assert_int_lt(world.calls[2].answered_ms, 500);
}
END_TEST

START_TEST(no_more_than_queue_max_wait)
{
    struct pg_options options = default_options();
    struct str params[] = {STR("a"), STR("b")};

    options.connections = 1;
    options.queue_max = 10;
    world_start(&options);
    occupy("0.3");
    for (int i = 0; i < 10; i++)
        submit(ECHO, i % 2 ? "k" : NULL, "a", "b", LONG_MS);
    ck_assert(
        !pg_submit(world.pg, &statements[ECHO], STR_ABSENT, params, LONG_MS, call_answered, NULL));
    ck_assert_uint_eq(pg_pending(world.pg), 11);
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    submit(ECHO, NULL, "a", "b", LONG_MS);
    loop_until_all_answered();
}
END_TEST

START_TEST(freeing_drops_what_is_under_way_without_a_call)
{
    start_with_connections(2);
    loop_until_writable();
    submit_sleep("k", "5", LONG_MS);
    submit(PUT, "bad", "x", "bad", LONG_MS);
    for (int i = 0; i < 100; i++)
        submit_number(ECHO, i % 2 ? "k" : NULL, i);
    loop_until(always_later, NULL, 5);
    pg_free(steal_pointer(world.pg));
    loop_until(always_later, NULL, 20);
    ck_assert_int_lt(world.answered, 102);
}
END_TEST

START_TEST(freeing_while_connecting_leaves_nothing)
{
    start_with_connections(3);
    submit(ECHO, "k", "a", "b", LONG_MS);
    submit(ECHO, "k", "a", "b", LONG_MS);
    pg_free(steal_pointer(world.pg));
    ck_assert_int_eq(event_base_get_num_events(world.base, EVENT_BASE_COUNT_ADDED), 0);
    ck_assert_int_eq(world.answered, 0);
}
END_TEST

/* ---- sessions ------------------------------------------------------------------------------- */

START_TEST(a_schema_that_comes_later_is_waited_for)
{
    session_run(world.admin, "DROP TABLE caf_test_pg.row");
    start_with_connections(2);
    submit(PUT, "k", "a", "1", LONG_MS);
    loop_until(always_later, NULL, 300);
    ck_assert(!pg_writable(world.pg));
    session_run(world.admin, "CREATE TABLE caf_test_pg.row (id text PRIMARY KEY, value int)");
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    ck_assert(pg_writable(world.pg));
}
END_TEST

START_TEST(a_session_has_the_settings_that_statements_rely_on)
{
    static const struct pg_statement show[] = {
        {"show",
         "SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('TimeZone'),"
         " current_setting('DateStyle'), current_setting('client_encoding'),"
         " current_setting('application_name'), current_setting('standard_conforming_strings'),"
         " current_setting('transaction_isolation'), current_setting('enable_seqscan'),"
         " current_setting('jit'))",
         0, false},
        {.name = NULL}};
    struct pg_options options = default_options();

    options.statements = show;
    options.statement_ms = 7000;
    session_run(world.admin, "ALTER ROLE CURRENT_USER SET DateStyle = 'German'");
    session_run(world.admin, "ALTER ROLE CURRENT_USER SET default_transaction_isolation = "
                             "'serializable'");
    world_start(&options);
    ck_assert(pg_submit(world.pg, &show[0], STR_ABSENT, NULL, LONG_MS, call_answered, call_new()));
    loop_until_all_answered();
    session_run(world.admin, "ALTER ROLE CURRENT_USER RESET ALL");
    ck_assert_str_eq(world.calls[0].first,
                     "7s UTC ISO, YMD UTF8 caf-test on read committed off off");
}
END_TEST

START_TEST(an_unreachable_server_is_asked_again_and_requests_end_at_their_deadline)
{
    struct pg_options options = default_options();

    options.conninfo = "host=/nonexistent dbname=none";
    world_start(&options);
    submit(ECHO, NULL, "a", "b", 400);
    loop_until_all_answered();
    assert_outcomes(PG_UNAVAILABLE);
    ck_assert(!pg_writable(world.pg));
    ck_assert_uint_ge(pg_counters(world.pg)->losses, 4 * 3);
    ck_assert_uint_le(pg_counters(world.pg)->losses, 4 * 6);
}
END_TEST

/* ---- the self-test -------------------------------------------------------------------------- */

static const char role_sql[] =
    "DO $$ BEGIN CREATE ROLE caf_test_pg_role LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; "
    "END $$;"
    "DROP TABLE IF EXISTS public.caf_test_pg_kept;"
    "CREATE TABLE public.caf_test_pg_kept (id int);"
    "DO $$ BEGIN EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC',"
    "  current_database()); END $$;"
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
    "GRANT SELECT, INSERT ON public.caf_test_pg_kept TO caf_test_pg_role";

static const struct pg_statement role_statements[] = {
    {"kept", "SELECT ord, count(id) FROM unnest($1::int[]) ord, public.caf_test_pg_kept GROUP BY 1",
     0, true},
    {.name = NULL},
};

static struct pg_options role_options(void)
{
    static char conninfo[512];
    struct pg_options options = default_options();

    snprintf(conninfo, sizeof(conninfo), "%s user=caf_test_pg_role", server.conninfo);
    options.conninfo = conninfo;
    options.statements = role_statements;
    return options;
}

static void start_as_role(const char *const *allowed)
{
    struct pg_options options = role_options();

    options.allowed = allowed;
    world_start(&options);
}

static const char *const least[] = {"caf_test_pg_kept:SELECT", "caf_test_pg_kept:INSERT", NULL};

START_TEST(a_role_with_the_least_rights_serves)
{
    session_run(world.admin, role_sql);
    start_as_role(least);
    ck_assert(pg_submit(world.pg, &role_statements[0], STR_ABSENT, NULL, LONG_MS, call_answered,
                        call_new()));
    loop_until_all_answered();
    assert_outcomes(PG_OK);
    loop_until(always_later, NULL, 200);
    ck_assert_int_eq(session_number(world.admin, "SELECT count(*) FROM pg_stat_activity "
                                                 "WHERE usename = 'caf_test_pg_role'"),
                     4);
}
END_TEST

/* Exits with 1 from within the loop. */
START_TEST(a_role_that_can_do_more_ends_the_process)
{
    session_run(world.admin, role_sql);
    session_run(world.admin, "GRANT DELETE ON public.caf_test_pg_kept TO caf_test_pg_role");
    start_as_role(least);
    loop_until(is_writable, NULL, WAIT_MS);
    _exit(0);
}
END_TEST

START_TEST(a_superuser_ends_the_process)
{
    struct pg_options options = default_options();

    options.allowed = least;
    world_start(&options);
    loop_until(is_writable, NULL, WAIT_MS);
    _exit(0);
}
END_TEST

START_TEST(a_role_that_can_do_less_is_waited_for)
{
    session_run(world.admin, role_sql);
    session_run(world.admin, "REVOKE INSERT ON public.caf_test_pg_kept FROM caf_test_pg_role");
    start_as_role(least);
    loop_until(always_later, NULL, 300);
    ck_assert(!pg_writable(world.pg));
    session_run(world.admin, "GRANT INSERT ON public.caf_test_pg_kept TO caf_test_pg_role");
    loop_until_writable();
}
END_TEST

/* ---- the suite ------------------------------------------------------------------------------ */

static TCase *case_new(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);

    tcase_add_unchecked_fixture(tcase, server_up, server_down);
    tcase_add_checked_fixture(tcase, world_set_up, world_tear_down);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    return tcase;
}

static void add_batching(Suite *suite)
{
    TCase *tcase = case_new(suite, "batching");

    tcase_add_test(tcase, one_request_is_one_statement);
    tcase_add_test(tcase, a_thousand_that_gather_are_two_statements);
    tcase_add_test(tcase, requests_of_one_turn_go_together_before_any_connection_is_up);
    tcase_add_test(tcase, a_batch_is_sorted_by_key);
    tcase_add_test(tcase, each_request_gets_its_own_rows);
    tcase_add_test(tcase, a_statement_that_is_not_batched_has_its_parameters_and_rows_to_itself);
    tcase_add_test(tcase, the_statement_with_the_oldest_request_goes_first);
    tcase_add_test(tcase, requests_with_one_key_run_in_their_order_whatever_their_statements);
    tcase_add_test(tcase, a_long_line_behind_one_key_holds_nobody_else_up);
    tcase_add_test(tcase, an_answer_may_submit_the_next_request);
    tcase_add_test(tcase, any_text_comes_back_as_it_went);
    tcase_add_test(tcase, a_megabyte_parameter_passes);
    tcase_add_test(tcase, a_nul_byte_is_refused_and_never_cuts_a_value_short);
}

static void add_errors(Suite *suite)
{
    TCase *tcase = case_new(suite, "errors");

    tcase_add_test(tcase, a_row_that_cannot_be_read_fails_alone);
    tcase_add_test(tcase, a_row_that_a_constraint_forbids_fails_alone_and_says_which);
    tcase_add_test(tcase, a_batch_of_bad_rows_only_refuses_each);
    tcase_add_test(tcase, a_commit_that_fails_is_no_success);
    tcase_add_test(tcase, a_missing_table_refuses_all_of_the_batch_at_once);
    tcase_add_test(tcase, a_statement_with_other_parameters_is_refused_at_once);
    tcase_add_test(tcase, rows_that_answer_no_request_are_left_out);
    tcase_add_test(tcase, a_migration_under_a_prepared_statement_is_survived);
    tcase_add_test(tcase, a_deadlock_is_tried_again);
    tcase_add_test(tcase, a_lock_held_elsewhere_is_waited_for_until_the_deadline);
    tcase_add_test(tcase, a_row_locked_elsewhere_holds_only_itself_up);
    tcase_add_test(tcase, a_batch_that_is_too_slow_is_tried_in_halves);
    tcase_add_test(tcase, a_session_that_is_terminated_is_replaced_and_its_batch_sent_again);
}

static void add_bounds(Suite *suite)
{
    TCase *tcase = case_new(suite, "bounds");

    tcase_add_test(tcase, a_deadline_answers_what_waits_and_what_runs);
    tcase_add_test(tcase, a_key_stays_locked_while_a_given_up_request_may_still_run);
    tcase_add_test(tcase, no_more_than_queue_max_wait);
    tcase_add_test(tcase, freeing_drops_what_is_under_way_without_a_call);
    tcase_add_test(tcase, freeing_while_connecting_leaves_nothing);
}

static void add_sessions(Suite *suite)
{
    TCase *tcase = case_new(suite, "sessions");

    tcase_add_test(tcase, a_schema_that_comes_later_is_waited_for);
    tcase_add_test(tcase, a_session_has_the_settings_that_statements_rely_on);
    tcase_add_test(tcase, an_unreachable_server_is_asked_again_and_requests_end_at_their_deadline);
    tcase_add_test(tcase, a_role_with_the_least_rights_serves);
    tcase_add_exit_test(tcase, a_role_that_can_do_more_ends_the_process, 1);
    tcase_add_exit_test(tcase, a_superuser_ends_the_process, 1);
    tcase_add_test(tcase, a_role_that_can_do_less_is_waited_for);
}

int main(void)
{
    Suite *suite = suite_create("pg");
    SRunner *runner = srunner_create(suite);
    int failed;

    add_batching(suite);
    add_errors(suite);
    add_bounds(suite);
    add_sessions(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
