/* GET /v1/mesh/agents and /v1/mesh/agents/{agent_id}: the agents of a tenant, for those who may
 * read them, as the database has them. Reads agent_registry and nothing else. */
#include "registryd/registryd.h"

#include "common/memory.h"
#include "common/page.h"

#include <stdlib.h>

struct listing {
    struct ipc_reply_to to;
    int limit;
};

static void on_listed(void *arg, const struct pg_answer *answer)
{
    struct listing *listing = arg;
    struct evbuffer *page;

    if (answer->outcome == PG_OK) {
        page = page_build("agents", answer, listing->limit);
        ipc_reply(listing->to, MSG_agent_page, &(struct msg_agent_page){.page = page_text(page)});
        evbuffer_free(page);
    } else {
        back_fail(listing->to, answer);
    }
    free(listing);
}

void registryd_list(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct registryd *daemon = arg;
    const struct msg_agent_list *body = &message->body.agent_list;
    char heard_until[STR_NUMBER_BYTES], bound[STR_NUMBER_BYTES], limit[STR_NUMBER_BYTES];
    struct page_cursor cursor;
    struct listing *listing;

    if (!page_cursor_parse(body->cursor, &cursor)) {
        ipc_fail(to, ERROR_VALIDATION, "cursor: not one that this list gave");
        return;
    }
    if (body->heard_until.present)
        page_cursor_bound(&cursor, body->heard_until.value * 1000 + 1, bound);
    const struct str params[] = {
        body->tenant_id,
        body->state,
        body->hostname,
        body->fingerprint,
        body->heard_until.present ? str_from_number(body->heard_until.value, heard_until)
                                  : STR_ABSENT,
        cursor.microseconds,
        cursor.name,
        str_from_number((long long)body->limit + 1, limit), /* one more: is there a next page? */
        body->total ? STR("t") : STR("f"),
    };
    listing = memory_new(1, sizeof(*listing));
    *listing = (struct listing){.to = to, .limit = (int)body->limit};
    if (back_submit(&daemon->back, &registryd_statements[STATEMENT_LIST_AGENTS], STR_ABSENT, params,
                    on_listed, listing))
        return;
    free(listing);
    back_fail_full(to);
}

/* ---- one agent ------------------------------------------------------------------------------ */

static void on_found(void *arg, const struct pg_answer *answer)
{
    struct ipc_reply_to *to = arg;

    if (answer->outcome != PG_OK)
        back_fail(*to, answer);
    else if (answer->row_count > 0)
        ipc_reply(*to, MSG_mesh_agent, &(struct msg_mesh_agent){.agent = pg_value(answer, 0, 0)});
    else
        ipc_fail(*to, ERROR_NOT_FOUND, "no such agent");
    free(to);
}

void registryd_get(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct registryd *daemon = arg;
    const struct msg_agent_get *body = &message->body.agent_get;
    const struct str params[] = {body->tenant_id, body->agent_id};
    struct ipc_reply_to *kept = memory_copy(&to, sizeof(to));

    if (back_submit(&daemon->back, &registryd_statements[STATEMENT_FIND_AGENT], STR_ABSENT, params,
                    on_found, kept))
        return;
    free(kept);
    back_fail_full(to);
}
