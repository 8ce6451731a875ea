/* Every way in which a channel ends, from either side and at any moment; and the descriptors that
 * travel on it, which must neither be lost, nor mixed up, nor leak. */
#include "common/ipc_internal.h"
#include "tests/unit/ipc_world.h"

#include <sys/mman.h>
#include <sys/resource.h>

START_TEST(what_came_before_the_end_is_delivered)
{
    shake_hands();
    peer_ask(&world.peer, 1);
    peer_ask(&world.peer, 2);
    peer_free(&world.peer);
    LOOP_UNTIL(world.base, world.ends == 1);
    ck_assert_str_eq(world.why, "end of file");
    ck_assert_uint_eq(world.messages, 2);
}
END_TEST

static void answer_at_once(void)
{
    const struct msg_mesh_agent body = {STR("{}")};
    struct request_id id = numbered(1);

    if (world.channel)
        ck_assert(ipc_channel_send(world.channel, MSG_mesh_agent, &id, &body, -1));
}

START_TEST(what_a_dead_peer_left_is_delivered_though_no_answer_reaches_it)
{
    enum { ASKED = 200 };

    shake_hands();
    world.on_message = answer_at_once;
    for (int i = 0; i < ASKED; i++)
        peer_ask(&world.peer, 1);
    peer_free(&world.peer);
    LOOP_UNTIL(world.base, world.ends == 1);
    ck_assert_uint_eq(world.messages, ASKED);
}
END_TEST

START_TEST(so_it_is_when_its_answers_were_too_many)
{
    enum { ASKED = 200, SMALL = 100 };
    int least = 1;

    shake_hands();
    setsockopt(world.peer.fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
    ipc_channel_limit_unsent(world.channel, SMALL);
    world.on_message = answer_at_once;
    for (int i = 0; i < ASKED; i++)
        peer_ask(&world.peer, 1);
    while (ipc_channel_unsent(world.channel) <= SMALL) /* the kernel takes some for itself */
        answer_at_once();
    loop_settle(world.base);
    ck_assert_uint_lt(world.messages, ASKED);
    peer_free(&world.peer);
    LOOP_UNTIL(world.base, world.ends == 1);
    ck_assert_uint_eq(world.messages, ASKED);
}
END_TEST

START_TEST(a_peer_may_end_in_the_middle_of_a_frame)
{
    static const size_t cuts[] = {1, 3, 4, 5, 30};
    const struct msg_mesh_self body = {STR("acme"), STR("spiffe://td/agent/acme/a")};
    struct frame frame = frame_of(MSG_mesh_self, numbered(0), &body);

    shake_hands();
    peer_write(&world.peer, frame.bytes, cuts[_i]);
    loop_settle(world.base);
    ck_assert_int_eq(world.ends, 0);
    peer_free(&world.peer);
    LOOP_UNTIL(world.base, world.ends == 1);
    ck_assert_str_eq(world.why, "end of file");
    ck_assert_uint_eq(world.messages, 0);
    free(frame.bytes);
}
END_TEST

START_TEST(sending_on_an_ended_channel_does_nothing)
{
    const struct msg_mesh_agent body = {STR("{}")};
    struct request_id id = numbered(1);

    shake_hands();
    peer_free(&world.peer);
    world.sending = true;
    for (int i = 0; i < 5; i++) /* the first finds out; each gives a descriptor away */
        ck_assert(ipc_channel_send(world.channel, MSG_mesh_agent, &id, &body, dup(0)));
    ck_assert_int_eq(world.ends, 0);
    world.sending = false;
    LOOP_UNTIL(world.base, world.ends == 1);
    loop_settle(world.base);
    ck_assert_int_eq(world.ends, 1);
}
END_TEST

START_TEST(a_message_out_of_bounds_is_not_sent_and_ends_nothing)
{
    const struct msg_mesh_agent bad = {STR("{")}, good = {STR("{}")};
    struct request_id id = numbered(1);
    struct message message;

    shake_hands();
    ck_assert(!ipc_channel_send(world.channel, MSG_mesh_agent, &id, &bad, dup(0)));
    ck_assert(ipc_channel_send(world.channel, MSG_mesh_agent, &id, &good, -1));
    peer_expect(world.base, &world.peer, PEER_REGISTRYD, MSG_mesh_agent, &message);
    ck_assert_int_eq(world.ends, 0);
}
END_TEST

START_TEST(what_was_said_before_a_close_arrives)
{
    const struct msg_mesh_agent body = {STR("{}")};
    struct request_id id = numbered(1);
    struct message message;

    shake_hands();
    for (int i = 0; i < 3; i++)
        ck_assert(ipc_channel_send(world.channel, MSG_mesh_agent, &id, &body, -1));
    ipc_channel_close(world.channel);
    world.channel = NULL;
    for (int i = 0; i < 3; i++)
        peer_expect(world.base, &world.peer, PEER_REGISTRYD, MSG_mesh_agent, &message);
}
END_TEST

static void close_now(void)
{
    ipc_channel_close(world.channel);
    world.channel = NULL;
}

START_TEST(a_callback_may_close_the_channel)
{
    world.on_message = close_now;
    shake_hands();
    for (uint8_t i = 0; i < 10; i++)
        peer_ask(&world.peer, i);
    LOOP_UNTIL(world.base, world.channel == NULL);
    LOOP_UNTIL(world.base, peer_is_left(&world.peer));
    loop_settle(world.base);
    ck_assert_uint_eq(world.messages, 1);
    ck_assert_int_eq(world.ends, 0);
}
END_TEST

START_TEST(no_callback_comes_after_a_close)
{
    shake_hands();
    peer_ask(&world.peer, 1);
    peer_write(&world.peer, "\0\0\0\0", 4);
    close_now(); /* a message and an end were on their way */
    loop_settle(world.base);
    ck_assert_uint_eq(world.messages, 0);
    ck_assert_int_eq(world.ends, 0);
}
END_TEST

static void close_after_break(void)
{
    const struct msg_mesh_agent body = {STR("{}")};
    struct request_id id = numbered(1);

    peer_free(&world.peer);
    ipc_channel_send(world.channel, MSG_mesh_agent, &id, &body, -1); /* finds the peer gone */
    close_now();
}

START_TEST(a_callback_may_close_a_channel_that_has_just_ended)
{
    world.on_message = close_after_break;
    shake_hands();
    peer_ask(&world.peer, 1);
    LOOP_UNTIL(world.base, world.channel == NULL);
    loop_settle(world.base);
    ck_assert_int_eq(world.ends, 0);
}
END_TEST

static void stop_reading(void)
{
    ipc_channel_stop_reading(world.channel);
}

START_TEST(stopped_reading_leaves_sending)
{
    const struct msg_mesh_agent body = {STR("{}")};
    struct request_id id = numbered(1);
    struct message message;

    world.on_message = stop_reading;
    shake_hands();
    peer_ask(&world.peer, 1);
    peer_ask(&world.peer, 2);
    LOOP_UNTIL(world.base, world.messages == 1);
    peer_ask(&world.peer, 3);
    loop_settle(world.base);
    ck_assert_uint_eq(world.messages, 1);
    ck_assert(ipc_channel_send(world.channel, MSG_mesh_agent, &id, &body, -1));
    peer_expect(world.base, &world.peer, PEER_REGISTRYD, MSG_mesh_agent, &message);
    ck_assert_int_eq(world.ends, 0);
}
END_TEST

/* ---- descriptors ----------------------------------------------------------------------------- */

/* A descriptor that can be told from all others: a file that holds its number. */
static int numbered_file(int number)
{
    int file = memfd_create("numbered", MFD_CLOEXEC);

    ck_assert_int_eq(pwrite(file, &number, sizeof(number), 0), sizeof(number));
    return file;
}

/* Takes the channel's oldest descriptor, and returns its number; -1: there is none. */
static int take_number(void)
{
    int file = ipc_channel_take_descriptor(world.channel), number = -1;

    if (file >= 0) {
        ASSERT_QUIETLY(fcntl(file, F_GETFD) & FD_CLOEXEC, "a child would inherit it");
        ASSERT_QUIETLY(pread(file, &number, sizeof(number), 0) == sizeof(number), "no number");
        close(file);
    }
    return number;
}

static int files_taken;

/* The world's messages of even number bring a descriptor each. */
static void take_file_of_even(void)
{
    if (world.seen[world.messages - 1] % 2 == 0) {
        int number = take_number();

        ASSERT_QUIETLY(number == files_taken, "file %d instead of %d", number, files_taken);
        files_taken++;
    }
}

static void ignore_message(struct ipc_channel *channel, const struct message *message, void *arg)
{
    (void)channel;
    (void)message;
    (void)arg;
}

static const struct ipc_channel_events ignoring = {ignore_message, take_end};

/* Opens the world as a worker, and returns the supervisor's channel at its other end. */
static struct ipc_channel *open_between_channels(void)
{
    struct ipc_channel *supervisor;
    int small = 1, fd;

    close_world();
    open_as(PEER_FRONTD, PEER_SUPERVISOR);
    fd = world.peer.fd;
    world.peer.fd = -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)); /* the kernel's least */
    supervisor = ipc_channel_new(world.base, fd, PEER_SUPERVISOR, PEER_FRONTD, &ignoring, &world);
    LOOP_UNTIL(world.base, ipc_channel_peer(world.channel) && ipc_channel_peer(supervisor));
    return supervisor;
}

START_TEST(descriptors_keep_their_place_among_frames_in_pieces)
{
    enum { FILES = 60 };
    static const struct msg_listener nothing;
    struct ipc_channel *supervisor = open_between_channels();
    char *text = calloc(1, 100000);
    int before = open_descriptors();

    world.on_message = take_file_of_even;
    memset(text, 'x', 100000);
    for (int i = 0; i < FILES; i++) {
        struct msg_configure configure = {.text = {text, 1 + (size_t)i * 7919 % 100000}};
        struct request_id even = numbered(0), odd = numbered(1);

        if (i % 3 != 0) /* some stand back to back */
            ipc_channel_send(supervisor, MSG_configure, &odd, &configure, -1);
        ck_assert(ipc_channel_send(supervisor, MSG_listener, &even, &nothing, numbered_file(i)));
    }
    ck_assert_uint_gt(ipc_channel_unsent(supervisor), 100000);
    LOOP_UNTIL(world.base, files_taken == FILES);
    LOOP_UNTIL(world.base, world.messages == FILES + FILES * 2 / 3);
    ck_assert_int_eq(take_number(), -1);
    ck_assert_int_eq(open_descriptors(), before);
    ipc_channel_close(supervisor);
    free(text);
}
END_TEST

START_TEST(descriptors_not_yet_sent_are_closed_with_the_channel)
{
    static const struct msg_listener nothing;
    struct ipc_channel *supervisor = open_between_channels();
    struct request_id id = numbered(0);
    int before = open_descriptors();

    for (int i = 0; i < 2000; i++)
        ck_assert(ipc_channel_send(supervisor, MSG_listener, &id, &nothing, dup(0)));
    ck_assert_uint_gt(ipc_channel_unsent(supervisor), 0);
    ck_assert_int_gt(open_descriptors(), before);
    ipc_channel_close(supervisor);
    ck_assert_int_eq(open_descriptors(), before - 1);
}
END_TEST

/* Sends a whole frame with count copies of standard input. */
static void send_with_files(size_t count)
{
    const struct msg_mesh_self body = {STR("acme"), STR("spiffe://td/agent/acme/a")};
    struct frame frame = frame_of(MSG_mesh_self, numbered(1), &body);
    char control[CMSG_SPACE(64 * sizeof(int))] __attribute__((aligned(8))) = {0};
    struct iovec part = {frame.bytes, frame.len};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *attached = CMSG_FIRSTHDR(&header);

    attached->cmsg_level = SOL_SOCKET;
    attached->cmsg_type = SCM_RIGHTS;
    attached->cmsg_len = CMSG_LEN(count * sizeof(int)); /* all zero: descriptor 0 */
    ck_assert_int_eq(sendmsg(world.peer.fd, &header, MSG_NOSIGNAL), (ssize_t)frame.len);
    free(frame.bytes);
}

/* The channel ended for that reason, when messages had been delivered, and everything that came on
 * it is closed. before: the descriptors that were open while it stood. */
static void assert_descriptors_lost(int before, size_t messages)
{
    ck_assert_str_eq(world.why, "descriptors lost");
    ck_assert_uint_eq(world.messages, messages);
    ck_assert_int_eq(open_descriptors(), before - 1);
}

START_TEST(descriptors_that_nobody_takes_are_bounded)
{
    static const size_t at_once[] = {1, 4};
    size_t sent = 0;
    int before;

    shake_hands();
    before = open_descriptors();
    for (; sent < 16; sent += at_once[_i])
        send_with_files(at_once[_i]);
    LOOP_UNTIL(world.base, world.messages == sent / at_once[_i]);
    ck_assert_int_eq(open_descriptors(), before + 16);
    ck_assert_int_eq(world.ends, 0);
    send_with_files(at_once[_i]);
    LOOP_UNTIL(world.base, world.ends == 1);
    assert_descriptors_lost(before, sent / at_once[_i]);
}
END_TEST

START_TEST(more_descriptors_than_a_read_takes_end_the_channel)
{
    static const size_t at_once[] = {5, 64};
    int before;

    shake_hands();
    before = open_descriptors();
    send_with_files(at_once[_i]);
    send_with_files(1);
    LOOP_UNTIL(world.base, world.ends == 1);
    assert_descriptors_lost(before, 0);
}
END_TEST

/* The process can open nothing more; the bound before. */
static struct rlimit forbid_descriptors(void)
{
    struct rlimit before, none;
    int first_free = dup(0);

    close(first_free);
    getrlimit(RLIMIT_NOFILE, &before);
    none = (struct rlimit){(rlim_t)first_free, before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    return before;
}

START_TEST(a_descriptor_that_the_process_has_no_room_for_ends_the_channel)
{
    struct rlimit bound;
    int before;

    shake_hands();
    before = open_descriptors();
    bound = forbid_descriptors();
    peer_ask(&world.peer, 1);
    LOOP_UNTIL(world.base, world.messages == 1);
    send_with_files(1);
    send_with_files(1);
    LOOP_UNTIL(world.base, world.ends == 1);
    setrlimit(RLIMIT_NOFILE, &bound);
    assert_descriptors_lost(before, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ipc_end");
    TCase *ends = suite_case(suite, "ends");
    TCase *descriptors = suite_case(suite, "descriptors");

    tcase_add_checked_fixture(ends, open_world, close_world);
    tcase_add_checked_fixture(descriptors, open_world, close_world);
    tcase_add_test(ends, what_came_before_the_end_is_delivered);
    tcase_add_test(ends, what_a_dead_peer_left_is_delivered_though_no_answer_reaches_it);
    tcase_add_test(ends, so_it_is_when_its_answers_were_too_many);
    tcase_add_loop_test(ends, a_peer_may_end_in_the_middle_of_a_frame, 0, 5);
    tcase_add_test(ends, sending_on_an_ended_channel_does_nothing);
    tcase_add_test(ends, a_message_out_of_bounds_is_not_sent_and_ends_nothing);
    tcase_add_test(ends, what_was_said_before_a_close_arrives);
    tcase_add_test(ends, a_callback_may_close_the_channel);
    tcase_add_test(ends, no_callback_comes_after_a_close);
    tcase_add_test(ends, a_callback_may_close_a_channel_that_has_just_ended);
    tcase_add_test(ends, stopped_reading_leaves_sending);
    tcase_add_test(descriptors, descriptors_keep_their_place_among_frames_in_pieces);
    tcase_add_test(descriptors, descriptors_not_yet_sent_are_closed_with_the_channel);
    tcase_add_loop_test(descriptors, descriptors_that_nobody_takes_are_bounded, 0, 2);
    tcase_add_loop_test(descriptors, more_descriptors_than_a_read_takes_end_the_channel, 0, 2);
    tcase_add_test(descriptors, a_descriptor_that_the_process_has_no_room_for_ends_the_channel);
    return suite_run(suite);
}
