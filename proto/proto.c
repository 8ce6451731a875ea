/* Encodes and decodes every message by the tables that messages.def makes: one interpreter, no
 * code per message. msgpack-c reads and writes the scalars; a cursor walks the outer array, so that
 * no claimed length of a container is ever believed. Touches nothing but the bytes it is given. */
#include "proto/proto.h"

#include <msgpack.h>

enum field_type {
    TYPE_u64,
    TYPE_i64,
    TYPE_flag,
    TYPE_str,
    TYPE_bin,
    TYPE_opt_str,
    TYPE_opt_bin,
    TYPE_opt_i64
};

struct field_spec {
    const char *name;
    enum field_type type;
    size_t offset;
    int64_t min, max;
};

#define MESSAGE(name, number, senders) static const struct field_spec fields_##name[] = {
#define FIELD(name, type, field, min, max)                                                         \
    {#field, TYPE_##type, offsetof(struct msg_##name, field), min, max},
#define END(name)                                                                                  \
    }                                                                                              \
    ;
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END

struct message_spec {
    const char *name;
    enum message_type type;
    unsigned senders;
    const struct field_spec *fields;
    size_t count;
};

static const struct message_spec messages[] = {
#define MESSAGE(name, number, senders)                                                             \
    {#name, MSG_##name, senders, fields_##name, sizeof(fields_##name) / sizeof(struct field_spec)},
#define FIELD(name, type, field, min, max)
#define END(name)
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END
};

static const struct message_spec *find_message(uint64_t type)
{
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++)
        if ((uint64_t)messages[i].type == type)
            return &messages[i];
    return NULL;
}

const char *proto_name(enum message_type type)
{
    const struct message_spec *spec = find_message(type);

    return spec ? spec->name : "unknown";
}

const char *proto_peer_name(enum proto_peer peer)
{
    switch (peer) {
    case PEER_FRONTD:
        return "frontd";
    case PEER_SUPERVISOR:
        return "supervisor";
    case PEER_KEEPER:
        return "keeper";
    case PEER_REGISTRYD:
        return "registryd";
    case PEER_AUDITD:
        return "auditd";
    case PEER_EVENTD:
        return "eventd";
    default:
        return "unknown";
    }
}

static bool is_text(enum field_type type)
{
    return type == TYPE_str || type == TYPE_opt_str;
}

static bool is_optional(enum field_type type)
{
    return type == TYPE_opt_str || type == TYPE_opt_bin || type == TYPE_opt_i64;
}

/* The bounds of one field's value, the same for both directions. */
static bool field_in_bounds(const struct field_spec *spec, const void *at)
{
    const struct str *bytes = at;
    const proto_opt_i64 *optional = at;

    switch (spec->type) {
    case TYPE_u64:
        return *(const uint64_t *)at >= (uint64_t)spec->min &&
               *(const uint64_t *)at <= (uint64_t)spec->max;
    case TYPE_i64:
        return *(const int64_t *)at >= spec->min && *(const int64_t *)at <= spec->max;
    case TYPE_opt_i64:
        return !optional->present || (optional->value >= spec->min && optional->value <= spec->max);
    case TYPE_flag:
        return true;
    default:
        break;
    }
    if (!bytes->ptr)
        return is_optional(spec->type);
    return (int64_t)bytes->len >= spec->min && (int64_t)bytes->len <= spec->max &&
           (!is_text(spec->type) || str_is_utf8(*bytes));
}

/* ---- encoding ------------------------------------------------------------------------------- */

static void pack_bytes(msgpack_packer *packer, enum field_type type, const struct str *bytes)
{
    if (!bytes->ptr) {
        msgpack_pack_nil(packer);
    } else if (is_text(type)) {
        msgpack_pack_str(packer, bytes->len);
        msgpack_pack_str_body(packer, bytes->ptr, bytes->len);
    } else {
        msgpack_pack_bin(packer, bytes->len);
        msgpack_pack_bin_body(packer, bytes->ptr, bytes->len);
    }
}

static void pack_flag(msgpack_packer *packer, bool flag)
{
    if (flag)
        msgpack_pack_true(packer);
    else
        msgpack_pack_false(packer);
}

static void pack_field(msgpack_packer *packer, const struct field_spec *spec, const void *at)
{
    const proto_opt_i64 *optional = at;

    switch (spec->type) {
    case TYPE_u64:
        msgpack_pack_uint64(packer, *(const uint64_t *)at);
        break;
    case TYPE_i64:
        msgpack_pack_int64(packer, *(const int64_t *)at);
        break;
    case TYPE_flag:
        pack_flag(packer, *(const bool *)at);
        break;
    case TYPE_opt_i64:
        if (optional->present)
            msgpack_pack_int64(packer, optional->value);
        else
            msgpack_pack_nil(packer);
        break;
    default:
        pack_bytes(packer, spec->type, at);
    }
}

static void write_length(uint8_t *head, size_t len)
{
    for (int i = 0; i < PROTO_FRAME_HEAD; i++)
        head[i] = (uint8_t)(len >> (8 * (PROTO_FRAME_HEAD - 1 - i)));
}

bool proto_encode(enum message_type type, const struct request_id *id, const void *body,
                  struct frame *frame, const char **why)
{
    const struct message_spec *spec = find_message(type);
    const uint8_t head[PROTO_FRAME_HEAD] = {0};
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    for (size_t i = 0; i < spec->count; i++) {
        *why = spec->fields[i].name;
        if (!field_in_bounds(&spec->fields[i], (const char *)body + spec->fields[i].offset))
            return false;
    }
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    msgpack_sbuffer_write(&buffer, (const char *)head, sizeof(head));
    msgpack_pack_array(&packer, spec->count + 2);
    msgpack_pack_uint64(&packer, (uint64_t)type);
    msgpack_pack_bin(&packer, sizeof(id->bytes));
    msgpack_pack_bin_body(&packer, id->bytes, sizeof(id->bytes));
    for (size_t i = 0; i < spec->count; i++)
        pack_field(&packer, &spec->fields[i], (const char *)body + spec->fields[i].offset);
    frame->len = buffer.size;
    frame->bytes = (uint8_t *)msgpack_sbuffer_release(&buffer);
    *why = "frame too long";
    if (frame->len - PROTO_FRAME_HEAD > PROTO_FRAME_MAX) {
        free(frame->bytes);
        return false;
    }
    write_length(frame->bytes, frame->len - PROTO_FRAME_HEAD);
    return true;
}

/* ---- decoding ------------------------------------------------------------------------------- */

struct cursor {
    const char *bytes;
    size_t len, at;
};

/* Reads the outer array's header, the one container that a message has: fixarray or array 16. */
static bool read_array_header(struct cursor *cursor, size_t *count)
{
    const uint8_t *p = (const uint8_t *)cursor->bytes;

    if (cursor->len >= 1 && (p[0] & 0xf0) == 0x90) {
        *count = p[0] & 0x0f;
        cursor->at = 1;
        return true;
    }
    if (cursor->len >= 3 && p[0] == 0xdc) {
        *count = (size_t)p[1] << 8 | p[2];
        cursor->at = 3;
        return true;
    }
    return false;
}

/* Whether the byte begins a map, an array or an extension: nothing that a field can be. */
static bool is_container(uint8_t lead)
{
    return (lead >= 0x80 && lead <= 0x9f) || (lead >= 0xc7 && lead <= 0xc9) ||
           (lead >= 0xd4 && lead <= 0xd8) || (lead >= 0xdc && lead <= 0xdf);
}

/* The next scalar. Text and bytes point into the payload. */
static bool read_scalar(struct cursor *cursor, msgpack_object *value)
{
    msgpack_unpacked unpacked;
    msgpack_unpack_return result;

    if (cursor->at >= cursor->len || is_container((uint8_t)cursor->bytes[cursor->at]))
        return false;
    msgpack_unpacked_init(&unpacked);
    result = msgpack_unpack_next(&unpacked, cursor->bytes, cursor->len, &cursor->at);
    *value = unpacked.data;
    msgpack_unpacked_destroy(&unpacked);
    return result == MSGPACK_UNPACK_SUCCESS;
}

static bool take_integer(const msgpack_object *value, int64_t *number)
{
    if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER && value->via.u64 <= INT64_MAX)
        *number = (int64_t)value->via.u64;
    else if (value->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        *number = value->via.i64;
    else
        return false;
    return true;
}

static bool take_bytes(const msgpack_object *value, enum field_type type, struct str *bytes)
{
    static const char nothing[1];

    if (is_text(type) && value->type == MSGPACK_OBJECT_STR)
        *bytes = (struct str){value->via.str.ptr, value->via.str.size};
    else if (!is_text(type) && value->type == MSGPACK_OBJECT_BIN)
        *bytes = (struct str){value->via.bin.ptr, value->via.bin.size};
    else
        return false;
    if (bytes->len == 0)
        bytes->ptr = nothing; /* present and empty, wherever msgpack-c points for no bytes */
    return true;
}

static bool take_field(const msgpack_object *value, enum field_type type, void *at)
{
    proto_opt_i64 *optional = at;

    if (is_optional(type) && value->type == MSGPACK_OBJECT_NIL)
        return true; /* the message was zeroed: absent */
    switch (type) {
    case TYPE_u64:
        if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
            *(uint64_t *)at = value->via.u64;
        return value->type == MSGPACK_OBJECT_POSITIVE_INTEGER;
    case TYPE_i64:
        return take_integer(value, at);
    case TYPE_opt_i64:
        optional->present = true;
        return take_integer(value, &optional->value);
    case TYPE_flag:
        *(bool *)at = value->type == MSGPACK_OBJECT_BOOLEAN && value->via.boolean;
        return value->type == MSGPACK_OBJECT_BOOLEAN;
    default:
        return take_bytes(value, type, at);
    }
}

static bool decode_fields(struct cursor *cursor, const struct message_spec *spec, void *body,
                          const char **why)
{
    for (size_t i = 0; i < spec->count; i++) {
        const struct field_spec *field = &spec->fields[i];
        void *at = (char *)body + field->offset;
        msgpack_object value;

        *why = field->name;
        if (!read_scalar(cursor, &value) || !take_field(&value, field->type, at) ||
            !field_in_bounds(field, at))
            return false;
    }
    *why = "left-over bytes";
    return cursor->at == cursor->len;
}

static bool decode_id(struct cursor *cursor, struct request_id *id)
{
    msgpack_object value;

    if (!read_scalar(cursor, &value) || value.type != MSGPACK_OBJECT_BIN ||
        value.via.bin.size != sizeof(id->bytes))
        return false;
    memcpy(id->bytes, value.via.bin.ptr, sizeof(id->bytes));
    return true;
}

bool proto_decode(const uint8_t *payload, size_t len, enum proto_peer sender,
                  struct message *message, const char **why)
{
    struct cursor cursor = {(const char *)payload, len, 0};
    const struct message_spec *spec;
    msgpack_object type;
    size_t count;

    memset(message, 0, sizeof(*message));
    *why = "not an array of a known message";
    if (!read_array_header(&cursor, &count) || !read_scalar(&cursor, &type) ||
        type.type != MSGPACK_OBJECT_POSITIVE_INTEGER || !(spec = find_message(type.via.u64)))
        return false;
    message->type = spec->type;
    *why = "not a message that this peer may send";
    if (!(spec->senders & (unsigned)sender))
        return false;
    *why = "wrong number of fields";
    if (count != spec->count + 2)
        return false;
    *why = "request_id";
    return decode_id(&cursor, &message->id) && decode_fields(&cursor, spec, &message->body, why);
}
