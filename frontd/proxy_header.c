/* Parses PROXY protocol v2 headers. Looks at the bytes it is given and at nothing else; what
 * follows the address (TLVs) is skipped. The text form (version 1) has no bound worth trusting and
 * is refused. */
#include "frontd/proxy_header.h"

enum { FIXED_BYTES = 16, SIGNATURE_BYTES = 12, COMMAND_LOCAL = 0x20, COMMAND_PROXY = 0x21 };

static const unsigned char signature[SIGNATURE_BYTES] = "\r\n\r\n\0\r\nQUIT\n";

/* Every value that the protocol knows for "family and transport", and how long its addresses are.
 */
static const struct family {
    unsigned char value;
    uint16_t addresses_len;
    unsigned char source_len; /* 0: no address that counts here */
} families[] = {
    {0x00, 0, 0},   /* unspecified */
    {0x11, 12, 4},  /* TCP over IPv4 */
    {0x12, 12, 0},  /* UDP over IPv4 */
    {0x21, 36, 16}, /* TCP over IPv6 */
    {0x22, 36, 0},  /* UDP over IPv6 */
    {0x31, 216, 0}, /* Unix stream */
    {0x32, 216, 0}, /* Unix datagram */
};

static const struct family *find_family(unsigned char value)
{
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        if (families[i].value == value)
            return &families[i];
    return NULL;
}

static enum proxy_header_kind take_source(const unsigned char *bytes, size_t block_len,
                                          struct proxy_header *header)
{
    const struct family *family = find_family(bytes[13]);

    if (!family || block_len < family->addresses_len)
        return PROXY_HEADER_GARBAGE;
    if (family->source_len == 0)
        return PROXY_HEADER_LOCAL;
    if (family->source_len == 4)
        header->source = address_from_ip4(bytes + FIXED_BYTES);
    else
        memcpy(header->source.bytes, bytes + FIXED_BYTES, sizeof(header->source.bytes));
    return PROXY_HEADER_ADDRESS;
}

enum proxy_header_kind proxy_header_parse(const unsigned char *bytes, size_t len,
                                          struct proxy_header *header)
{
    size_t block_len;

    header->len = FIXED_BYTES;
    if (len == 0)
        return PROXY_HEADER_PARTIAL;
    if (memcmp(bytes, signature, len < SIGNATURE_BYTES ? len : SIGNATURE_BYTES) != 0)
        return PROXY_HEADER_GARBAGE;
    if (len > SIGNATURE_BYTES && bytes[12] != COMMAND_LOCAL && bytes[12] != COMMAND_PROXY)
        return PROXY_HEADER_GARBAGE;
    if (len < FIXED_BYTES)
        return PROXY_HEADER_PARTIAL;
    block_len = (size_t)bytes[14] << 8 | bytes[15];
    header->len = FIXED_BYTES + block_len;
    if (header->len > PROXY_HEADER_MAX)
        return PROXY_HEADER_GARBAGE;
    if (len < header->len)
        return PROXY_HEADER_PARTIAL;
    return bytes[12] == COMMAND_LOCAL ? PROXY_HEADER_LOCAL : take_source(bytes, block_len, header);
}
