/* How the change feed moves on: what is read next, what is believed, and for how long. */
#include "registryd/watermark.h"

#include "tests/unit/suite.h"

static struct watermark watermark;

static void open_watermark(void)
{
    watermark = (struct watermark){0};
}

static void close_watermark(void)
{
    watermark_clear(&watermark);
    ck_assert_ptr_null(watermark.applied);
    ck_assert_ptr_null(watermark.sweep);
    ck_assert_ptr_null(watermark.changed_xid);
}

static struct watermark_page page(const char *snapshot, int64_t sent_ms)
{
    return (struct watermark_page){
        .snapshot = str_from(snapshot), .history = STR("1/00000001"), .sent_ms = sent_ms};
}

static struct watermark_page full_page(const char *snapshot, int64_t sent_ms, const char *last)
{
    struct watermark_page full = page(snapshot, sent_ms);

    full.is_full = true;
    full.changed_xid = str_from(last);
    full.tenant_id = STR("acme");
    full.spiffe_id = STR("spiffe://td/a");
    return full;
}

static enum watermark_step advance(struct watermark_page next)
{
    return watermark_advance(&watermark, &next);
}

START_TEST(the_first_read_begins_a_history_with_its_own_snapshot)
{
    ck_assert(!watermark_is_fresh(&watermark, 0, 1000000));
    ck_assert_int_eq(advance(page("10:10:", 5)), WATERMARK_NEW_HISTORY);
    ck_assert_str_eq(watermark.applied, "10:10:");
    ck_assert_str_eq(watermark.history, "1/00000001");
    ck_assert_int_eq(watermark.applied_sent_ms, 5);
}
END_TEST

START_TEST(each_read_applies_its_snapshot)
{
    advance(page("10:10:", 5));
    ck_assert_int_eq(advance(page("10:20:10,15", 6)), WATERMARK_DONE);
    ck_assert_str_eq(watermark.applied, "10:20:10,15");
    ck_assert_int_eq(watermark.applied_sent_ms, 6);
    ck_assert_ptr_null(watermark.sweep);
}
END_TEST

START_TEST(a_sweep_of_several_pages_applies_the_snapshot_of_its_first)
{
    advance(page("10:10:", 5));
    ck_assert_int_eq(advance(full_page("20:20:", 6, "11")), WATERMARK_MORE);
    ck_assert_str_eq(watermark.applied, "10:10:"); /* until the sweep is over */
    ck_assert_int_eq(watermark.applied_sent_ms, 5);
    ck_assert_str_eq(watermark.sweep, "20:20:");
    ck_assert_str_eq(watermark.changed_xid, "11");
    ck_assert_int_eq(advance(full_page("30:30:", 7, "12")), WATERMARK_MORE);
    ck_assert_str_eq(watermark.sweep, "20:20:");
    ck_assert_str_eq(watermark.changed_xid, "12");
    ck_assert_int_eq(advance(page("40:40:", 8)), WATERMARK_DONE);
    ck_assert_str_eq(watermark.applied, "20:20:"); /* what came after it is the next sweep's */
    ck_assert_int_eq(watermark.applied_sent_ms, 6);
    ck_assert_ptr_null(watermark.sweep);
    ck_assert_ptr_null(watermark.spiffe_id);
    ck_assert_int_eq(advance(full_page("50:50:", 9, "20")), WATERMARK_MORE);
    ck_assert_str_eq(watermark.sweep, "50:50:");
}
END_TEST

static const struct str other_histories[] = {
    STR("2/00000001"),  /* another cluster: restored, or another host by mistake */
    STR("1/00000002"),  /* a standby was promoted */
    STR("11/00000001"), /* none is a part of the other */
    STR("1/0000000"),
};

START_TEST(another_history_begins_anew)
{
    struct watermark_page other = page("7:7:", 9);

    other.history = other_histories[_i];
    advance(page("10:10:", 5));
    ck_assert(watermark_is_new_history(&watermark, &other));
    ck_assert_int_eq(advance(other), WATERMARK_NEW_HISTORY);
    ck_assert_str_eq(watermark.applied, "7:7:"); /* its numbers may be lower */
    ck_assert_int_eq(watermark.applied_sent_ms, 9);
    ck_assert(!watermark_is_new_history(&watermark, &other));
}
END_TEST

START_TEST(another_history_ends_the_sweep_under_way)
{
    struct watermark_page other = full_page("7:7:", 9, "6");

    other.history = STR("1/00000002");
    advance(page("10:10:", 5));
    advance(full_page("20:20:", 6, "11"));
    ck_assert_int_eq(advance(other),
                     WATERMARK_NEW_HISTORY); /* its rows were of the other's order */
    ck_assert_str_eq(watermark.applied, "7:7:");
    ck_assert_ptr_null(watermark.sweep);
    ck_assert_ptr_null(watermark.changed_xid);
}
END_TEST

START_TEST(what_is_applied_is_fresh_for_as_long_as_was_said)
{
    advance(page("10:10:", 1000));
    ck_assert(watermark_is_fresh(&watermark, 1000, 30));
    ck_assert(watermark_is_fresh(&watermark, 1029, 30));
    ck_assert(!watermark_is_fresh(&watermark, 1030, 30));
    advance(full_page("20:20:", 1100, "11")); /* half a sweep is no sweep */
    ck_assert(!watermark_is_fresh(&watermark, 1101, 30));
    advance(page("30:30:", 1120));
    ck_assert(watermark_is_fresh(&watermark, 1129, 30)); /* from its first page on */
    ck_assert(!watermark_is_fresh(&watermark, 1130, 30));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("watermark");
    TCase *tests = suite_case(suite, "all");

    tcase_add_checked_fixture(tests, open_watermark, close_watermark);
    tcase_add_test(tests, the_first_read_begins_a_history_with_its_own_snapshot);
    tcase_add_test(tests, each_read_applies_its_snapshot);
    tcase_add_test(tests, a_sweep_of_several_pages_applies_the_snapshot_of_its_first);
    tcase_add_loop_test(tests, another_history_begins_anew, 0, COUNT_OF(other_histories));
    tcase_add_test(tests, another_history_ends_the_sweep_under_way);
    tcase_add_test(tests, what_is_applied_is_fresh_for_as_long_as_was_said);
    return suite_run(suite);
}
