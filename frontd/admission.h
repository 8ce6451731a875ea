/* How much a worker takes on: connections and handshakes, in all and of one address, the operators'
 * share, and a count of everything that was refused. */
#ifndef CAF_FRONTD_ADMISSION_H
#define CAF_FRONTD_ADMISSION_H

#include "frontd/address.h"
#include "frontd/options.h"

enum refusal {
#define REFUSAL(name, help) REFUSAL_##name,
#include "frontd/refusals.def"
#undef REFUSAL
    REFUSAL_COUNT,
    REFUSAL_NONE = REFUSAL_COUNT,
};

struct address_use;

/* A part of the worker. */
struct admission {
    size_t connections, handshakes; /* under way */
    size_t connections_max, connections_per_address_max, handshakes_max, handshakes_per_address_max;
    size_t connections_open_to_all, in_flight_open_to_all; /* the rest is the operators' */
    unsigned char secret[ADDRESS_SECRET_BYTES];
    struct address_use *by_address; /* a row an address with a connection: as many at most */
    uint64_t *refused;              /* REFUSAL_COUNT counters, not owned */
};

/* A connection's place among the others; a part of each. Zeroed: none. */
struct admission_place {
    struct address_use *use; /* NULL: a trusted proxy's own address, which has no limit */
    bool entered, in_handshake;
};

/* Takes the limits from the options; counts refusals in refused, REFUSAL_COUNT counters. When the
 * process cannot have that many descriptors (RLIMIT_NOFILE), limits.connections is lowered to what
 * fits, and that is logged. */
void admission_open(struct admission *admission, const struct frontd_options *options,
                    uint64_t *refused);

/* Which limit a new connection from there would break; REFUSAL_NONE: no one. address NULL: it is a
 * trusted proxy's own. */
enum refusal admission_check(const struct admission *admission, const struct address *address);

/* Counts a new connection, in its handshake. */
void admission_enter(struct admission *admission, const struct address *address,
                     struct admission_place *place);

/* A trusted proxy has told whose connection it is: counts it there from now on, or returns the
 * limit that this would break. */
enum refusal admission_name(struct admission *admission, const struct address *address,
                            struct admission_place *place);

/* Its handshake is over. Harmless a second time. */
void admission_handshake_over(struct admission *admission, struct admission_place *place);

/* Counts the connection no more. Harmless a second time. */
void admission_leave(struct admission *admission, struct admission_place *place);

/* Whether there are so many connections that the newest hold the operators' share. */
bool admission_in_reserve(const struct admission *admission);

/* Counts a refusal; logs the first of its kind, and then each time that their number has doubled.
 */
void admission_count(struct admission *admission, enum refusal refusal);

#endif
