/* Sockets on which all is said, over real ones: what closes them, and that one address cannot have
 * the places of all. */
#include "frontd/lingering.h"

#include "tests/unit/suite.h"

#include <event2/event.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PER_ADDRESS = 3, SOCKETS_MAX = LINGERING_MAX + 16 };

static struct lingering lingering;
static int clients[SOCKETS_MAX], gone;

static void count_gone(void *arg)
{
    (void)arg;
    gone++;
}

static void open_lingering(void)
{
    gone = 0;
    lingering = (struct lingering){.base = event_base_new(), .gone = count_gone};
    lingering_open(&lingering, PER_ADDRESS);
    for (int i = 0; i < SOCKETS_MAX; i++)
        clients[i] = -1;
}

static void close_lingering(void)
{
    lingering_close_all(&lingering);
    ck_assert_uint_eq(lingering.count, 0);
    ck_assert_ptr_null(lingering.by_address);
    event_base_free(lingering.base);
    for (int i = 0; i < SOCKETS_MAX; i++)
        if (clients[i] >= 0)
            close(clients[i]);
}

/* Has the other end of the client's socket linger, as that address'; NULL: a trusted proxy's. */
static void linger(int client, const char *text)
{
    struct address address;
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    clients[client] = ends[0];
    if (text)
        ck_assert(address_parse(str_from(text), &address));
    lingering_take(&lingering, ends[1], text ? &address : NULL);
}

/* Whether the client's socket has somebody at its other end. */
static bool lingers(int client)
{
    return send(clients[client], "x", 1, MSG_NOSIGNAL) == 1;
}

START_TEST(one_address_loses_its_own_oldest)
{
    linger(0, "192.0.2.2");
    for (int i = 1; i <= PER_ADDRESS; i++)
        linger(i, "192.0.2.1");
    ck_assert_int_eq(gone, 0);
    linger(4, "192.0.2.1");
    linger(5, "192.0.2.1");
    ck_assert_int_eq(gone, 2);
    ck_assert(lingers(0));
    ck_assert(!lingers(1) && !lingers(2));
    ck_assert(lingers(3) && lingers(4) && lingers(5));
}
END_TEST

START_TEST(an_ipv6_network_is_one_address)
{
    linger(0, "2001:db8::1");
    linger(1, "2001:db8::2");
    linger(2, "2001:db8::3:0:0:1");
    linger(3, "2001:db8:0:1::1");
    ck_assert_int_eq(gone, 0);
    linger(4, "2001:db8::4");
    ck_assert(!lingers(0));
    ck_assert(lingers(1) && lingers(2) && lingers(3) && lingers(4));
}
END_TEST

START_TEST(a_place_comes_back_with_the_clients_end)
{
    for (int i = 0; i < PER_ADDRESS; i++)
        linger(i, "192.0.2.1");
    close(clients[1]);
    clients[1] = -1;
    while (gone == 0)
        event_base_loop(lingering.base, EVLOOP_ONCE);
    linger(3, "192.0.2.1");
    ck_assert_int_eq(gone, 1);
    ck_assert(lingers(0) && lingers(2) && lingers(3));
}
END_TEST

START_TEST(a_trusted_proxys_own_are_bounded_in_all_alone)
{
    linger(0, "192.0.2.1");
    for (int i = 1; i < LINGERING_MAX; i++)
        linger(i, NULL);
    ck_assert_int_eq(gone, 0);
    linger(LINGERING_MAX, NULL);
    ck_assert_int_eq(gone, 1);
    ck_assert(!lingers(0) && lingers(1));
    ck_assert_uint_eq(lingering.count, LINGERING_MAX);
    ck_assert_ptr_null(lingering.by_address);
}
END_TEST

/* Both ends of all of them are here. */
static void raise_descriptors(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(void)
{
    Suite *suite = suite_create("lingering");
    TCase *sockets = suite_case(suite, "sockets");

    raise_descriptors();
    tcase_add_checked_fixture(sockets, open_lingering, close_lingering);
    tcase_add_test(sockets, one_address_loses_its_own_oldest);
    tcase_add_test(sockets, an_ipv6_network_is_one_address);
    tcase_add_test(sockets, a_place_comes_back_with_the_clients_end);
    tcase_add_test(sockets, a_trusted_proxys_own_are_bounded_in_all_alone);
    return suite_run(suite);
}
