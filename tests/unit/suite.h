/* For unit tests: runs one suite and says how it went, as a program's exit status. */
#ifndef CAF_TESTS_UNIT_SUITE_H
#define CAF_TESTS_UNIT_SUITE_H

#include <check.h>
#include <stdlib.h>

enum { SUITE_SECONDS = 60 }; /* for one test, under the sanitizers on a busy machine */

/* The rows of a test's table. */
#define COUNT_OF(table) (sizeof(table) / sizeof((table)[0]))

/* As ck_assert_msg, without telling Check of each that holds: for loops of many thousand. */
#define ASSERT_QUIETLY(condition, ...)                                                             \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

/* A new test case of the suite. */
static inline TCase *suite_case(Suite *suite, const char *name)
{
    TCase *tests = tcase_create(name);

    tcase_set_timeout(tests, SUITE_SECONDS);
    suite_add_tcase(suite, tests);
    return tests;
}

/* Runs and frees the suite; main's result. */
static inline int suite_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
