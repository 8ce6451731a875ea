/* Looks up the rows of errors.def for whoever answers a client: name, HTTP status, Retry-After.
 * Touches nothing but that constant table. */
#include "common/errors.h"

static const struct {
    const char *name;
    int status, retry_after;
} errors[] = {
    [ERROR_NONE] = {"", 200, 0},
#define ERROR(code, status, retry_after) [ERROR_##code] = {#code, status, retry_after},
#include "common/errors.def"
#undef ERROR
};

const char *error_name(enum error_code code)
{
    return errors[code].name;
}

int error_status(enum error_code code)
{
    return errors[code].status;
}

int error_retry_after(enum error_code code)
{
    return errors[code].retry_after;
}

enum error_code error_from_name(struct str name)
{
    for (size_t i = 1; i < sizeof(errors) / sizeof(errors[0]); i++)
        if (str_equal(name, str_from(errors[i].name)))
            return (enum error_code)i;
    return ERROR_INTERNAL;
}
