/* PostgreSQL array literals (PostgreSQL manual, 8.15.6), built up element by element. */
#ifndef CAF_COMMON_PG_ARRAY_H
#define CAF_COMMON_PG_ARRAY_H

#include "common/str.h"

/* A one-dimensional array in the making; starts zeroed. */
struct pg_array {
    char *text;
    size_t used, size;
};

/* Appends an element: quoted, with `"` and `\` escaped; absent is NULL. Its bytes are copied. */
void pg_array_add(struct pg_array *array, struct str element);

/* Closes the literal and returns it, NUL-terminated; it lives until pg_array_free. Nothing may be
 * added after. */
const char *pg_array_close(struct pg_array *array);

/* Frees the text. */
void pg_array_free(struct pg_array *array);

#endif
