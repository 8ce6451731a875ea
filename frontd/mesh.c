/* The mesh routes: an agent's own registration, heartbeat, end and record. Tenant, SPIFFE ID and
 * agent_id come from the certificate alone; a body can say nothing about whose row it is. */
#include "frontd/handlers.h"
#include "frontd/members.h"
#include "frontd/worker.h"

#include "common/clock.h"

/* ---- POST /v1/mesh/register ----------------------------------------------------------------- */

enum register_member {
    REGISTER_HOSTNAME,
    REGISTER_FINGERPRINT,
    REGISTER_ENDPOINT,
    REGISTER_VERSION,
    REGISTER_CAPABILITIES,
    REGISTER_METADATA,
    REGISTER_COUNT,
};

static const struct member register_members[REGISTER_COUNT] = {
    [REGISTER_HOSTNAME] = {"hostname", MEMBER_HOSTNAME, 1, 253, true},
    [REGISTER_FINGERPRINT] = {"machine_id_fingerprint", MEMBER_PRINTABLE, 1, 256, false},
    [REGISTER_ENDPOINT] = {"endpoint", MEMBER_TEXT, 0, 512, false},
    [REGISTER_VERSION] = {"version", MEMBER_TEXT, 0, 64, false},
    [REGISTER_CAPABILITIES] = {"capabilities", MEMBER_STRINGS, 64, 128, false},
    [REGISTER_METADATA] = {"metadata", MEMBER_OBJECT, 0, 4096, false},
};

/* Whether eventd hears of them now or finds them when it sweeps, the client does not wait. */
static void announce_events(struct exchange *exchange, struct str ids)
{
    struct msg_event_collect collect = {.tenant_id = exchange->identity->tenant, .ids = ids};

    if (ids.len > 0)
        worker_tell(exchange->worker, PEER_EVENTD, MSG_event_collect, &collect);
}

static void on_registered(struct exchange *exchange, size_t slot, const struct message *answer)
{
    const struct msg_mesh_registered *reply;

    (void)slot;
    if (exchange_failed(exchange, answer, MSG_mesh_registered))
        return;
    reply = &answer->body.mesh_registered;
    announce_events(exchange, reply->events);
    exchange_answer(
        exchange, reply->created ? 201 : 200,
        "{\"agent\":%.*s,\"created\":%s,\"fingerprint_drift\":%s,"
        "\"heartbeat\":{\"interval_seconds\":%llu,\"next_due_ms\":%llu},\"trace_id\":\"%s\"}",
        STR_ARGS(reply->agent), reply->created ? "true" : "false",
        reply->fingerprint_drift ? "true" : "false", (unsigned long long)reply->interval_seconds,
        (unsigned long long)reply->next_due_ms, exchange->trace_id);
}

void mesh_register(struct exchange *exchange)
{
    const struct identity *identity = exchange->identity;
    char *values[REGISTER_COUNT];
    struct msg_mesh_register body;

    if (!members_read(exchange, register_members, REGISTER_COUNT, values))
        return;
    body = (struct msg_mesh_register){
        .tenant_id = identity->tenant,
        .spiffe_id = str_from(identity->spiffe_id),
        .agent_id = identity->name,
        .source_ip = str_from(exchange->source_ip),
        .source_ip_claimed = exchange->source_ip_claimed,
        .trace_id = str_from(exchange->trace_id),
        .received_at = exchange->received_ms,
        .hostname = str_from(values[REGISTER_HOSTNAME]),
        .fingerprint = str_from(values[REGISTER_FINGERPRINT]),
        .endpoint = str_from(values[REGISTER_ENDPOINT]),
        .version = str_from(values[REGISTER_VERSION]),
        .capabilities = str_from(values[REGISTER_CAPABILITIES]),
        .metadata = str_from(values[REGISTER_METADATA]),
    };
    exchange_call(exchange, 0, PEER_REGISTRYD, MSG_mesh_register, &body, PATIENCE_WRITE,
                  on_registered);
    members_free(values, REGISTER_COUNT);
}

/* ---- POST /v1/mesh/heartbeat ---------------------------------------------------------------- */

enum heartbeat_member { HEARTBEAT_HOSTNAME, HEARTBEAT_STATUS, HEARTBEAT_METADATA, HEARTBEAT_COUNT };

static const struct member heartbeat_members[HEARTBEAT_COUNT] = {
    [HEARTBEAT_HOSTNAME] = {"hostname", MEMBER_HOSTNAME, 1, 253, false},
    [HEARTBEAT_STATUS] = {"status", MEMBER_TEXT, 0, 64, false},
    [HEARTBEAT_METADATA] = {"metadata", MEMBER_OBJECT, 0, 4096, false},
};

static void on_beat(struct exchange *exchange, size_t slot, const struct message *answer)
{
    const struct msg_mesh_beat *reply;
    char last_heartbeat[CLOCK_TEXT_BYTES];

    (void)slot;
    if (exchange_failed(exchange, answer, MSG_mesh_beat))
        return;
    reply = &answer->body.mesh_beat;
    clock_format(reply->last_heartbeat, last_heartbeat);
    exchange_answer(exchange, 200,
                    "{\"status\":\"ok\",\"agent_id\":\"%.*s\",\"state\":\"%.*s\","
                    "\"last_heartbeat\":\"%s\",\"next_due_ms\":%llu}",
                    STR_ARGS(reply->agent_id), STR_ARGS(reply->state), last_heartbeat,
                    (unsigned long long)reply->next_due_ms);
}

void mesh_heartbeat(struct exchange *exchange)
{
    char *values[HEARTBEAT_COUNT];
    struct msg_mesh_heartbeat body;

    if (!members_read(exchange, heartbeat_members, HEARTBEAT_COUNT, values))
        return;
    body = (struct msg_mesh_heartbeat){
        .tenant_id = exchange->identity->tenant,
        .spiffe_id = str_from(exchange->identity->spiffe_id),
        .received_at = exchange->received_ms,
        .status = str_from(values[HEARTBEAT_STATUS]),
        .metadata = str_from(values[HEARTBEAT_METADATA]),
    };
    exchange_call(exchange, 0, PEER_REGISTRYD, MSG_mesh_heartbeat, &body, PATIENCE_WRITE, on_beat);
    members_free(values, HEARTBEAT_COUNT);
}

/* ---- POST /v1/mesh/deregister --------------------------------------------------------------- */

static void on_deregistered(struct exchange *exchange, size_t slot, const struct message *answer)
{
    (void)slot;
    if (exchange_failed(exchange, answer, MSG_mesh_deregistered))
        return;
    announce_events(exchange, answer->body.mesh_deregistered.events);
    exchange_answer(exchange, 200,
                    "{\"status\":\"ok\",\"agent_id\":\"%.*s\",\"state\":\"deregistered\","
                    "\"trace_id\":\"%s\"}",
                    STR_ARGS(exchange->identity->name), exchange->trace_id);
}

void mesh_deregister(struct exchange *exchange)
{
    const struct msg_mesh_deregister body = {
        .tenant_id = exchange->identity->tenant,
        .spiffe_id = str_from(exchange->identity->spiffe_id),
        .source_ip = str_from(exchange->source_ip),
        .source_ip_claimed = exchange->source_ip_claimed,
        .trace_id = str_from(exchange->trace_id),
        .received_at = exchange->received_ms,
    };
    char *none;

    if (members_read(exchange, NULL, 0, &none)) /* what is no JSON object is refused all the same */
        exchange_call(exchange, 0, PEER_REGISTRYD, MSG_mesh_deregister, &body, PATIENCE_WRITE,
                      on_deregistered);
}

/* ---- GET /v1/mesh/self ---------------------------------------------------------------------- */

static void on_self(struct exchange *exchange, size_t slot, const struct message *answer)
{
    (void)slot;
    if (!exchange_failed(exchange, answer, MSG_mesh_agent))
        exchange_answer(exchange, 200, "{\"agent\":%.*s}", STR_ARGS(answer->body.mesh_agent.agent));
}

void mesh_self(struct exchange *exchange)
{
    const struct msg_mesh_self body = {.tenant_id = exchange->identity->tenant,
                                       .spiffe_id = str_from(exchange->identity->spiffe_id)};

    exchange_call(exchange, 0, PEER_REGISTRYD, MSG_mesh_self, &body, PATIENCE_READ, on_self);
}
