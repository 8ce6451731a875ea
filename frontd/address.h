/* IP addresses of either family in one shape, networks, and lists of them. */
#ifndef CAF_FRONTD_ADDRESS_H
#define CAF_FRONTD_ADDRESS_H

#include "common/config.h"
#include "common/str.h"

#include <sys/socket.h>

/* An IPv6 address in network order; an IPv4 address is mapped into it (RFC 4291 2.5.5.2), so that
 * the two ways to spell one are one. */
struct address {
    unsigned char bytes[16];
};

enum { ADDRESS_TEXT_BYTES = 46 }; /* INET6_ADDRSTRLEN */

/* The address of a socket's peer, IPv4 or IPv6. */
struct address address_from_socket(const struct sockaddr_storage *socket_address);

/* The four bytes of an IPv4 address, in network order. */
struct address address_from_ip4(const unsigned char bytes[4]);

/* Reads dotted IPv4 or IPv6 without brackets, port or zone. False: the text is neither. */
bool address_parse(struct str text, struct address *address);

/* Writes it as people do: IPv4 dotted, IPv6 by RFC 5952. */
void address_format(const struct address *address, char text[ADDRESS_TEXT_BYTES]);

/* What limits count by (the contract): an IPv4 address, an IPv6 address' first 64 bits. */
struct address address_prefix(const struct address *address);

enum { ADDRESS_SECRET_BYTES = 16 };

/* What a table of addresses is looked up by. The secret is the table's own: nobody outside can
 * choose addresses that all meet in one bucket. */
struct address_key {
    unsigned char secret[ADDRESS_SECRET_BYTES];
    struct address prefix;
};

/* The key of the address' prefix. */
struct address_key address_make_key(const unsigned char secret[ADDRESS_SECRET_BYTES],
                                    const struct address *address);

struct network {
    struct address base;
    unsigned bits; /* of base that count, 0 to 128 */
};

struct networks {
    struct network *items;
    size_t count;
};

/* Reads "ADDRESS/BITS", or one address alone. False: it is malformed, or has bits set behind BITS.
 */
bool network_parse(struct str text, struct network *network);

/* Whether the address is in one of them. An IPv6 network has no IPv4 address in it. */
bool networks_have(const struct networks *networks, const struct address *address);

/* Reads a list from the configuration; the caller frees items. False: one of them is malformed. */
bool networks_read(const struct config_list *list, struct networks *networks);

#endif
