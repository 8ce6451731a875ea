/* Random names and their spellings. Reads the kernel's random source and nothing else. */
#include "common/ids.h"

#include "common/log.h"

#include <stdio.h>
#include <sys/random.h>

void ids_random(void *bytes, size_t len)
{
    size_t filled = 0;

    while (filled < len) {
        ssize_t got = getrandom((char *)bytes + filled, len - filled, 0);

        if (got <= 0)
            log_fatal("the kernel gives no random bytes");
        filled += (size_t)got;
    }
}

void ids_hex(const void *bytes, size_t len, char *text)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = bytes;

    for (size_t i = 0; i < len; i++) {
        text[2 * i] = digits[p[i] >> 4];
        text[2 * i + 1] = digits[p[i] & 15];
    }
    text[2 * len] = '\0';
}

void ids_trace(char text[TRACE_ID_LEN + 1])
{
    uint8_t bytes[TRACE_ID_LEN / 2];

    ids_random(bytes, sizeof(bytes));
    ids_hex(bytes, sizeof(bytes), text);
}

void ids_uuid_text(const uint8_t bytes[16], char text[UUID_TEXT_BYTES])
{
    char hex[33];

    ids_hex(bytes, 16, hex);
    snprintf(text, UUID_TEXT_BYTES, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
             hex + 20);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int ids_uuid_parse(const char *text, uint8_t bytes[16])
{
    size_t at = 0;

    for (size_t i = 0; i < 16; i++) {
        int high, low;

        if ((i == 4 || i == 6 || i == 8 || i == 10) && text[at++] != '-')
            return -1;
        high = hex_digit(text[at]);
        low = high < 0 ? -1 : hex_digit(text[at + 1]);
        if (low < 0)
            return -1;
        bytes[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    return text[at] == '\0' ? 0 : -1;
}

uint64_t ids_hash(const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * 0x100000001b3;
    return hash ^ hash >> 32;
}
