/* Counted text: what is UTF-8 (RFC 3629), what is printable, what is a number, what is equal. */
#include "common/str.h"

#include "tests/unit/suite.h"

#include <stdint.h>

static const struct {
    struct str text;
    bool valid;
} utf8_rows[] = {
    {STR(""), true},
    {STR("plain"), true},
    {STR("\x01\x1f\x7f"), true}, /* control characters are UTF-8; only NUL is refused beside it */
    {STR("\0"), false},
    {STR("a\0b"), false},
    /* the first and the last of each length */
    {STR("\xc2\x80"), true},
    {STR("\xdf\xbf"), true},
    {STR("\xe0\xa0\x80"), true},
    {STR("\xef\xbf\xbf"), true},
    {STR("\xf0\x90\x80\x80"), true},
    {STR("\xf4\x8f\xbf\xbf"), true},
    /* overlong forms */
    {STR("\xc0\x80"), false},
    {STR("\xc1\xbf"), false},
    {STR("\xe0\x80\x80"), false},
    {STR("\xe0\x9f\xbf"), false},
    {STR("\xf0\x80\x80\x80"), false},
    {STR("\xf0\x8f\xbf\xbf"), false},
    /* surrogates, and the two code points beside them */
    {STR("\xed\x9f\xbf"), true},
    {STR("\xed\xa0\x80"), false},
    {STR("\xed\xbf\xbf"), false},
    {STR("\xee\x80\x80"), true},
    /* beyond U+10FFFF */
    {STR("\xf4\x90\x80\x80"), false},
    {STR("\xf5\x80\x80\x80"), false},
    {STR("\xf7\xbf\xbf\xbf"), false},
    {STR("\xf8\x88\x80\x80\x80"), false},
    {STR("\xfe"), false},
    {STR("\xff"), false},
    /* a continuation byte without a start, and starts without all of theirs */
    {STR("\x80"), false},
    {STR("a\xbf"), false},
    {STR("\xc3"), false},
    {STR("\xc3g"), false},
    {STR("\xe2\x82"), false},
    {STR("\xe2\x28\xac"), false},
    {STR("\xe2\x82\x28"), false},
    {STR("\xe2\x82\xc0"), false},
    {STR("\xf0\x9f\x92"), false},
    {STR("\xf0\x9f\x92\x28"), false},
    {STR("\xf0\x28\x92\xa9"), false},
    {STR("\xf0\x9f\x28\xa9"), false},
    /* a wrong sequence behind good ones */
    {STR("h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x92\xa9"), true},
    {STR("h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x92"), false},
    {STR("good\xff"), false},
};

START_TEST(utf8_is_what_rfc_3629_says_and_no_nul)
{
    /* A copy of exactly its bytes: a sanitizer sees a look at one beyond them. */
    struct str row = utf8_rows[_i].text;
    char *bytes = malloc(row.len ? row.len : 1);

    memcpy(bytes, row.ptr, row.len);
    ck_assert_int_eq(str_is_utf8((struct str){bytes, row.len}), utf8_rows[_i].valid);
    free(bytes);
}
END_TEST

/* How RFC 3629 3 spells the code point; 0 bytes for none. */
static size_t spell(uint32_t point, char bytes[4])
{
    static const uint32_t beyond[] = {0, 0x80, 0x800, 0x10000, 0x110000};
    static const uint8_t leads[] = {0, 0x00, 0xc0, 0xe0, 0xf0};
    size_t len = 1;

    while (point >= beyond[len])
        len++;
    for (size_t i = len - 1; i > 0; i--, point >>= 6)
        bytes[i] = (char)(0x80 | (point & 0x3f));
    bytes[0] = (char)(leads[len] | point);
    return len;
}

START_TEST(every_code_point_is_taken_but_nul_and_the_surrogates)
{
    for (uint32_t point = 0; point <= 0x10ffff; point++) {
        char bytes[4];
        struct str text = {bytes, spell(point, bytes)};
        bool good = point != 0 && (point < 0xd800 || point > 0xdfff);

        if (str_is_utf8(text) != good)
            ck_abort_msg("U+%04X", point);
    }
}
END_TEST

START_TEST(printable_is_ascii_from_space_to_tilde)
{
    for (int c = 0; c < 256; c++) {
        char bytes[] = {'a', (char)c, 'b'};

        ck_assert_msg(str_is_printable((struct str){bytes, 3}) == (c >= 0x20 && c <= 0x7e),
                      "byte %02x", c);
    }
    ck_assert(str_is_printable(STR("")));
}
END_TEST

static const struct {
    struct str text;
    long long max, number;
    bool good;
} number_rows[] = {
    {STR("0"), 0, 0, true},
    {STR("1"), 0, 0, false},
    {STR("65535"), 65535, 65535, true},
    {STR("65536"), 65535, 0, false},
    {STR("007"), 10, 7, true},
    {STR("999999999999999999"), INT64_MAX, 999999999999999999, true},
    {STR("1000000000000000000"), INT64_MAX, 0, false},
    {STR("9223372036854775808"), INT64_MAX, 0, false},
    {STR("18446744073709551617"), INT64_MAX, 0, false},
    {STR(""), 10, 0, false},
    {STR("-1"), 10, 0, false},
    {STR("+1"), 10, 0, false},
    {STR(" 1"), 10, 0, false},
    {STR("1 "), 10, 0, false},
    {STR("1\n"), 10, 0, false},
    {STR("1\0"), 10, 0, false},
    {STR("0x1"), 10, 0, false},
    {STR("1e1"), 10, 0, false},
    {STR("1.0"), 10, 0, false},
    {STR("1/"), 10, 0, false},
    {STR("1:"), 10, 0, false},
    {STR("\xd9\xa1"), 10, 0, false}, /* ARABIC-INDIC DIGIT ONE */
};

START_TEST(a_number_is_digits_alone_and_in_range)
{
    long long number = -1;
    bool good = str_to_number(number_rows[_i].text, number_rows[_i].max, &number);

    ck_assert_int_eq(good, number_rows[_i].good);
    if (good)
        ck_assert_int_eq(number, number_rows[_i].number);
}
END_TEST

START_TEST(a_number_ends_where_its_view_ends)
{
    long long number;

    ck_assert(str_to_number((struct str){"1234", 2}, 100, &number));
    ck_assert_int_eq(number, 12);
}
END_TEST

START_TEST(absent_equals_only_absent)
{
    ck_assert(str_equal(STR_ABSENT, STR_ABSENT));
    ck_assert(!str_equal(STR_ABSENT, STR("")));
    ck_assert(!str_equal(STR(""), STR_ABSENT));
    ck_assert(str_equal(STR(""), STR("")));
    ck_assert(str_equal(STR("a\0b"), STR("a\0b")));
    ck_assert(!str_equal(STR("a\0b"), STR("a\0c")));
    ck_assert(!str_equal(STR("a"), STR("ab")));
    ck_assert(!str_equal(STR("ab"), STR("a")));
}
END_TEST

START_TEST(a_text_starts_with_what_is_no_longer_than_it)
{
    ck_assert(str_starts(STR("abc"), STR("ab")));
    ck_assert(str_starts(STR("abc"), STR("abc")));
    ck_assert(str_starts(STR("abc"), STR("")));
    ck_assert(!str_starts(STR("abc"), STR("abcd")));
    ck_assert(!str_starts(STR("abc"), STR("b")));
    ck_assert(!str_starts(STR_ABSENT, STR("a")));
}
END_TEST

START_TEST(a_copy_is_whole_and_ends_with_nul)
{
    char *copy = str_dup(STR("a\0b"));

    ck_assert_mem_eq(copy, "a\0b\0", 4);
    free(copy);
    copy = str_dup((struct str){"abc", 2});
    ck_assert_str_eq(copy, "ab");
    free(copy);
    copy = str_dup(STR(""));
    ck_assert_str_eq(copy, "");
    free(copy);
    ck_assert_ptr_null(str_dup(STR_ABSENT));
    ck_assert_ptr_null(str_from(NULL).ptr);
    ck_assert_uint_eq(str_from("abc").len, 3);
}
END_TEST

START_TEST(a_number_is_written_in_decimal)
{
    char text[STR_NUMBER_BYTES];

    ck_assert(str_equal(str_from_number(0, text), STR("0")));
    ck_assert(str_equal(str_from_number(-1, text), STR("-1")));
    ck_assert(str_equal(str_from_number(INT64_MAX, text), STR("9223372036854775807")));
    ck_assert(str_equal(str_from_number(INT64_MIN, text), STR("-9223372036854775808")));
}
END_TEST

START_TEST(kept_views_outlive_what_they_showed)
{
    char source[] = "onetwo";
    struct str views[] = {{source, 3}, STR_ABSENT, {source + 3, 0}, {source + 3, 3}};
    char *block = str_keep_all(views, 4);

    memset(source, 'x', sizeof(source));
    ck_assert(str_equal(views[0], STR("one")));
    ck_assert(str_equal(views[1], STR_ABSENT));
    ck_assert(str_equal(views[2], STR("")));
    ck_assert(str_equal(views[3], STR("two")));
    free(block);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("str");
    TCase *text = suite_case(suite, "text");

    tcase_add_loop_test(text, utf8_is_what_rfc_3629_says_and_no_nul, 0, COUNT_OF(utf8_rows));
    tcase_add_test(text, every_code_point_is_taken_but_nul_and_the_surrogates);
    tcase_add_test(text, printable_is_ascii_from_space_to_tilde);
    tcase_add_loop_test(text, a_number_is_digits_alone_and_in_range, 0, COUNT_OF(number_rows));
    tcase_add_test(text, a_number_ends_where_its_view_ends);
    tcase_add_test(text, absent_equals_only_absent);
    tcase_add_test(text, a_text_starts_with_what_is_no_longer_than_it);
    tcase_add_test(text, a_copy_is_whole_and_ends_with_nul);
    tcase_add_test(text, a_number_is_written_in_decimal);
    tcase_add_test(text, kept_views_outlive_what_they_showed);
    return suite_run(suite);
}
