/* The two clocks and the spelling of times. */
#include "common/clock.h"

#include "tests/unit/suite.h"

#include <time.h>

static const struct {
    int64_t ms;
    const char *text;
} times[] = {
    {0, "1970-01-01T00:00:00.000Z"},
    {1, "1970-01-01T00:00:00.001Z"},
    {999, "1970-01-01T00:00:00.999Z"},
    {951782399999, "2000-02-28T23:59:59.999Z"},
    {951782400000, "2000-02-29T00:00:00.000Z"},
    {1767323045678, "2026-01-02T03:04:05.678Z"},
    {4107542400000, "2100-03-01T00:00:00.000Z"},
    {4107542399999, "2100-02-28T23:59:59.999Z"}, /* 2100 is no leap year */
    {253402300799999, "9999-12-31T23:59:59.999Z"},
};

START_TEST(times_are_rfc_3339_utc_with_milliseconds)
{
    char text[CLOCK_TEXT_BYTES];

    clock_format(times[_i].ms, text);
    ck_assert_str_eq(text, times[_i].text);
}
END_TEST

START_TEST(no_local_time_zone_changes_the_text)
{
    char text[CLOCK_TEXT_BYTES];

    setenv("TZ", "Asia/Kathmandu", 1);
    tzset();
    clock_format(0, text);
    ck_assert_str_eq(text, "1970-01-01T00:00:00.000Z");
}
END_TEST

START_TEST(what_rfc_3339_cannot_say_is_the_nearest_that_it_can)
{
    static const struct {
        int64_t ms;
        const char *text;
    } far[] = {
        {253402300800000, "9999-12-31T23:59:59.999Z"},
        {INT64_MAX, "9999-12-31T23:59:59.999Z"},
        {-1, "1970-01-01T00:00:00.000Z"},
        {INT64_MIN, "1970-01-01T00:00:00.000Z"},
    };

    for (size_t i = 0; i < COUNT_OF(far); i++) {
        char *text = malloc(CLOCK_TEXT_BYTES); /* a sanitizer sees a byte too many */

        clock_format(far[i].ms, text);
        ck_assert_str_eq(text, far[i].text);
        free(text);
    }
}
END_TEST

START_TEST(libevent_gets_seconds_and_microseconds)
{
    static const struct {
        int64_t ms;
        long seconds, microseconds;
    } rows[] = {{0, 0, 0},         {1, 0, 1000}, {999, 0, 999000}, {1000, 1, 0},
                {1500, 1, 500000}, {-1, 0, 0},   {-5000, 0, 0}};

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct timeval time = clock_timeval(rows[i].ms);

        ck_assert_int_eq(time.tv_sec, rows[i].seconds);
        ck_assert_int_eq(time.tv_usec, rows[i].microseconds);
    }
}
END_TEST

START_TEST(the_clocks_count_milliseconds)
{
    struct timespec pause = {.tv_nsec = 20 * 1000000};
    int64_t monotonic = clock_monotonic_ms(), wall = clock_wall_ms();
    time_t now = time(NULL);

    ck_assert_int_le(llabs(wall / 1000 - (long long)now), 1);
    nanosleep(&pause, NULL);
    monotonic = clock_monotonic_ms() - monotonic;
    wall = clock_wall_ms() - wall;
    ck_assert(monotonic >= 19 && monotonic < 10000);
    ck_assert(wall >= 19 && wall < 10000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clock");
    TCase *clocks = suite_case(suite, "clocks");

    tcase_add_loop_test(clocks, times_are_rfc_3339_utc_with_milliseconds, 0, COUNT_OF(times));
    tcase_add_test(clocks, no_local_time_zone_changes_the_text);
    tcase_add_test(clocks, what_rfc_3339_cannot_say_is_the_nearest_that_it_can);
    tcase_add_test(clocks, libevent_gets_seconds_and_microseconds);
    tcase_add_test(clocks, the_clocks_count_milliseconds);
    return suite_run(suite);
}
