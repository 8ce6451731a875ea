/* The worker's deny list: what is in force while parts of it come in, and who is refused. */
#include "frontd/deny.h"

#include "tests/unit/suite.h"

#include <stdio.h>
#include <time.h>

static struct deny deny;

static void open_deny(void)
{
    deny_open(&deny, 100);
}

static void close_deny(void)
{
    deny_clear(&deny);
    ck_assert_uint_eq(deny_count(&deny), 0);
}

enum { FIRST = 1, LAST = 2 };

static bool take(int marks, struct str ids)
{
    static uint64_t serial;
    const struct msg_deny_list part = {++serial, marks & FIRST, marks & LAST, ids};

    return deny_take(&deny, &part);
}

#define IDS(literal) ((struct str){literal, sizeof(literal) - 1})

static bool refuses(const char *tenant, const char *spiffe_id)
{
    struct identity identity = {.kind = IDENTITY_AGENT,
                                .spiffe_id = str_dup(str_from(spiffe_id)),
                                .tenant = str_from(tenant)};
    bool refused = deny_refusal(&deny, &identity) != NULL;

    identity_clear(&identity);
    return refused;
}

START_TEST(a_list_counts_when_it_is_complete)
{
    ck_assert(!deny.complete);
    ck_assert(!take(FIRST, IDS("t\0a\0t\0b\0")));
    ck_assert(!refuses("t", "a"));
    ck_assert(!take(0, IDS("t\0c\0")));
    ck_assert(!deny.complete);
    ck_assert(take(LAST, IDS("t\0d\0")));
    ck_assert(deny.complete);
    ck_assert(refuses("t", "a") && refuses("t", "b") && refuses("t", "c") && refuses("t", "d"));
    ck_assert(!refuses("t", "e"));
    ck_assert_uint_eq(deny_count(&deny), 4);
}
END_TEST

START_TEST(an_empty_list_is_a_list)
{
    take(FIRST | LAST, STR(""));
    ck_assert(deny.complete);
    ck_assert(!refuses("t", "a"));
}
END_TEST

START_TEST(a_change_counts_at_once)
{
    take(FIRST | LAST, IDS("t\0a\0"));
    ck_assert(take(LAST, IDS("t\0b\0")));
    ck_assert(refuses("t", "a") && refuses("t", "b"));
    ck_assert(!take(LAST, IDS("t\0b\0"))); /* nothing new */
}
END_TEST

START_TEST(a_part_of_many_changes_counts_before_the_last)
{
    take(FIRST | LAST, STR(""));
    ck_assert(take(0, IDS("t\0a\0")));
    ck_assert(refuses("t", "a"));
    ck_assert(take(LAST, IDS("t\0b\0")));
}
END_TEST

START_TEST(a_new_list_takes_the_place_of_the_old_one_as_a_whole)
{
    take(FIRST | LAST, IDS("t\0a\0t\0b\0"));
    ck_assert(!take(FIRST, IDS("t\0c\0")));
    ck_assert(refuses("t", "a") && refuses("t", "b") && !refuses("t", "c"));
    ck_assert(take(LAST, IDS("t\0b\0")));
    ck_assert(!refuses("t", "a") && refuses("t", "b") && refuses("t", "c"));
}
END_TEST

START_TEST(a_list_that_begins_anew_forgets_the_half_of_one)
{
    take(FIRST, IDS("t\0a\0"));
    take(FIRST, IDS("t\0b\0"));
    take(LAST, STR(""));
    ck_assert(!refuses("t", "a") && refuses("t", "b"));
}
END_TEST

START_TEST(half_a_list_leaves_the_old_one_in_force)
{
    take(FIRST | LAST, IDS("t\0a\0"));
    take(FIRST, IDS("t\0b\0")); /* and registryd is gone */
    ck_assert(refuses("t", "a") && !refuses("t", "b"));
}
END_TEST

START_TEST(an_identity_is_its_tenant_and_its_spiffe_id)
{
    take(FIRST | LAST, IDS("acme\0spiffe://td/a\0"));
    ck_assert(refuses("acme", "spiffe://td/a"));
    ck_assert(!refuses("acme", "spiffe://td/"));
    ck_assert(!refuses("acme", "spiffe://td/a/b"));
    ck_assert(!refuses("other", "spiffe://td/a")); /* one tenant's row is nobody else's */
    ck_assert(!refuses("acmes", "piffe://td/a"));
}
END_TEST

START_TEST(nobody_is_not_refused)
{
    const struct identity nobody = {.kind = IDENTITY_NONE};

    take(FIRST | LAST, IDS("t\0a\0"));
    ck_assert_ptr_null(deny_refusal(&deny, &nobody));
}
END_TEST

static const struct str malformed[] = {
    IDS("t\0a\0t"), IDS("t\0a\0t\0b"), IDS("t\0a\0\0"), IDS("t\0a\0x\0y"), IDS("t\0a\0rest"),
};

START_TEST(a_malformed_part_is_taken_as_far_as_it_is_none)
{
    take(FIRST | LAST, malformed[_i]);
    ck_assert_uint_eq(deny_count(&deny), 1);
    ck_assert(refuses("t", "a"));
}
END_TEST

START_TEST(a_full_list_keeps_what_it_has_and_says_so)
{
    deny_open(&deny, 2);
    take(FIRST | LAST, IDS("t\0a\0t\0b\0t\0c\0"));
    ck_assert(deny.full && deny.complete);
    ck_assert(refuses("t", "a") && refuses("t", "b") && !refuses("t", "c"));
    ck_assert(!take(LAST, IDS("t\0d\0")));
    take(FIRST | LAST, IDS("t\0c\0"));
    ck_assert(!deny.full && refuses("t", "c"));
}
END_TEST

enum { PARTS = 1000, EACH = 1000, MILLION = PARTS * EACH };

/* One part of a list of a million. */
static void take_part(int part)
{
    static char ids[EACH * 64];
    size_t len = 0;

    for (int i = 0; i < EACH; i++) {
        len += (size_t)sprintf(ids + len, "acme") + 1;
        len += (size_t)sprintf(ids + len, "spiffe://td/agent/%d-%d", part, i) + 1;
    }
    take((part == 0 ? FIRST : 0) | (part == PARTS - 1 ? LAST : 0), (struct str){ids, len});
}

static int64_t cpu_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Whoever is in this loop answers nobody, so that neither a part nor the change of lists may take
 * long, whatever the list's size. Their share of the whole says so on any machine. */
START_TEST(a_million_identities_come_and_go_without_a_pause)
{
    int64_t begun, all, longest = 0, change;

    deny_open(&deny, MILLION);
    all = cpu_us();
    for (int part = 0; part < PARTS; part++) {
        begun = cpu_us();
        take_part(part);
        if (cpu_us() - begun > longest)
            longest = cpu_us() - begun;
    }
    all = cpu_us() - all;
    ck_assert_uint_eq(deny_count(&deny), MILLION);
    ck_assert(!deny.full);
    ck_assert(refuses("acme", "spiffe://td/agent/0-0") &&
              refuses("acme", "spiffe://td/agent/999-999"));
    begun = cpu_us();
    take(FIRST | LAST, STR(""));
    change = cpu_us() - begun;
    ck_assert_uint_eq(deny_count(&deny), 0);
    printf("deny list of %d: %lld us in all, the longest part %lld us, letting it go %lld us\n",
           MILLION, (long long)all, (long long)longest, (long long)change);
    ck_assert_int_lt(longest, all / 25);
    ck_assert_int_lt(change, all / 20);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("deny");
    TCase *tests = suite_case(suite, "all");

    tcase_add_checked_fixture(tests, open_deny, close_deny);
    tcase_add_test(tests, a_list_counts_when_it_is_complete);
    tcase_add_test(tests, an_empty_list_is_a_list);
    tcase_add_test(tests, a_change_counts_at_once);
    tcase_add_test(tests, a_part_of_many_changes_counts_before_the_last);
    tcase_add_test(tests, a_new_list_takes_the_place_of_the_old_one_as_a_whole);
    tcase_add_test(tests, a_list_that_begins_anew_forgets_the_half_of_one);
    tcase_add_test(tests, half_a_list_leaves_the_old_one_in_force);
    tcase_add_test(tests, an_identity_is_its_tenant_and_its_spiffe_id);
    tcase_add_test(tests, nobody_is_not_refused);
    tcase_add_loop_test(tests, a_malformed_part_is_taken_as_far_as_it_is_none, 0,
                        COUNT_OF(malformed));
    tcase_add_test(tests, a_full_list_keeps_what_it_has_and_says_so);
    tcase_add_test(tests, a_million_identities_come_and_go_without_a_pause);
    return suite_run(suite);
}
