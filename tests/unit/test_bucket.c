/* A bucket: which notes belong together, and what is said of their repeats. */
#include "eventd/bucket.h"

#include "tests/unit/suite.h"

#include <stdio.h>

static struct bucket *bucket;

static struct msg_event_note note_from(const char *source_ip, const char *spiffe_id)
{
    return (struct msg_event_note){.tenant_id = STR("acme"),
                                   .event_type = STR("auth.mtls_failure"),
                                   .spiffe_id = str_from(spiffe_id),
                                   .source_ip = str_from(source_ip),
                                   .occurred_at = 1000,
                                   .count = 1,
                                   .details = STR("{}"),
                                   .sample = STR_ABSENT};
}

static bool together(const struct msg_event_note *a, const struct msg_event_note *b)
{
    static struct bucket_key keys[2];

    bucket_key_of(&keys[0], a);
    bucket_key_of(&keys[1], b);
    return keys[0].kind == keys[1].kind && keys[0].len == keys[1].len &&
           memcmp(keys[0].bytes, keys[1].bytes, keys[0].len) == 0;
}

static void open_bucket(void)
{
    static struct bucket_key key;
    const struct msg_event_note note = note_from("192.0.2.1", NULL);

    bucket_key_of(&key, &note);
    bucket = bucket_new(&key, "warn");
}

static void close_bucket(void)
{
    bucket_free(bucket);
}

/* ---- keys ------------------------------------------------------------------------------------ */

static const struct {
    const char *a, *b; /* NULL: no address */
    bool together;
} addresses[] = {
    {"192.0.2.1", "192.0.2.1", true},
    {"192.0.2.1", "192.0.2.2", false},
    {"192.0.2.1", "::ffff:192.0.2.1", true},
    {"192.0.2.1", "::ffff:192.0.2.2", false},
    {"2001:db8::1", "2001:db8::2", true},
    {"2001:db8::1", "2001:db8:0:0:ffff:ffff:ffff:ffff", true},
    {"2001:db8::1", "2001:db8:0:1::1", false},
    {"2001:db8::1", "2001:DB8::1", true},
    {"::1", "::2", true},
    {"::1", "0.0.0.1", false},
    {"0.0.0.0", "255.255.255.255", false},
    {NULL, NULL, true},
    {NULL, "", true},
    {NULL, "nonsense", true}, /* no address is one bucket, whatever it says */
    {"nonsense", "192.0.2.1.5", true},
    {NULL, "0.0.0.0", false},
    {"192.0.2.1", " 192.0.2.1", false},
    {NULL, "192.0.2.1/24", true},
    {NULL, "2001:0db8:0000:0000:0000:0000:0000:0001:0000:0000:0000:0000", true}, /* too long */
};

START_TEST(addresses_are_counted_by_prefix)
{
    const struct msg_event_note a = note_from(addresses[_i].a, NULL);
    const struct msg_event_note b = note_from(addresses[_i].b, NULL);

    ck_assert_int_eq(together(&a, &b), addresses[_i].together);
    ck_assert_int_eq(together(&b, &a), addresses[_i].together);
}
END_TEST

START_TEST(an_identity_is_one_wherever_it_comes_from)
{
    const struct msg_event_note here = note_from("192.0.2.1", "spiffe://td/a");
    const struct msg_event_note there = note_from("2001:db8::1", "spiffe://td/a");
    const struct msg_event_note nowhere = note_from(NULL, "spiffe://td/a");
    const struct msg_event_note other = note_from("192.0.2.1", "spiffe://td/b");
    const struct msg_event_note nobody = note_from("192.0.2.1", NULL);

    ck_assert(together(&here, &there) && together(&here, &nowhere));
    ck_assert(!together(&here, &other) && !together(&here, &nobody));
}
END_TEST

START_TEST(type_tenant_and_details_tell_apart)
{
    const struct msg_event_note one = note_from("192.0.2.1", "spiffe://td/a");
    struct msg_event_note other = one;

    other.event_type = STR("auth.mtls_success");
    ck_assert(!together(&one, &other));
    other = one;
    other.tenant_id = STR("other");
    ck_assert(!together(&one, &other));
    other = one;
    other.details = STR("{\"reason\":\"expired\"}");
    ck_assert(!together(&one, &other));
    other = one;
    other.sample = STR("{\"subject\":\"x\"}"); /* a sample does not, nor when and how many */
    other.count = 7;
    other.occurred_at = 1;
    ck_assert(together(&one, &other));
}
END_TEST

/* A name's end is in the key: what moves from one name to the next makes another key. */
START_TEST(names_do_not_flow_into_one_another)
{
    struct msg_event_note one = note_from(NULL, NULL), other = one;

    one.event_type = STR("ab");
    one.tenant_id = STR("c");
    other.event_type = STR("a");
    other.tenant_id = STR("bc");
    ck_assert(!together(&one, &other));
    one = other = note_from(NULL, "192.0.2.1"); /* an identity that looks like an address */
    other.source_ip = other.spiffe_id;
    other.spiffe_id = STR_ABSENT;
    ck_assert(!together(&one, &other));
}
END_TEST

START_TEST(the_longest_note_has_a_key)
{
    static char text[2048];
    static struct bucket_key key;
    struct msg_event_note note = note_from("192.0.2.1", NULL);
    struct bucket *longest;

    memset(text, 'x', sizeof(text));
    note.tenant_id = (struct str){text, 255};
    note.event_type = (struct str){text, 64};
    note.details = (struct str){text, 512};
    note.spiffe_id = (struct str){text, 2048};
    bucket_key_of(&key, &note);
    longest = bucket_new(&key, "warn");
    ck_assert(str_equal(longest->tenant, note.tenant_id));
    ck_assert(str_equal(longest->type, note.event_type));
    ck_assert(str_equal(longest->details, note.details));
    ck_assert(str_equal(longest->spiffe_id, note.spiffe_id));
    bucket_free(longest);
}
END_TEST

START_TEST(a_bucket_says_whose_it_is)
{
    ck_assert_int_eq(bucket->kind, BUCKET_ADDRESS);
    ck_assert(str_equal(bucket->type, STR("auth.mtls_failure")));
    ck_assert(str_equal(bucket->tenant, STR("acme")));
    ck_assert(str_equal(bucket->details, STR("{}")));
    ck_assert(str_equal(bucket->prefix, STR("192.0.2.1")));
    ck_assert(!bucket->spiffe_id.ptr);
    ck_assert_str_eq(bucket->severity, "warn");
    ck_assert_uint_eq(bucket->repeats.count, 0);
}
END_TEST

START_TEST(what_overflows_is_the_systems_and_one_a_type)
{
    static struct bucket_key keys[2];
    const struct msg_event_note a = note_from("192.0.2.1", "spiffe://td/a");
    const struct msg_event_note b = note_from("2001:db8::1", NULL);
    struct bucket *overflow;

    bucket_key_overflow(&keys[0], &a);
    bucket_key_overflow(&keys[1], &b);
    ck_assert_int_eq(keys[0].kind, BUCKET_OVERFLOW);
    ck_assert_uint_eq(keys[0].len, keys[1].len);
    ck_assert_mem_eq(keys[0].bytes, keys[1].bytes, keys[0].len);
    overflow = bucket_new(&keys[0], "warn");
    ck_assert(str_equal(overflow->tenant, STR("_system")));
    ck_assert(str_equal(overflow->details, STR("{\"overflow\":true}")));
    ck_assert(!overflow->spiffe_id.ptr && !overflow->prefix.ptr);
    bucket_free(overflow);
}
END_TEST

/* ---- repeats --------------------------------------------------------------------------------- */

static void add(uint8_t number, int64_t at, uint64_t count, const char *source_ip,
                const char *sample)
{
    struct msg_event_note note = note_from(source_ip, NULL);

    note.occurred_at = at;
    note.count = count;
    note.sample = str_from(sample);
    bucket_add(bucket, &(struct request_id){{[15] = number}}, &note);
}

static void assert_text(const char *expected)
{
    char *text = bucket_repeats_text(bucket);

    ck_assert_str_eq(text, expected);
    free(text);
}

START_TEST(counts_add_up_and_the_first_gives_the_row_its_name_and_time)
{
    add(3, 5000, 1, "192.0.2.1", NULL);
    add(4, 6000, 40, "192.0.2.1", NULL);
    add(5, 7000, 1, "192.0.2.1", NULL);
    ck_assert_uint_eq(bucket->repeats.count, 42);
    ck_assert_int_eq(bucket->repeats.id.bytes[15], 3);
    ck_assert_int_eq(bucket->repeats.occurred_at, 5000);
    assert_text("{\"first_seen\":\"1970-01-01T00:00:05.000Z\","
                "\"last_seen\":\"1970-01-01T00:00:07.000Z\"}");
}
END_TEST

START_TEST(time_may_go_backwards)
{
    add(1, 5000, 1, NULL, NULL);
    add(2, 1000, 1, NULL, NULL);
    add(3, 3000, 1, NULL, NULL);
    ck_assert_int_eq(bucket->repeats.occurred_at, 5000); /* of the row's own, as its id is */
    assert_text("{\"first_seen\":\"1970-01-01T00:00:01.000Z\","
                "\"last_seen\":\"1970-01-01T00:00:05.000Z\"}");
}
END_TEST

START_TEST(one_address_is_the_rows_own_and_is_not_listed)
{
    char text[INET6_ADDRSTRLEN];

    bucket_address_text(bucket, text);
    ck_assert_str_eq(text, "");
    add(1, 0, 1, NULL, NULL);
    add(2, 0, 1, "nonsense", NULL);
    bucket_address_text(bucket, text);
    ck_assert_str_eq(text, "");
    add(3, 0, 1, "::ffff:192.0.2.9", NULL);
    add(4, 0, 1, "192.0.2.9", NULL);
    bucket_address_text(bucket, text);
    ck_assert_str_eq(text, "192.0.2.9");
    ck_assert_uint_eq(bucket->repeats.address_count, 1);
    assert_text("{\"first_seen\":\"1970-01-01T00:00:00.000Z\","
                "\"last_seen\":\"1970-01-01T00:00:00.000Z\"}");
}
END_TEST

static void add_from(int last_byte)
{
    char address[INET6_ADDRSTRLEN];

    snprintf(address, sizeof(address), "2001:db8::%x", (unsigned)last_byte);
    add((uint8_t)last_byte, 0, 1, address, NULL);
}

START_TEST(addresses_are_listed_once_each_as_far_as_there_is_room)
{
    char *text;

    for (int round = 0; round < 2; round++)
        for (int i = 1; i <= BUCKET_ADDRESSES; i++)
            add_from(i);
    ck_assert_uint_eq(bucket->repeats.address_count, BUCKET_ADDRESSES);
    text = bucket_repeats_text(bucket);
    ck_assert_ptr_nonnull(strstr(text, ",\"addresses\":[\"2001:db8::1\",\"2001:db8::2\","));
    ck_assert_ptr_nonnull(strstr(text, "\"2001:db8::8\"]}"));
    free(text);
    add_from(BUCKET_ADDRESSES + 1);
    ck_assert_uint_eq(bucket->repeats.address_count, BUCKET_ADDRESSES);
    text = bucket_repeats_text(bucket);
    ck_assert_ptr_nonnull(strstr(text, "\"2001:db8::8\"],\"more_addresses\":true}"));
    free(text);
}
END_TEST

static const struct {
    const char *samples[3]; /* NULL: none */
    bool differ;
} sampled[] = {
    {{"a", "a", "a"}, false}, {{NULL, NULL, NULL}, false}, {{"a", "b", "a"}, true},
    {{"a", NULL, "a"}, true}, {{NULL, "a", "a"}, true},    {{"a", "a", "aa"}, true},
    {{"", "", NULL}, true},
};

START_TEST(a_sample_is_told_while_all_are_alike)
{
    for (uint8_t i = 0; i < 3; i++)
        add(i, 0, 1, NULL, sampled[_i].samples[i]);
    ck_assert_int_eq(bucket->repeats.samples_differ, sampled[_i].differ);
    ck_assert(str_equal(str_from(bucket->repeats.sample), str_from(sampled[_i].samples[0])));
}
END_TEST

START_TEST(after_its_row_a_bucket_counts_anew)
{
    add(1, 5000, 2, "192.0.2.1", "a");
    add(2, 5000, 2, "192.0.2.2", "b");
    bucket_restart(bucket);
    ck_assert_uint_eq(bucket->repeats.count, 0);
    ck_assert_uint_eq(bucket->repeats.address_count, 0);
    ck_assert_ptr_null(bucket->repeats.sample);
    bucket_restart(bucket); /* of nothing */
    add(3, 1000, 1, "192.0.2.3", "c");
    ck_assert_int_eq(bucket->repeats.id.bytes[15], 3);
    ck_assert(!bucket->repeats.samples_differ);
    assert_text("{\"first_seen\":\"1970-01-01T00:00:01.000Z\","
                "\"last_seen\":\"1970-01-01T00:00:01.000Z\"}");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bucket");
    TCase *keys = suite_case(suite, "keys"), *repeats = suite_case(suite, "repeats");

    tcase_add_checked_fixture(keys, open_bucket, close_bucket);
    tcase_add_loop_test(keys, addresses_are_counted_by_prefix, 0, COUNT_OF(addresses));
    tcase_add_test(keys, an_identity_is_one_wherever_it_comes_from);
    tcase_add_test(keys, type_tenant_and_details_tell_apart);
    tcase_add_test(keys, names_do_not_flow_into_one_another);
    tcase_add_test(keys, the_longest_note_has_a_key);
    tcase_add_test(keys, a_bucket_says_whose_it_is);
    tcase_add_test(keys, what_overflows_is_the_systems_and_one_a_type);
    tcase_add_checked_fixture(repeats, open_bucket, close_bucket);
    tcase_add_test(repeats, counts_add_up_and_the_first_gives_the_row_its_name_and_time);
    tcase_add_test(repeats, time_may_go_backwards);
    tcase_add_test(repeats, one_address_is_the_rows_own_and_is_not_listed);
    tcase_add_test(repeats, addresses_are_listed_once_each_as_far_as_there_is_room);
    tcase_add_loop_test(repeats, a_sample_is_told_while_all_are_alike, 0, COUNT_OF(sampled));
    tcase_add_test(repeats, after_its_row_a_bucket_counts_anew);
    return suite_run(suite);
}
