/* POST /v1/mesh/deregister: takes the caller's own row out of service, once, and notes the event
 * with it. Writes agent_registry and identity_outbox through sql/registryd.sql and nothing else. */
#include "registryd/change.h"
#include "registryd/hints.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/memory.h"

#include <stdlib.h>

/* The statement's parameters, in its order. */
enum deregister_param {
    PARAM_TENANT_ID = CHANGE_TENANT_ID,
    PARAM_SPIFFE_ID = CHANGE_SPIFFE_ID,
    PARAM_REQUEST_ID,
    PARAM_SOURCE_IP,
    PARAM_SOURCE_IP_CLAIMED,
    PARAM_TRACE_ID,
    PARAM_RECEIVED_MS,
    PARAM_NODE,
    PARAM_COUNT,
};

_Static_assert((int)PARAM_COUNT <= (int)CHANGE_PARAMS_MAX, "they fit a change");

/* The statement's columns. state is as its snapshot had it before; done: this request has changed
 * it, now or when it was sent before; event_id, changed_xid: of what it changed now. */
enum deregister_column {
    COLUMN_STATE,
    COLUMN_AGENT_ID,
    COLUMN_DONE,
    COLUMN_EVENT_ID,
    COLUMN_CHANGED_XID
};

static bool is_done(const struct pg_answer *answer)
{
    return *pg_value(answer, 0, COLUMN_DONE).ptr == 't';
}

/* The cache learns what this request wrote; what it found done before may be different by now. */
static void answer_done(const struct change *request, const struct pg_answer *answer)
{
    struct registryd *daemon = request->daemon;
    struct str event_id = pg_value(answer, 0, COLUMN_EVENT_ID);
    struct msg_mesh_deregistered reply = {.events = STR("")};
    uint8_t id[16];

    if (event_id.ptr) {
        change_applied(request, pg_value(answer, 0, COLUMN_AGENT_ID), AGENT_DEREGISTERED,
                       pg_value(answer, 0, COLUMN_CHANGED_XID));
        ids_uuid_parse(event_id.ptr, id);
        reply.events = (struct str){(const char *)id, sizeof(id)};
    } else {
        cache_invalidate(&daemon->cache, change_agent(request));
    }
    hints_publish(daemon->hints);
    ipc_reply(request->to, MSG_mesh_deregistered, &reply);
}

/* The state comes before what was done: a request that is sent again after its agent was revoked is
 * refused like any other. */
static void on_deregistered(void *arg, const struct pg_answer *answer)
{
    struct change *request = arg;
    bool found = answer->outcome == PG_OK && answer->row_count > 0;
    enum agent_state state =
        found ? agent_state_from_name(pg_value(answer, 0, COLUMN_STATE)) : AGENT_UNKNOWN;

    if (answer->outcome != PG_OK)
        back_fail(request->to, answer);
    else if (!found)
        registryd_refuse_state(request->to, AGENT_UNKNOWN);
    else if (state == AGENT_QUARANTINED || state == AGENT_REVOKED)
        change_refuse_state(request, "the agent's state does not allow it to deregister");
    else if (state == AGENT_DEREGISTERED || is_done(answer))
        answer_done(request, answer);
    else if (change_ask_again(request))
        return;
    else
        ipc_fail(request->to, ERROR_UNAVAILABLE, "the agent is being written elsewhere");
    change_free(request);
}

void registryd_deregister(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct registryd *daemon = arg;
    const struct msg_mesh_deregister *body = &message->body.mesh_deregister;
    char request_id[UUID_TEXT_BYTES], received_ms[STR_NUMBER_BYTES];

    ids_uuid_text(message->id.bytes, request_id);
    const struct change request = {
        .daemon = daemon,
        .to = to,
        .statement = STATEMENT_DEREGISTER,
        .answer = on_deregistered,
        .params = {body->tenant_id, body->spiffe_id, str_from(request_id), body->source_ip,
                   body->source_ip_claimed, body->trace_id,
                   str_from_number(body->received_at, received_ms), str_from(daemon->back.node)},
    };
    change_submit(&request);
}
