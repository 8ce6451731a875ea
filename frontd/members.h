/* Validated members of a JSON body, and validated parameters of a query: one table row each. */
#ifndef CAF_FRONTD_MEMBERS_H
#define CAF_FRONTD_MEMBERS_H

#include "frontd/exchange.h"

enum { BODY_DEPTH_MAX = 32 };

enum member_type {
    MEMBER_TEXT,      /* min..max bytes of UTF-8 */
    MEMBER_PRINTABLE, /* min..max bytes of printable ASCII */
    MEMBER_HOSTNAME,  /* RFC 1123, at most max bytes; made lower-case, without a trailing dot */
    MEMBER_STRINGS, /* an array of at most min strings of at most max bytes each; as compact JSON */
    MEMBER_OBJECT,  /* an object of at most max bytes as compact JSON, numbers as they were spelled,
                       exponents within JSON_EXPONENT_MAX */
};

struct member {
    const char *name;
    enum member_type type;
    size_t min, max;
    bool required;
};

/* Reads the exchange's body (a JSON object, depth at most 32, no duplicate keys; none at all counts
 * as {}) by the table of count rows. values[i] is the text of row i, to be freed by the caller,
 * NULL where absent or null. Returns false, with nothing to free, when the exchange has been
 * answered with 400. */
bool members_read(struct exchange *exchange, const struct member *members, size_t count,
                  char **values);

void members_free(char **values, size_t count);

/* Whether text is a host name (RFC 1123 2.1) of at most max bytes, a dot at its end not counted. It
 * is changed in place to its canonical form: lower-case, without that dot. */
bool members_make_hostname(char *text, size_t max);

enum parameter_type {
    PARAMETER_TEXT,     /* min..max bytes of UTF-8 after decoding */
    PARAMETER_NUMBER,   /* a decimal integer, min..max */
    PARAMETER_TIME,     /* RFC 3339; the value is milliseconds since 1970 */
    PARAMETER_HOSTNAME, /* as MEMBER_HOSTNAME */
    PARAMETER_CHOICE,   /* one of the choices */
};

struct parameter {
    const char *name;
    enum parameter_type type;
    int64_t min, max;
    const char *choices; /* "one, two, three" */
};

struct parameter_value {
    bool present;
    char *text;
    int64_t number;
};

/* Reads the exchange's query in the same way; names that are not in the table, and repeated ones,
 * are refused. */
bool parameters_read(struct exchange *exchange, const struct parameter *parameters, size_t count,
                     struct parameter_value *values);

void parameters_free(struct parameter_value *values, size_t count);

#endif
