/* eventd's statements: one row each, and what an answer that is none means to the caller. */
#include "eventd/eventd.h"

#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>

enum { STORE_SECONDS = 3600 };

#define STATEMENT(name, text) static const char sql_##name[] = text;
#include "eventd_sql.h"
#undef STATEMENT

const struct pg_statement eventd_statements[] = {
    [STATEMENT_NOTE] = {"note", sql_note, 9, true},
    [STATEMENT_COLLECT] = {"collect", sql_collect, 2, true},
    [STATEMENT_SWEEP] = {"sweep", sql_sweep, 1, false},
    [STATEMENT_LIST] = {"list", sql_list, 10, false},
    {NULL, NULL, 0, false},
};

bool eventd_submit(struct eventd *daemon, enum eventd_statement statement, const struct str *params,
                   int64_t seconds, pg_answer_fn *fn, void *arg)
{
    return pg_submit(daemon->pg, &eventd_statements[statement], STR_ABSENT, params, seconds * 1000,
                     fn, arg);
}

void eventd_fail(struct ipc_reply_to to, const struct pg_answer *answer)
{
    if (answer->outcome == PG_UNAVAILABLE) {
        ipc_fail(to, ERROR_UNAVAILABLE, "the database does not answer");
        return;
    }
    log_error("the database refused a request", LOG_TEXT("sqlstate", answer->sqlstate),
              LOG_TEXT("reason", answer->message));
    ipc_fail(to, ERROR_INTERNAL, "the events could not be reached");
}

static void on_stored(void *arg, const struct pg_answer *answer)
{
    struct ipc_reply_to *to = arg;

    if (answer->outcome == PG_OK)
        ipc_reply(*to, MSG_event_done, &(struct msg_event_done){});
    else
        eventd_fail(*to, answer);
    free(to);
}

void eventd_submit_and_confirm(struct eventd *daemon, enum eventd_statement statement,
                               const struct str *params, struct ipc_reply_to to)
{
    struct ipc_reply_to *kept = memory_copy(&to, sizeof(to));

    if (eventd_submit(daemon, statement, params, STORE_SECONDS, on_stored, kept))
        return;
    free(kept);
    ipc_fail(to, ERROR_UNAVAILABLE, "too many requests wait for the database");
}
