/* Array literals: each element comes out as PostgreSQL 8.15.6 reads it back. That a server does
 * read them back the same is test_pg.c's part. */
#include "common/pg_array.h"

#include <check.h>
#include <stdlib.h>

static void assert_array(const struct str *elements, size_t count, const char *literal)
{
    struct pg_array array = {.text = NULL};

    for (size_t i = 0; i < count; i++)
        pg_array_add(&array, elements[i]);
    ck_assert_str_eq(pg_array_close(&array), literal);
    pg_array_free(&array);
    ck_assert_ptr_null(array.text);
}

START_TEST(no_element_is_an_empty_array)
{
    assert_array(NULL, 0, "{}");
}
END_TEST

START_TEST(every_element_is_quoted_so_that_none_is_syntax)
{
    struct str elements[] = {STR("a"),     STR("NULL"), STR("null"),
                             STR("{b,c}"), STR(" d "),  STR("1")};

    assert_array(elements, 6, "{\"a\",\"NULL\",\"null\",\"{b,c}\",\" d \",\"1\"}");
}
END_TEST

START_TEST(absent_is_null_and_empty_is_empty)
{
    struct str elements[] = {STR_ABSENT, STR(""), STR_ABSENT};

    assert_array(elements, 3, "{NULL,\"\",NULL}");
    assert_array(elements + 1, 1, "{\"\"}");
}
END_TEST

START_TEST(quotes_and_backslashes_are_escaped_and_nothing_else_is)
{
    struct str elements[] = {STR("\""), STR("\\"), STR("a\\\"b"), STR("'\n\t;--"),
                             STR("h\xc3\xa9")};

    assert_array(elements, 5, "{\"\\\"\",\"\\\\\",\"a\\\\\\\"b\",\"'\n\t;--\",\"h\xc3\xa9\"}");
}
END_TEST

START_TEST(it_grows_over_any_number_of_elements)
{
    enum { COUNT = 20000, WORST = 1000 };
    struct pg_array array = {.text = NULL};
    char quotes[WORST];
    size_t expected = 1;

    memset(quotes, '"', sizeof(quotes));
    for (size_t i = 0; i < COUNT; i++) {
        size_t len = i % WORST;

        pg_array_add(&array, (struct str){quotes, len});
        expected += 2 * len + 3;
    }
    ck_assert_uint_eq(strlen(pg_array_close(&array)), expected);
    pg_array_free(&array);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pg_array");
    TCase *literals = tcase_create("literals");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(literals, no_element_is_an_empty_array);
    tcase_add_test(literals, every_element_is_quoted_so_that_none_is_syntax);
    tcase_add_test(literals, absent_is_null_and_empty_is_empty);
    tcase_add_test(literals, quotes_and_backslashes_are_escaped_and_nothing_else_is);
    tcase_add_test(literals, it_grows_over_any_number_of_elements);
    suite_add_tcase(suite, literals);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
