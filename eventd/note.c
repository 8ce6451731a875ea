/* Events that frontd saw itself, auth.*: stored once each, however often the request is sent. The
 * severity is the table's, never the sender's. */
#include "eventd/eventd.h"

#include "common/ids.h"

#include <stdio.h>

static const struct {
    const char *type, *severity;
} event_types[] = {
#define EVENT(type, severity) {type, severity},
#include "eventd/event_types.def"
#undef EVENT
};

static const char *severity_of(struct str type)
{
    for (size_t i = 0; i < sizeof(event_types) / sizeof(event_types[0]); i++)
        if (str_equal(type, str_from(event_types[i].type)))
            return event_types[i].severity;
    return NULL;
}

void eventd_note(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct eventd *daemon = arg;
    const struct msg_event_note *body = &message->body.event_note;
    const char *severity = severity_of(body->event_type);
    char request_id[UUID_TEXT_BYTES], occurred_ms[24];

    if (!severity) {
        ipc_fail(to, ERROR_VALIDATION, "this event is not frontd's to note");
        return;
    }
    ids_uuid_text(message->id.bytes, request_id);
    snprintf(occurred_ms, sizeof(occurred_ms), "%lld", (long long)body->occurred_at);
    const struct str params[] = {
        str_from(request_id), body->tenant_id,       body->event_type,
        str_from(severity),   body->spiffe_id,       body->source_ip,
        body->details,        str_from(occurred_ms), str_from(daemon->back.node),
    };
    eventd_submit_and_confirm(daemon, STATEMENT_NOTE, params, to);
}
