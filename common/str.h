/* A counted view of bytes that somebody else owns. Text from outside is never NUL-terminated here,
 * so no length is ever taken from its content. ptr == NULL means absent, which is not the same as
 * empty. */
#ifndef CAF_COMMON_STR_H
#define CAF_COMMON_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct str {
    const char *ptr;
    size_t len;
};

#define STR(literal) ((struct str){literal, sizeof(literal) - 1})
#define STR_ABSENT   ((struct str){NULL, 0})

/* For printf's "%.*s". */
#define STR_ARGS(s) (int)(s).len, (s).ptr ? (s).ptr : ""

/* The view of a NUL-terminated string; NULL gives the absent view. */
static inline struct str str_from(const char *text)
{
    return text ? (struct str){text, strlen(text)} : STR_ABSENT;
}

/* Whether both are present and hold the same bytes, or both are absent. */
static inline bool str_equal(struct str a, struct str b)
{
    if (!a.ptr || !b.ptr)
        return a.ptr == b.ptr;
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

/* Whether s begins with prefix. */
static inline bool str_starts(struct str s, struct str prefix)
{
    return s.len >= prefix.len && memcmp(s.ptr, prefix.ptr, prefix.len) == 0;
}

/* A NUL-terminated copy that the caller frees; NULL when s is absent. Out of memory is fatal. */
char *str_dup(struct str s);

/* Copies what the views show into one block, which they show from then on; absent ones stay absent.
 * The caller frees the block. */
char *str_keep_all(struct str *views, size_t count);

/* Whether s is valid UTF-8 (RFC 3629: no overlong form, no surrogate) without NUL. */
bool str_is_utf8(struct str s);

/* Whether every byte of s is printable ASCII, 0x20 to 0x7e. */
bool str_is_printable(struct str s);

/* Reads s as a decimal number from 0 to max, digits only, at most 18 of them. */
bool str_to_number(struct str s, long long max, long long *number);

enum { STR_NUMBER_BYTES = 24 };

/* Writes the number in decimal into text, and returns the view of it. */
struct str str_from_number(long long number, char text[STR_NUMBER_BYTES]);

#endif
