/* The set behind both copies of the deny list: what it knows, its order and its bound. */
#include "common/deny_set.h"

#include "tests/unit/suite.h"

#include <stdio.h>

static struct deny_set set;

static void open_set(void)
{
    set = (struct deny_set){.max = 3};
}

static void close_set(void)
{
    size_t max = set.max;

    deny_set_clear(&set);
    ck_assert_uint_eq(set.count, 0);
    ck_assert_uint_eq(set.max, max);
}

#define KEY(literal) ((struct str){literal, sizeof(literal)})

START_TEST(an_empty_set_knows_nobody)
{
    ck_assert(!deny_set_has(&set, KEY("t\0a")));
    deny_set_clear(&set);
    ck_assert(!deny_set_has(&set, KEY("t\0a")));
}
END_TEST

START_TEST(each_is_there_once_in_the_order_of_coming)
{
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0b")), DENY_ADDED);
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0a")), DENY_ADDED);
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0b")), DENY_KNOWN);
    ck_assert_uint_eq(set.count, 2);
    ck_assert(str_equal(deny_set_key(&set, 0), KEY("t\0b")));
    ck_assert(str_equal(deny_set_key(&set, 1), KEY("t\0a")));
}
END_TEST

START_TEST(a_key_is_all_its_bytes)
{
    deny_set_add(&set, KEY("t\0ab"));
    ck_assert(deny_set_has(&set, KEY("t\0ab")));
    ck_assert(!deny_set_has(&set, KEY("t\0a")));
    ck_assert(!deny_set_has(&set, KEY("t\0abc")));
    ck_assert(!deny_set_has(&set, KEY("ta\0b")));
    ck_assert(!deny_set_has(&set, STR("")));
}
END_TEST

START_TEST(a_full_set_knows_what_it_has_and_takes_no_more)
{
    deny_set_add(&set, KEY("t\0a"));
    deny_set_add(&set, KEY("t\0b"));
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0c")), DENY_ADDED);
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0d")), DENY_FULL);
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0a")), DENY_KNOWN);
    ck_assert_uint_eq(set.count, 3);
    ck_assert(!deny_set_has(&set, KEY("t\0d")));
}
END_TEST

START_TEST(a_set_that_was_emptied_is_as_new)
{
    deny_set_add(&set, KEY("t\0a"));
    deny_set_clear(&set);
    ck_assert(!deny_set_has(&set, KEY("t\0a")));
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0a")), DENY_ADDED);
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0b")), DENY_ADDED);
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0c")), DENY_ADDED);
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0d")), DENY_FULL);
}
END_TEST

START_TEST(a_set_of_one)
{
    set.max = 1;
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0a")), DENY_ADDED);
    ck_assert_int_eq(deny_set_add(&set, KEY("t\0b")), DENY_FULL);
    ck_assert(deny_set_has(&set, KEY("t\0a")) && !deny_set_has(&set, KEY("t\0b")));
}
END_TEST

/* More chains meet than in a table that is half empty, and the longest keys fill many blocks. */
START_TEST(the_longest_keys_fill_block_after_block)
{
    enum { MANY = 4096, LONGEST = 255 + 1 + 2048 + 1 };
    char bytes[LONGEST];

    set.max = MANY;
    memset(bytes, 'x', sizeof(bytes));
    for (int n = 0; n < MANY; n++) {
        bytes[snprintf(bytes, sizeof(bytes), "%d", n)] = 'x';
        ASSERT_QUIETLY(deny_set_add(&set, (struct str){bytes, sizeof(bytes)}) == DENY_ADDED,
                       "not added: %d", n);
    }
    for (int n = 0; n < MANY; n++) {
        struct str key = deny_set_key(&set, (size_t)n);

        ASSERT_QUIETLY(key.len == LONGEST && atoi(key.ptr) == n && deny_set_has(&set, key),
                       "not there as it came: %d", n);
    }
}
END_TEST

START_TEST(a_key_is_tenant_and_spiffe_id_each_ended)
{
    struct str key = deny_key_new(STR("acme"), STR("spiffe://td/a"));

    ck_assert(str_equal(key, KEY("acme\0spiffe://td/a")));
    free((char *)key.ptr);
    key = deny_key_new(STR(""), STR(""));
    ck_assert(str_equal(key, KEY("\0")));
    free((char *)key.ptr);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("deny_set");
    TCase *tests = suite_case(suite, "all");

    tcase_add_checked_fixture(tests, open_set, close_set);
    tcase_add_test(tests, an_empty_set_knows_nobody);
    tcase_add_test(tests, each_is_there_once_in_the_order_of_coming);
    tcase_add_test(tests, a_key_is_all_its_bytes);
    tcase_add_test(tests, a_full_set_knows_what_it_has_and_takes_no_more);
    tcase_add_test(tests, a_set_that_was_emptied_is_as_new);
    tcase_add_test(tests, a_set_of_one);
    tcase_add_test(tests, the_longest_keys_fill_block_after_block);
    tcase_add_test(tests, a_key_is_tenant_and_spiffe_id_each_ended);
    return suite_run(suite);
}
