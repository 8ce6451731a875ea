/* Who is let in: limits in all and by address, the operators' share, and counts that come back to
 * nothing. */
#include "frontd/admission.h"

#include "common/log.h"
#include "tests/unit/suite.h"

#include <sys/resource.h>

enum { PLACES = 20 };

static struct admission admission;
static uint64_t refused[REFUSAL_COUNT];
static struct admission_place places[PLACES];

static struct address parse(const char *text)
{
    struct address address;

    ck_assert(address_parse(str_from(text), &address));
    return address;
}

static void open_with(int connections, int per_address, int handshakes, int per_address_handshakes)
{
    const struct frontd_options options = {
        .limits_connections = connections,
        .limits_connections_per_address = per_address,
        .limits_handshakes = handshakes,
        .limits_handshakes_per_address = per_address_handshakes,
        .limits_operators_percent = 10,
        .limits_in_flight = 15,
    };

    memset(places, 0, sizeof(places));
    memset(refused, 0, sizeof(refused));
    admission_open(&admission, &options, refused);
}

static enum refusal enter(int place, const char *text)
{
    struct address address = text ? parse(text) : (struct address){{0}};
    enum refusal refusal = admission_check(&admission, text ? &address : NULL);

    if (refusal == REFUSAL_NONE)
        admission_enter(&admission, text ? &address : NULL, &places[place]);
    return refusal;
}

static void leave_all(void)
{
    for (int i = 0; i < PLACES; i++)
        admission_leave(&admission, &places[i]);
    ck_assert_uint_eq(admission.connections, 0);
    ck_assert_uint_eq(admission.handshakes, 0);
    ck_assert_ptr_null(admission.by_address);
}

START_TEST(test_connections_in_all)
{
    open_with(3, 10, 10, 10);
    ck_assert_int_eq(enter(0, "192.0.2.1"), REFUSAL_NONE);
    ck_assert_int_eq(enter(1, "192.0.2.2"), REFUSAL_NONE);
    ck_assert_int_eq(enter(2, NULL), REFUSAL_NONE);
    ck_assert_int_eq(enter(3, "192.0.2.3"), REFUSAL_connections);
    ck_assert_int_eq(enter(3, NULL), REFUSAL_connections);
    admission_leave(&admission, &places[1]);
    admission_leave(&admission, &places[1]);
    ck_assert_int_eq(enter(3, "192.0.2.3"), REFUSAL_NONE);
    ck_assert_int_eq(enter(4, "192.0.2.3"), REFUSAL_connections);
    leave_all();
}
END_TEST

START_TEST(test_connections_of_an_address)
{
    open_with(20, 2, 20, 20);
    ck_assert_int_eq(enter(0, "192.0.2.1"), REFUSAL_NONE);
    ck_assert_int_eq(enter(1, "::ffff:192.0.2.1"), REFUSAL_NONE);
    ck_assert_int_eq(enter(2, "192.0.2.1"), REFUSAL_connections_per_address);
    ck_assert_int_eq(enter(2, "192.0.2.2"), REFUSAL_NONE);
    ck_assert_int_eq(enter(3, "2001:db8::1"), REFUSAL_NONE);
    ck_assert_int_eq(enter(4, "2001:db8::2"), REFUSAL_NONE);
    ck_assert_int_eq(enter(5, "2001:db8::3"), REFUSAL_connections_per_address);
    ck_assert_int_eq(enter(5, "2001:db8:0:1::3"), REFUSAL_NONE);
    admission_leave(&admission, &places[0]);
    ck_assert_int_eq(enter(6, "192.0.2.1"), REFUSAL_NONE);
    leave_all();
}
END_TEST

START_TEST(test_handshakes)
{
    open_with(20, 20, 3, 2);
    ck_assert_int_eq(enter(0, "192.0.2.1"), REFUSAL_NONE);
    ck_assert_int_eq(enter(1, "192.0.2.1"), REFUSAL_NONE);
    ck_assert_int_eq(enter(2, "192.0.2.1"), REFUSAL_handshakes_per_address);
    ck_assert_int_eq(enter(2, "192.0.2.2"), REFUSAL_NONE);
    ck_assert_int_eq(enter(3, "192.0.2.3"), REFUSAL_handshakes);
    admission_handshake_over(&admission, &places[0]);
    admission_handshake_over(&admission, &places[0]);
    ck_assert_int_eq(enter(3, "192.0.2.1"), REFUSAL_NONE);
    ck_assert_int_eq(enter(4, "192.0.2.9"), REFUSAL_handshakes);
    leave_all();
}
END_TEST

/* A proxy's own address has no limit; the address that it names has. */
START_TEST(test_behind_a_proxy)
{
    struct address client = parse("192.0.2.1");

    open_with(20, 2, 20, 20);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(enter(i, NULL), REFUSAL_NONE);
    ck_assert_int_eq(admission_name(&admission, &client, &places[0]), REFUSAL_NONE);
    ck_assert_int_eq(admission_name(&admission, &client, &places[1]), REFUSAL_NONE);
    ck_assert_int_eq(admission_name(&admission, &client, &places[2]),
                     REFUSAL_connections_per_address);
    ck_assert_int_eq(enter(5, "192.0.2.1"), REFUSAL_connections_per_address);
    admission_leave(&admission, &places[0]);
    ck_assert_int_eq(admission_name(&admission, &client, &places[2]), REFUSAL_NONE);
    leave_all();
}
END_TEST

START_TEST(test_the_operators_share)
{
    open_with(20, 20, 20, 20);
    for (int i = 0; i < 18; i++)
        enter(i, "192.0.2.1");
    ck_assert(!admission_in_reserve(&admission));
    enter(18, "192.0.2.1");
    ck_assert(admission_in_reserve(&admission));
    admission_leave(&admission, &places[3]);
    ck_assert(!admission_in_reserve(&admission));
    ck_assert_uint_eq(admission.in_flight_open_to_all, 14);
    leave_all();
}
END_TEST

/* Descriptors are the bound that no option lifts. */
START_TEST(test_descriptors)
{
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit = (struct rlimit){256, 2000};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    open_with(500, 500, 500, 500);
    ck_assert_uint_eq(admission.connections_max, 500);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert(limit.rlim_cur > 1500 && limit.rlim_cur < 2000);
    open_with(5000, 500, 500, 500);
    ck_assert(admission.connections_max > 500 && admission.connections_max < 2000);
    ck_assert(admission.connections_open_to_all < admission.connections_max);
}
END_TEST

START_TEST(test_counts)
{
    open_with(20, 20, 20, 20);
    for (int i = 0; i < 5; i++)
        admission_count(&admission, REFUSAL_body_time);
    ck_assert_uint_eq(refused[REFUSAL_body_time], 5);
    ck_assert_uint_eq(refused[REFUSAL_header_time], 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("admission");
    TCase *tests = suite_case(suite, "all");

    log_open("test_admission", LOG_LEVEL_ERROR);
    tcase_add_test(tests, test_connections_in_all);
    tcase_add_test(tests, test_connections_of_an_address);
    tcase_add_test(tests, test_handshakes);
    tcase_add_test(tests, test_behind_a_proxy);
    tcase_add_test(tests, test_the_operators_share);
    tcase_add_test(tests, test_descriptors);
    tcase_add_test(tests, test_counts);
    return suite_run(suite);
}
