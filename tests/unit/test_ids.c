/* Names that must not repeat: their spelling, its reading back, and that they do not repeat. */
#include "common/ids.h"

#include "tests/unit/suite.h"

#include <stdio.h>
#include <string.h>

enum { SAMPLES = 4096 };

static int compare_traces(const void *a, const void *b)
{
    return strcmp(a, b);
}

START_TEST(trace_ids_are_sixteen_hex_characters_all_random)
{
    static char traces[SAMPLES][TRACE_ID_LEN + 1];
    unsigned seen[TRACE_ID_LEN] = {0};

    for (int i = 0; i < SAMPLES; i++) {
        ids_trace(traces[i]);
        ck_assert_uint_eq(strlen(traces[i]), TRACE_ID_LEN);
        ck_assert_uint_eq(strspn(traces[i], "0123456789abcdef"), TRACE_ID_LEN);
        for (int at = 0; at < TRACE_ID_LEN; at++)
            seen[at] |= 1U << (strchr("0123456789abcdef", traces[i][at]) - "0123456789abcdef");
    }
    for (int at = 0; at < TRACE_ID_LEN; at++)
        ck_assert_msg(seen[at] == 0xffff, "place %d is not all random", at);
    qsort(traces, SAMPLES, sizeof(traces[0]), compare_traces);
    for (int i = 1; i < SAMPLES; i++)
        ck_assert_str_ne(traces[i - 1], traces[i]);
}
END_TEST

START_TEST(random_fills_every_byte_and_no_more)
{
    uint8_t bytes[300], seen[sizeof(bytes)] = {0};

    for (int i = 0; i < 64; i++) {
        memset(bytes, 0, sizeof(bytes));
        ids_random(bytes, sizeof(bytes) - 1);
        for (size_t at = 0; at < sizeof(bytes); at++)
            seen[at] |= bytes[at];
    }
    for (size_t at = 0; at + 1 < sizeof(bytes); at++)
        ck_assert_uint_ne(seen[at], 0);
    ck_assert_uint_eq(seen[sizeof(bytes) - 1], 0);
    ids_random(bytes, 0);
}
END_TEST

START_TEST(hex_is_lower_case_high_half_first)
{
    char text[9];

    ids_hex("\x00\x0f\xa5\xff", 4, text);
    ck_assert_str_eq(text, "000fa5ff");
    ids_hex("", 0, text);
    ck_assert_str_eq(text, "");
}
END_TEST

START_TEST(a_uuid_reads_back_to_its_bytes)
{
    uint8_t bytes[16], read[16];
    char text[UUID_TEXT_BYTES];

    for (uint8_t i = 0; i < 16; i++)
        bytes[i] = (uint8_t)(i * 17);
    ids_uuid_text(bytes, text);
    ck_assert_str_eq(text, "00112233-4455-6677-8899-aabbccddeeff");
    ck_assert_int_eq(ids_uuid_parse(text, read), 0);
    ck_assert_mem_eq(read, bytes, 16);
}
END_TEST

static const char *const no_uuids[] = {
    "",
    "-",
    "00112233-4455-6677-8899-aabbccddeef",
    "00112233-4455-6677-8899-aabbccddeeff0",
    "00112233-4455-6677-8899-aabbccddeeff ",
    " 0112233-4455-6677-8899-aabbccddeeff",
    "00112233-4455-6677-8899-aabbccddeefg",
    "00112233-4455-6677-8899-aabbccddeef/",
    "00112233445566778899aabbccddeeff",
    "00112233-4455-6677-8899aabbccddeeff0",
    "0011223-34455-6677-8899-aabbccddeeff",
    "00112233_4455_6677_8899_aabbccddeeff",
    "{00112233-4455-6677-8899-aabbccddeeff}",
    "00112233-4455-6677-8899-AABBCCDDEEFF", /* PostgreSQL and we write lower case only */
};

START_TEST(what_is_no_uuid_is_refused)
{
    uint8_t bytes[16];

    ck_assert_int_eq(ids_uuid_parse(no_uuids[_i], bytes), -1);
}
END_TEST

START_TEST(no_beginning_of_a_uuid_is_one)
{
    static const char whole[] = "00112233-4455-6677-8899-aabbccddeeff";
    uint8_t bytes[16];

    for (size_t len = 0; len + 1 < sizeof(whole); len++) {
        char *part = strndup(whole, len); /* a sanitizer sees a look beyond its NUL */

        ck_assert_int_eq(ids_uuid_parse(part, bytes), -1);
        free(part);
    }
}
END_TEST

START_TEST(the_hash_is_the_same_everywhere)
{
    /* FNV-1a of "" and "a" (draft-eastlake-fnv), their halves folded together. */
    ck_assert_uint_eq(ids_hash("", 0), 0xcbf29ce484222325 ^ 0xcbf29ce484222325 >> 32);
    ck_assert_uint_eq(ids_hash("a", 1), 0xaf63dc4c8601ec8c ^ 0xaf63dc4c8601ec8c >> 32);
}
END_TEST

START_TEST(the_hash_spreads_names_that_differ_in_their_end)
{
    unsigned buckets[16] = {0};

    for (int i = 0; i < SAMPLES; i++) {
        char name[32];
        int len = snprintf(name, sizeof(name), "spiffe://td/agent/acme/%d", i);

        buckets[ids_hash(name, (size_t)len) % 16]++;
    }
    for (int i = 0; i < 16; i++)
        ck_assert_uint_gt(buckets[i], SAMPLES / 16 / 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ids");
    TCase *names = suite_case(suite, "names");

    tcase_add_test(names, trace_ids_are_sixteen_hex_characters_all_random);
    tcase_add_test(names, random_fills_every_byte_and_no_more);
    tcase_add_test(names, hex_is_lower_case_high_half_first);
    tcase_add_test(names, a_uuid_reads_back_to_its_bytes);
    tcase_add_loop_test(names, what_is_no_uuid_is_refused, 0, COUNT_OF(no_uuids));
    tcase_add_test(names, no_beginning_of_a_uuid_is_one);
    tcase_add_test(names, the_hash_is_the_same_everywhere);
    tcase_add_test(names, the_hash_spreads_names_that_differ_in_their_end);
    return suite_run(suite);
}
