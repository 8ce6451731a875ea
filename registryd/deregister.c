/* POST /v1/mesh/deregister: takes the caller's own row out of service, once, and notes the event
 * with it. Writes agent_registry and identity_outbox through sql/registryd.sql and nothing else. */
#include "registryd/hints.h"
#include "registryd/registryd.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/memory.h"

#include <stdlib.h>

/* The statement's parameters, in its order. */
enum deregister_param {
    PARAM_TENANT_ID,
    PARAM_SPIFFE_ID,
    PARAM_REQUEST_ID,
    PARAM_SOURCE_IP,
    PARAM_SOURCE_IP_CLAIMED,
    PARAM_TRACE_ID,
    PARAM_RECEIVED_MS,
    PARAM_NODE,
    PARAM_COUNT,
};

/* A request on its way. Its parameters are kept: when another connection changed its row after the
 * statement's snapshot, the same request is asked again. */
struct deregistration {
    struct registryd *daemon;
    struct ipc_reply_to to;
    uint64_t revision; /* of the cache entry when the statement was sent */
    int64_t sent_ms;
    bool asked_again;
    struct str params[PARAM_COUNT];
    char *text; /* what the views in params point into */
};

static void deregistration_free(struct deregistration *request)
{
    free(request->text);
    free(request);
}

static struct cache_agent *cached_agent(const struct deregistration *request)
{
    return cache_get(&request->daemon->cache, request->params[PARAM_TENANT_ID],
                     request->params[PARAM_SPIFFE_ID]);
}

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
static void answer_done(struct deregistration *request, const struct pg_answer *answer)
{
    struct registryd *daemon = request->daemon;
    struct cache_agent *agent = cached_agent(request);
    struct str event_id = pg_value(answer, 0, COLUMN_EVENT_ID);
    struct msg_mesh_deregistered reply = {.events = STR("")};
    uint8_t id[16];

    if (event_id.ptr) {
        cache_fill(agent, pg_value(answer, 0, COLUMN_AGENT_ID), AGENT_DEREGISTERED,
                   cache_changed_from(pg_value(answer, 0, COLUMN_CHANGED_XID)), request->revision,
                   request->sent_ms);
        ids_uuid_parse(event_id.ptr, id);
        reply.events = (struct str){(const char *)id, sizeof(id)};
    } else {
        cache_invalidate(&daemon->cache, agent);
    }
    hints_publish(daemon->hints);
    ipc_reply(request->to, MSG_mesh_deregistered, &reply);
}

static void on_deregistered(void *arg, const struct pg_answer *answer);

/* Sends the statement; on a full queue the request is answered and done with. */
static void submit(struct deregistration *request)
{
    struct registryd *daemon = request->daemon;
    struct cache_agent *agent = cached_agent(request);

    request->revision = agent->revision;
    request->sent_ms = clock_monotonic_ms();
    if (back_submit(&daemon->back, &registryd_statements[STATEMENT_DEREGISTER], cache_key(agent),
                    request->params, on_deregistered, request))
        return;
    back_fail_full(request->to);
    deregistration_free(request);
}

/* Another connection changed this row while the statement waited: a new snapshot sees it. Returns
 * whether the statement is sent again. */
static bool ask_again(struct deregistration *request)
{
    if (request->asked_again)
        return false;
    request->asked_again = true;
    submit(request);
    return true;
}

/* The state comes before what was done: a request that is sent again after its agent was revoked is
 * refused like any other. */
static void refuse_state(const struct deregistration *request)
{
    cache_invalidate(&request->daemon->cache,
                     cached_agent(request)); /* it may be believed active */
    ipc_fail(request->to, ERROR_FORBIDDEN, "the agent's state does not allow it to deregister");
}

static void on_deregistered(void *arg, const struct pg_answer *answer)
{
    struct deregistration *request = arg;
    bool found = answer->outcome == PG_OK && answer->row_count > 0;
    enum agent_state state =
        found ? agent_state_from_name(pg_value(answer, 0, COLUMN_STATE)) : AGENT_UNKNOWN;

    if (answer->outcome != PG_OK)
        back_fail(request->to, answer);
    else if (!found)
        registryd_refuse_state(request->to, AGENT_UNKNOWN);
    else if (state == AGENT_QUARANTINED || state == AGENT_REVOKED)
        refuse_state(request);
    else if (state == AGENT_DEREGISTERED || is_done(answer))
        answer_done(request, answer);
    else if (ask_again(request))
        return;
    else
        ipc_fail(request->to, ERROR_UNAVAILABLE, "the agent is being written elsewhere");
    deregistration_free(request);
}

void registryd_deregister(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct registryd *daemon = arg;
    const struct msg_mesh_deregister *body = &message->body.mesh_deregister;
    struct deregistration *request = memory_new(1, sizeof(*request));
    char request_id[UUID_TEXT_BYTES], received_ms[STR_NUMBER_BYTES];
    struct cache_agent *agent;

    ids_uuid_text(message->id.bytes, request_id);
    *request = (struct deregistration){
        .daemon = daemon,
        .to = to,
        .params = {body->tenant_id, body->spiffe_id, str_from(request_id), body->source_ip,
                   body->source_ip_claimed, body->trace_id,
                   str_from_number(body->received_at, received_ms), str_from(daemon->back.node)},
    };
    request->text = str_keep_all(request->params, PARAM_COUNT);
    agent = cached_agent(request);
    if (agent->dirty) /* its key makes the statement wait for this write: a later one finds the
                         agent deregistered, and changes nothing */
        heartbeat_write(daemon, agent);
    submit(request);
}
