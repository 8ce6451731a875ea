/* Several daemons' texts become one that Prometheus takes: one HELP and TYPE a metric, its samples
 * together, whatever the texts are like. */
#include "frontd/metrics_merge.h"

#include "tests/unit/suite.h"

#include <string.h>

static char *merged(const char *const *texts, size_t count)
{
    struct str views[8];
    struct evbuffer *out = evbuffer_new();
    char *text;

    for (size_t i = 0; i < count; i++)
        views[i] = str_from(texts[i]);
    metrics_merge(out, views, count);
    text = memcpy(calloc(1, evbuffer_get_length(out) + 1),
                  evbuffer_get_length(out) ? evbuffer_pullup(out, -1) : (unsigned char *)"",
                  evbuffer_get_length(out));
    evbuffer_free(out);
    return text;
}

#define ASSERT_MERGED(wanted, ...)                                                                 \
    do {                                                                                           \
        const char *const texts_[] = {__VA_ARGS__};                                                \
        char *text_ = merged(texts_, COUNT_OF(texts_));                                            \
        ck_assert_str_eq(text_, wanted);                                                           \
        free(text_);                                                                               \
    } while (0)

#define HEAD(name) "# HELP " name " help\n# TYPE " name " counter\n"

START_TEST(samples_of_one_metric_come_together_in_order)
{
    ASSERT_MERGED(HEAD("a") "a{d=\"1\"} 1\na{d=\"2\"} 2\na{d=\"3\"} 3\n" HEAD("b") "b 4\n" HEAD(
                      "c") "c{d=\"2\"} 5\nc{d=\"3\"} 6\n",
                  HEAD("a") "a{d=\"1\"} 1\n" HEAD("b") "b 4\n",
                  HEAD("c") "c{d=\"2\"} 5\n" HEAD("a") "a{d=\"2\"} 2\n",
                  HEAD("a") "a{d=\"3\"} 3\n" HEAD("c") "c{d=\"3\"} 6\n");
}
END_TEST

START_TEST(the_first_help_and_type_count)
{
    ASSERT_MERGED("# HELP a first\n# TYPE a gauge\na{d=\"1\"} 1\na{d=\"2\"} 2\n",
                  "# HELP a first\n# TYPE a gauge\na{d=\"1\"} 1\n",
                  "# HELP a second\n# TYPE a counter\na{d=\"2\"} 2\n");
}
END_TEST

START_TEST(a_name_that_begins_another_is_not_it)
{
    ASSERT_MERGED(HEAD("a") "a 1\n" HEAD("ab") "ab 2\n", HEAD("a") "a 1\n", HEAD("ab") "ab 2\n");
}
END_TEST

START_TEST(absent_and_empty_texts_add_nothing)
{
    ASSERT_MERGED(HEAD("a") "a 1\n", NULL, "", HEAD("a") "a 1\n", NULL);
    ASSERT_MERGED("", NULL, "");
}
END_TEST

START_TEST(what_comes_before_the_first_help_is_left_out)
{
    ASSERT_MERGED(HEAD("a") "a 1\n", "stray 1\n# TYPE stray counter\n\n" HEAD("a") "a 1\n");
}
END_TEST

START_TEST(a_metric_told_twice_by_one_daemon_has_one_head)
{
    ASSERT_MERGED(HEAD("a") "a 1\na 2\n", HEAD("a") "a 1\n" HEAD("a") "a 2\n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics_merge");
    TCase *tests = suite_case(suite, "merge");

    tcase_add_test(tests, samples_of_one_metric_come_together_in_order);
    tcase_add_test(tests, the_first_help_and_type_count);
    tcase_add_test(tests, a_name_that_begins_another_is_not_it);
    tcase_add_test(tests, absent_and_empty_texts_add_nothing);
    tcase_add_test(tests, what_comes_before_the_first_help_is_left_out);
    tcase_add_test(tests, a_metric_told_twice_by_one_daemon_has_one_head);
    return suite_run(suite);
}
