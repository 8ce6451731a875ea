/* JSON's numbers as their sender spelled them. Jansson has validated the text and keeps the order
 * of its members, so the n-th number that it writes is the n-th that it read: each is replaced by
 * its own text, and nothing else is touched. Knows nothing of requests. */
#include "frontd/json_numbers.h"

#include "common/memory.h"

#include <ctype.h>
#include <stdlib.h>

/* Takes a string off the text, which begins with its opening quote. */
static void skip_string(struct str *text)
{
    size_t len = 1;

    while (text->ptr[len] != '"')
        len += text->ptr[len] == '\\' ? 2 : 1;
    *text = (struct str){text->ptr + len + 1, text->len - len - 1};
}

static bool begins_number(char c)
{
    return isdigit((unsigned char)c) || c == '-';
}

/* Takes all up to the end of the first number off a valid JSON text, and returns the number;
 * absent, and the text empty, when it has none. */
static struct str next_number(struct str *text)
{
    struct str number = STR_ABSENT;

    while (text->len > 0 && !begins_number(*text->ptr)) {
        if (*text->ptr == '"')
            skip_string(text);
        else
            *text = (struct str){text->ptr + 1, text->len - 1};
    }
    if (text->len == 0)
        return number;
    number.ptr = text->ptr;
    while (number.len < text->len && memchr("0123456789+-.eE", number.ptr[number.len], 15))
        number.len++;
    *text = (struct str){text->ptr + number.len, text->len - number.len};
    return number;
}

static bool exponent_accepted(struct str number)
{
    long exponent = 0;
    size_t at = 0;

    while (at < number.len && tolower((unsigned char)number.ptr[at]) != 'e')
        at++;
    for (; at < number.len && exponent <= JSON_EXPONENT_MAX; at++)
        if (isdigit((unsigned char)number.ptr[at]))
            exponent = exponent * 10 + (number.ptr[at] - '0');
    return exponent <= JSON_EXPONENT_MAX;
}

static size_t count_numbers(const json_t *value)
{
    const char *key;
    const json_t *item;
    size_t i, count = json_is_number(value);

    json_object_foreach((json_t *)value, key, item) count += count_numbers(item);
    json_array_foreach(value, i, item) count += count_numbers(item);
    return count;
}

/* The text behind the last number before the member's value. */
static struct str text_of(const json_t *root, const json_t *value, struct str text)
{
    const char *key;
    const json_t *item;

    json_object_foreach((json_t *)root, key, item)
    {
        if (item == value)
            break;
        for (size_t left = count_numbers(item); left > 0; left--)
            next_number(&text);
    }
    return text;
}

char *json_dump_as_spelled(const json_t *root, const json_t *value, struct str text)
{
    cleanup_free char *dumped = json_dumps(value, JSON_COMPACT);
    cleanup_free char *spelled = memory_new(1, strlen(dumped) + text.len + 1);
    struct str left = str_from(dumped), before = left, theirs = text_of(root, value, text), number;
    char *end = spelled;

    while ((number = next_number(&left)).ptr) {
        end = mempcpy(end, before.ptr, (size_t)(number.ptr - before.ptr));
        number = next_number(&theirs);
        if (!number.ptr || !exponent_accepted(number))
            return NULL;
        end = mempcpy(end, number.ptr, number.len);
        before = left;
    }
    memcpy(end, before.ptr, before.len);
    return steal_pointer(spelled);
}
