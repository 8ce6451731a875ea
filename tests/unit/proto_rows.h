/* For unit tests of the codec: messages.def once more as a table, values at the bounds of each
 * field, and a writer that checks nothing, so that what the codec never writes can be read. */
#ifndef CAF_TESTS_UNIT_PROTO_ROWS_H
#define CAF_TESTS_UNIT_PROTO_ROWS_H

#include "proto/proto.h"
#include "tests/unit/suite.h"

#include <msgpack.h>

enum kind { u64, i64, flag, str, bin, opt_str, opt_bin, opt_i64 };

struct field {
    const char *name;
    enum kind kind;
    size_t offset;
    int64_t min, max;
};

#define MESSAGE(name, number, senders) static const struct field name##_fields[] = {
#define FIELD(name, type, field, min, max)                                                         \
    {#field, type, offsetof(struct msg_##name, field), min, max},
#define END(name)                                                                                  \
    }                                                                                              \
    ;
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END

static const struct row {
    const char *name;
    enum message_type type;
    unsigned senders;
    const struct field *fields;
    size_t count;
} rows[] = {
#define MESSAGE(name, number, senders)                                                             \
    {#name, MSG_##name, senders, name##_fields, COUNT_OF(name##_fields)},
#define FIELD(name, type, field, min, max)
#define END(name)
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END
};

static const struct request_id an_id = {"0123456789abcdef"};

/* ---- values --------------------------------------------------------------------------------- */

enum level { LOWEST, TYPICAL, HIGHEST, ABSENT };

enum { TYPICAL_BYTES = 24 };

static inline bool is_optional(const struct field *field)
{
    return field->kind >= opt_str;
}

static inline bool is_text(const struct field *field)
{
    return field->kind == str || field->kind == opt_str;
}

static inline bool is_bytes(const struct field *field)
{
    return is_text(field) || field->kind == bin || field->kind == opt_bin;
}

static inline bool is_number(const struct field *field)
{
    return field->kind == u64 || field->kind == i64 || field->kind == opt_i64;
}

/* len bytes that no other field has. */
static inline struct str some_bytes(size_t field_index, size_t len)
{
    static char pattern[PROTO_FRAME_MAX + 64];

    if (!*pattern)
        for (size_t i = 0; i < sizeof(pattern); i++)
            pattern[i] = (char)('a' + i % 23);
    ASSERT_QUIETLY(len + field_index <= sizeof(pattern), "%zu bytes", len);
    return (struct str){pattern + field_index, len};
}

static inline void set_value(const struct row *row, size_t index, void *body, int64_t value)
{
    const struct field *field = &row->fields[index];
    void *at = (char *)body + field->offset;

    if (is_bytes(field))
        *(struct str *)at = some_bytes(index, (size_t)value);
    else if (field->kind == u64)
        *(uint64_t *)at = (uint64_t)value;
    else if (field->kind == i64)
        *(int64_t *)at = value;
    else if (field->kind == opt_i64)
        *(proto_opt_i64 *)at = (proto_opt_i64){true, value};
    else
        *(bool *)at = value != 0;
}

static inline int64_t value_at(const struct field *field, enum level level)
{
    bool far = field->max - TYPICAL_BYTES > field->min;

    if (level == TYPICAL && far)
        return field->min + TYPICAL_BYTES;
    return level == TYPICAL || level == HIGHEST ? field->max : field->min;
}

/* A message of that row, each field as the level says; ABSENT: the lowest, without what may be
 * absent. */
static inline void fill(const struct row *row, struct message *message, enum level level)
{
    *message = (struct message){.type = row->type, .id = an_id};
    for (size_t i = 0; i < row->count; i++)
        if (level != ABSENT || !is_optional(&row->fields[i]))
            set_value(row, i, &message->body, value_at(&row->fields[i], level));
}

static inline bool same_value(const struct field *field, const void *a, const void *b)
{
    const proto_opt_i64 *left = a, *right = b;

    if (is_bytes(field))
        return str_equal(*(const struct str *)a, *(const struct str *)b);
    if (field->kind == opt_i64)
        return left->present == right->present && left->value == right->value;
    return field->kind == flag ? *(const bool *)a == *(const bool *)b
                               : *(const uint64_t *)a == *(const uint64_t *)b;
}

static inline void assert_same(const struct row *row, const struct message *a,
                               const struct message *b)
{
    ASSERT_QUIETLY(a->type == b->type, "%s changed its type", row->name);
    ASSERT_QUIETLY(memcmp(&a->id, &b->id, sizeof(a->id)) == 0, "%s changed its id", row->name);
    for (size_t i = 0; i < row->count; i++)
        ASSERT_QUIETLY(same_value(&row->fields[i], (const char *)&a->body + row->fields[i].offset,
                                  (const char *)&b->body + row->fields[i].offset),
                       "%s.%s changed", row->name, row->fields[i].name);
}

/* ---- a writer that checks nothing ------------------------------------------------------------ */

static inline void write_bytes(msgpack_packer *packer, const struct field *field,
                               const struct str *bytes)
{
    if (!bytes->ptr)
        msgpack_pack_nil(packer);
    else if (is_text(field))
        msgpack_pack_str_with_body(packer, bytes->ptr, bytes->len);
    else
        msgpack_pack_bin_with_body(packer, bytes->ptr, bytes->len);
}

static inline void write_value(msgpack_packer *packer, const struct field *field, const void *at)
{
    const proto_opt_i64 *optional = at;

    if (is_bytes(field))
        write_bytes(packer, field, at);
    else if (field->kind == u64)
        msgpack_pack_uint64(packer, *(const uint64_t *)at);
    else if (field->kind == i64)
        msgpack_pack_int64(packer, *(const int64_t *)at);
    else if (field->kind == opt_i64 && !optional->present)
        msgpack_pack_nil(packer);
    else if (field->kind == opt_i64)
        msgpack_pack_int64(packer, optional->value);
    else if (*(const bool *)at)
        msgpack_pack_true(packer);
    else
        msgpack_pack_false(packer);
}

enum { NO_FIELD = -1, FIELD_TYPE = -2, FIELD_ID = -3 };

/* How a payload is to differ from a good one. */
struct oddity {
    int field;        /* this one is written as `raw`; NO_FIELD: none */
    struct str raw;   /* msgpack */
    int count_change; /* of the array's claimed count */
    struct str tail;  /* bytes behind the last field */
};

static inline void write_part(msgpack_sbuffer *buffer, struct str raw)
{
    if (raw.len)
        msgpack_sbuffer_write(buffer, raw.ptr, raw.len);
}

/* A payload that the caller destroys. */
static inline void write_payload(msgpack_sbuffer *buffer, const struct row *row,
                                 const struct message *message, struct oddity odd)
{
    msgpack_packer packer;

    msgpack_sbuffer_init(buffer);
    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, row->count + 2 + (size_t)odd.count_change);
    if (odd.field == FIELD_TYPE)
        write_part(buffer, odd.raw);
    else
        msgpack_pack_uint64(&packer, (uint64_t)row->type);
    if (odd.field == FIELD_ID)
        write_part(buffer, odd.raw);
    else
        msgpack_pack_bin_with_body(&packer, message->id.bytes, sizeof(message->id.bytes));
    for (size_t i = 0; i < row->count; i++) {
        if (odd.field == (int)i)
            write_part(buffer, odd.raw);
        else
            write_value(&packer, &row->fields[i],
                        (const char *)&message->body + row->fields[i].offset);
    }
    write_part(buffer, odd.tail);
}

/* ---- decoding -------------------------------------------------------------------------------- */

static inline enum proto_peer a_sender(const struct row *row)
{
    return (enum proto_peer)(row->senders & -row->senders);
}

struct decoded {
    uint8_t *payload; /* exactly its bytes, so that a sanitizer sees a look beyond them */
    bool good;
    struct message message;
    const char *why;
};

static inline struct decoded decode(const void *payload, size_t len, enum proto_peer sender)
{
    struct decoded decoded = {.payload = malloc(len ? len : 1)};

    if (len)
        memcpy(decoded.payload, payload, len);
    decoded.good = proto_decode(decoded.payload, len, sender, &decoded.message, &decoded.why);
    ASSERT_QUIETLY(decoded.good || decoded.why, "refused without a reason");
    return decoded;
}

/* Decodes and forgets; whether it was good. *why is a literal. */
static inline bool accepts(const void *payload, size_t len, enum proto_peer sender,
                           const char **why)
{
    struct decoded decoded = decode(payload, len, sender);

    free(decoded.payload);
    *why = decoded.why;
    return decoded.good;
}

static inline bool accepts_odd(const struct row *row, const struct message *message,
                               struct oddity odd, const char **why)
{
    msgpack_sbuffer buffer;
    bool good;

    write_payload(&buffer, row, message, odd);
    good = accepts(buffer.data, buffer.size, a_sender(row), why);
    msgpack_sbuffer_destroy(&buffer);
    return good;
}

#endif
