/* The decoder under hostile bytes: cut, flipped, invented, and with lengths that claim more than
 * there is. It refuses or reads a message in bounds; it never looks beyond the payload and never
 * believes a claim. */
#include "tests/unit/proto_rows.h"

#include <stdio.h>

/* A whole payload of that row, freed by the caller. */
static char *make_payload(const struct row *row, enum level level, size_t *len)
{
    struct message message;
    msgpack_sbuffer buffer;

    fill(row, &message, level);
    write_payload(&buffer, row, &message, (struct oddity){.field = NO_FIELD});
    *len = buffer.size;
    return msgpack_sbuffer_release(&buffer);
}

START_TEST(a_message_cut_anywhere_is_none)
{
    const struct row *row = &rows[_i];
    const char *why;
    size_t len;
    char *payload = make_payload(row, LOWEST, &len);

    for (size_t cut = 0; cut < len; cut++)
        ASSERT_QUIETLY(!accepts(payload, cut, a_sender(row), &why), "%s cut at %zu", row->name,
                       cut);
    ck_assert(accepts(payload, len, a_sender(row), &why));
    free(payload);
}
END_TEST

START_TEST(a_long_message_cut_anywhere_is_none)
{
    const struct row *row = &rows[_i];
    const char *why;
    size_t len;
    char *payload = make_payload(row, HIGHEST, &len);

    for (size_t cut = 0; cut<len; cut += cut + 16> len ? 1 : len / 64 + 1)
        ck_assert_msg(!accepts(payload, cut, a_sender(row), &why), "%s cut at %zu", row->name, cut);
    ck_assert(accepts(payload, len, a_sender(row), &why));
    free(payload);
}
END_TEST

/* Whatever is accepted is a message in bounds: it can be written again, and reads back the same. */
static void assert_in_bounds_if_accepted(const void *payload, size_t len, enum proto_peer sender)
{
    struct decoded decoded = decode(payload, len, sender);
    const struct row *row = rows;
    struct frame frame;

    if (decoded.good) {
        while (row->type != decoded.message.type)
            row++;
        ASSERT_QUIETLY(row->senders & sender, "%s from a wrong sender", row->name);
        ASSERT_QUIETLY(proto_encode(row->type, &decoded.message.id, &decoded.message.body, &frame,
                                    &decoded.why),
                       "%s: %s was out of bounds", row->name, decoded.why);
        struct decoded again =
            decode(frame.bytes + PROTO_FRAME_HEAD, frame.len - PROTO_FRAME_HEAD, sender);
        ASSERT_QUIETLY(again.good, "%s: %s", row->name, again.why);
        assert_same(row, &decoded.message, &again.message);
        free(again.payload);
        free(frame.bytes);
    }
    free(decoded.payload);
}

START_TEST(a_flipped_bit_gives_nothing_or_a_message_in_bounds)
{
    static const enum level levels[] = {LOWEST, TYPICAL, ABSENT};
    const struct row *row = &rows[_i];

    for (size_t k = 0; k < COUNT_OF(levels); k++) {
        size_t len;
        char *payload = make_payload(row, levels[k], &len);

        for (size_t bit = 0; bit < len * 8; bit++) {
            payload[bit / 8] = (char)(payload[bit / 8] ^ 1 << bit % 8);
            assert_in_bounds_if_accepted(payload, len, a_sender(row));
            payload[bit / 8] = (char)(payload[bit / 8] ^ 1 << bit % 8);
        }
        free(payload);
    }
}
END_TEST

/* The most memory that this process ever had, in KiB: a claim that was believed shows here, even
 * when the memory was given back. */
static long peak_memory(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[128];
    long peak = -1;

    ck_assert_ptr_nonnull(status);
    while (peak < 0 && fgets(line, sizeof(line), status))
        sscanf(line, "VmPeak: %ld", &peak);
    fclose(status);
    ck_assert_int_gt(peak, 0);
    return peak;
}

/* Leads of values whose length follows, and how many bytes that length has. */
static const struct {
    uint8_t lead;
    int bytes;
} claims[] = {
    {0xd9, 1}, {0xda, 2}, {0xdb, 4}, /* str */
    {0xc4, 1}, {0xc5, 2}, {0xc6, 4}, /* bin */
    {0xc7, 1}, {0xc8, 2}, {0xc9, 4}, /* ext */
    {0xdc, 2}, {0xdd, 4},            /* array */
    {0xde, 2}, {0xdf, 4},            /* map */
};

/* The claim of that lead with its length's bits above `shift` zero; returns its length. */
static size_t make_claim(size_t index, int shift, char raw[5])
{
    uint32_t length = UINT32_MAX >> (32 - 8 * claims[index].bytes) >> shift;

    raw[0] = (char)claims[index].lead;
    for (int i = 0; i < claims[index].bytes; i++)
        raw[1 + i] = (char)(length >> (8 * (claims[index].bytes - 1 - i)));
    return 1 + (size_t)claims[index].bytes;
}

START_TEST(no_claimed_length_is_believed)
{
    const struct row *row = &rows[_i];
    struct message message;
    long before;

    fill(row, &message, LOWEST);
    before = peak_memory();
    for (int field = FIELD_ID; field < (int)row->count; field++) {
        for (size_t k = 0; field != NO_FIELD && k < COUNT_OF(claims); k++) {
            for (int shift = 0; shift < 8; shift++) { /* 16 MiB to 4 GiB for four bytes */
                char raw[5];
                struct oddity odd = {.field = field, .raw = {raw, make_claim(k, shift, raw)}};
                const char *why;

                ASSERT_QUIETLY(!accepts_odd(row, &message, odd, &why), "%s, field %d, claim %zu",
                               row->name, field, k);
            }
        }
    }
    ck_assert_int_lt(peak_memory() - before, 8192);
}
END_TEST

static const struct str odd_payloads[] = {
    STR(""),
    STR("\x90"),
    STR("\x91\x01"),
    STR("\x80"),
    STR("\xc0"),
    STR("\x01"),
    STR("\xdc"),
    STR("\xdc\x00"),
    STR("\xdc\x00\x02"),
    STR("\xdc\xff\xff\x01"),
    STR("\xdd\x00\x00\x00\x02\x03\xc4\x10"
        "0123456789abcdef"), /* a good one as array 32 */
    STR("\xdd\xff\xff\xff\xff\x01"),
    STR("\xdd\x00\xff\xff\xff\x01"),
    STR("\xdf\x00\xff\xff\xff\x01"),
    STR("\xc9\xff\xff\xff\xff\x01"),
    STR("\xdb\xff\xff\xff\xff"
        "a"),
    STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
};

START_TEST(what_is_no_array_of_a_message_is_refused)
{
    const char *why;
    long before = peak_memory();

    ck_assert(!accepts(odd_payloads[_i].ptr, odd_payloads[_i].len, PEER_ANY, &why));
    ck_assert_int_lt(peak_memory() - before, 8192);
}
END_TEST

START_TEST(nesting_costs_no_stack)
{
    static const uint8_t leads[] = {0x91, 0x92, 0x81, 0xdc, 0xdd, 0xdf};
    uint8_t *nest = malloc(PROTO_FRAME_MAX);
    const char *why;

    for (size_t i = 0; i < COUNT_OF(leads); i++) {
        memset(nest, leads[i], PROTO_FRAME_MAX);
        ck_assert(!accepts(nest, PROTO_FRAME_MAX, PEER_ANY, &why));
        memcpy(nest,
               "\x93\x01\xc4\x10"
               "0123456789abcdef",
               20); /* and where a field stands */
        ck_assert(!accepts(nest, PROTO_FRAME_MAX, PEER_ANY, &why));
    }
    free(nest);
}
END_TEST

START_TEST(noise_gives_nothing_or_a_message_in_bounds)
{
    uint64_t state = 0x9e3779b97f4a7c15 + (uint64_t)_i;

    for (int round = 0; round < 100; round++) {
        uint8_t noise[96];

        for (size_t i = 0; i < sizeof(noise); i++) {
            state ^= state << 13; /* xorshift64: the same noise at every run */
            state ^= state >> 7;
            state ^= state << 17;
            noise[i] = (uint8_t)(state >> 32);
        }
        /* As far as the first field it is good, else all noise would fail at once. */
        memcpy(noise, "\x90\x00\xc4\x10", 4);
        noise[0] = (uint8_t)(0x90 | (rows[_i].count + 2));
        noise[1] = (uint8_t)rows[_i].type;
        for (size_t len = 20; len < sizeof(noise); len += 5)
            assert_in_bounds_if_accepted(noise, len, PEER_ANY);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("proto_hostile");
    TCase *cut = suite_case(suite, "cut");
    TCase *changed = suite_case(suite, "changed");
    TCase *claimed = suite_case(suite, "claimed");

    tcase_add_loop_test(cut, a_message_cut_anywhere_is_none, 0, COUNT_OF(rows));
    tcase_add_loop_test(cut, a_long_message_cut_anywhere_is_none, 0, COUNT_OF(rows));
    tcase_add_loop_test(changed, a_flipped_bit_gives_nothing_or_a_message_in_bounds, 0,
                        COUNT_OF(rows));
    tcase_add_loop_test(changed, noise_gives_nothing_or_a_message_in_bounds, 0, COUNT_OF(rows));
    tcase_add_loop_test(claimed, no_claimed_length_is_believed, 0, COUNT_OF(rows));
    tcase_add_loop_test(claimed, what_is_no_array_of_a_message_is_refused, 0,
                        COUNT_OF(odd_payloads));
    tcase_add_test(claimed, nesting_costs_no_stack);
    return suite_run(suite);
}
