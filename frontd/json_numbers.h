/* JSON's numbers as their sender spelled them: Jansson keeps a double of each, and 0.1 would become
 * 0.10000000000000001. */
#ifndef CAF_FRONTD_JSON_NUMBERS_H
#define CAF_FRONTD_JSON_NUMBERS_H

#include "common/str.h"

#include <jansson.h>

/* The exponent of a number, in either direction: what a double holds (RFC 8259 6), and far below
 * what PostgreSQL's numeric refuses. It writes numbers out: 1e308 takes 309 bytes there. */
enum { JSON_EXPONENT_MAX = 308 };

/* value, a member's of the object root, as compact JSON with its numbers spelled as in text, the
 * document that root was loaded from (with JSON_DECODE_INT_AS_REAL, lest Jansson refuse integers
 * beyond 64 bits). To be freed by the caller; NULL when an exponent is beyond the bound. */
char *json_dump_as_spelled(const json_t *root, const json_t *value, struct str text);

#endif
