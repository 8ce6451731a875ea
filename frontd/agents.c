/* GET /v1/mesh/agents and /v1/mesh/agents/{agent_id}: the agents of the caller's tenant. Pages and
 * records come from the database as JSON and pass through. */
#include "frontd/handlers.h"
#include "frontd/members.h"
#include "frontd/worker.h"

enum { LIMIT_DEFAULT = 100, AGENT_ID_MAX = 255 };

/* ---- GET /v1/mesh/agents -------------------------------------------------------------------- */

enum agents_parameter {
    AGENTS_STATE,
    AGENTS_HOSTNAME,
    AGENTS_STALE_SECONDS,
    AGENTS_FINGERPRINT,
    AGENTS_LIMIT,
    AGENTS_CURSOR,
    AGENTS_TOTAL,
    AGENTS_COUNT,
};

static const struct parameter agents_parameters[AGENTS_COUNT] = {
    [AGENTS_STATE] = {.name = "state",
                      .type = PARAMETER_CHOICE,
                      .choices = "active, quarantined, revoked, deregistered"},
    [AGENTS_HOSTNAME] = {"hostname", PARAMETER_HOSTNAME, 1, 253, NULL},
    [AGENTS_STALE_SECONDS] = {"stale_seconds", PARAMETER_NUMBER, 0, 1000000000, NULL},
    [AGENTS_FINGERPRINT] = {"fingerprint", PARAMETER_TEXT, 1, 256, NULL},
    [AGENTS_LIMIT] = {"limit", PARAMETER_NUMBER, 1, 1000, NULL},
    [AGENTS_CURSOR] = {"cursor", PARAMETER_TEXT, 1, 4096, NULL},
    [AGENTS_TOTAL] = {.name = "total", .type = PARAMETER_CHOICE, .choices = "true, false"},
};

static void on_page(struct exchange *exchange, size_t slot, const struct message *answer)
{
    (void)slot;
    if (!exchange_failed(exchange, answer, MSG_agent_page))
        exchange_answer(exchange, 200, "%.*s", STR_ARGS(answer->body.agent_page.page));
}

void agents_list(struct exchange *exchange)
{
    struct parameter_value values[AGENTS_COUNT];
    struct msg_agent_list body;
    int64_t heard_until;

    if (!parameters_read(exchange, agents_parameters, AGENTS_COUNT, values))
        return;
    heard_until = exchange->received_ms - values[AGENTS_STALE_SECONDS].number * 1000;
    body = (struct msg_agent_list){
        .tenant_id = exchange->identity->tenant,
        .state = str_from(values[AGENTS_STATE].text),
        .hostname = str_from(values[AGENTS_HOSTNAME].text),
        .fingerprint = str_from(values[AGENTS_FINGERPRINT].text),
        .heard_until = {values[AGENTS_STALE_SECONDS].present, heard_until > 0 ? heard_until : 0},
        .total = str_equal(str_from(values[AGENTS_TOTAL].text), STR("true")),
        .limit =
            values[AGENTS_LIMIT].present ? (uint64_t)values[AGENTS_LIMIT].number : LIMIT_DEFAULT,
        .cursor = str_from(values[AGENTS_CURSOR].text),
    };
    exchange_call(exchange, 0, PEER_REGISTRYD, MSG_agent_list, &body, PATIENCE_READ, on_page);
    parameters_free(values, AGENTS_COUNT);
}

/* ---- GET /v1/mesh/agents/{agent_id} --------------------------------------------------------- */

static void on_agent(struct exchange *exchange, size_t slot, const struct message *answer)
{
    (void)slot;
    if (!exchange_failed(exchange, answer, MSG_mesh_agent))
        exchange_answer(exchange, 200, "{\"agent\":%.*s}", STR_ARGS(answer->body.mesh_agent.agent));
}

void agents_get(struct exchange *exchange)
{
    const struct msg_agent_get body = {.tenant_id = exchange->identity->tenant,
                                       .agent_id = exchange->parameter};

    if (body.agent_id.len > AGENT_ID_MAX)
        exchange_fail(exchange, ERROR_NOT_FOUND, "no such agent", NULL);
    else
        exchange_call(exchange, 0, PEER_REGISTRYD, MSG_agent_get, &body, PATIENCE_READ, on_agent);
}
