/* Forgets nodes that are gone for good: each node that lives removes the rows of those that have
 * not written theirs for days. Touches `nodes` by the statement `forget_nodes` and nothing else.
 * Nothing waits for such a row, and a node that comes back writes its own with its first read of
 * the change feed (feed.c), so that to forget one too many does no harm. */
#include "registryd/nodes.h"

#include "registryd/registryd.h"

#include "common/log.h"

static void on_forgotten(void *arg, const struct pg_answer *answer)
{
    struct registryd *daemon = arg;

    daemon->nodes_pending = 0;
    back_note_refusal(answer, "to forget nodes");
    for (int row = 0; answer->outcome == PG_OK && row < answer->row_count; row++)
        log_warn("a node is forgotten: nothing was heard from it for nodes.forget_days",
                 LOG_STR("name", pg_value(answer, row, 0)),
                 LOG_STR("last_seen", pg_value(answer, row, 1)));
}

void nodes_forget(struct registryd *daemon)
{
    char days[STR_NUMBER_BYTES];
    const struct str params[] = {str_from_number(daemon->options.nodes_forget_days, days)};

    if (daemon->nodes_pending == 0 &&
        back_submit(&daemon->back, &registryd_statements[STATEMENT_FORGET_NODES], STR_ABSENT,
                    params, on_forgotten, daemon))
        daemon->nodes_pending = 1;
}
