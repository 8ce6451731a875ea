/* registryd's deny list: what is on it through loads, changes and its bound, and what each
 * subscriber is pushed. The database is this test's own. */
#include "registryd/deny_list.h"

#include "registryd/registryd.h"
#include "tests/unit/ipc_daemon.h"
#include "tests/unit/scratch_postgres.h"

/* Of registryd's statements the one that is run here: the others need all of the tables. */
#define STATEMENT(name, text) static const char sql_##name[] __attribute__((unused)) = text;
#include "registryd_sql.h"
#undef STATEMENT

const struct pg_statement registryd_statements[] = {
    [0 ... STATEMENT_REVOKED] = {"revoked", sql_revoked, 3, false},
    {NULL, NULL, 0, false},
};

static struct registryd registryd;
static struct deny_list *deny;

static void open_database(void)
{
    const struct pg_options options = {.conninfo = server.conninfo,
                                       .application_name = "caf-test",
                                       .connections = 1,
                                       .batch_max = 10,
                                       .queue_max = 10,
                                       .statement_ms = 10000,
                                       .statements = registryd_statements};

    server_start();
    server_run("DROP TABLE IF EXISTS agent_registry; CREATE TABLE agent_registry "
               "(tenant_id text, spiffe_id text, state text)");
    registryd.back.service.base = world.base;
    registryd.back.options = &registryd.options.back;
    registryd.options.back.database_request_seconds = 10;
    registryd.options.feed_rows_per_read = 2;
    registryd.options.deny_identities_max = 100000;
    registryd.back.pg = pg_new(world.base, &options);
}

static void open_list(void)
{
    open_world();
    open_database();
    deny = deny_list_open(&registryd);
}

static void close_list(void)
{
    deny_list_close(deny);
    pg_free(registryd.back.pg);
    close_world();
    server_signal_and_wait(SIGQUIT);
}

static void reopen_list(int max)
{
    deny_list_close(deny);
    registryd.options.deny_identities_max = max;
    deny = deny_list_open(&registryd);
}

static void set_revoked(const char *names)
{
    char sql[200];

    snprintf(sql, sizeof(sql),
             "INSERT INTO agent_registry SELECT 't', n, 'revoked' "
             "FROM regexp_split_to_table('%s', '') AS n",
             names);
    server_run(sql);
}

static bool add(const char *name)
{
    return deny_list_add(deny, STR("t"), str_from(name));
}

static void load(void)
{
    deny_list_load(deny);
    LOOP_UNTIL(world.base, deny_list_is_whole(deny));
}

/* A load that ends with the list as it was is not seen from outside but by this. */
static void check(void)
{
    deny_list_check(deny);
    LOOP_UNTIL(world.base, deny_list_pending(deny) == 0);
}

/* ---- a subscriber ---------------------------------------------------------------------------- */

static struct {
    struct peer peer;
    char names[64]; /* one letter each, of what was pushed since the list began anew */
    uint64_t serial;
    int lists; /* that began */
} worker;

static void subscribe(void)
{
    struct message message;

    ask_to_wait(&worker.peer, 1);
    deny_list_subscribe(deny, world.kept[--world.kept_count]);
    peer_expect(world.base, &worker.peer, PEER_REGISTRYD, MSG_deny_subscribed, &message);
}

static void open_worker(void)
{
    memset(&worker, 0, sizeof(worker));
    worker.peer = join();
    subscribe();
}

static void take_names(struct str ids)
{
    for (size_t at = 0; at < ids.len; at += 4) { /* "t", NUL, one letter, NUL */
        char *end = worker.names + strlen(worker.names);

        ck_assert_str_eq(ids.ptr + at, "t");
        *end = ids.ptr[at + 2];
    }
}

/* The next frames, to the one that completes the list: what the worker has then. */
static const char *take(void)
{
    struct message message;
    const struct msg_deny_list *frame = &message.body.deny_list;

    do {
        peer_expect(world.base, &worker.peer, PEER_REGISTRYD, MSG_deny_list, &message);
        if (frame->first) {
            memset(worker.names, 0, sizeof(worker.names));
            worker.lists++;
        }
        take_names(frame->ids);
        ck_assert_uint_ge(frame->serial, worker.serial);
        worker.serial = frame->serial;
    } while (!frame->last);
    return worker.names;
}

/* Whether nothing comes, though there is time for it. */
static bool nothing_comes(void)
{
    uint8_t byte;

    loop_settle(world.base);
    return recv(worker.peer.fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

/* ---- loads ----------------------------------------------------------------------------------- */

START_TEST(nothing_is_pushed_before_it_is_loaded_and_then_an_empty_list_too)
{
    open_worker();
    ck_assert(!deny_list_is_whole(deny));
    ck_assert(nothing_comes());
    load();
    ck_assert_str_eq(take(), "");
    ck_assert_int_eq(worker.lists, 1);
    ck_assert_uint_eq(deny_list_count(deny), 0);
    ck_assert(!deny_list_is_full(deny));
    peer_free(&worker.peer);
}
END_TEST

START_TEST(a_list_of_many_pages_is_pushed_as_one)
{
    static const char *const lists[] = {"a", "ab", "abc", "abcdefg"}; /* pages are of two */

    set_revoked(lists[_i]);
    server_run("INSERT INTO agent_registry VALUES ('t', 'x', 'active'), ('t', 'y', 'quarantined')");
    open_worker();
    load();
    ck_assert_str_eq(take(), lists[_i]);
    ck_assert(nothing_comes());
    ck_assert_uint_eq(deny_list_count(deny), strlen(lists[_i]));
    peer_free(&worker.peer);
}
END_TEST

START_TEST(a_change_is_pushed_by_itself_and_once)
{
    set_revoked("a");
    load();
    open_worker();
    ck_assert_str_eq(take(), "a");
    ck_assert(add("b"));
    ck_assert(!add("b"));
    ck_assert(!add("a"));
    ck_assert_str_eq(take(), "ab");
    ck_assert(nothing_comes());
    ck_assert_int_eq(worker.lists, 1);
    peer_free(&worker.peer);
}
END_TEST

START_TEST(what_a_load_does_not_find_leaves_the_list_when_it_is_complete)
{
    uint64_t serial;

    set_revoked("abcd");
    load();
    open_worker();
    ck_assert_str_eq(take(), "abcd");
    serial = worker.serial;
    server_run("UPDATE agent_registry SET state = 'active' WHERE spiffe_id IN ('a', 'c')");
    deny_list_check(deny);
    ck_assert_uint_eq(deny_list_count(deny), 4);
    ck_assert_str_eq(take(), "bd");
    ck_assert_int_eq(worker.lists, 2);
    ck_assert_uint_gt(worker.serial, serial);
    ck_assert_uint_eq(deny_list_count(deny), 2);
    ck_assert(add("a")); /* revoked once more: behind the others */
    ck_assert_str_eq(take(), "bda");
    peer_free(&worker.peer);
}
END_TEST

START_TEST(what_is_told_during_a_load_stays)
{
    set_revoked("a");
    load();
    add("b"); /* the database does not say so */
    deny_list_check(deny);
    add("b");
    add("c");
    LOOP_UNTIL(world.base, deny_list_pending(deny) == 0);
    ck_assert_uint_eq(deny_list_count(deny), 3);
    check();
    ck_assert_uint_eq(deny_list_count(deny), 1);
}
END_TEST

START_TEST(a_load_that_finds_what_is_known_pushes_nothing)
{
    set_revoked("abc");
    load();
    open_worker();
    ck_assert_str_eq(take(), "abc");
    for (int i = 0; i < 3; i++)
        check();
    ck_assert(nothing_comes());
    peer_free(&worker.peer);
}
END_TEST

START_TEST(a_list_that_is_all_gone_is_pushed_as_empty)
{
    set_revoked("abc");
    load();
    open_worker();
    ck_assert_str_eq(take(), "abc");
    server_run("TRUNCATE agent_registry");
    check();
    ck_assert_str_eq(take(), "");
    ck_assert_int_eq(worker.lists, 2);
    peer_free(&worker.peer);
}
END_TEST

START_TEST(a_load_that_begins_anew_ends_the_one_under_way)
{
    set_revoked("abcde");
    deny_list_load(deny);
    deny_list_load(deny);
    deny_list_check(deny); /* nothing: one is under way */
    ck_assert_uint_eq(deny_list_pending(deny), 2);
    LOOP_UNTIL(world.base, deny_list_pending(deny) == 0);
    ck_assert(deny_list_is_whole(deny));
    ck_assert_uint_eq(deny_list_count(deny), 5);
    deny_list_load(deny);
    ck_assert(!deny_list_is_whole(deny)); /* and what was known counts meanwhile */
    ck_assert_uint_eq(deny_list_count(deny), 5);
    LOOP_UNTIL(world.base, deny_list_is_whole(deny));
}
END_TEST

START_TEST(a_page_that_is_refused_is_asked_for_again)
{
    set_revoked("abc");
    server_run("ALTER TABLE agent_registry RENAME TO away");
    deny_list_load(deny);
    LOOP_UNTIL(world.base, deny_list_pending(deny) == 0);
    ck_assert(!deny_list_is_whole(deny));
    server_run("ALTER TABLE away RENAME TO agent_registry");
    LOOP_UNTIL(world.base, deny_list_is_whole(deny));
    ck_assert_uint_eq(deny_list_count(deny), 3);
}
END_TEST

/* ---- the bound ------------------------------------------------------------------------------- */

START_TEST(a_full_list_keeps_what_it_has_and_says_so_until_there_is_room)
{
    reopen_list(2);
    set_revoked("bc");
    load();
    ck_assert(!deny_list_is_full(deny)); /* to the last place, and nothing is missing */
    set_revoked("a");
    ck_assert(!add("a"));
    ck_assert(deny_list_is_full(deny));
    ck_assert(!add("b"));
    open_worker();
    ck_assert_str_eq(take(), "bc");
    check();
    ck_assert(deny_list_is_full(deny)); /* a is missing still; b and c were found, and stay */
    ck_assert(nothing_comes());
    server_run("DELETE FROM agent_registry WHERE spiffe_id = 'b'");
    check(); /* makes room… */
    ck_assert_str_eq(take(), "c");
    ck_assert(deny_list_is_full(deny));
    check(); /* …which the next fills */
    ck_assert_str_eq(take(), "ca");
    ck_assert(!deny_list_is_full(deny));
    peer_free(&worker.peer);
}
END_TEST

/* ---- subscribers ----------------------------------------------------------------------------- */

START_TEST(who_subscribes_again_gets_the_list_anew_and_is_one)
{
    set_revoked("ab");
    load();
    open_worker();
    ck_assert_str_eq(take(), "ab");
    subscribe();
    ck_assert_str_eq(take(), "ab");
    ck_assert_int_eq(worker.lists, 2);
    ck_assert_uint_eq(deny_list_subscribers(deny), 1);
    add("c");
    ck_assert_str_eq(take(), "abc");
    ck_assert(nothing_comes());
    peer_free(&worker.peer);
}
END_TEST

START_TEST(who_has_left_is_forgotten_with_the_next_push)
{
    load();
    open_worker();
    take();
    peer_free(&worker.peer);
    open_worker();
    take();
    LOOP_UNTIL(world.base, deny_list_subscribers(deny) == 1);
    add("a");
    ck_assert_str_eq(take(), "a");
    peer_free(&worker.peer);
}
END_TEST

/* More than a frame holds, to one that reads only when all is sent that may be. */
START_TEST(a_long_list_comes_in_frames_and_in_its_order)
{
    enum { IDENTITIES = 60000 };
    struct message message;
    const struct msg_deny_list *frame = &message.body.deny_list;
    int frames = 0, next = 0;

    registryd.options.feed_rows_per_read = 100000;
    load();
    for (int i = 0; i < IDENTITIES; i++) {
        char name[64];

        snprintf(name, sizeof(name), "spiffe://td/agent/of/a/long/name/%06d", i);
        ASSERT_QUIETLY(add(name), "%d", i);
    }
    memset(&worker, 0, sizeof(worker));
    worker.peer = join();
    subscribe();
    loop_settle(world.base);
    do {
        peer_expect(world.base, &worker.peer, PEER_REGISTRYD, MSG_deny_list, &message);
        ck_assert_int_eq(frame->first, frames++ == 0);
        for (const char *at = frame->ids.ptr; at < frame->ids.ptr + frame->ids.len;) {
            ASSERT_QUIETLY(strcmp(at, "t") == 0, "tenant of %d", next);
            at += 2;
            ASSERT_QUIETLY(atoi(strrchr(at, '/') + 1) == next++, "%d is %s", next - 1, at);
            at += strlen(at) + 1;
        }
        ck_assert_uint_eq(frame->serial, (uint64_t)next);
    } while (!frame->last);
    ck_assert_int_eq(next, IDENTITIES);
    ck_assert_int_gt(frames, IDENTITIES * 42 / PROTO_DENY_IDS_MAX - 1);
    peer_free(&worker.peer);
}
END_TEST

/* ---- the end --------------------------------------------------------------------------------- */

START_TEST(a_list_that_has_stopped_loads_and_pushes_no_more)
{
    set_revoked("abcde");
    load();
    open_worker();
    ck_assert_str_eq(take(), "abcde");
    deny_list_check(deny);
    add("x");
    deny_list_stop(deny);
    ck_assert_uint_eq(deny_list_subscribers(deny), 0);
    LOOP_UNTIL(world.base, deny_list_pending(deny) == 0);
    ck_assert(nothing_comes());
    ck_assert_uint_eq(deny_list_count(deny), 6);
    peer_free(&worker.peer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("deny_list");
    TCase *tests = suite_case(suite, "all");

    tcase_add_unchecked_fixture(tests, server_make, server_remove);
    tcase_add_checked_fixture(tests, open_list, close_list);
    tcase_add_test(tests, nothing_is_pushed_before_it_is_loaded_and_then_an_empty_list_too);
    tcase_add_loop_test(tests, a_list_of_many_pages_is_pushed_as_one, 0, 4);
    tcase_add_test(tests, a_change_is_pushed_by_itself_and_once);
    tcase_add_test(tests, what_a_load_does_not_find_leaves_the_list_when_it_is_complete);
    tcase_add_test(tests, what_is_told_during_a_load_stays);
    tcase_add_test(tests, a_load_that_finds_what_is_known_pushes_nothing);
    tcase_add_test(tests, a_list_that_is_all_gone_is_pushed_as_empty);
    tcase_add_test(tests, a_load_that_begins_anew_ends_the_one_under_way);
    tcase_add_test(tests, a_page_that_is_refused_is_asked_for_again);
    tcase_add_test(tests, a_full_list_keeps_what_it_has_and_says_so_until_there_is_room);
    tcase_add_test(tests, who_subscribes_again_gets_the_list_anew_and_is_one);
    tcase_add_test(tests, who_has_left_is_forgotten_with_the_next_push);
    tcase_add_test(tests, a_long_list_comes_in_frames_and_in_its_order);
    tcase_add_test(tests, a_list_that_has_stopped_loads_and_pushes_no_more);
    return suite_run(suite);
}
