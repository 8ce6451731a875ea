/* For unit tests of what answers through exchange_fail: a stand-in that keeps the answer. The
 * archive's own exchange.c, and all that it needs, is then not linked. */
#ifndef CAF_TESTS_UNIT_EXCHANGE_STAND_IN_H
#define CAF_TESTS_UNIT_EXCHANGE_STAND_IN_H

#include "frontd/exchange.h"
#include "tests/unit/suite.h"

#include <stdio.h>

static struct {
    int count;
    enum error_code code;
    char message[512];
} answered;

void exchange_fail(struct exchange *exchange, enum error_code code, const char *message,
                   const struct recovery *recovery)
{
    ASSERT_QUIETLY(exchange && !recovery, "answered otherwise");
    ASSERT_QUIETLY(strlen(message) < sizeof(answered.message), "a long message");
    ASSERT_QUIETLY(str_is_utf8(str_from(message)), "a message that no JSON can hold");
    answered.count++;
    answered.code = code;
    strcpy(answered.message, message);
}

static inline void forget_answer(void)
{
    memset(&answered, 0, sizeof(answered));
}

/* The exchange was answered once, with 400 and a message that begins so. */
static inline void assert_refused(const char *message)
{
    ASSERT_QUIETLY(answered.count == 1, "%d answers", answered.count);
    ck_assert_int_eq(answered.code, ERROR_VALIDATION);
    ck_assert_msg(strncmp(answered.message, message, strlen(message)) == 0, "%s", answered.message);
}

#endif
