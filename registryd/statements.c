/* registryd's statements: one row each, and what an answer that is none means to the caller. */
#include "registryd/registryd.h"

#include "common/log.h"

#define STATEMENT(name, text) static const char sql_##name[] = text;
#include "registryd_sql.h"
#undef STATEMENT

const struct pg_statement registryd_statements[] = {
    [STATEMENT_REGISTER] = {"register", sql_register, 14, true},
    [STATEMENT_LOOKUP] = {"lookup", sql_lookup, 2, true},
    [STATEMENT_SELF] = {"self", sql_self, 2, true},
    [STATEMENT_WRITE_HEARTBEAT] = {"write_heartbeat", sql_write_heartbeat, 5, true},
    {NULL, NULL, 0, false},
};

bool registryd_submit(struct registryd *daemon, enum registryd_statement statement, struct str key,
                      const struct str *params, pg_answer_fn *fn, void *arg)
{
    return pg_submit(daemon->pg, &registryd_statements[statement], key, params,
                     daemon->options.database_request_seconds * 1000, fn, arg);
}

void registryd_fail(struct ipc_reply_to to, const struct pg_answer *answer)
{
    if (answer->outcome == PG_UNAVAILABLE) {
        ipc_fail(to, ERROR_UNAVAILABLE, "the database does not answer");
    } else if (strcmp(answer->sqlstate, "23505") == 0) {
        ipc_fail(to, ERROR_CONFLICT, "another SPIFFE ID of this tenant has this agent_id");
    } else {
        log_error("the database refused a request", LOG_TEXT("sqlstate", answer->sqlstate),
                  LOG_TEXT("reason", answer->message));
        ipc_fail(to, ERROR_INTERNAL, "the registry could not carry this out");
    }
}

void registryd_refuse_state(struct ipc_reply_to to, enum agent_state state)
{
    if (state == AGENT_REVOKED)
        ipc_fail(to, ERROR_FORBIDDEN, "the identity is revoked");
    else
        ipc_fail(to, ERROR_NOT_REGISTERED, "this identity is not registered");
}
