/* Where a request comes from, by the rules of the contract (listening and identity, source_ip). */
#ifndef CAF_FRONTD_SOURCE_H
#define CAF_FRONTD_SOURCE_H

#include "frontd/address.h"
#include "frontd/http_request.h"

enum { SOURCE_CLAIMED_MAX = 256 };

struct source {
    char ip[ADDRESS_TEXT_BYTES];
    char *claimed; /* owned: what a peer that is not believed says of it, escaped; NULL: nothing */
};

/* Finds the source of a request with this head (all of it is there: request->complete). peer: the
 * kernel's address, or the PROXY header's. When that is a trusted proxy's, cf-connecting-ip counts,
 * else the right-most entry of x-forwarded-for that is not itself a trusted proxy's; what is no
 * address ends the search, and the peer's own address stands. When it is not, both are only kept:
 * in this order, apart by ", ", bytes that are not printable ASCII, and the backslash, as \xNN, cut
 * at SOURCE_CLAIMED_MAX bytes. */
void source_find(const struct networks *trusted, const struct address *peer,
                 const struct http_request *request, const char *head, struct source *source);

/* Frees what it owns. */
void source_clear(struct source *source);

#endif
