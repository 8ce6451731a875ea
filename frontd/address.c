/* IP addresses and networks: read, written, compared. Works on the bytes it is given and touches
 * nothing else. */
#include "frontd/address.h"

#include "common/memory.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>

enum { MAPPED_BYTES = 12, MAPPED_BITS = 96, ALL_BITS = 128 };

static const unsigned char mapped[MAPPED_BYTES] = {[10] = 0xff, [11] = 0xff};

static bool is_ip4(const struct address *address)
{
    return memcmp(address->bytes, mapped, MAPPED_BYTES) == 0;
}

/* ---- one address ---------------------------------------------------------------------------- */

struct address address_from_ip4(const unsigned char bytes[4])
{
    struct address address;

    memcpy(address.bytes, mapped, MAPPED_BYTES);
    memcpy(address.bytes + MAPPED_BYTES, bytes, 4);
    return address;
}

struct address address_from_socket(const struct sockaddr_storage *socket_address)
{
    const struct sockaddr_in *ip4 = (const struct sockaddr_in *)socket_address;
    const struct sockaddr_in6 *ip6 = (const struct sockaddr_in6 *)socket_address;
    struct address address;

    if (socket_address->ss_family == AF_INET)
        return address_from_ip4((const unsigned char *)&ip4->sin_addr);
    memcpy(address.bytes, &ip6->sin6_addr, sizeof(address.bytes));
    return address;
}

bool address_parse(struct str text, struct address *address)
{
    char copy[ADDRESS_TEXT_BYTES];
    unsigned char ip4[4];

    if (text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len))
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET, copy, ip4) == 1) {
        *address = address_from_ip4(ip4);
        return true;
    }
    return inet_pton(AF_INET6, copy, address->bytes) == 1;
}

void address_format(const struct address *address, char text[ADDRESS_TEXT_BYTES])
{
    if (is_ip4(address))
        inet_ntop(AF_INET, address->bytes + MAPPED_BYTES, text, ADDRESS_TEXT_BYTES);
    else
        inet_ntop(AF_INET6, address->bytes, text, ADDRESS_TEXT_BYTES);
}

struct address address_prefix(const struct address *address)
{
    struct address prefix = *address;

    if (!is_ip4(address))
        memset(prefix.bytes + 8, 0, 8);
    return prefix;
}

struct address_key address_make_key(const unsigned char secret[ADDRESS_SECRET_BYTES],
                                    const struct address *address)
{
    struct address_key key = {.prefix = address_prefix(address)};

    memcpy(key.secret, secret, sizeof(key.secret));
    return key;
}

/* ---- networks ------------------------------------------------------------------------------- */

/* Whether the first bits of both are the same. */
static bool same_bits(const struct address *a, const struct address *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    if (memcmp(a->bytes, b->bytes, whole) != 0)
        return false;
    return rest == 0 || (a->bytes[whole] ^ b->bytes[whole]) >> (8 - rest) == 0;
}

static bool has_bits_behind(const struct network *network)
{
    for (unsigned bit = network->bits; bit < ALL_BITS; bit++)
        if (network->base.bytes[bit / 8] & (0x80 >> bit % 8))
            return true;
    return false;
}

bool network_parse(struct str text, struct network *network)
{
    const char *slash = text.ptr ? memchr(text.ptr, '/', text.len) : NULL;
    struct str base = {text.ptr, slash ? (size_t)(slash - text.ptr) : text.len};
    bool dotted = slash && !memchr(base.ptr, ':', base.len);
    long long bits;

    network->bits = ALL_BITS;
    if (!text.ptr || !address_parse(base, &network->base))
        return false;
    if (!slash)
        return true;
    if (!str_to_number((struct str){slash + 1, text.len - base.len - 1}, dotted ? 32 : ALL_BITS,
                       &bits))
        return false;
    network->bits = (unsigned)bits + (dotted ? MAPPED_BITS : 0);
    return !has_bits_behind(network);
}

bool networks_have(const struct networks *networks, const struct address *address)
{
    for (size_t i = 0; i < networks->count; i++) {
        const struct network *network = &networks->items[i];

        if (is_ip4(&network->base) == is_ip4(address) &&
            same_bits(&network->base, address, network->bits))
            return true;
    }
    return false;
}

bool networks_read(const struct config_list *list, struct networks *networks)
{
    bool good = true;

    *networks = (struct networks){memory_new(list->count + 1, sizeof(struct network)), list->count};
    for (size_t i = 0; i < list->count; i++)
        good = good && network_parse(str_from(list->items[i]), &networks->items[i]);
    return good;
}
