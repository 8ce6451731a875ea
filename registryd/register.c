/* POST /v1/mesh/register and GET /v1/mesh/self: one row of the batched upsert, or of the look-up,
 * per request. Writes agent_registry and identity_outbox through sql/registryd.sql and nothing
 * else. */
#include "registryd/change.h"
#include "registryd/hints.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/memory.h"

#include <stdlib.h>

enum { OUTCOME_CREATED = 1, OUTCOME_DRIFT = 2, EVENTS_MAX = 16 };

/* What makes agent_id unique per tenant. */
static const char agent_id_constraint[] = "ux_agent_registry_tenant_agent";

/* The statement's parameters, in its order. */
enum register_param {
    PARAM_TENANT_ID = CHANGE_TENANT_ID,
    PARAM_SPIFFE_ID = CHANGE_SPIFFE_ID,
    PARAM_AGENT_ID,
    PARAM_REQUEST_ID,
    PARAM_HOSTNAME,
    PARAM_FINGERPRINT,
    PARAM_ENDPOINT,
    PARAM_VERSION,
    PARAM_CAPABILITIES,
    PARAM_METADATA,
    PARAM_SOURCE_IP,
    PARAM_SOURCE_IP_CLAIMED,
    PARAM_TRACE_ID,
    PARAM_RECEIVED_MS,
    PARAM_NODE,
    PARAM_LIVE_SECONDS,
    PARAM_SPLIT_BRAIN_SECONDS,
    PARAM_COUNT,
};

_Static_assert((int)PARAM_COUNT <= (int)CHANGE_PARAMS_MAX, "they fit a change");

/* "uuid,uuid,…" as the statement gives it, to 16 bytes each; returns how many bytes. */
static size_t parse_event_ids(struct str text, uint8_t ids[EVENTS_MAX * 16])
{
    size_t count = 0;

    for (size_t at = 0; at + 36 <= text.len && count < EVENTS_MAX; at += 37) {
        char uuid[UUID_TEXT_BYTES] = {0};

        memcpy(uuid, text.ptr + at, 36);
        if (ids_uuid_parse(uuid, ids + count * 16) == 0)
            count++;
    }
    return count * 16;
}

/* Once for each registration: only the execution that wrote it tells of its events. One that was
 * sent again, and is recognised, was counted when it was written, in this life or an earlier one.
 */
static void count(struct registryd_metrics *metrics, const struct msg_mesh_registered *reply)
{
    if (reply->events.len == 0)
        return;
    metrics->registry_registrations_total[reply->created ? REGISTRATION_CREATED
                                                         : REGISTRATION_EXISTING]++;
    metrics->registry_fingerprint_drifts_total += reply->fingerprint_drift;
}

static void answer_registered(const struct change *registration, const struct pg_answer *answer,
                              enum agent_state state)
{
    struct registryd *daemon = registration->daemon;
    struct cache_agent *agent = change_agent(registration);
    uint8_t ids[EVENTS_MAX * 16];
    int outcome = atoi(pg_value(answer, 0, 1).ptr);
    struct msg_mesh_registered reply = {
        .created = outcome & OUTCOME_CREATED,
        .fingerprint_drift = outcome & OUTCOME_DRIFT,
        .agent = pg_value(answer, 0, 2),
        .interval_seconds = (uint64_t)daemon->options.mesh_heartbeat_interval_seconds,
        .next_due_ms = (uint64_t)heartbeat_next_due_ms(daemon, cache_key(agent), clock_wall_ms()),
        .events = {(const char *)ids, parse_event_ids(pg_value(answer, 0, 3), ids)},
    };

    count(&daemon->metrics, &reply);
    change_applied(registration, registration->params[PARAM_AGENT_ID], state,
                   pg_value(answer, 0, 4));
    hints_publish(daemon->hints);
    ipc_reply(registration->to, MSG_mesh_registered, &reply);
}

/* The state comes before the outcome: a request that was registered, and is sent again after its
 * agent was revoked, is refused like any other. */
static void on_registered(void *arg, const struct pg_answer *answer)
{
    struct change *registration = arg;
    bool answered = answer->outcome == PG_OK;
    enum agent_state state =
        answered ? agent_state_from_name(pg_value(answer, 0, 0)) : AGENT_UNKNOWN;

    if (answer->outcome == PG_REFUSED && strcmp(answer->constraint, agent_id_constraint) == 0)
        ipc_fail(registration->to, ERROR_CONFLICT,
                 "another SPIFFE ID of this tenant has this agent_id");
    else if (!answered)
        back_fail(registration->to, answer);
    else if (state == AGENT_QUARANTINED || state == AGENT_REVOKED)
        change_refuse_state(registration, "the agent's state does not allow it to register");
    else if (pg_value(answer, 0, 1).ptr)
        answer_registered(registration, answer, state);
    else if (change_ask_again(registration))
        return;
    else
        ipc_fail(registration->to, ERROR_UNAVAILABLE,
                 "the registration is being written elsewhere");
    change_free(registration);
}

/* How long an agent counts as live after its last heartbeat on record: three intervals (the
 * contract), and what a heartbeat may wait to be written. */
static int64_t live_seconds(const struct registryd *daemon)
{
    return 3 * daemon->options.mesh_heartbeat_interval_seconds +
           daemon->options.mesh_write_behind_seconds;
}

void registryd_register(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct registryd *daemon = arg;
    const struct msg_mesh_register *body = &message->body.mesh_register;
    char request_id[UUID_TEXT_BYTES], received_ms[STR_NUMBER_BYTES], live[STR_NUMBER_BYTES],
        split_brain[STR_NUMBER_BYTES];

    ids_uuid_text(message->id.bytes, request_id);
    const struct change registration = {
        .daemon = daemon,
        .to = to,
        .statement = STATEMENT_REGISTER,
        .answer = on_registered,
        .params = {body->tenant_id, body->spiffe_id, body->agent_id, str_from(request_id),
                   body->hostname, body->fingerprint, body->endpoint, body->version,
                   body->capabilities, body->metadata, body->source_ip, body->source_ip_claimed,
                   body->trace_id, str_from_number(body->received_at, received_ms),
                   str_from(daemon->back.node), str_from_number(live_seconds(daemon), live),
                   str_from_number(daemon->options.mesh_split_brain_seconds, split_brain)},
    };
    change_submit(&registration);
}

/* ---- GET /v1/mesh/self ---------------------------------------------------------------------- */

struct self_request {
    struct ipc_reply_to to;
};

static void on_self(void *arg, const struct pg_answer *answer)
{
    struct self_request *request = arg;
    struct msg_mesh_agent reply;
    enum agent_state state;

    if (answer->outcome != PG_OK) {
        back_fail(request->to, answer);
    } else {
        state = answer->row_count ? agent_state_from_name(pg_value(answer, 0, 0)) : AGENT_UNKNOWN;
        reply.agent = answer->row_count ? pg_value(answer, 0, 1) : STR_ABSENT;
        if (state == AGENT_ACTIVE || state == AGENT_QUARANTINED)
            ipc_reply(request->to, MSG_mesh_agent, &reply);
        else
            registryd_refuse_state(request->to, state);
    }
    free(request);
}

void registryd_self(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct registryd *daemon = arg;
    const struct msg_mesh_self *body = &message->body.mesh_self;
    struct cache_agent *agent = cache_get(&daemon->cache, body->tenant_id, body->spiffe_id);
    struct str params[] = {body->tenant_id, body->spiffe_id};
    struct self_request *request = memory_new(1, sizeof(*request));

    if (agent->dirty) /* its key makes the look-up wait for this write: the record shows the last
                         beat */
        heartbeat_write(daemon, agent);
    request->to = to;
    if (back_submit(&daemon->back, &registryd_statements[STATEMENT_SELF], cache_key(agent), params,
                    on_self, request))
        return;
    free(request);
    back_fail_full(to);
}
