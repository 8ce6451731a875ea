/* HTTP/1.1 request heads to the letter of RFC 9112 and of the contract's bounds: each is fed whole,
 * byte by byte and cut in two at every place, and must come out the same. */
#include "frontd/http_request.h"

#include "common/memory.h"
#include "tests/unit/suite.h"

#include <stdio.h>

struct outcome {
    enum error_code code;
    const char *why; /* of a refusal */
    struct http_request request;
};

/* Feeds the first len bytes, as a buffer of exactly that size: a sanitizer sees a look beyond. */
static enum error_code feed(struct outcome *outcome, struct str head, size_t len)
{
    char *bytes = malloc(len ? len : 1);

    memcpy(bytes, head.ptr, len);
    outcome->code = http_request_feed(&outcome->request, bytes, len, &outcome->why);
    if (outcome->code == ERROR_NONE)
        outcome->why = NULL;
    free(bytes);
    return outcome->code;
}

static struct outcome parse(struct str head)
{
    struct outcome outcome = {.code = ERROR_NONE};

    feed(&outcome, head, head.len);
    return outcome;
}

/* Cut at `first` bytes, then every `step` bytes. */
static struct outcome parse_in_parts(struct str head, size_t first, size_t step)
{
    struct outcome outcome = {.code = ERROR_NONE};

    for (size_t len = first; feed(&outcome, head, len) == ERROR_NONE && len < head.len;)
        len = len + step < head.len ? len + step : head.len;
    return outcome;
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    ASSERT_QUIETLY(a->code == b->code, "%s, and %s in parts", error_name(a->code),
                   error_name(b->code));
    ASSERT_QUIETLY(a->why == b->why, "%s, and %s in parts", a->why, b->why);
    ASSERT_QUIETLY(memcmp(&a->request, &b->request, sizeof(a->request)) == 0, "read otherwise");
}

/* Parses the head in all the ways. */
static struct outcome parse_anyhow(struct str head)
{
    struct outcome whole = parse(head), parts;

    for (size_t first = 0; first <= head.len; first++) {
        parts = parse_in_parts(head, first, head.len);
        assert_same(&whole, &parts);
    }
    parts = parse_in_parts(head, 0, 1);
    assert_same(&whole, &parts);
    return whole;
}

static void assert_view(struct str head, struct http_span span, struct str expected)
{
    struct str view = http_span_view(head.ptr, span);

    ck_assert_msg(str_equal(view, expected), "%.*s instead of %.*s", STR_ARGS(view),
                  STR_ARGS(expected));
}

/* ---- good ones ------------------------------------------------------------------------------- */

#define HOST "Host: a\r\n"
#define GET  "GET / HTTP/1.1\r\n"

static const struct {
    struct str head, method, path, query; /* query absent: none */
    bool is_http_1_0, keep_alive, expects_continue;
    uint64_t content_length;
} good[] = {
    {STR(GET HOST "\r\n"), STR("GET"), STR("/"), STR_ABSENT, false, true, false, 0},
    {STR("POST /v1/mesh/register?a=b&c HTTP/1.1\r\nContent-Length: 12\r\n" HOST "\r\n"),
     STR("POST"), STR("/v1/mesh/register"), STR("a=b&c"), false, true, false, 12},
    {STR("GET /? HTTP/1.1\r\n" HOST "\r\n"), STR("GET"), STR("/"), STR(""), false, true, false, 0},
    {STR("GET /a?b?c HTTP/1.1\r\n" HOST "\r\n"), STR("GET"), STR("/a"), STR("b?c"), false, true,
     false, 0},
    /* nothing is normalised */
    {STR("GET //a/./../b/%2e%00 HTTP/1.1\r\n" HOST "\r\n"), STR("GET"), STR("//a/./../b/%2e%00"),
     STR_ABSENT, false, true, false, 0},
    {STR("brew / HTTP/1.1\r\n" HOST "\r\n"), STR("brew"), STR("/"), STR_ABSENT, false, true, false,
     0},
    {STR("GET / HTTP/1.0\r\n\r\n"), STR("GET"), STR("/"), STR_ABSENT, true, false, false, 0},
    {STR("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), STR("GET"), STR("/"), STR_ABSENT,
     true, false, false, 0},
    {STR(GET HOST "Connection: close\r\n\r\n"), STR("GET"), STR("/"), STR_ABSENT, false, false,
     false, 0},
    {STR(GET HOST "CONNECTION:\tkeep-alive ,\tCLOSE\t\r\n\r\n"), STR("GET"), STR("/"), STR_ABSENT,
     false, false, false, 0},
    {STR(GET HOST "Connection: close\r\nConnection: keep-alive\r\n\r\n"), STR("GET"), STR("/"),
     STR_ABSENT, false, false, false, 0},
    {STR(GET HOST "Connection: closed, not-close, upgrade,,\r\nUpgrade: h2c\r\n\r\n"), STR("GET"),
     STR("/"), STR_ABSENT, false, true, false, 0},
    {STR(GET "hOST:a\r\nX:\r\nY: \t \r\nX: twice\r\n\r\n"), STR("GET"), STR("/"), STR_ABSENT, false,
     true, false, 0},
    {STR(GET HOST "X: \x80\xff tab\there\r\n\r\n"), STR("GET"), STR("/"), STR_ABSENT, false, true,
     false, 0},
    {STR(GET HOST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n"), STR("GET"), STR("/"),
     STR_ABSENT, false, true, true, 1},
    {STR(GET HOST "Expect: a-miracle\r\nContent-Length: 0\r\n\r\n"), STR("GET"), STR("/"),
     STR_ABSENT, false, true, false, 0},
    {STR("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"), STR("GET"), STR("/"), STR_ABSENT, true,
     false, false, 0},
    {STR(GET HOST "content-LENGTH:  007\t\r\n\r\n"), STR("GET"), STR("/"), STR_ABSENT, false, true,
     false, 7},
    {STR(GET HOST "Content-Length: 65536\r\n\r\n"), STR("GET"), STR("/"), STR_ABSENT, false, true,
     false, 65536},
};

START_TEST(a_good_head_is_read)
{
    struct str head = good[_i].head;
    const struct outcome outcome = parse_anyhow(head);
    const struct http_request *request = &outcome.request;

    ck_assert_msg(outcome.code == ERROR_NONE, "%s", outcome.why);
    ck_assert(request->complete);
    ck_assert_uint_eq(request->scanned, head.len);
    assert_view(head, request->method, good[_i].method);
    assert_view(head, request->path, good[_i].path);
    ck_assert_int_eq(request->has_query, good[_i].query.ptr != NULL);
    if (request->has_query)
        assert_view(head, request->query, good[_i].query);
    ck_assert_int_eq(request->is_http_1_0, good[_i].is_http_1_0);
    ck_assert_int_eq(request->keep_alive, good[_i].keep_alive);
    ck_assert_int_eq(request->expects_continue, good[_i].expects_continue);
    ck_assert_uint_eq(request->content_length, good[_i].content_length);
}
END_TEST

START_TEST(fields_that_somebody_reads_are_kept_trimmed)
{
    struct str head = STR("POST / HTTP/1.1\r\nCONTENT-type: \t application/json \t\r\n"
                          "Host:a.example:8443\r\nX-Content-Type: no\r\n\r\n");
    const struct outcome outcome = parse(head);

    ck_assert(outcome.request.given[HTTP_CONTENT_TYPE] && outcome.request.given[HTTP_HOST]);
    ck_assert(!outcome.request.given[HTTP_CONTENT_LENGTH] && !outcome.request.given[HTTP_EXPECT]);
    assert_view(head, outcome.request.fields[HTTP_CONTENT_TYPE], STR("application/json"));
    assert_view(head, outcome.request.fields[HTTP_HOST], STR("a.example:8443"));
}
END_TEST

START_TEST(what_comes_behind_the_head_is_not_looked_at)
{
    struct str head = STR(GET HOST "Content-Length: 3\r\n\r\n");
    struct str more =
        STR(GET HOST "Content-Length: 3\r\n\r\n\0\n\xff GET / HTTP/1.1\r\n" HOST "\r\n");
    struct outcome outcome = parse_anyhow(more), again = outcome;

    ck_assert_int_eq(outcome.code, ERROR_NONE);
    ck_assert(outcome.request.complete);
    ck_assert_uint_eq(outcome.request.scanned, head.len);
    feed(&again, more, more.len);
    assert_same(&outcome, &again);
}
END_TEST

START_TEST(a_head_that_has_not_ended_is_not_complete)
{
    struct str head = STR("POST /a?b HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\n");

    for (size_t len = 0; len < head.len; len++) {
        struct outcome outcome = parse((struct str){head.ptr, len});

        ck_assert_int_eq(outcome.code, ERROR_NONE);
        ck_assert(!outcome.request.complete);
    }
}
END_TEST

/* ---- malformed ones -------------------------------------------------------------------------- */

static const struct {
    struct str head;
    enum error_code code;
} bad[] = {
    /* line ends */
    {STR("GET / HTTP/1.1\nHost: a\n\n"), ERROR_VALIDATION},
    {STR(GET "Host: a\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "\n"), ERROR_VALIDATION},
    {STR(GET HOST "X: a\rb\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "X: a\r\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "\r\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/1.1\rHost: a\r\r"), ERROR_VALIDATION},
    {STR("\n"), ERROR_VALIDATION},
    /* the request line */
    {STR("\r\n" GET HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET\r\n\r\n"), ERROR_VALIDATION},
    {STR("GET /\r\n\r\n"), ERROR_VALIDATION}, /* HTTP/0.9 */
    {STR("GET / \r\n\r\n"), ERROR_VALIDATION},
    {STR(" GET / HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR(" / HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET  / HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET /  HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/1.1 \r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET /a b HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET\t/ HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("G(T / HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ERROR_VALIDATION},
    {STR("CONNECT a:443 HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("CONNECT /a HTTP/1.1\r\nContent-Length: 2\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/2.0\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/1.2\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/0.9\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/1.1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/01.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/1.\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/11\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / http/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTPS/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    /* targets: only a path */
    {STR("GET http://a/ HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("CONNECT a:443 HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET a HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET ?a HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET /a#b HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET /?a#b HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET /\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    {STR("GET /\0 HTTP/1.1\r\n" HOST "\r\n"), ERROR_VALIDATION},
    /* field names and colons */
    {STR(GET HOST "X : a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "X\t: a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST " X: a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "X: a\r\n folded\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "X: a\r\n\tfolded: b\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "X: a\r\n \r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST ": a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST ":\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "X\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "X Y: a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "X\0: a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "X: a\0b\r\n\r\n"), ERROR_VALIDATION},
    /* Host */
    {STR(GET "\r\n"), ERROR_VALIDATION},
    {STR(GET "X-Host: a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST HOST "\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "host: b\r\n\r\n"), ERROR_VALIDATION},
    {STR("GET / HTTP/1.0\r\n" HOST HOST "\r\n"), ERROR_VALIDATION},
    {STR(GET "Host: a b\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET "Host: a, b\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET "Host: u@a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET "Host: a/b\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET "Host: http://a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET "Host: \xc3\xa9\r\n\r\n"), ERROR_VALIDATION},
    /* lengths */
    {STR(GET HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: 3\r\nX: y\r\ncontent-length: 4\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: 3, 3\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: 3,\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: +3\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: -3\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: -0\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: 0x3\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: a\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: 3 3\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: 3.0\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: \"3\"\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length:\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: 99999999999999999999999999x\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Transfer-Encoding: chunked\r\n\r\n"), ERROR_LENGTH_REQUIRED},
    {STR(GET HOST "transfer-encoding:\tgzip, chunked\r\n\r\n"), ERROR_LENGTH_REQUIRED},
    {STR(GET HOST "Transfer-Encoding: identity\r\n\r\n"), ERROR_LENGTH_REQUIRED},
    {STR(GET HOST "Transfer-Encoding:\r\n\r\n"), ERROR_LENGTH_REQUIRED},
    {STR("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), ERROR_LENGTH_REQUIRED},
    {STR(GET HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
     ERROR_VALIDATION},
    {STR(GET HOST "Transfer-Encoding : chunked\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"), ERROR_VALIDATION},
    /* others that may stand once */
    {STR(GET HOST "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n"), ERROR_VALIDATION},
    {STR(GET HOST "Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n"), ERROR_VALIDATION},
};

START_TEST(a_malformed_head_is_refused)
{
    const struct outcome outcome = parse_anyhow(bad[_i].head);

    ck_assert_msg(outcome.code == bad[_i].code, "%s", error_name(outcome.code));
    ck_assert_ptr_nonnull(outcome.why);
}
END_TEST

START_TEST(a_length_beyond_every_number_is_still_a_length)
{
    struct outcome outcome = parse(STR(GET HOST "Content-Length: 65537\r\n\r\n"));

    ck_assert_int_eq(outcome.code, ERROR_NONE);
    ck_assert_uint_eq(outcome.request.content_length, 65537);
    outcome = parse(STR(GET HOST "Content-Length: 99999999999999999999999999\r\n\r\n"));
    ck_assert_int_eq(outcome.code, ERROR_NONE);
    ck_assert_uint_gt(outcome.request.content_length, HTTP_BODY_MAX);
    outcome = parse(STR(GET HOST "Content-Length: 00000000000000000000000005\r\n\r\n"));
    ck_assert_uint_eq(outcome.request.content_length, 5);
    outcome = parse(STR(GET HOST "Content-Length: 18446744073709551621\r\n\r\n")); /* 2^64 + 5 */
    ck_assert_uint_gt(outcome.request.content_length, HTTP_BODY_MAX);
}
END_TEST

/* ---- every byte at every kind of place ------------------------------------------------------- */

#define ALPHANUMERIC "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#define TOKEN        ALPHANUMERIC "!#$%&'*+-.^_`|~" /* RFC 9110 5.6.2 */

static const struct {
    const char *before, *after; /* the byte stands between them */
    const char *ascii;          /* what may stand there; NULL: every visible one and space */
    bool high_too;              /* and obs-text, RFC 9110 5.5 */
} places[] = {
    {"G", "T / HTTP/1.1\r\n" HOST "\r\n", TOKEN, false},
    {"GET /a", "b HTTP/1.1\r\n" HOST "\r\n", TOKEN ":/?@!$&'()*+,;=%[]{}<>\"\\^`|", false},
    {"GET / HTTP/1.", "\r\n" HOST "\r\n", "1", false},
    {GET HOST "X", "Y: a\r\n\r\n", TOKEN ":", false}, /* a colon ends the name */
    {GET HOST "X: a", "b\r\n\r\n", NULL, true},
    {GET "Host: a", "b\r\n\r\n", ALPHANUMERIC "-._~%!$&'()*+,;=:[]", false}, /* RFC 3986 3.2.2 */
};

static bool allowed(size_t place, unsigned char c)
{
    if (c >= 0x80)
        return places[place].high_too;
    if (!places[place].ascii)
        return c == '\t' || (c >= ' ' && c <= '~');
    if (strstr(places[place].before, "GET /a") && c == '#')
        return false;
    return c && strchr(places[place].ascii, c);
}

START_TEST(each_place_takes_its_bytes_and_no_others)
{
    size_t before = strlen(places[_i].before), len = before + 1 + strlen(places[_i].after);

    for (int c = 0; c < 256; c++) {
        char head[128];
        struct outcome outcome;

        snprintf(head, sizeof(head), "%s?%s", places[_i].before, places[_i].after);
        head[before] = (char)c;
        outcome = parse((struct str){head, len});
        if (c == '0' && strstr(places[_i].before, "HTTP/1."))
            continue; /* HTTP/1.0 is a version too */
        ck_assert_msg((outcome.code == ERROR_NONE && outcome.request.complete) ==
                          allowed((size_t)_i, (unsigned char)c),
                      "place %d, byte %02x: %s", _i, c, outcome.why ? outcome.why : "taken");
    }
}
END_TEST

/* ---- bounds ---------------------------------------------------------------------------------- */

/* Parses text + filler × count + rest, whole and in pieces of 1,000 bytes. */
static struct outcome parse_filled(const char *text, const char *filler, size_t count,
                                   const char *rest)
{
    size_t len = strlen(text), step = strlen(filler);
    cleanup_free char *head = malloc(len + count * step + strlen(rest) + 1);
    struct outcome whole, parts;

    strcpy(head, text);
    for (; count > 0; count--, len += step)
        memcpy(head + len, filler, step);
    strcpy(head + len, rest);
    whole = parse((struct str){head, len + strlen(rest)});
    parts = parse_in_parts((struct str){head, len + strlen(rest)}, 1, 1000);
    assert_same(&whole, &parts);
    return whole;
}

START_TEST(a_request_line_is_at_most_8_kib)
{
    const size_t room = 8192 - strlen("GET / HTTP/1.1"); /* its end is no part of it */
    struct outcome outcome = parse_filled("GET /", "x", room, " HTTP/1.1\r\n" HOST "\r\n");

    ck_assert_msg(outcome.code == ERROR_NONE, "%s", outcome.why);
    ck_assert(outcome.request.complete);
    outcome = parse_filled("GET /", "x", room + 1, " HTTP/1.1\r\n" HOST "\r\n");
    ck_assert_int_eq(outcome.code, ERROR_URI_TOO_LONG);
    outcome = parse_filled("", "x", 8192, "");
    ck_assert_int_eq(outcome.code, ERROR_NONE);
    outcome = parse_filled("", "x", 8193, ""); /* refused before its end */
    ck_assert_int_eq(outcome.code, ERROR_URI_TOO_LONG);
}
END_TEST

START_TEST(the_fields_are_at_most_16_kib)
{
    const size_t room = 16384 - strlen(HOST "X: \r\n"); /* the empty line is none of them */
    struct outcome outcome = parse_filled(GET HOST "X: ", "y", room, "\r\n\r\n");

    ck_assert_msg(outcome.code == ERROR_NONE, "%s", outcome.why);
    ck_assert(outcome.request.complete);
    outcome = parse_filled(GET HOST "X: ", "y", room + 1, "\r\n\r\n");
    ck_assert_int_eq(outcome.code, ERROR_HEADERS_TOO_LARGE);
    outcome = parse_filled(GET HOST "X: ", "y", 16384, ""); /* refused before its end */
    ck_assert_int_eq(outcome.code, ERROR_HEADERS_TOO_LARGE);
}
END_TEST

START_TEST(both_at_their_longest_fit)
{
    char line[8192 + 128];
    struct outcome outcome;

    snprintf(line, sizeof(line),
             "GET /%0*d HTTP/1.1\r\n" HOST "X: ", 8192 - (int)strlen("GET / HTTP/1.1"), 0);
    outcome = parse_filled(line, "y", 16384 - strlen(HOST "X: \r\n"), "\r\n\r\n");
    ck_assert_msg(outcome.code == ERROR_NONE, "%s", outcome.why);
    ck_assert_uint_eq(outcome.request.scanned, HTTP_REQUEST_LINE_MAX + HTTP_FIELDS_BYTES_MAX + 4);
}
END_TEST

START_TEST(the_fields_are_at_most_a_hundred)
{
    struct outcome outcome = parse_filled(GET HOST, "X: y\r\n", 99, "\r\n");

    ck_assert_msg(outcome.code == ERROR_NONE, "%s", outcome.why);
    ck_assert(outcome.request.complete);
    outcome = parse_filled(GET HOST, "X: y\r\n", 100, "\r\n");
    ck_assert_int_eq(outcome.code, ERROR_HEADERS_TOO_LARGE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_request");
    TCase *heads = suite_case(suite, "heads");
    TCase *malformed = suite_case(suite, "malformed");
    TCase *bounds = suite_case(suite, "bounds");

    tcase_add_loop_test(heads, a_good_head_is_read, 0, COUNT_OF(good));
    tcase_add_test(heads, fields_that_somebody_reads_are_kept_trimmed);
    tcase_add_test(heads, what_comes_behind_the_head_is_not_looked_at);
    tcase_add_test(heads, a_head_that_has_not_ended_is_not_complete);
    tcase_add_loop_test(malformed, a_malformed_head_is_refused, 0, COUNT_OF(bad));
    tcase_add_test(malformed, a_length_beyond_every_number_is_still_a_length);
    tcase_add_loop_test(malformed, each_place_takes_its_bytes_and_no_others, 0, COUNT_OF(places));
    tcase_add_test(bounds, a_request_line_is_at_most_8_kib);
    tcase_add_test(bounds, the_fields_are_at_most_16_kib);
    tcase_add_test(bounds, both_at_their_longest_fit);
    tcase_add_test(bounds, the_fields_are_at_most_a_hundred);
    return suite_run(suite);
}
