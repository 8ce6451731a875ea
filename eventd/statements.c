/* eventd's statements, one row each, and the way of those that only need to be stored. */
#include "eventd/eventd.h"

#include "common/memory.h"

#include <stdlib.h>

enum { STORE_SECONDS = 3600 };

#define STATEMENT(name, text) static const char sql_##name[] = text;
#include "eventd_sql.h"
#undef STATEMENT

const struct pg_statement eventd_statements[] = {
    [STATEMENT_NOTE] = {"note", sql_note, 9, true},
    [STATEMENT_COLLECT] = {"collect", sql_collect, 2, true},
    [STATEMENT_SWEEP] = {"sweep", sql_sweep, 2, false},
    [STATEMENT_LIST] = {"list", sql_list, 10, false},
    {NULL, NULL, 0, false},
};

static void on_stored(void *arg, const struct pg_answer *answer)
{
    struct ipc_reply_to *to = arg;

    if (answer->outcome == PG_OK)
        ipc_reply(*to, MSG_event_done, &(struct msg_event_done){});
    else
        back_fail(*to, answer);
    free(to);
}

void eventd_submit_and_confirm(struct eventd *daemon, enum eventd_statement statement,
                               const struct str *params, struct ipc_reply_to to)
{
    struct ipc_reply_to *kept = memory_copy(&to, sizeof(to));

    if (pg_submit(daemon->back.pg, &eventd_statements[statement], STR_ABSENT, params,
                  STORE_SECONDS * 1000LL, on_stored, kept))
        return;
    free(kept);
    back_fail_full(to);
}
