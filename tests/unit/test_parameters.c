/* Queries by tables: what each type takes, percent-decoding, RFC 3339 times, and that everything
 * else is 400 with the parameter named. */
#include "common/memory.h"
#include "frontd/members.h"
#include "tests/unit/exchange_stand_in.h"

enum { TEXT, NUMBER, TIME, HOST, CHOICE, COUNT };

static const struct parameter rows[COUNT] = {
    [TEXT] = {"text", PARAMETER_TEXT, 1, 8, NULL},
    [NUMBER] = {"number", PARAMETER_NUMBER, 2, 1000, NULL},
    [TIME] = {"time", PARAMETER_TIME, 0, 0, NULL},
    [HOST] = {"host", PARAMETER_HOSTNAME, 1, 20, NULL},
    [CHOICE] = {.name = "choice", .type = PARAMETER_CHOICE, .choices = "one, two, three"},
};

/* Reads the query from a copy of exactly its bytes. */
static bool read_query(struct str query, struct parameter_value values[COUNT])
{
    struct exchange exchange = {.query = {malloc(query.len ? query.len : 1), query.len}};
    bool good;

    if (query.len)
        memcpy((char *)exchange.query.ptr, query.ptr, query.len);
    forget_answer();
    good = parameters_read(&exchange, rows, COUNT, values);
    ASSERT_QUIETLY(answered.count == !good, "answered %d times", answered.count);
    free((char *)exchange.query.ptr);
    return good;
}

/* ---- what is taken --------------------------------------------------------------------------- */

static const struct {
    const char *query, *text; /* text NULL: absent */
    int64_t number;           /* 0: absent */
} taken[] = {
    {"", NULL, 0},
    {"text=a", "a", 0},
    {"text=12345678", "12345678", 0},
    {"number=2", NULL, 2},
    {"number=1000", NULL, 1000},
    {"number=0002", NULL, 2},
    {"number=%31%30", NULL, 10},
    {"text=a&number=5", "a", 5},
    {"number=5&text=a", "a", 5},
    {"text=a=b", "a=b", 0},
    {"text=a?b/c", "a?b/c", 0},
    {"text=a;text=b", "a;text=b", 0}, /* no separator */
    {"text=%41%62", "Ab", 0},
    {"text=a+b", "a b", 0},
    {"text=a%2Bb%2bc", "a+b+c", 0},
    {"text=%26%3D%25", "&=%", 0},
    {"text=%2541", "%41", 0}, /* once, not twice */
    {"text=%c3%A9%E2%82%ac", "\xc3\xa9\xe2\x82\xac", 0},
    {"text=%F0%9F%92%A9aaaa",
     "\xf0\x9f\x92\xa9"
     "aaaa",
     0}, /* bytes are counted */
    {"text=*'();:@,", "*'();:@,", 0},
};

START_TEST(a_good_query_is_read)
{
    struct parameter_value values[COUNT];

    ck_assert_msg(read_query(str_from(taken[_i].query), values), "%s", answered.message);
    ck_assert_int_eq(values[TEXT].present, taken[_i].text != NULL);
    if (taken[_i].text)
        ck_assert_str_eq(values[TEXT].text, taken[_i].text);
    ck_assert_int_eq(values[NUMBER].present, taken[_i].number != 0);
    ck_assert_int_eq(values[NUMBER].number, taken[_i].number);
    ck_assert(!values[TIME].present);
    parameters_free(values, COUNT);
}
END_TEST

START_TEST(no_query_is_an_empty_one)
{
    struct parameter_value values[COUNT];

    ck_assert(read_query(STR_ABSENT, values));
    for (int i = 0; i < COUNT; i++)
        ck_assert(!values[i].present && !values[i].text);
    parameters_free(values, COUNT);
}
END_TEST

/* ---- what is refused ------------------------------------------------------------------------- */

static const struct {
    const char *query, *message; /* the answer begins so */
} refused[] = {
    {"nothing=1", "nothing: not a parameter"},
    {"Text=a", "Text: not a parameter"},
    {"tex=a", "tex: not a parameter"},
    {"text%20=a", "text%20: not a parameter"},
    {"%74ext=a", "%74ext: not a parameter"}, /* names are not decoded */
    {"=a", ": not a parameter"},
    {"&text=a", ": not a parameter"},
    {"text=a&&number=5", ": not a parameter"},
    {"text=a&nothing", "nothing: not a parameter"},
    {"text=a&text=a", "text: given twice"},
    {"number=5&text=a&number=5", "number: given twice"},
    {"text", "text: of the wrong form"},
    {"text=", "text: of the wrong form"},
    {"text=123456789", "text: of the wrong form"},
    {"text=%F0%9F%92%A9aaaaa", "text: of the wrong form"},
    {"text=%", "text: a wrong escape"},
    {"text=%4", "text: a wrong escape"},
    {"text=a%", "text: a wrong escape"},
    {"text=a%4&number=5", "text: a wrong escape"},
    {"text=%4g", "text: a wrong escape"},
    {"text=%g4", "text: a wrong escape"},
    {"text=%u0041", "text: a wrong escape"},
    {"text=%%41", "text: a wrong escape"},
    {"text=%00", "text: a wrong escape, or not UTF-8"},
    {"text=a%00b", "text: a wrong escape, or not UTF-8"},
    {"text=%ff", "text: a wrong escape, or not UTF-8"},
    {"text=%c3", "text: a wrong escape, or not UTF-8"},
    {"text=%c0%80", "text: a wrong escape, or not UTF-8"},
    {"text=%ed%a0%80", "text: a wrong escape, or not UTF-8"},
    {"number=1", "number: of the wrong form"},
    {"number=1001", "number: of the wrong form"},
    {"number=99999999999999999999", "number: of the wrong form"},
    {"number=18446744073709551618", "number: of the wrong form"}, /* 2^64 + 2 */
    {"number=", "number: of the wrong form"},
    {"number=-5", "number: of the wrong form"},
    {"number=%2B5", "number: of the wrong form"},
    {"number=+5", "number: of the wrong form"},
    {"number=5+", "number: of the wrong form"},
    {"number=5.0", "number: of the wrong form"},
    {"number=5e1", "number: of the wrong form"},
    {"number=0x5", "number: of the wrong form"},
    {"number=%D9%A5", "number: of the wrong form"}, /* an Arabic-Indic 5 */
};

START_TEST(a_wrong_query_is_refused_with_the_parameters_name)
{
    struct parameter_value values[COUNT];

    ck_assert(!read_query(str_from(refused[_i].query), values));
    assert_refused(refused[_i].message);
}
END_TEST

START_TEST(a_long_name_is_cut_in_the_answer)
{
    struct parameter_value values[COUNT];
    char query[8000], shown[128];

    memset(query, 'n', sizeof(query));
    ck_assert(!read_query((struct str){query, sizeof(query)}, values));
    snprintf(shown, sizeof(shown), "%.64s: not a parameter", query);
    assert_refused(shown);
}
END_TEST

START_TEST(a_query_cut_or_changed_anywhere_does_no_harm)
{
    const struct str whole = STR("text=%c3%a9&number=12&time=2026-01-02T03:04:05.678%2B02:00");
    struct parameter_value values[COUNT];
    char query[128];

    for (size_t len = 0; len <= whole.len; len++)
        if (read_query((struct str){whole.ptr, len}, values))
            parameters_free(values, COUNT);
    for (size_t at = 0; at < whole.len; at++) {
        for (int c = 0x21; c < 0x7f; c++) { /* what a request's target can hold */
            memcpy(query, whole.ptr, whole.len);
            query[at] = (char)c;
            if (read_query((struct str){query, whole.len}, values))
                parameters_free(values, COUNT);
        }
    }
}
END_TEST

/* ---- host names and choices ------------------------------------------------------------------ */

static const struct {
    const char *query, *host, *choice; /* NULL: absent */
} words[] = {
    {"host=a", "a", NULL},
    {"host=Node-7.Example.", "node-7.example", NULL},
    {"host=%41.b", "a.b", NULL},
    {"host=12345678901234567890", "12345678901234567890", NULL},
    {"host=12345678901234567890.", "12345678901234567890", NULL},
    {"choice=one", NULL, "one"},
    {"choice=two", NULL, "two"},
    {"choice=three&host=h", "h", "three"},
};

START_TEST(a_host_name_is_made_canonical_and_a_choice_is_one_of_them)
{
    struct parameter_value values[COUNT];

    ck_assert_msg(read_query(str_from(words[_i].query), values), "%s", answered.message);
    ck_assert(str_equal(str_from(values[HOST].text), str_from(words[_i].host)));
    ck_assert(str_equal(str_from(values[CHOICE].text), str_from(words[_i].choice)));
    parameters_free(values, COUNT);
}
END_TEST

static const struct {
    const char *query, *message;
} no_words[] = {
    {"host=", "host: of the wrong form"},
    {"host=.", "host: of the wrong form"},
    {"host=a_b", "host: of the wrong form"},
    {"host=a..b", "host: of the wrong form"},
    {"host=a+b", "host: of the wrong form"},
    {"host=123456789012345678901", "host: of the wrong form"},
    {"choice=", "choice: none of one, two, three"},
    {"choice=four", "choice: none of one, two, three"},
    {"choice=One", "choice: none of one, two, three"},
    {"choice=tw", "choice: none of one, two, three"},
    {"choice=twoo", "choice: none of one, two, three"},
    {"choice=one,two", "choice: none of one, two, three"},
    {"choice=one,+two", "choice: none of one, two, three"},
    {"choice=+two", "choice: none of one, two, three"},
};

START_TEST(what_is_no_host_name_or_none_of_the_choices_is_refused)
{
    struct parameter_value values[COUNT];

    ck_assert(!read_query(str_from(no_words[_i].query), values));
    assert_refused(no_words[_i].message);
}
END_TEST

/* ---- times ----------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    int64_t ms;
} times[] = {
    {"1970-01-01T00:00:00Z", 0},
    {"1970-01-01T00:00:00.001Z", 1},
    {"1970-01-01T00:00:00-00:01", 60000},
    {"1970-01-01T01:00:00%2B01:00", 0},
    {"2026-01-02T03:04:05Z", 1767323045000},
    {"2026-01-02t03:04:05z", 1767323045000},
    {"2026-01-02T03:04:05.6Z", 1767323045600},
    {"2026-01-02T03:04:05.67Z", 1767323045670},
    {"2026-01-02T03:04:05.678Z", 1767323045678},
    {"2026-01-02T03:04:05.6789Z", 1767323045678}, /* cut, not rounded */
    {"2026-01-02T03:04:05.000999999999999999999999Z", 1767323045000},
    {"2026-01-02T03%3A04%3A05Z", 1767323045000},
    {"2026-01-02T03:04:05%2B00:00", 1767323045000},
    {"2026-01-02T03:04:05-00:00", 1767323045000},
    {"2026-01-02T05:04:05%2B02:00", 1767323045000},
    {"2026-01-01T21:34:05-05:30", 1767323045000},
    {"2026-01-03T03:03:05.5%2B23:59", 1767323045500},
    {"2026-01-01T03:05:05-23:59", 1767323045000},
    {"2000-02-29T00:00:00Z", 951782400000},
    {"2024-02-29T23:59:59Z", 1709251199000},
    {"2024-12-31T23:59:59.999Z", 1735689599999},
    {"9999-12-31T23:59:59.999Z", 253402300799999},
};

static bool read_time(const char *text, int64_t *ms)
{
    struct parameter_value values[COUNT];
    char query[128];

    snprintf(query, sizeof(query), "time=%s", text);
    if (!read_query(str_from(query), values))
        return false;
    ck_assert(values[TIME].present);
    *ms = values[TIME].number;
    parameters_free(values, COUNT);
    return true;
}

START_TEST(a_time_is_milliseconds_since_1970)
{
    int64_t ms;

    setenv("TZ", "Asia/Kathmandu", 1); /* whose offset must not show */
    ck_assert_msg(read_time(times[_i].text, &ms), "%s", answered.message);
    ck_assert_int_eq(ms, times[_i].ms);
}
END_TEST

static const char *const no_times[] = {
    "",
    "now",
    "0",
    "1767323045000",
    "2026-01-02",
    "03:04:05Z",
    "2026-01-02T03:04Z",
    "2026-01-02T03:04:05",
    "2026-01-02+03:04:05Z", /* + is a space */
    "2026-01-02_03:04:05Z",
    "2026-01-02T03:04:05ZZ",
    "2026-01-02T03:04:05Z+",
    "+2026-01-02T03:04:05Z",
    "2026-1-2T3:4:5Z00000",
    "2026/01/02T03:04:05Z",
    "2026-01-02T03.04.05Z",
    "12026-01-02T03:04:05Z",
    "-2026-01-02T03:04:05Z",
    "0000-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00%2B00:01", /* before 1970 in the end */
    "9999-12-31T23:59:59-00:01",   /* in the year 10000 in the end */
    "2026-00-01T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-01-00T00:00:00Z",
    "2026-01-32T00:00:00Z",
    "2026-04-31T00:00:00Z",
    "2026-02-29T00:00:00Z",
    "2100-02-29T00:00:00Z",
    "2024-02-30T00:00:00Z",
    "2026-01-02T24:00:00Z",
    "2026-01-02T03:60:00Z",
    "2016-12-31T23:59:60Z", /* the system's clock knows no leap second, so no record bears one */
    "2026-01-02T03:04:61Z",
    "2026-01-02T03:04:05.Z",
    "2026-01-02T03:04:05,5Z",
    "2026-01-02T03:04:05.5.5Z",
    "2026-01-02T03:04:05.-5Z",
    "2026-01-02T03:04:05+02:00", /* + is a space here too */
    "2026-01-02T03:04:05%2B02",
    "2026-01-02T03:04:05%2B0200",
    "2026-01-02T03:04:05%2B2:00",
    "2026-01-02T03:04:05%2B02:0",
    "2026-01-02T03:04:05%2B02:000",
    "2026-01-02T03:04:05%2B24:00",
    "2026-01-02T03:04:05%2B02:60",
    "2026-01-02T03:04:05%2B-2:00",
    "2026-01-02T03:04:05CET",
};

START_TEST(what_is_no_time_is_refused)
{
    int64_t ms;

    ck_assert(!read_time(no_times[_i], &ms));
    assert_refused("time: of the wrong form");
}
END_TEST

START_TEST(no_other_character_can_stand_in_a_time)
{
    static const char whole[] = "2026-01-02T03:04:05.678-02:30";
    char text[sizeof(whole)];
    int64_t ms;

    for (size_t at = 0; at + 1 < sizeof(whole); at++) {
        for (const char *other = "xZ/:-. \\"; *other; other++) {
            memcpy(text, whole, sizeof(whole));
            text[at] = *other;
            if (*other != whole[at])
                ck_assert_msg(!read_time(text, &ms), "%s", text);
        }
    }
    for (size_t len = 0; len + 1 < sizeof(whole); len++) {
        memcpy(text, whole, len);
        text[len] = '\0';
        ck_assert_msg(!read_time(text, &ms), "%s", text);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("parameters");
    TCase *queries = suite_case(suite, "queries");
    TCase *dates = suite_case(suite, "times");

    tcase_add_loop_test(queries, a_good_query_is_read, 0, COUNT_OF(taken));
    tcase_add_test(queries, no_query_is_an_empty_one);
    tcase_add_loop_test(queries, a_wrong_query_is_refused_with_the_parameters_name, 0,
                        COUNT_OF(refused));
    tcase_add_test(queries, a_long_name_is_cut_in_the_answer);
    tcase_add_test(queries, a_query_cut_or_changed_anywhere_does_no_harm);
    tcase_add_loop_test(queries, a_host_name_is_made_canonical_and_a_choice_is_one_of_them, 0,
                        COUNT_OF(words));
    tcase_add_loop_test(queries, what_is_no_host_name_or_none_of_the_choices_is_refused, 0,
                        COUNT_OF(no_words));
    tcase_add_loop_test(dates, a_time_is_milliseconds_since_1970, 0, COUNT_OF(times));
    tcase_add_loop_test(dates, what_is_no_time_is_refused, 0, COUNT_OF(no_times));
    tcase_add_test(dates, no_other_character_can_stand_in_a_time);
    return suite_run(suite);
}
