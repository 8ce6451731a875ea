/* The codec, by the list of messages itself: every message and field of messages.def is tried at
 * its bounds and one beyond them, in both directions, and as every other msgpack type. */
#include "common/memory.h"
#include "tests/unit/proto_rows.h"

/* ---- good messages --------------------------------------------------------------------------- */

START_TEST(every_message_survives_at_its_bounds)
{
    const struct row *row = &rows[_i];

    for (enum level level = LOWEST; level <= ABSENT; level++) {
        struct message message;
        struct frame frame;
        const char *why = NULL;

        fill(row, &message, level);
        ck_assert_msg(proto_encode(row->type, &an_id, &message.body, &frame, &why), "%s: %s",
                      row->name, why);
        ck_assert_uint_le(frame.len, PROTO_FRAME_HEAD + PROTO_FRAME_MAX);
        ck_assert_uint_eq((size_t)frame.bytes[0] << 24 | (size_t)frame.bytes[1] << 16 |
                              (size_t)frame.bytes[2] << 8 | frame.bytes[3],
                          frame.len - PROTO_FRAME_HEAD);
        struct decoded decoded =
            decode(frame.bytes + PROTO_FRAME_HEAD, frame.len - PROTO_FRAME_HEAD, a_sender(row));
        ck_assert_msg(decoded.good, "%s: %s", row->name, decoded.why);
        assert_same(row, &message, &decoded.message);
        free(decoded.payload);
        free(frame.bytes);
    }
}
END_TEST

START_TEST(every_message_is_written_as_any_msgpack_writer_would)
{
    const struct row *row = &rows[_i];

    for (enum level level = LOWEST; level <= ABSENT; level++) {
        struct message message;
        msgpack_sbuffer expected;
        struct frame frame;
        const char *why;

        fill(row, &message, level);
        ck_assert(proto_encode(row->type, &an_id, &message.body, &frame, &why));
        write_payload(&expected, row, &message, (struct oddity){.field = NO_FIELD});
        ck_assert_uint_eq(frame.len - PROTO_FRAME_HEAD, expected.size);
        ck_assert_mem_eq(frame.bytes + PROTO_FRAME_HEAD, expected.data, expected.size);
        msgpack_sbuffer_destroy(&expected);
        free(frame.bytes);
    }
}
END_TEST

START_TEST(a_message_comes_from_those_who_may_send_it_alone)
{
    const struct row *row = &rows[_i];
    struct message message;
    msgpack_sbuffer buffer;

    ck_assert_str_eq(proto_name(row->type), row->name);
    fill(row, &message, LOWEST);
    write_payload(&buffer, row, &message, (struct oddity){.field = NO_FIELD});
    for (unsigned peer = 1; peer <= PEER_EVENTD; peer <<= 1) {
        const char *why;
        bool good = accepts(buffer.data, buffer.size, (enum proto_peer)peer, &why);

        ck_assert_msg(good == ((row->senders & peer) != 0), "%s from %s", row->name,
                      proto_peer_name((enum proto_peer)peer));
    }
    msgpack_sbuffer_destroy(&buffer);
}
END_TEST

START_TEST(names_are_told)
{
    ck_assert_str_eq(proto_name((enum message_type)0), "unknown");
    ck_assert_str_eq(proto_peer_name(PEER_FRONTD), "frontd");
    ck_assert_str_eq(proto_peer_name(PEER_SUPERVISOR), "supervisor");
    ck_assert_str_eq(proto_peer_name(PEER_KEEPER), "keeper");
    ck_assert_str_eq(proto_peer_name(PEER_REGISTRYD), "registryd");
    ck_assert_str_eq(proto_peer_name(PEER_AUDITD), "auditd");
    ck_assert_str_eq(proto_peer_name(PEER_EVENTD), "eventd");
    ck_assert_str_eq(proto_peer_name(PEER_ANY), "unknown");
}
END_TEST

/* ---- out of bounds --------------------------------------------------------------------------- */

/* Both directions refuse the message, and name the field. */
static void assert_refused(const struct row *row, const struct field *field,
                           const struct message *message)
{
    struct frame frame;
    const char *why = "";

    ck_assert_msg(!proto_encode(row->type, &an_id, &message->body, &frame, &why),
                  "%s.%s was written", row->name, field->name);
    ck_assert_str_eq(why, field->name);
    ck_assert_msg(!accepts_odd(row, message, (struct oddity){.field = NO_FIELD}, &why),
                  "%s.%s was read", row->name, field->name);
    ck_assert_str_eq(why, field->name);
}

START_TEST(one_beyond_a_bound_is_refused_by_both_sides)
{
    const struct row *row = &rows[_i];
    struct message message;

    for (size_t i = 0; i < row->count; i++) {
        const struct field *field = &row->fields[i];

        if (field->kind == flag)
            continue;
        fill(row, &message, LOWEST);
        if (field->min > (is_number(field) && field->kind != u64 ? INT64_MIN : 0)) {
            set_value(row, i, &message.body, field->min - 1);
            assert_refused(row, field, &message);
        }
        if (field->max < INT64_MAX) {
            set_value(row, i, &message.body, field->max + 1);
            assert_refused(row, field, &message);
        }
    }
}
END_TEST

START_TEST(absent_is_only_what_may_be_absent)
{
    const struct row *row = &rows[_i];

    for (size_t i = 0; i < row->count; i++) {
        struct message message;

        if (!is_bytes(&row->fields[i]) || is_optional(&row->fields[i]))
            continue;
        fill(row, &message, LOWEST);
        *(struct str *)((char *)&message.body + row->fields[i].offset) = STR_ABSENT;
        assert_refused(row, &row->fields[i], &message);
    }
}
END_TEST

START_TEST(text_is_utf8_without_nul)
{
    static const char *const endings[] = {"\0", "\xff", "\xc3", "\x80"};
    const struct row *row = &rows[_i];

    for (size_t i = 0; i < row->count; i++) {
        const struct field *field = &row->fields[i];
        size_t len = field->min > 1 ? (size_t)field->min : 1;

        for (size_t k = 0; is_text(field) && k < COUNT_OF(endings); k++) {
            char *text = memory_copy(some_bytes(i, len).ptr, len);
            struct message message;

            text[len - 1] = endings[k][0];
            fill(row, &message, LOWEST);
            *(struct str *)((char *)&message.body + field->offset) = (struct str){text, len};
            assert_refused(row, field, &message);
            free(text);
        }
    }
}
END_TEST

/* ---- other types ----------------------------------------------------------------------------- */

enum { NIL = 1, FLAG = 2, NUMBER = 4, NEGATIVE = 8, TEXT = 16, BYTES = 32, NOTHING = 0 };

/* One value in msgpack, and what it is; NOTHING: no field can be this. */
static const struct {
    struct str raw;
    unsigned is;
} values[] = {
    {STR("\xc0"), NIL},
    {STR("\xc2"), FLAG},
    {STR("\xc3"), FLAG},
    {STR("\x01"), NUMBER},
    {STR("\xcc\x01"), NUMBER},
    {STR("\xcd\x00\x01"), NUMBER},
    {STR("\xd3\0\0\0\0\0\0\0\x01"), NUMBER},
    {STR("\xff"), NEGATIVE},
    {STR("\xd3\xff\xff\xff\xff\xff\xff\xff\xff"), NEGATIVE},
    {STR("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), NOTHING}, /* beyond every bound */
    {STR("\xca\x3f\x80\x00\x00"), NOTHING},
    {STR("\xcb\x3f\xf0\0\0\0\0\0\0"), NOTHING},
    {STR("\xa1z"), TEXT},
    {STR("\xd9\x01z"), TEXT},
    {STR("\xda\x00\x01z"), TEXT},
    {STR("\xdb\x00\x00\x00\x01z"), TEXT},
    {STR("\xc4\x01z"), BYTES},
    {STR("\xc5\x00\x01z"), BYTES},
    {STR("\xc6\x00\x00\x00\x01z"), BYTES},
    {STR("\x90"), NOTHING}, /* arrays */
    {STR("\x91\x01"), NOTHING},
    {STR("\xdc\x00\x00"), NOTHING},
    {STR("\xdd\x00\x00\x00\x00"), NOTHING},
    {STR("\x80"), NOTHING}, /* maps */
    {STR("\x81\x01\x01"), NOTHING},
    {STR("\xde\x00\x00"), NOTHING},
    {STR("\xdf\x00\x00\x00\x00"), NOTHING},
    {STR("\xc7\x00\x01"), NOTHING}, /* extensions */
    {STR("\xc8\x00\x00\x01"), NOTHING},
    {STR("\xc9\x00\x00\x00\x00\x01"), NOTHING},
    {STR("\xd4\x01\x00"), NOTHING},
    {STR("\xd8\x01"
         "0123456789abcdef"),
     NOTHING},
    {STR("\xc1"), NOTHING}, /* never used in msgpack */
};

static bool one_fits(const struct field *field, int64_t value)
{
    return field->min <= value && value <= field->max;
}

static bool may_be(const struct field *field, unsigned is)
{
    if (is == NIL)
        return is_optional(field);
    if (is == FLAG)
        return field->kind == flag;
    if (is == NUMBER)
        return is_number(field) && one_fits(field, 1);
    if (is == NEGATIVE)
        return is_number(field) && field->kind != u64 && one_fits(field, -1);
    if (is == TEXT)
        return is_text(field) && one_fits(field, 1);
    return is == BYTES && is_bytes(field) && !is_text(field) && one_fits(field, 1);
}

START_TEST(a_field_is_of_its_type_and_of_no_other)
{
    const struct row *row = &rows[_i];
    struct message message;

    fill(row, &message, LOWEST);
    for (int i = 0; i < (int)row->count; i++) {
        for (size_t k = 0; k < COUNT_OF(values); k++) {
            const struct oddity odd = {.field = i, .raw = values[k].raw};
            const char *why;
            bool good = accepts_odd(row, &message, odd, &why);

            ASSERT_QUIETLY(good == may_be(&row->fields[i], values[k].is), "%s.%s as value %zu",
                           row->name, row->fields[i].name, k);
        }
    }
}
END_TEST

START_TEST(a_message_begins_with_its_number_and_its_id)
{
    static const struct oddity odd[] = {
        {.field = FIELD_TYPE, .raw = STR("\x00")},
        {.field = FIELD_TYPE, .raw = STR("\xcd\xff\xff")},
        {.field = FIELD_TYPE, .raw = STR("\xcf\0\0\0\x01\0\0\0\x01")}, /* 2^32 + 1 */
        {.field = FIELD_TYPE, .raw = STR("\xff")},
        {.field = FIELD_TYPE, .raw = STR("\xc0")},
        {.field = FIELD_TYPE, .raw = STR("\xa1\x01")},
        {.field = FIELD_TYPE, .raw = STR("\xcb\x3f\xf0\0\0\0\0\0\0")},
        {.field = FIELD_ID,
         .raw = STR("\xc4\x0f"
                    "0123456789abcde")},
        {.field = FIELD_ID,
         .raw = STR("\xc4\x11"
                    "0123456789abcdefg")},
        {.field = FIELD_ID, .raw = STR("\xc4\x00")},
        {.field = FIELD_ID,
         .raw = STR("\xb0"
                    "0123456789abcdef")}, /* the same as text */
        {.field = FIELD_ID,
         .raw = STR("\xd8\x01"
                    "0123456789abcdef")},
        {.field = FIELD_ID, .raw = STR("\xc0")},
        {.field = FIELD_ID, .raw = STR("\x01")},
    };
    const struct row *row = &rows[_i];
    struct message message;
    const char *why;

    fill(row, &message, LOWEST);
    ck_assert(accepts_odd(row, &message, (struct oddity){.field = NO_FIELD}, &why));
    for (size_t k = 0; k < COUNT_OF(odd); k++)
        ck_assert_msg(!accepts_odd(row, &message, odd[k], &why), "%s, row %zu", row->name, k);
}
END_TEST

START_TEST(a_message_has_all_its_fields_and_no_byte_more)
{
    static const struct oddity odd[] = {
        {.field = NO_FIELD, .count_change = 1},
        {.field = NO_FIELD, .count_change = -1},
        {.field = NO_FIELD, .count_change = 1, .tail = STR("\xc0")},
        {.field = NO_FIELD, .tail = STR("\xc0")},
        {.field = NO_FIELD, .tail = STR("\0")},
        {.field = NO_FIELD, .tail = STR("\x92\x03\xc4")},
    };
    const struct row *row = &rows[_i];
    struct message message;
    const char *why;

    fill(row, &message, LOWEST);
    for (size_t k = 0; k < COUNT_OF(odd); k++)
        ck_assert_msg(!accepts_odd(row, &message, odd[k], &why), "%s, row %zu", row->name, k);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("proto");
    TCase *good = suite_case(suite, "good");
    TCase *bounds = suite_case(suite, "bounds");
    TCase *types = suite_case(suite, "types");

    tcase_add_loop_test(good, every_message_survives_at_its_bounds, 0, COUNT_OF(rows));
    tcase_add_loop_test(good, every_message_is_written_as_any_msgpack_writer_would, 0,
                        COUNT_OF(rows));
    tcase_add_loop_test(good, a_message_comes_from_those_who_may_send_it_alone, 0, COUNT_OF(rows));
    tcase_add_test(good, names_are_told);
    tcase_add_loop_test(bounds, one_beyond_a_bound_is_refused_by_both_sides, 0, COUNT_OF(rows));
    tcase_add_loop_test(bounds, absent_is_only_what_may_be_absent, 0, COUNT_OF(rows));
    tcase_add_loop_test(bounds, text_is_utf8_without_nul, 0, COUNT_OF(rows));
    tcase_add_loop_test(types, a_field_is_of_its_type_and_of_no_other, 0, COUNT_OF(rows));
    tcase_add_loop_test(types, a_message_begins_with_its_number_and_its_id, 0, COUNT_OF(rows));
    tcase_add_loop_test(types, a_message_has_all_its_fields_and_no_byte_more, 0, COUNT_OF(rows));
    return suite_run(suite);
}
