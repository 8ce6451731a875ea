/* The messages of proto/messages.def as C structs, and their one codec. */
#ifndef CAF_PROTO_PROTO_H
#define CAF_PROTO_PROTO_H

#include "common/str.h"

#include <stdint.h>

enum {
    PROTO_VERSION = 1,
    PROTO_FRAME_MAX = 1048576, /* bytes of a frame's payload, without the length before it */
    PROTO_FRAME_HEAD = 4,      /* bytes of the big-endian length */
    /* PEM texts of MSG_material, in bytes; together they fit a frame. */
    PROTO_CERTIFICATES_MAX = 131072,
    PROTO_CLIENT_CA_MAX = 262144,
    PROTO_CRLS_MAX = 524288,
    PROTO_DENY_IDS_MAX = 65536, /* of MSG_deny_list, in bytes */
    PROTO_METRICS_MAX = 262144, /* bytes of a daemon's metrics as text */
};

/* The last time that RFC 3339 can say, the end of the year 9999, in milliseconds since 1970. */
#define PROTO_TIME_MAX INT64_C(253402300799999)

/* Who stands at an end of a channel; bits, so that a message's senders are a set. */
enum proto_peer {
    PEER_FRONTD = 1, /* a worker */
    PEER_SUPERVISOR = 2,
    PEER_KEEPER = 4,
    PEER_REGISTRYD = 8,
    PEER_AUDITD = 16,
    PEER_EVENTD = 32,
    PEER_BACK = PEER_KEEPER | PEER_REGISTRYD | PEER_AUDITD | PEER_EVENTD,
    PEER_ANY = 255,
};

/* A request's name, unique for good: 8 random bytes of the sending process, 8 of a counter. An
 * answer carries the id of its request; a request sent again keeps it. */
struct request_id {
    uint8_t bytes[16];
};

typedef uint64_t proto_u64;
typedef int64_t proto_i64;
typedef bool proto_flag;
typedef struct str proto_str;
typedef struct str proto_bin;
typedef struct str proto_opt_str; /* ptr NULL: absent */
typedef struct str proto_opt_bin;
typedef struct {
    bool present;
    int64_t value;
} proto_opt_i64;

#define MESSAGE(name, number, senders)     struct msg_##name {
#define FIELD(name, type, field, min, max) proto_##type field;
#define END(name)                                                                                  \
    }                                                                                              \
    ;
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END

enum message_type {
#define MESSAGE(name, number, senders) MSG_##name = number,
#define FIELD(name, type, field, min, max)
#define END(name)
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END
};

/* A decoded message. Text and bytes in body are views into the decoded payload. */
struct message {
    enum message_type type;
    struct request_id id;
    union {
#define MESSAGE(name, number, senders) struct msg_##name name;
#define FIELD(name, type, field, min, max)
#define END(name)
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END
    } body;
};

/* An encoded frame, its length included. */
struct frame {
    uint8_t *bytes;
    size_t len;
};

/* Encodes one message. body points to the struct msg_… of the type. On success the caller owns
 * frame->bytes (free). Returns false, with the offending field in *why, when a field is out of its
 * bounds. */
bool proto_encode(enum message_type type, const struct request_id *id, const void *body,
                  struct frame *frame, const char **why);

/* Decodes a payload (a frame without its length) that `sender` sent. Returns false, with a literal
 * in *why, for anything that is not exactly one message of the list in bounds: wrong sender, type,
 * field or left-over bytes. Never allocates according to a length that the payload claims. */
bool proto_decode(const uint8_t *payload, size_t len, enum proto_peer sender,
                  struct message *message, const char **why);

/* The message's name in messages.def, "unknown" for none. */
const char *proto_name(enum message_type type);

/* The daemon's name for a single PEER_… bit ("frontd", "registryd", …), as HELLO says it. */
const char *proto_peer_name(enum proto_peer peer);

#endif
