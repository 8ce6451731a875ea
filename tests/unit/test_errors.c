/* The error codes: the contract's table of names and statuses, word for word. */
#include "common/errors.h"

#include "tests/unit/suite.h"

static const struct {
    enum error_code code;
    const char *name;
    int status;
    bool retry_after;
} contract[] = {
    {ERROR_VALIDATION, "VALIDATION", 400, false},
    {ERROR_UNAUTHORIZED, "UNAUTHORIZED", 401, false},
    {ERROR_FORBIDDEN, "FORBIDDEN", 403, false},
    {ERROR_MTLS_REQUIRED, "MTLS_REQUIRED", 403, false},
    {ERROR_NOT_FOUND, "NOT_FOUND", 404, false},
    {ERROR_NOT_REGISTERED, "NOT_REGISTERED", 404, false},
    {ERROR_METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", 405, false},
    {ERROR_CONFLICT, "CONFLICT", 409, false},
    {ERROR_LENGTH_REQUIRED, "LENGTH_REQUIRED", 411, false},
    {ERROR_TOO_LARGE, "TOO_LARGE", 413, false},
    {ERROR_URI_TOO_LONG, "URI_TOO_LONG", 414, false},
    {ERROR_UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", 415, false},
    {ERROR_RATE_LIMITED, "RATE_LIMITED", 429, true},
    {ERROR_HEADERS_TOO_LARGE, "HEADERS_TOO_LARGE", 431, false},
    {ERROR_INTERNAL, "INTERNAL", 500, false},
    {ERROR_UNAVAILABLE, "UNAVAILABLE", 503, true},
};

START_TEST(every_code_is_the_contracts)
{
    ck_assert_str_eq(error_name(contract[_i].code), contract[_i].name);
    ck_assert_int_eq(error_status(contract[_i].code), contract[_i].status);
    ck_assert_int_eq(error_retry_after(contract[_i].code) > 0, contract[_i].retry_after);
    ck_assert_int_eq(error_from_name(str_from(contract[_i].name)), contract[_i].code);
}
END_TEST

START_TEST(the_contract_names_every_code)
{
    size_t count = 0;

#define ERROR(code, status, retry_after) count++;
#include "common/errors.def"
#undef ERROR
    ck_assert_uint_eq(count, COUNT_OF(contract));
}
END_TEST

START_TEST(no_error_is_200)
{
    ck_assert_int_eq(error_status(ERROR_NONE), 200);
    ck_assert_str_eq(error_name(ERROR_NONE), "");
}
END_TEST

START_TEST(a_name_that_is_none_is_internal)
{
    static const struct str names[] = {STR(""),
                                       STR_ABSENT,
                                       STR("validation"),
                                       STR("VALIDATIO"),
                                       STR("VALIDATION "),
                                       STR("VALIDATION\0"),
                                       STR("NO_SUCH_CODE")};

    for (size_t i = 0; i < COUNT_OF(names); i++)
        ck_assert_int_eq(error_from_name(names[i]), ERROR_INTERNAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("errors");
    TCase *codes = suite_case(suite, "codes");

    tcase_add_loop_test(codes, every_code_is_the_contracts, 0, COUNT_OF(contract));
    tcase_add_test(codes, the_contract_names_every_code);
    tcase_add_test(codes, no_error_is_200);
    tcase_add_test(codes, a_name_that_is_none_is_internal);
    return suite_run(suite);
}
