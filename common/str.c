/* Checks and copies of counted text. Touches nothing but the bytes it is given. */
#include "common/str.h"

#include "common/memory.h"

#include <stdio.h>

char *str_dup(struct str s)
{
    return s.ptr ? memory_copy(s.ptr, s.len) : NULL;
}

char *str_keep_all(struct str *views, size_t count)
{
    size_t total = 0, used = 0;
    char *block;

    for (size_t i = 0; i < count; i++)
        total += views[i].len;
    block = memory_new(1, total + 1);
    for (size_t i = 0; i < count; i++) {
        if (!views[i].ptr)
            continue;
        views[i].ptr = memcpy(block + used, views[i].ptr, views[i].len);
        used += views[i].len;
    }
    return block;
}

/* How many bytes the UTF-8 sequence at p takes, 0 when it is not valid. */
static size_t utf8_sequence(const unsigned char *p, size_t left)
{
    static const struct {
        unsigned char mask, lead, low,
            high; /* bounds of the second byte: overlongs and surrogates */
        size_t len;
        unsigned char first, last;
    } forms[] = {
        {0xff, 0xe0, 0xa0, 0xbf, 3, 0, 0},       {0xff, 0xed, 0x80, 0x9f, 3, 0, 0},
        {0xff, 0xf0, 0x90, 0xbf, 4, 0, 0},       {0xff, 0xf4, 0x80, 0x8f, 4, 0, 0},
        {0xe0, 0xc0, 0x80, 0xbf, 2, 0xc2, 0xdf}, {0xf0, 0xe0, 0x80, 0xbf, 3, 0xe1, 0xef},
        {0xf8, 0xf0, 0x80, 0xbf, 4, 0xf1, 0xf3},
    };

    if (*p < 0x80)
        return *p != 0;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if ((*p & forms[i].mask) != forms[i].lead)
            continue;
        if (forms[i].first && (*p < forms[i].first || *p > forms[i].last))
            return 0;
        if (left < forms[i].len || p[1] < forms[i].low || p[1] > forms[i].high)
            return 0;
        for (size_t k = 2; k < forms[i].len; k++)
            if ((p[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].len;
    }
    return 0;
}

bool str_is_utf8(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.ptr;

    for (size_t at = 0; at < s.len;) {
        size_t step = utf8_sequence(p + at, s.len - at);

        if (!step)
            return false;
        at += step;
    }
    return true;
}

bool str_is_printable(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < 0x20 || s.ptr[i] > 0x7e)
            return false;
    return true;
}

bool str_to_number(struct str s, long long max, long long *number)
{
    long long value = 0;

    if (s.len == 0 || s.len > 18)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        value = value * 10 + (s.ptr[i] - '0');
    }
    *number = value;
    return value <= max;
}

struct str str_from_number(long long number, char text[STR_NUMBER_BYTES])
{
    return (struct str){text, (size_t)snprintf(text, STR_NUMBER_BYTES, "%lld", number)};
}
