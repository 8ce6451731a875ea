/* The error codes of common/errors.def, as one enum for every daemon. */
#ifndef CAF_COMMON_ERRORS_H
#define CAF_COMMON_ERRORS_H

#include "common/str.h"

enum error_code {
    ERROR_NONE,
#define ERROR(code, status, retry_after) ERROR_##code,
#include "common/errors.def"
#undef ERROR
};

/* The code's name, as clients see it. */
const char *error_name(enum error_code code);

/* The code's HTTP status; 200 for ERROR_NONE. */
int error_status(enum error_code code);

/* Seconds for Retry-After, 0 for none. */
int error_retry_after(enum error_code code);

/* The code of that name; ERROR_INTERNAL when there is none. */
enum error_code error_from_name(struct str name);

#endif
