/* GET /v1/security/events: the caller's tenant's events. The page comes from the database as JSON
 * and passes through. */
#include "frontd/handlers.h"
#include "frontd/members.h"
#include "frontd/worker.h"

enum events_parameter {
    EVENTS_TYPE,
    EVENTS_SEVERITY,
    EVENTS_SPIFFE_ID,
    EVENTS_SINCE,
    EVENTS_UNTIL,
    EVENTS_LIMIT,
    EVENTS_CURSOR,
    EVENTS_COUNT,
};

static const struct parameter events_parameters[EVENTS_COUNT] = {
    [EVENTS_TYPE] = {"type", PARAMETER_TEXT, 1, 64, NULL},
    [EVENTS_SEVERITY] = {.name = "severity",
                         .type = PARAMETER_CHOICE,
                         .choices = "info, warn, error, critical"},
    [EVENTS_SPIFFE_ID] = {"spiffe_id", PARAMETER_TEXT, 1, 2048, NULL},
    [EVENTS_SINCE] = {"since", PARAMETER_TIME, 0, 0, NULL},
    [EVENTS_UNTIL] = {"until", PARAMETER_TIME, 0, 0, NULL},
    [EVENTS_LIMIT] = {"limit", PARAMETER_NUMBER, 1, 1000, NULL},
    [EVENTS_CURSOR] = {"cursor", PARAMETER_TEXT, 1, 128, NULL},
};

enum { LIMIT_DEFAULT = 100 };

static void on_page(struct exchange *exchange, size_t slot, const struct message *answer)
{
    (void)slot;
    if (!exchange_failed(exchange, answer, MSG_event_page))
        exchange_answer(exchange, 200, "%.*s", STR_ARGS(answer->body.event_page.page));
}

void events_list(struct exchange *exchange)
{
    struct parameter_value values[EVENTS_COUNT];
    struct msg_event_list body;

    if (!parameters_read(exchange, events_parameters, EVENTS_COUNT, values))
        return;
    body = (struct msg_event_list){
        .tenant_id = exchange->identity->tenant,
        .type = str_from(values[EVENTS_TYPE].text),
        .severity = str_from(values[EVENTS_SEVERITY].text),
        .spiffe_id = str_from(values[EVENTS_SPIFFE_ID].text),
        .since = {values[EVENTS_SINCE].present, values[EVENTS_SINCE].number},
        .until = {values[EVENTS_UNTIL].present, values[EVENTS_UNTIL].number},
        .limit =
            values[EVENTS_LIMIT].present ? (uint64_t)values[EVENTS_LIMIT].number : LIMIT_DEFAULT,
        .cursor = str_from(values[EVENTS_CURSOR].text),
    };
    exchange_call(exchange, 0, PEER_EVENTD, MSG_event_list, &body, PATIENCE_READ, on_page);
    parameters_free(values, EVENTS_COUNT);
}
