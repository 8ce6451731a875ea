/* A link to something that may or may not be Redis: what counts as a reply, and what ends the link.
 */
#include "registryd/redis_link.h"

#include "tests/unit/ipc_peer.h"

#include <sys/stat.h>
#include <sys/un.h>

enum { PAUSE_MS = 1, HEARD_MAX = 64 };

static struct {
    struct event_base *base;
    char folder[32], path[64];
    int listener, redis; /* our side of the link */
    struct redis_link *link;
    struct redis_reply heard[HEARD_MAX];
    size_t heard_count;
    int ended;
} world;

static void on_reply(void *arg, struct redis_link *link, const struct redis_reply *reply)
{
    ck_assert_ptr_eq(arg, &world);
    ck_assert_ptr_eq(link, world.link);
    world.heard[world.heard_count++ % HEARD_MAX] = *reply;
}

static void on_ended(void *arg, struct redis_link *link, const char *why)
{
    ck_assert_ptr_eq(arg, &world);
    ck_assert_ptr_eq(link, world.link);
    ck_assert_ptr_nonnull(why);
    world.ended++;
    world.link = NULL;
}

static const struct redis_link_events events = {on_reply, on_ended};

static void open_world(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memset(&world, 0, sizeof(world));
    world.base = event_base_new();
    strcpy(world.folder, "/tmp/caf-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(world.folder));
    snprintf(world.path, sizeof(world.path), "%s/s", world.folder);
    memcpy(address.sun_path, world.path, strlen(world.path));
    world.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(world.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(world.listener, 1), 0);
    world.link = redis_link_open(world.base, world.path, PAUSE_MS, &events, &world);
    ck_assert_ptr_nonnull(world.link);
    world.redis = accept4(world.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static void close_world(void)
{
    if (world.link)
        redis_link_close(world.link);
    if (world.redis >= 0)
        close(world.redis);
    close(world.listener);
    unlink(world.path);
    rmdir(world.folder);
    event_base_free(world.base);
}

static void say(const char *text)
{
    ck_assert_int_eq(send(world.redis, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Sends the same text until the link ends, and returns how many bytes it took. */
static size_t flood(const char *text)
{
    size_t taken = 0;
    int64_t began = clock_monotonic_ms();

    while (!world.ended) {
        ssize_t sent = send(world.redis, text, strlen(text), MSG_NOSIGNAL);

        taken += sent > 0 ? (size_t)sent : 0;
        loop_turn(world.base);
        ASSERT_QUIETLY(clock_monotonic_ms() - began < PATIENCE_MS, "it takes it all");
    }
    return taken;
}

START_TEST(a_message_is_three_words)
{
    const struct redis_reply *reply = &world.heard[0];

    say("*3\r\n$7\r\nmessage\r\n$3\r\na:b\r\n$2\r\nhi\r\n");
    LOOP_UNTIL(world.base, world.heard_count == 1);
    ck_assert_uint_eq(reply->count, 3);
    ck_assert(str_equal(redis_word_text(&reply->words[0]), STR("message")));
    ck_assert(str_equal(redis_word_text(&reply->words[2]), STR("hi")));
}
END_TEST

START_TEST(a_message_may_come_byte_by_byte)
{
    const char *text = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";

    for (const char *at = text; *at; at++) {
        ck_assert_int_eq(send(world.redis, at, 1, MSG_NOSIGNAL), 1);
        loop_turn(world.base);
    }
    LOOP_UNTIL(world.base, world.heard_count == 1);
    ck_assert_int_eq(world.heard[0].words[2].type, REDIS_WORD_NUMBER);
    ck_assert(!redis_word_text(&world.heard[0].words[2]).ptr);
}
END_TEST

START_TEST(many_messages_at_once_are_many)
{
    for (int i = 0; i < 50; i++)
        say("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n");
    LOOP_UNTIL(world.base, world.heard_count == 50);
    for (int i = 0; i < 50; i++)
        ck_assert_uint_eq(world.heard[i].count, 3);
}
END_TEST

START_TEST(an_error_is_one_word_and_ends_nothing)
{
    say("-NOAUTH Authentication required.\r\n:3\r\n");
    LOOP_UNTIL(world.base, world.heard_count == 2);
    ck_assert_int_eq(world.heard[0].words[0].type, REDIS_WORD_ERROR);
    ck_assert(str_equal(redis_word_excerpt(&world.heard[0].words[0]),
                        STR("NOAUTH Authentication required.")));
    ck_assert_int_eq(world.heard[1].words[0].type, REDIS_WORD_NUMBER);
    ck_assert_int_eq(world.ended, 0);
}
END_TEST

START_TEST(a_long_word_is_kept_in_part_and_equals_nothing)
{
    char text[400];

    snprintf(text, sizeof(text), "$%d\r\n%0*d\r\n", 300, 300, 0);
    say(text);
    LOOP_UNTIL(world.base, world.heard_count == 1);
    ck_assert_uint_eq(world.heard[0].words[0].len, 300);
    ck_assert(!redis_word_text(&world.heard[0].words[0]).ptr);
    ck_assert_uint_eq(redis_word_excerpt(&world.heard[0].words[0]).len, REDIS_TEXT_MAX);
}
END_TEST

static const char *const wrong[] = {
    "HTTP/1.1 200 OK\r\n\r\n",                            /* another protocol */
    "$9999999999999999999999\r\n",                        /* no number */
    "*4\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n", /* too many words */
    "*2000000000\r\n",                                    /* memory for the asking */
    "*2\r\n*1\r\n$1\r\na\r\n$1\r\na\r\n",                 /* a tree */
    "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
    "\x16\x03\x01\x02", /* TLS */
};

START_TEST(what_is_none_of_ours_ends_the_link)
{
    say(wrong[_i]);
    LOOP_UNTIL(world.base, world.ended == 1);
    ck_assert_uint_eq(world.heard_count, 0);
}
END_TEST

static const char *const endless[] = {"$100000000\r\n", "+", "-"};

START_TEST(a_reply_without_an_end_is_not_waited_for)
{
    char chunk[4097];

    memset(chunk, 'x', sizeof(chunk) - 1);
    chunk[sizeof(chunk) - 1] = '\0';
    say(endless[_i]);
    ck_assert_uint_le(flood(chunk), 1 << 20); /* the sockets' buffers hold most of it */
    ck_assert_uint_eq(world.heard_count, 0);
}
END_TEST

START_TEST(a_flood_is_read_in_bites)
{
    int64_t began = clock_monotonic_ms();
    size_t turns = 0;

    while (clock_monotonic_ms() - began < 300) {
        for (int i = 0; i < 100; i++)
            send(world.redis, "+a\r\n", 4, MSG_NOSIGNAL);
        turns += event_base_loop(world.base, EVLOOP_NONBLOCK) == 0;
    }
    ck_assert_int_eq(world.ended, 0);
    ck_assert_uint_gt(world.heard_count, 0);
    ck_assert_uint_le(world.heard_count, (size_t)(300 / PAUSE_MS + 2) * 8192 / 4);
    ck_assert_uint_gt(turns, 0);
}
END_TEST

START_TEST(commands_arrive_as_redis_reads_them)
{
    const char *const words[] = {"PUBLISH", "a:b", "hi"};
    char got[128] = "";

    ck_assert(redis_link_send(world.link, 3, words));
    ck_assert_int_gt(recv(world.redis, got, sizeof(got) - 1, 0), 0);
    ck_assert_str_eq(got, "*3\r\n$7\r\nPUBLISH\r\n$3\r\na:b\r\n$2\r\nhi\r\n");
}
END_TEST

START_TEST(commands_to_who_does_not_read_are_dropped)
{
    const char *const words[] = {"PUBLISH", "a:b", "hi"};
    size_t sent = 0;

    while (sent < 1000000 && redis_link_send(world.link, 3, words))
        sent++;
    ck_assert_uint_gt(sent, 0);
    ck_assert_uint_lt(sent, 1000000);
}
END_TEST

START_TEST(the_end_is_told_once)
{
    close(world.redis);
    world.redis = -1;
    LOOP_UNTIL(world.base, world.ended == 1);
    loop_settle(world.base);
    ck_assert_int_eq(world.ended, 1);
}
END_TEST

START_TEST(nobody_there_is_no_link)
{
    ck_assert_ptr_null(
        redis_link_open(world.base, "/tmp/caf-test-nobody", PAUSE_MS, &events, &world));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("redis_link");
    TCase *tests = suite_case(suite, "all");

    tcase_add_checked_fixture(tests, open_world, close_world);
    tcase_add_test(tests, a_message_is_three_words);
    tcase_add_test(tests, a_message_may_come_byte_by_byte);
    tcase_add_test(tests, many_messages_at_once_are_many);
    tcase_add_test(tests, an_error_is_one_word_and_ends_nothing);
    tcase_add_test(tests, a_long_word_is_kept_in_part_and_equals_nothing);
    tcase_add_loop_test(tests, what_is_none_of_ours_ends_the_link, 0, COUNT_OF(wrong));
    tcase_add_loop_test(tests, a_reply_without_an_end_is_not_waited_for, 0, COUNT_OF(endless));
    tcase_add_test(tests, a_flood_is_read_in_bites);
    tcase_add_test(tests, commands_arrive_as_redis_reads_them);
    tcase_add_test(tests, commands_to_who_does_not_read_are_dropped);
    tcase_add_test(tests, the_end_is_told_once);
    tcase_add_test(tests, nobody_there_is_no_link);
    return suite_run(suite);
}
