/* Which notes have come already: by sender, in order, and of bounded memory. */
#include "eventd/senders.h"

#include "tests/unit/suite.h"

enum { SENDERS_MAX = 4096 }; /* in senders.c */

static struct senders *senders;

static void open_senders(void)
{
    senders = senders_new();
}

static void close_senders(void)
{
    senders_free(senders);
}

static bool seen(uint64_t sender, uint64_t counter)
{
    struct request_id id;

    for (int i = 0; i < 8; i++) {
        id.bytes[i] = (uint8_t)(sender >> (8 * (7 - i)));
        id.bytes[8 + i] = (uint8_t)(counter >> (8 * (7 - i)));
    }
    return senders_have_seen(senders, &id);
}

START_TEST(a_note_is_new_once)
{
    ck_assert(!seen(1, 1));
    ck_assert(seen(1, 1));
    ck_assert(seen(1, 1));
    ck_assert(!seen(1, 2));
}
END_TEST

START_TEST(what_is_not_beyond_the_last_was_here)
{
    ck_assert(!seen(1, 1));
    ck_assert(!seen(1, 5)); /* the numbers between went to others than eventd */
    for (uint64_t counter = 0; counter <= 5; counter++)
        ck_assert(seen(1, counter));
    ck_assert(!seen(1, 6));
}
END_TEST

START_TEST(each_sender_counts_for_itself)
{
    ck_assert(!seen(1, 7) && !seen(2, 7) && !seen(UINT64_MAX, 7));
    ck_assert(!seen(1, 8) && seen(2, 7) && seen(UINT64_MAX, 7));
    ck_assert(!seen(3, 0));
    ck_assert(seen(3, 0));
}
END_TEST

/* The counter is compared whole, its highest byte first. */
static const struct {
    uint64_t last, next;
} steps[] = {
    {0, 1},
    {0xff, 0x100},
    {0xffffffff, UINT64_C(0x100000000)},
    {INT64_MAX, (uint64_t)INT64_MAX + 1},
    {UINT64_MAX - 1, UINT64_MAX},
};

START_TEST(the_counter_is_of_64_bits)
{
    ck_assert(!seen(1, steps[_i].last));
    ck_assert(!seen(1, steps[_i].next));
    ck_assert(seen(1, steps[_i].last));
}
END_TEST

START_TEST(a_counter_that_wrapped_is_no_new_one)
{
    ck_assert(!seen(1, UINT64_MAX));
    ck_assert(seen(1, 0));
    ck_assert(seen(1, UINT64_MAX));
}
END_TEST

START_TEST(beyond_the_bound_the_first_is_forgotten)
{
    for (uint64_t sender = 1; sender <= SENDERS_MAX; sender++)
        ASSERT_QUIETLY(!seen(sender, 9), "sender %d", (int)sender);
    for (uint64_t sender = 1; sender <= SENDERS_MAX; sender++)
        ASSERT_QUIETLY(seen(sender, 9), "full, and not over: %d", (int)sender);
    ck_assert(!seen(SENDERS_MAX + 1, 9));
    ck_assert(seen(SENDERS_MAX + 1, 9));
    ck_assert(seen(2, 9));
    ck_assert(!seen(1, 9)); /* now the third is forgotten: the second was just heard */
    ck_assert(seen(2, 9));
    ck_assert(!seen(3, 9));
}
END_TEST

START_TEST(who_was_heard_of_last_is_kept_even_by_what_was_sent_again)
{
    for (uint64_t sender = 1; sender <= SENDERS_MAX; sender++)
        ASSERT_QUIETLY(!seen(sender, 1), "sender %d", (int)sender);
    ck_assert(seen(1, 1));                                             /* sent again */
    ck_assert(!seen(2, 2));                                            /* news */
    ck_assert(!seen(SENDERS_MAX + 1, 1) && !seen(SENDERS_MAX + 2, 1)); /* for 3 and 4 */
    ck_assert(seen(1, 1) && seen(2, 2) && seen(5, 1));
    ck_assert(!seen(3, 1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("senders");
    TCase *tests = suite_case(suite, "all");

    tcase_add_checked_fixture(tests, open_senders, close_senders);
    tcase_add_test(tests, a_note_is_new_once);
    tcase_add_test(tests, what_is_not_beyond_the_last_was_here);
    tcase_add_test(tests, each_sender_counts_for_itself);
    tcase_add_loop_test(tests, the_counter_is_of_64_bits, 0, COUNT_OF(steps));
    tcase_add_test(tests, a_counter_that_wrapped_is_no_new_one);
    tcase_add_test(tests, beyond_the_bound_the_first_is_forgotten);
    tcase_add_test(tests, who_was_heard_of_last_is_kept_even_by_what_was_sent_again);
    return suite_run(suite);
}
