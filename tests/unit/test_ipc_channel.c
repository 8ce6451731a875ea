/* One framed channel against a bare socket at its other end: HELLO, hostile frames, and frames in
 * pieces and in heaps. */
#include "tests/unit/ipc_world.h"

static void assert_refused(enum ipc_refusal refusal)
{
    LOOP_UNTIL(world.base, world.ends > 0);
    loop_settle(world.base);
    ck_assert_int_eq(world.ends, 1);
    ck_assert_int_eq(world.refusal, refusal);
}

/* ---- HELLO ----------------------------------------------------------------------------------- */

START_TEST(both_say_hello_first)
{
    struct message message;

    peer_expect(world.base, &world.peer, PEER_REGISTRYD, MSG_hello, &message);
    ck_assert_uint_eq(message.body.hello.version, PROTO_VERSION);
    ck_assert(str_equal(message.body.hello.daemon, STR("registryd")));
    ck_assert_int_eq(ipc_channel_peer(world.channel), 0);
    peer_say_hello(&world.peer, "frontd");
    peer_ask(&world.peer, 7);
    LOOP_UNTIL(world.base, world.messages == 1);
    ck_assert_int_eq(ipc_channel_peer(world.channel), PEER_FRONTD);
    ck_assert_int_eq(world.seen[0], 7);
    ck_assert_int_eq(world.ends, 0);
}
END_TEST

static const struct {
    uint64_t version;
    struct str daemon;
} wrong_hellos[] = {
    {PROTO_VERSION + 1, STR("frontd")}, {65535, STR("frontd")},
    {PROTO_VERSION, STR("supervisor")}, {PROTO_VERSION, STR("registryd")},
    {PROTO_VERSION, STR("unknown")},    {PROTO_VERSION, STR("FRONTD")},
    {PROTO_VERSION, STR("frontd2")},    {PROTO_VERSION, STR("f")},
};

START_TEST(a_wrong_hello_ends_the_channel)
{
    const struct msg_hello hello = {wrong_hellos[_i].version, wrong_hellos[_i].daemon, STR("x")};

    peer_send(&world.peer, MSG_hello, numbered(0), &hello); /* and nothing that it may not send */
    assert_refused(IPC_REFUSED_hello);
}
END_TEST

START_TEST(nothing_goes_before_hello)
{
    peer_ask(&world.peer, 1);
    peer_say_hello(&world.peer, "frontd");
    assert_refused(IPC_REFUSED_hello);
    ck_assert_uint_eq(world.messages, 0);
}
END_TEST

START_TEST(hello_is_said_once)
{
    shake_hands();
    peer_ask(&world.peer, 1);
    peer_say_hello(&world.peer, "frontd");
    peer_ask(&world.peer, 2);
    assert_refused(IPC_REFUSED_hello);
    ck_assert_uint_eq(world.messages, 1);
}
END_TEST

START_TEST(the_peer_is_the_one_of_many_that_it_says)
{
    static const char *const names[] = {"frontd", "supervisor", "auditd"};
    static const enum proto_peer peers[] = {PEER_FRONTD, PEER_SUPERVISOR, PEER_AUDITD};

    for (int i = 0; i < 3; i++) {
        close_world();
        open_as(PEER_REGISTRYD, PEER_FRONTD | PEER_SUPERVISOR | PEER_AUDITD);
        peer_say_hello(&world.peer, names[i]);
        LOOP_UNTIL(world.base, ipc_channel_peer(world.channel) != 0);
        ck_assert_int_eq(ipc_channel_peer(world.channel), peers[i]);
    }
}
END_TEST

/* ---- hostile frames -------------------------------------------------------------------------- */

static const struct {
    enum ipc_refusal refusal;
    struct str bytes;
} hostile[] = {
    {IPC_REFUSED_length, STR("\0\0\0\0")},              /* no payload */
    {IPC_REFUSED_length, STR("\0\x10\0\x01")},          /* 1 MiB and a byte: not waited for */
    {IPC_REFUSED_length, STR("\0\xff\xff\xff")},        /* 16 MiB */
    {IPC_REFUSED_length, STR("\xff\xff\xff\xff")},      /* 4 GiB */
    {IPC_REFUSED_length, STR("\x80\0\0\0")},            /* negative, for who reads it so */
    {IPC_REFUSED_malformed, STR("\0\0\0\x01\xc0")},     /* nil */
    {IPC_REFUSED_malformed, STR("\0\0\0\x01\x90")},     /* an empty array */
    {IPC_REFUSED_malformed, STR("\0\0\0\x02\x92\x22")}, /* an array that is cut */
    {IPC_REFUSED_malformed, STR("\0\0\0\x05\xdd\xff\xff\xff\xff")}, /* an array of 4 Gi items */
    {IPC_REFUSED_malformed, STR("\0\0\0\x04\x84\xa1z\xc0")},        /* a map */
    {IPC_REFUSED_malformed, STR("\0\0\0\x14\x92\x02\xc4\x10"
                                "0123456789abcdef")}, /* fail, that only a back daemon sends */
    {IPC_REFUSED_length, STR("\0\0\0\x14\x92\x03\xc4\x10"
                             "0123456789abcdefg")}, /* a good frame, and one byte */
    {IPC_REFUSED_length, STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {IPC_REFUSED_length,
     STR("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")}, /* a TLS ClientHello */
};

START_TEST(a_hostile_frame_ends_the_channel_and_nothing_else)
{
    shake_hands();
    peer_ask(&world.peer, 1);
    peer_write(&world.peer, hostile[_i].bytes.ptr, hostile[_i].bytes.len);
    if (hostile[_i].bytes.ptr[3] == 0x14) /* the good one needs a second, broken one */
        peer_write(&world.peer, "\0\0\0\0", 4);
    assert_refused(hostile[_i].refusal);
    LOOP_UNTIL(world.base, peer_is_left(&world.peer));
    ck_assert_uint_ge(world.messages, 1);
}
END_TEST

START_TEST(a_hostile_frame_before_hello_ends_the_channel)
{
    peer_write(&world.peer, hostile[_i].bytes.ptr, hostile[_i].bytes.len);
    LOOP_UNTIL(world.base, world.ends == 1);
    ck_assert_int_ne(world.refusal, IPC_REFUSAL_COUNT);
    ck_assert_uint_eq(world.messages, 0);
}
END_TEST

/* Writes as much as the socket takes, turning the loop, until all is written. */
static void write_through(const uint8_t *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t sent = send(world.peer.fd, bytes + at, len - at, MSG_NOSIGNAL);

        if (sent < 0)
            loop_turn(world.base);
        else
            at += (size_t)sent;
    }
}

START_TEST(a_frame_of_1_mib_is_whole_before_it_is_judged)
{
    uint8_t *frame = calloc(1, PROTO_FRAME_HEAD + PROTO_FRAME_MAX);

    shake_hands();
    frame[1] = 0x10; /* 0x00100000 */
    write_through(frame, PROTO_FRAME_HEAD + PROTO_FRAME_MAX - 1);
    loop_settle(world.base);
    ck_assert_int_eq(world.ends, 0);
    write_through(frame, 1);
    assert_refused(IPC_REFUSED_malformed);
    free(frame);
}
END_TEST

START_TEST(the_longest_message_arrives)
{
    enum { LONGEST = 1000000 };
    char *text = malloc(LONGEST);
    struct msg_event_page page = {.page = {text, LONGEST}};
    struct frame frame;

    close_world();
    open_as(PEER_FRONTD, PEER_EVENTD);
    peer_say_hello(&world.peer, "eventd");
    memset(text, 'x', LONGEST);
    frame = frame_of(MSG_event_page, numbered(9), &page);
    write_through(frame.bytes, frame.len);
    LOOP_UNTIL(world.base, world.messages == 1);
    ck_assert_uint_eq(world.last_length, LONGEST);
    free(frame.bytes);
    free(text);
}
END_TEST

/* ---- pieces ---------------------------------------------------------------------------------- */

START_TEST(frames_may_come_in_single_bytes)
{
    const struct msg_mesh_self body = {STR("acme"), STR("spiffe://td/agent/acme/a")};

    shake_hands();
    for (uint8_t i = 0; i < 3; i++) {
        struct frame frame = frame_of(MSG_mesh_self, numbered(i), &body);

        for (size_t at = 0; at < frame.len; at++) {
            ck_assert_uint_eq(world.messages, i);
            peer_write(&world.peer, frame.bytes + at, 1);
            event_base_loop(world.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
        }
        LOOP_UNTIL(world.base, world.messages == i + 1U);
        free(frame.bytes);
    }
    ck_assert_int_eq(world.ends, 0);
}
END_TEST

START_TEST(many_frames_may_come_at_once)
{
    enum { FRAMES = 600 };
    const struct msg_mesh_self body = {STR("acme"), STR("spiffe://td/agent/acme/a")};
    struct frame frame = frame_of(MSG_mesh_self, numbered(0), &body);
    uint8_t *all = malloc(frame.len * FRAMES);

    shake_hands();
    for (size_t i = 0; i < FRAMES; i++) {
        memcpy(all + i * frame.len, frame.bytes, frame.len);
        all[i * frame.len + 4 + 1 + 1 + 2 + 15] = (uint8_t)i; /* length, array, type, bin: the id */
    }
    write_through(all, frame.len * FRAMES);
    LOOP_UNTIL(world.base, world.messages == FRAMES);
    for (size_t i = 0; i < FRAMES; i++)
        ASSERT_QUIETLY(world.seen[i] == (uint8_t)i, "frame %zu out of order", i);
    free(all);
    free(frame.bytes);
}
END_TEST

START_TEST(a_slow_reader_gets_everything)
{
    enum { PAGES = 100, PAGE = 50000 };
    char *text = calloc(1, PAGE);
    const struct msg_mesh_agent body = {{memset(text, 'x', PAGE), PAGE}};
    struct message message;

    shake_hands();
    for (uint8_t i = 0; i < PAGES; i++)
        ck_assert(ipc_channel_send(world.channel, MSG_mesh_agent, &(struct request_id){{[15] = i}},
                                   &body, -1));
    loop_settle(world.base);
    ck_assert_uint_gt(ipc_channel_unsent(world.channel), PAGE);
    for (uint8_t i = 0; i < PAGES; i++) {
        peer_expect(world.base, &world.peer, PEER_REGISTRYD, MSG_mesh_agent, &message);
        ck_assert_int_eq(message.id.bytes[15], i);
        ck_assert_uint_eq(message.body.mesh_agent.agent.len, PAGE);
    }
    ck_assert_uint_eq(ipc_channel_unsent(world.channel), 0);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ipc_channel");
    TCase *hello = suite_case(suite, "hello");
    TCase *frames = suite_case(suite, "frames");

    tcase_add_checked_fixture(hello, open_world, close_world);
    tcase_add_checked_fixture(frames, open_world, close_world);
    tcase_add_test(hello, both_say_hello_first);
    tcase_add_loop_test(hello, a_wrong_hello_ends_the_channel, 0, COUNT_OF(wrong_hellos));
    tcase_add_test(hello, nothing_goes_before_hello);
    tcase_add_test(hello, hello_is_said_once);
    tcase_add_test(hello, the_peer_is_the_one_of_many_that_it_says);
    tcase_add_loop_test(frames, a_hostile_frame_ends_the_channel_and_nothing_else, 0,
                        COUNT_OF(hostile));
    tcase_add_loop_test(frames, a_hostile_frame_before_hello_ends_the_channel, 0,
                        COUNT_OF(hostile));
    tcase_add_test(frames, a_frame_of_1_mib_is_whole_before_it_is_judged);
    tcase_add_test(frames, the_longest_message_arrives);
    tcase_add_test(frames, frames_may_come_in_single_bytes);
    tcase_add_test(frames, many_frames_may_come_at_once);
    tcase_add_test(frames, a_slow_reader_gets_everything);
    return suite_run(suite);
}
