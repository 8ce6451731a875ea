/* Where a request comes from (the contract, source_ip): what a trusted proxy's headers change, and
 * what becomes of everybody else's. 10.0.0.0/8 and 2001:db8:f::/48 are the trusted ones. */
#include "frontd/source.h"

#include "tests/unit/suite.h"

#include <stdio.h>

static struct network trusted_items[2];
static const struct networks trusted = {trusted_items, 2};

/* Reads the request with these header lines, and finds its source. */
static struct source find(const char *peer, const char *lines)
{
    char head[16384];
    struct http_request request = {0};
    struct source source = {.claimed = NULL};
    struct address address;
    const char *why;
    int len = snprintf(head, sizeof(head), "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", lines);

    ck_assert(address_parse(str_from(peer), &address));
    ck_assert(len > 0 && (size_t)len < sizeof(head));
    ck_assert_int_eq(http_request_feed(&request, head, (size_t)len, &why), ERROR_NONE);
    ck_assert(request.complete);
    source_find(&trusted, &address, &request, head, &source);
    return source;
}

#define XFF "X-Forwarded-For: "
#define CF  "CF-Connecting-IP: "

static const struct {
    const char *peer, *lines, *ip, *claimed; /* NULL: none */
} rows[] = {
    {"192.0.2.1", "", "192.0.2.1", NULL},
    {"10.0.0.1", "", "10.0.0.1", NULL},
    {"::ffff:10.0.0.1", XFF "192.0.2.9\r\n", "192.0.2.9", NULL},
    /* a trusted proxy says */
    {"10.0.0.1", CF "192.0.2.9\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", CF "::ffff:192.0.2.9\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", CF "2001:db8::9\r\n" XFF "192.0.2.8\r\n", "2001:db8::9", NULL},
    {"10.0.0.1", XFF "192.0.2.8\r\n" CF "192.0.2.9\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", XFF "192.0.2.9\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", XFF "6.6.6.6, 192.0.2.9\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", XFF "6.6.6.6,192.0.2.9,10.7.7.7\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", XFF "192.0.2.9 ,\t10.7.7.7 , 2001:db8:f::1\r\n", "192.0.2.9", NULL},
    {"2001:db8:f::1", XFF "192.0.2.9\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", XFF "192.0.2.9,,\t,\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", XFF ",192.0.2.9\r\n", "192.0.2.9", NULL},
    /* several lines are one list */
    {"10.0.0.1", XFF "6.6.6.6\r\n" XFF "192.0.2.9\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", XFF "192.0.2.9\r\nAccept: x\r\n" XFF "10.7.7.7\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", XFF "192.0.2.9\r\n" XFF "\r\n", "192.0.2.9", NULL},
    /* nobody but proxies, and what is no address: the peer stands */
    {"10.0.0.1", XFF "10.2.2.2, 10.7.7.7\r\n", "10.0.0.1", NULL},
    {"10.0.0.1", XFF "\r\n", "10.0.0.1", NULL},
    {"10.0.0.1", XFF "unknown\r\n", "10.0.0.1", NULL},
    {"10.0.0.1", XFF "192.0.2.9, unknown\r\n", "10.0.0.1", NULL},
    {"10.0.0.1", XFF "192.0.2.9\r\n" XFF "unknown, 10.7.7.7\r\n", "10.0.0.1", NULL},
    {"10.0.0.1", XFF "192.0.2.9:443\r\n", "10.0.0.1", NULL},
    {"10.0.0.1", XFF "unknown, 192.0.2.9\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", CF "unknown\r\n" XFF "192.0.2.9\r\n", "192.0.2.9", NULL},
    {"10.0.0.1", CF "\r\n", "10.0.0.1", NULL},
    /* anyone else claims */
    {"192.0.2.1", CF "10.0.0.1\r\n", "192.0.2.1", "10.0.0.1"},
    {"192.0.2.1", XFF "6.6.6.6,  7.7.7.7\r\n", "192.0.2.1", "6.6.6.6,  7.7.7.7"},
    {"192.0.2.1", XFF "6.6.6.6\r\n" CF "7.7.7.7\r\n" XFF "8.8.8.8\r\n", "192.0.2.1",
     "7.7.7.7, 6.6.6.6, 8.8.8.8"},
    {"192.0.2.1", XFF "\r\n", "192.0.2.1", NULL},
    {"192.0.2.1", CF "\xe2\x82\xac \"<x>\\n\t1\r\n", "192.0.2.1",
     "\\xe2\\x82\\xac \"<x>\\x5cn\\x091"},
    {"2001:db8::1", CF "10.0.0.1\r\n", "2001:db8::1", "10.0.0.1"},
};

START_TEST(test_rows)
{
    struct source source = find(rows[_i].peer, rows[_i].lines);

    ck_assert_str_eq(source.ip, rows[_i].ip);
    ck_assert_pstr_eq(source.claimed, rows[_i].claimed);
    source_clear(&source);
}
END_TEST

/* Cut behind the last character that fits whole. */
START_TEST(test_long_claims)
{
    static const struct {
        char fill;
        size_t count, len;
    } cases[] = {{'a', 256, 256},   {'a', 257, 256},   {'a', 5000, 256},
                 {'\xff', 64, 256}, {'\xff', 65, 256}, {'\\', 900, 256}};
    char lines[6000] = CF;
    struct source source;

    memset(lines + strlen(CF), cases[_i].fill, cases[_i].count);
    strcpy(lines + strlen(CF) + cases[_i].count, "\r\n");
    source = find("192.0.2.1", lines);
    ck_assert_uint_eq(strlen(source.claimed), cases[_i].len);
    source_clear(&source);
    memmove(lines + strlen(CF) + 1, lines + strlen(CF), strlen(lines + strlen(CF)) + 1);
    lines[strlen(CF)] = 'x';
    source = find("192.0.2.1", lines);
    ck_assert_uint_eq(strlen(source.claimed), cases[_i].fill == 'a' ? 256 : 253);
    source_clear(&source);
}
END_TEST

/* As many lines as a request may have, all of them looked at. */
START_TEST(test_many_lines)
{
    char lines[8192] = XFF "192.0.2.9\r\n";
    struct source source;

    for (int i = 0; i < HTTP_FIELDS_MAX - 2; i++)
        strcat(lines, XFF "10.7.7.7\r\n");
    source = find("10.0.0.1", lines);
    ck_assert_str_eq(source.ip, "192.0.2.9");
    source_clear(&source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("source");
    TCase *tests = suite_case(suite, "all");

    network_parse(STR("10.0.0.0/8"), &trusted_items[0]);
    network_parse(STR("2001:db8:f::/48"), &trusted_items[1]);
    tcase_add_loop_test(tests, test_rows, 0, COUNT_OF(rows));
    tcase_add_loop_test(tests, test_long_claims, 0, 6);
    tcase_add_test(tests, test_many_lines);
    return suite_run(suite);
}
