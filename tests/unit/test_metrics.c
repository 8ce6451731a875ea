/* Tables of metrics as text: HELP, TYPE, samples, labels, escaping, buckets; and what is done to
 * their structs. */
#include "common/metrics.h"

#include "tests/unit/suite.h"

#include <string.h>

enum { SHAPE_COUNT = 2, COLOUR_COUNT = 3, MANY_COUNT = 8, EMPTY_COUNT = 4 };

struct shared_values {
    uint64_t shared_total[SHAPE_COUNT];
};

struct values {
    struct shared_values part;
#define METRIC METRIC_MEMBER
#define METRICS                                                                                    \
    METRIC(plain_total, COUNTER, ALONE, "A plain one")                                             \
    METRIC(spent_seconds_total, COUNTER_US, ALONE, "Time")                                         \
    METRIC(level, GAUGE, BY(SHAPE), "By shape")                                                    \
    METRIC(age_seconds, GAUGE_MS, ALONE, "An age")                                                 \
    METRIC(pairs_total, COUNTER, BY_TWO(SHAPE, COLOUR), "By both")                                 \
    METRIC(fewer_total, COUNTER, BY(MANY), "A set with fewer names than room")                     \
    METRIC(none_total, COUNTER, BY(EMPTY), "A set without names")                                  \
    METRIC(wait_seconds, SECONDS, BY(SHAPE), "Waiting")                                            \
    METRIC(batch, SIZES, ALONE, "A \"help\" with \\ and\na second line")
    METRICS
#undef METRIC
};

static const char *const shapes[] = {"round", "a \"b\" \\ c\nd", NULL};
static const char *const colours[] = {"red", "green", "blue", NULL};
static const char *const one[] = {"one", NULL};

static const char *nothing(const void *of, size_t n)
{
    (void)of;
    (void)n;
    return NULL;
}

static const struct metric_set SHAPE_SET = {"shape", metric_text_name, shapes};
static const struct metric_set COLOUR_SET = {"colour", metric_text_name, colours};
static const struct metric_set MANY_SET = {"many", metric_text_name, one};
static const struct metric_set EMPTY_SET = {"empty", nothing, NULL};

static const struct metric table[] = {
#define METRIC_STRUCT struct values
#define METRIC        METRIC_SHARED_ROW
#define METRIC_PART   part
    METRIC(shared_total, COUNTER, BY(SHAPE), "Of several daemons")
#undef METRIC
#define METRIC METRIC_ROW
        METRICS
#undef METRIC
            METRIC_END,
};

static struct values values;

static void forget(void)
{
    memset(&values, 0, sizeof(values));
}

/* The table's text, until the next call. */
static const char *text(void)
{
    static char *written;
    size_t len;
    FILE *out;

    free(written);
    out = open_memstream(&written, &len);
    metrics_write(out, table, &values, "tested");
    fclose(out);
    return written;
}

static void assert_says(const char *line)
{
    const char *all = text(), *at = strstr(all, line);

    ck_assert_msg(at && (at == all || at[-1] == '\n'), "no line begins with %s in\n%s", line, all);
}

/* ---- text ----------------------------------------------------------------------------------- */

START_TEST(a_metric_is_told_with_help_type_and_samples)
{
    forget();
    values.plain_total = 12345678901234567890U;
    assert_says("# HELP caf_plain_total A plain one\n"
                "# TYPE caf_plain_total counter\n"
                "caf_plain_total 12345678901234567890\n");
}
END_TEST

START_TEST(labels_are_the_sets_names_escaped)
{
    forget();
    values.level[0] = 1;
    values.level[1] = 2;
    assert_says("# TYPE caf_level gauge\n"
                "caf_level{shape=\"round\"} 1\n"
                "caf_level{shape=\"a \\\"b\\\" \\\\ c\\nd\"} 2\n");
}
END_TEST

START_TEST(a_pair_of_sets_gives_every_pair)
{
    forget();
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int k = 0; k < COLOUR_COUNT; k++)
            values.pairs_total[i][k] = 10 * (uint64_t)i + (uint64_t)k;
    assert_says("caf_pairs_total{shape=\"round\",colour=\"red\"} 0\n"
                "caf_pairs_total{shape=\"round\",colour=\"green\"} 1\n"
                "caf_pairs_total{shape=\"round\",colour=\"blue\"} 2\n"
                "caf_pairs_total{shape=\"a \\\"b\\\" \\\\ c\\nd\",colour=\"red\"} 10\n");
}
END_TEST

START_TEST(what_several_daemons_have_says_whose_it_is)
{
    forget();
    values.part.shared_total[0] = 7;
    assert_says("caf_shared_total{daemon=\"tested\",shape=\"round\"} 7\n");
}
END_TEST

START_TEST(a_set_with_room_to_spare_shows_its_names_alone)
{
    forget();
    values.fewer_total[0] = 3;
    values.fewer_total[1] = 4; /* has no name */
    assert_says("caf_fewer_total{many=\"one\"} 3\n# HELP");
}
END_TEST

START_TEST(a_metric_without_series_is_not_told)
{
    forget();
    ck_assert_ptr_null(strstr(text(), "none_total"));
}
END_TEST

START_TEST(help_keeps_its_quotes_and_escapes_the_rest)
{
    forget();
    assert_says("# HELP caf_batch A \"help\" with \\\\ and\\na second line\n");
}
END_TEST

static const struct {
    uint64_t kept;
    const char *shown;
} times[] = {
    {0, "0"},
    {1, "0.000001"},
    {10, "0.00001"},
    {500000, "0.5"},
    {1000000, "1"},
    {1000001, "1.000001"},
    {60250000, "60.25"},
    {UINT64_MAX, "18446744073709.551615"},
};

START_TEST(microseconds_are_shown_as_seconds_exactly)
{
    char line[128];

    forget();
    values.spent_seconds_total = times[_i].kept;
    snprintf(line, sizeof(line), "caf_spent_seconds_total %s\n", times[_i].shown);
    assert_says(line);
}
END_TEST

START_TEST(milliseconds_are_shown_as_seconds)
{
    forget();
    values.age_seconds = 1795456658615;
    assert_says("# TYPE caf_age_seconds gauge\ncaf_age_seconds 1795456658.615\n");
}
END_TEST

/* ---- histograms ----------------------------------------------------------------------------- */

START_TEST(buckets_are_cumulative_and_include_their_bound)
{
    forget();
    metric_observe_us(&values.wait_seconds[0], 250);      /* 0.00025 */
    metric_observe_us(&values.wait_seconds[0], 251);      /* 0.0005 */
    metric_observe_us(&values.wait_seconds[0], 30000000); /* 30 */
    metric_observe_us(&values.wait_seconds[0], 30000001); /* none */
    assert_says("# TYPE caf_wait_seconds histogram\n"
                "caf_wait_seconds_bucket{shape=\"round\",le=\"0.00025\"} 1\n"
                "caf_wait_seconds_bucket{shape=\"round\",le=\"0.0005\"} 2\n"
                "caf_wait_seconds_bucket{shape=\"round\",le=\"0.001\"} 2\n");
    assert_says("caf_wait_seconds_bucket{shape=\"round\",le=\"10\"} 2\n"
                "caf_wait_seconds_bucket{shape=\"round\",le=\"30\"} 3\n"
                "caf_wait_seconds_bucket{shape=\"round\",le=\"+Inf\"} 4\n"
                "caf_wait_seconds_sum{shape=\"round\"} 60.000502\n"
                "caf_wait_seconds_count{shape=\"round\"} 4\n");
}
END_TEST

START_TEST(a_time_below_zero_counts_as_none)
{
    forget();
    metric_observe_us(&values.wait_seconds[1], -5);
    ck_assert_uint_eq(values.wait_seconds[1].taken[0], 1);
    ck_assert_uint_eq(values.wait_seconds[1].sum, 0);
}
END_TEST

START_TEST(sizes_have_whole_bounds)
{
    forget();
    for (uint64_t size = 1; size <= 3; size++)
        metric_observe_size(&values.batch, size);
    assert_says("caf_batch_bucket{le=\"1\"} 1\n"
                "caf_batch_bucket{le=\"2\"} 2\n"
                "caf_batch_bucket{le=\"4\"} 3\n");
    assert_says("caf_batch_sum 6\ncaf_batch_count 3\n");
}
END_TEST

/* ---- structs -------------------------------------------------------------------------------- */

START_TEST(sums_are_by_value)
{
    struct values sum;

    forget();
    memset(&sum, 0, sizeof(sum));
    values.plain_total = 5;
    values.pairs_total[1][2] = 6;
    metric_observe_size(&values.batch, 9);
    metrics_add(&sum, &values, sizeof(sum));
    metrics_add(&sum, &values, sizeof(sum));
    ck_assert_uint_eq(sum.plain_total, 10);
    ck_assert_uint_eq(sum.pairs_total[1][2], 12);
    ck_assert_uint_eq(sum.batch.sum, 18);
    ck_assert_uint_eq(sum.batch.taken[4], 2);
}
END_TEST

START_TEST(gauges_alone_are_cleared)
{
    struct values wanted;

    memset(&values, 0x11, sizeof(values));
    wanted = values;
    memset(wanted.level, 0, sizeof(wanted.level));
    wanted.age_seconds = 0;
    metrics_clear_gauges(table, &values);
    ck_assert_mem_eq(&values, &wanted, sizeof(values));
}
END_TEST

START_TEST(a_layout_is_told_from_another)
{
    struct metric other[COUNT_OF(table)];
    uint64_t layout = metrics_layout(table);

    memcpy(other, table, sizeof(table));
    ck_assert_uint_eq(metrics_layout(other), layout);
    other[2].name = "other";
    ck_assert_uint_ne(metrics_layout(other), layout);
    memcpy(other, table, sizeof(table));
    other[2].sets[0] = &COLOUR_SET;
    ck_assert_uint_ne(metrics_layout(other), layout);
    memcpy(other, table, sizeof(table));
    other[2].type = METRIC_COUNTER;
    ck_assert_uint_ne(metrics_layout(other), layout);
}
END_TEST

START_TEST(the_table_is_printed_for_people)
{
    char *written;
    size_t len;
    FILE *out = open_memstream(&written, &len);

    metrics_print_table(out, table, "tested");
    fclose(out);
    ck_assert_ptr_nonnull(strstr(written, "caf_plain_total\tcounter\t\tA plain one\n"));
    ck_assert_ptr_nonnull(
        strstr(written, "caf_shared_total\tcounter\tdaemon: tested; shape: round,"));
    ck_assert_ptr_nonnull(strstr(written, "; colour: red, green, blue\tBy both\n"));
    free(written);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tests = suite_case(suite, "text");

    tcase_add_test(tests, a_metric_is_told_with_help_type_and_samples);
    tcase_add_test(tests, labels_are_the_sets_names_escaped);
    tcase_add_test(tests, a_pair_of_sets_gives_every_pair);
    tcase_add_test(tests, what_several_daemons_have_says_whose_it_is);
    tcase_add_test(tests, a_set_with_room_to_spare_shows_its_names_alone);
    tcase_add_test(tests, a_metric_without_series_is_not_told);
    tcase_add_test(tests, help_keeps_its_quotes_and_escapes_the_rest);
    tcase_add_loop_test(tests, microseconds_are_shown_as_seconds_exactly, 0, COUNT_OF(times));
    tcase_add_test(tests, milliseconds_are_shown_as_seconds);
    tests = suite_case(suite, "histograms");
    tcase_add_test(tests, buckets_are_cumulative_and_include_their_bound);
    tcase_add_test(tests, a_time_below_zero_counts_as_none);
    tcase_add_test(tests, sizes_have_whole_bounds);
    tests = suite_case(suite, "structs");
    tcase_add_test(tests, sums_are_by_value);
    tcase_add_test(tests, gauges_alone_are_cleared);
    tcase_add_test(tests, a_layout_is_told_from_another);
    tcase_add_test(tests, the_table_is_printed_for_people);
    return suite_run(suite);
}
