/* The worker's deny list: what is in force while parts of it come in, and who is refused. */
#include "frontd/deny.h"

#include "tests/unit/suite.h"

#include <stdio.h>

static struct deny deny;

static void open_deny(void)
{
    deny = (struct deny){.max = 100};
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
    deny.max = 2;
    take(FIRST | LAST, IDS("t\0a\0t\0b\0t\0c\0"));
    ck_assert(deny.full && deny.complete);
    ck_assert(refuses("t", "a") && refuses("t", "b") && !refuses("t", "c"));
    ck_assert(!take(LAST, IDS("t\0d\0")));
    take(FIRST | LAST, IDS("t\0c\0"));
    ck_assert(!deny.full && refuses("t", "c"));
}
END_TEST

START_TEST(a_hundred_thousand_identities_come_in_parts)
{
    enum { PARTS = 1000, EACH = 100 };
    char ids[EACH * 64];
    char last[64];

    deny.max = (size_t)PARTS * EACH;
    for (int part = 0; part < PARTS; part++) {
        size_t len = 0;

        for (int i = 0; i < EACH; i++) {
            len += (size_t)sprintf(ids + len, "acme") + 1;
            len += (size_t)sprintf(ids + len, "spiffe://td/agent/%d-%d", part, i) + 1;
        }
        take((part == 0 ? FIRST : 0) | (part == PARTS - 1 ? LAST : 0), (struct str){ids, len});
    }
    ck_assert_uint_eq(deny_count(&deny), deny.max);
    ck_assert(!deny.full);
    snprintf(last, sizeof(last), "spiffe://td/agent/%d-%d", PARTS - 1, EACH - 1);
    ck_assert(refuses("acme", last) && refuses("acme", "spiffe://td/agent/0-0"));
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
    tcase_add_test(tests, a_hundred_thousand_identities_come_in_parts);
    return suite_run(suite);
}
