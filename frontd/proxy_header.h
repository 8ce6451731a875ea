/* The PROXY protocol's version 2 (haproxy's proxy-protocol.txt, 2.2): what a load balancer that
 * passes TLS through says about its client, before the first byte of TLS. */
#ifndef CAF_FRONTD_PROXY_HEADER_H
#define CAF_FRONTD_PROXY_HEADER_H

#include "frontd/address.h"

enum { PROXY_HEADER_MAX = 4096 }; /* with all that follows the address (TLVs) */

enum proxy_header_kind {
    PROXY_HEADER_PARTIAL, /* so far so good */
    PROXY_HEADER_ADDRESS, /* whole: source is the client's address */
    PROXY_HEADER_LOCAL,   /* whole, without one: the connection is the proxy's own (a health check),
                             or   from what has no IP address */
    PROXY_HEADER_GARBAGE, /* not a header of version 2, a malformed one, or one that is too long */
};

struct proxy_header {
    size_t len; /* PARTIAL: read until there are this many bytes, and not one more. Else the
                   header's own */
    struct address source;
};

/* Reads a header from its beginning, of which the first len bytes are there (with none, bytes may
 * be NULL). */
enum proxy_header_kind proxy_header_parse(const unsigned char *bytes, size_t len,
                                          struct proxy_header *header);

#endif
