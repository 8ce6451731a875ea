/* How much a place in the code may say, and that its lines cannot be forged. */
#include "common/log.h"
#include "tests/unit/suite.h"

#include <stdio.h>
#include <unistd.h>

/* ---- the rate ------------------------------------------------------------------------------- */

START_TEST(a_place_may_say_a_lot_at_once_and_then_a_line_a_second)
{
    struct log_site site = {0};
    long long suppressed = -1;
    int64_t now = 123456;

    for (int i = 0; i < LOG_BURST; i++) {
        ASSERT_QUIETLY(log_site_passes(&site, now, &suppressed), "line %d", i);
        ASSERT_QUIETLY(suppressed == 0, "line %d", i);
    }
    for (int i = 0; i < 7; i++)
        ck_assert(!log_site_passes(&site, now, &suppressed));
    ck_assert(!log_site_passes(&site, now + LOG_INTERVAL_MS - 1, &suppressed));
    ck_assert(log_site_passes(&site, now + LOG_INTERVAL_MS, &suppressed));
    ck_assert_int_eq(suppressed, 8);
    ck_assert(!log_site_passes(&site, now + LOG_INTERVAL_MS, &suppressed));
    ck_assert(log_site_passes(&site, now + 2 * LOG_INTERVAL_MS, &suppressed));
    ck_assert_int_eq(suppressed, 1);
}
END_TEST

START_TEST(a_place_that_was_quiet_may_say_a_lot_again)
{
    struct log_site site = {0};
    long long suppressed;
    int passed = 0;

    for (int i = 0; i < 10 * LOG_BURST; i++)
        passed += log_site_passes(&site, 0, &suppressed);
    ck_assert_int_eq(passed, LOG_BURST);
    for (int i = 0; i < 10 * LOG_BURST; i++)
        passed += log_site_passes(&site, LOG_BURST * LOG_INTERVAL_MS, &suppressed);
    ck_assert_int_eq(passed, 2 * LOG_BURST);
}
END_TEST

/* ---- lines ---------------------------------------------------------------------------------- */

enum { TEXT_BYTES = 1 << 20 };

static int saved_stderr = -1;
static FILE *captured;

static void capture(void)
{
    captured = tmpfile();
    saved_stderr = dup(STDERR_FILENO);
    ck_assert_int_ge(dup2(fileno(captured), STDERR_FILENO), 0);
    log_open("test", LOG_LEVEL_INFO);
}

/* What was logged; the caller frees. */
static char *release(void)
{
    char *text = calloc(1, TEXT_BYTES);

    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    rewind(captured);
    ck_assert_uint_lt(fread(text, 1, TEXT_BYTES - 1, captured), TEXT_BYTES - 1);
    fclose(captured);
    return text;
}

static int count_of(const char *text, const char *what)
{
    int count = 0;

    while ((text = strstr(text, what))) {
        text += strlen(what);
        count++;
    }
    return count;
}

START_TEST(each_place_has_a_measure_of_its_own)
{
    char *text;

    capture();
    for (int i = 0; i < 3 * LOG_BURST; i++)
        log_warn("refused", LOG_NUMBER("number", i));
    log_error("something else");
    text = release();
    ck_assert_int_ge(count_of(text, "msg=refused"), LOG_BURST);
    ck_assert_int_le(count_of(text, "msg=refused"), LOG_BURST + SUITE_SECONDS);
    ck_assert_int_eq(count_of(text, "msg=\"something else\""), 1);
    free(text);
}
END_TEST

START_TEST(what_was_left_out_is_said_by_the_next_line)
{
    static struct log_site site;
    const struct log_field none = {.key = NULL};
    char *text;

    capture();
    site = (struct log_site){.suppressed = 42};
    log_write(&site, LOG_LEVEL_WARN, "f", "again", &none, 1);
    log_write(&site, LOG_LEVEL_WARN, "f", "again", &none, 1);
    text = release();
    ck_assert_int_eq(count_of(text, "msg=again suppressed=42 func=f\n"), 1);
    ck_assert_int_eq(count_of(text, "msg=again func=f\n"), 1);
    free(text);
}
END_TEST

START_TEST(no_value_makes_a_line_of_its_own)
{
    char *text;

    capture();
    log_info("said", LOG_TEXT("by", "x\nlevel=error msg=\"forged\""));
    text = release();
    ck_assert_int_eq(count_of(text, "\n"), 1);
    ck_assert_int_eq(count_of(text, "by=\"x\\x0alevel=error msg=\\\"forged\\\"\"\n"), 1);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *rate = suite_case(suite, "rate");
    TCase *lines = suite_case(suite, "lines");

    tcase_add_test(rate, a_place_may_say_a_lot_at_once_and_then_a_line_a_second);
    tcase_add_test(rate, a_place_that_was_quiet_may_say_a_lot_again);
    tcase_add_test(lines, each_place_has_a_measure_of_its_own);
    tcase_add_test(lines, what_was_left_out_is_said_by_the_next_line);
    tcase_add_test(lines, no_value_makes_a_line_of_its_own);
    return suite_run(suite);
}
