/* PROXY protocol v2 headers (proxy-protocol.txt, 2.2): each is read whole, byte by byte as a
 * connection would, and with every one of its bytes changed. */
#include "frontd/proxy_header.h"

#include "common/memory.h"
#include "tests/unit/suite.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define IP4       "\xcb\x00\x71\x07\xc0\x00\x02\x01\x01\xbb\x20\xfb"
#define IP6                                                                                        \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb" \
    "\x20\xfb"
#define MAPPED "\0\0\0\0\0\0\0\0\0\0\xff\xff\xcb\x00\x71\x07"

static const struct {
    struct str bytes;
    enum proxy_header_kind kind;
    const char *source; /* of PROXY_HEADER_ADDRESS */
} rows[] = {
    {STR(SIGNATURE "\x21\x11\x00\x0c" IP4), PROXY_HEADER_ADDRESS, "203.0.113.7"},
    {STR(SIGNATURE "\x21\x21\x00\x24" IP6), PROXY_HEADER_ADDRESS, "2001:db8::9"},
    {STR(SIGNATURE "\x21\x21\x00\x24" MAPPED MAPPED "\0\0\0\0"), PROXY_HEADER_ADDRESS,
     "203.0.113.7"},
    /* TLVs behind the address */
    {STR(SIGNATURE "\x21\x11\x00\x13" IP4 "\x04\x00\x04\0\0\0\0"), PROXY_HEADER_ADDRESS,
     "203.0.113.7"},
    {STR(SIGNATURE "\x21\x11\x00\x0f" IP4 "\xff\xff\xff"), PROXY_HEADER_ADDRESS, "203.0.113.7"},
    /* nothing that says who the client is */
    {STR(SIGNATURE "\x20\x00\x00\x00"), PROXY_HEADER_LOCAL, NULL},
    {STR(SIGNATURE "\x20\x11\x00\x0c" IP4), PROXY_HEADER_LOCAL, NULL},
    {STR(SIGNATURE "\x20\x99\x00\x03"
                   "abc"),
     PROXY_HEADER_LOCAL, NULL},
    {STR(SIGNATURE "\x21\x00\x00\x00"), PROXY_HEADER_LOCAL, NULL},
    {STR(SIGNATURE "\x21\x00\x00\x03"
                   "abc"),
     PROXY_HEADER_LOCAL, NULL},
    {STR(SIGNATURE "\x21\x12\x00\x0c" IP4), PROXY_HEADER_LOCAL, NULL},
    {STR(SIGNATURE "\x21\x22\x00\x24" IP6), PROXY_HEADER_LOCAL, NULL},
    /* addresses that are cut off, families and versions that nobody has defined */
    {STR(SIGNATURE "\x21\x11\x00\x0b" IP4), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x21\x11\x00\x00"), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x21\x21\x00\x0c" IP4), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x21\x31\x00\x0c" IP4), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x21\x10\x00\x0c" IP4), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x21\x41\x00\x0c" IP4), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x21\x13\x00\x0c" IP4), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x22\x11\x00\x0c" IP4), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x11\x11\x00\x0c" IP4), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x31\x11\x00\x0c" IP4), PROXY_HEADER_GARBAGE, NULL},
    {STR(SIGNATURE "\x21\x11\xff\xff" IP4), PROXY_HEADER_GARBAGE, NULL},
    /* what else may come first */
    {STR("PROXY TCP4 203.0.113.7 192.0.2.1 443 8443\r\n"), PROXY_HEADER_GARBAGE, NULL},
    {STR("GET / HTTP/1.1\r\n"), PROXY_HEADER_GARBAGE, NULL},
    {STR("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00"), PROXY_HEADER_GARBAGE,
     NULL},
    {STR("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), PROXY_HEADER_GARBAGE, NULL},
};

/* The first len bytes, as a buffer of exactly that size: a sanitizer sees a look beyond. */
static enum proxy_header_kind parse(struct str bytes, size_t len, struct proxy_header *header)
{
    unsigned char *copy = malloc(len ? len : 1);
    enum proxy_header_kind kind;

    memcpy(copy, bytes.ptr, len);
    *header = (struct proxy_header){0};
    kind = proxy_header_parse(copy, len, header);
    free(copy);
    return kind;
}

/* As a connection reads: never more than the parser asks for. Returns how many bytes were taken. */
static size_t read_as_asked(struct str bytes, size_t step, enum proxy_header_kind *kind,
                            struct proxy_header *header)
{
    size_t len = 0;

    while ((*kind = parse(bytes, len, header)) == PROXY_HEADER_PARTIAL && len < bytes.len) {
        size_t left = header->len - len;

        ASSERT_QUIETLY(header->len > len && header->len <= PROXY_HEADER_MAX, "asks for %zu",
                       header->len);
        len += step < left ? step : left;
        len = len < bytes.len ? len : bytes.len;
    }
    return len;
}

START_TEST(test_rows)
{
    const struct str bytes = rows[_i].bytes;
    char text[ADDRESS_TEXT_BYTES] = "";
    struct proxy_header header;
    enum proxy_header_kind kind;

    ck_assert_int_eq(parse(bytes, bytes.len, &header), rows[_i].kind);
    if (rows[_i].kind == PROXY_HEADER_ADDRESS) {
        address_format(&header.source, text);
        ck_assert_str_eq(text, rows[_i].source);
    }
    for (size_t step = 1; step <= bytes.len; step++) {
        size_t taken = read_as_asked(bytes, step, &kind, &header);

        ck_assert_int_eq(kind, rows[_i].kind);
        ck_assert(kind == PROXY_HEADER_GARBAGE || (taken == bytes.len && header.len == bytes.len));
    }
}
END_TEST

/* What follows the header is TLS, and stays in the socket. */
START_TEST(test_not_a_byte_more)
{
    const struct str bytes = STR(SIGNATURE "\x21\x11\x00\x0c" IP4 "\x16\x03\x01");
    struct proxy_header header;
    enum proxy_header_kind kind;

    ck_assert_uint_eq(read_as_asked(bytes, 1000, &kind, &header), 28);
    ck_assert_int_eq(kind, PROXY_HEADER_ADDRESS);
    ck_assert_uint_eq(header.len, 28);
}
END_TEST

START_TEST(test_nothing_yet)
{
    struct proxy_header header;

    ck_assert_int_eq(proxy_header_parse(NULL, 0, &header), PROXY_HEADER_PARTIAL);
    ck_assert_uint_eq(header.len, 16);
}
END_TEST

START_TEST(test_the_longest)
{
    unsigned char *bytes = memory_new(1, PROXY_HEADER_MAX);
    const size_t block = PROXY_HEADER_MAX - 16;
    struct proxy_header header;

    memcpy(bytes, SIGNATURE "\x21\x11", 14);
    bytes[14] = (unsigned char)(block >> 8);
    bytes[15] = (unsigned char)block;
    ck_assert_int_eq(proxy_header_parse(bytes, PROXY_HEADER_MAX, &header), PROXY_HEADER_ADDRESS);
    bytes[15]++;
    ck_assert_int_eq(proxy_header_parse(bytes, 16, &header), PROXY_HEADER_GARBAGE);
    free(bytes);
}
END_TEST

/* Whatever one byte is changed to: the parser stays within its bounds, and every bit of the
 * signature counts. */
START_TEST(test_changed_bytes)
{
    const struct str bytes = STR(SIGNATURE "\x21\x11\x00\x0c" IP4);
    char changed[28];
    struct proxy_header header;

    memcpy(changed, bytes.ptr, sizeof(changed));
    changed[_i] = (char)(changed[_i] ^ 1);
    for (size_t len = 0; len <= sizeof(changed); len++) {
        enum proxy_header_kind kind = parse((struct str){changed, sizeof(changed)}, len, &header);

        ASSERT_QUIETLY(kind != PROXY_HEADER_PARTIAL || header.len > len, "waits for nothing");
        ASSERT_QUIETLY(_i >= 12 || len <= (size_t)_i || kind == PROXY_HEADER_GARBAGE,
                       "byte %d of the signature does not count", _i);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("proxy_header");
    TCase *tests = suite_case(suite, "all");

    tcase_add_loop_test(tests, test_rows, 0, COUNT_OF(rows));
    tcase_add_test(tests, test_not_a_byte_more);
    tcase_add_test(tests, test_nothing_yet);
    tcase_add_test(tests, test_the_longest);
    tcase_add_loop_test(tests, test_changed_bytes, 0, 28);
    return suite_run(suite);
}
