/* One bucket: what is counted together, in one window. */
#ifndef CAF_EVENTD_BUCKET_H
#define CAF_EVENTD_BUCKET_H

#include "proto/proto.h"

#include <netinet/in.h>
#include <uthash.h>

enum bucket_kind {
    BUCKET_IDENTITY, /* by tenant, SPIFFE ID and details */
    BUCKET_ADDRESS,  /* by tenant, address prefix and details */
    BUCKET_OVERFLOW, /* all others of the type */
};

enum { BUCKET_ADDRESSES = 8, BUCKET_KEY_BYTES = 3072 };

/* The names of a bucket, one behind the other, each with its NUL: as long as the fields of
 * MSG_event_note may be. */
struct bucket_key {
    enum bucket_kind kind;
    size_t len;
    char bytes[BUCKET_KEY_BYTES];
};

/* The repeats of one window, the first note of the bucket not among them. */
struct bucket_repeats {
    uint64_t count;
    struct request_id id; /* of the one that came first: the row's own */
    int64_t occurred_at;  /* when that one did */
    int64_t first_at, last_at;
    struct in6_addr addresses[BUCKET_ADDRESSES]; /* from where, as far as there is room */
    size_t address_count;
    bool more_addresses;
    char *sample; /* of the first; NULL: it had none */
    bool samples_differ;
};

struct bucket {
    enum bucket_kind kind;
    struct str type, tenant, spiffe_id, prefix, details; /* views into key; absent: without */
    const char *severity;
    struct bucket_repeats repeats;
    size_t rows;     /* of this bucket, on their way to the database */
    int64_t ends_ms; /* its window, monotonic */
    struct bucket *prev, *next;
    UT_hash_handle hh;
    size_t key_len;
    char key[];
};

/* The key of the bucket for a note: of its identity, else of its address (IPv4 /32, IPv6 /64: the
 * contract, listening and identity). */
void bucket_key_of(struct bucket_key *key, const struct msg_event_note *note);

/* The key of the bucket for whatever of the note's type has none of its own. */
void bucket_key_overflow(struct bucket_key *key, const struct msg_event_note *note);

/* A bucket without repeats. severity is a literal. */
struct bucket *bucket_new(const struct bucket_key *key, const char *severity);

/* Counts a repeat. */
void bucket_add(struct bucket *bucket, const struct request_id *id,
                const struct msg_event_note *note);

/* What the repeats' row says beside what the first's did, as JSON that the caller frees:
 * first_seen, last_seen, and from where, if not from one address alone. */
char *bucket_repeats_text(const struct bucket *bucket);

/* Writes the address of the first repeat; "" for none. */
void bucket_address_text(const struct bucket *bucket, char text[INET6_ADDRSTRLEN]);

/* The repeats are in a row: counts anew. */
void bucket_restart(struct bucket *bucket);

void bucket_free(struct bucket *bucket);

#endif
