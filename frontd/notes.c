/* Tells eventd what the worker itself sees: how handshakes end. Never holds a client up; what
 * cannot be told because too much waits already is counted and logged. */
#include "frontd/worker.h"

#include "common/clock.h"
#include "common/log.h"

#include <jansson.h>
#include <stdlib.h>

enum {
    DROPPED_LOG_EVERY = 1000,
    CLAIMED_MAX = 1024, /* of a SPIFFE ID that nobody proved: escaped it fits into an event still */
};

static void tell(struct worker *worker, const struct msg_event_note *note)
{
    if (worker_tell(worker, PEER_EVENTD, MSG_event_note, note))
        return;
    if (worker->notes_dropped++ % DROPPED_LOG_EVERY == 0)
        log_error("security events dropped: eventd is away and too many wait",
                  LOG_NUMBER("dropped", (long long)worker->notes_dropped));
}

/* {"protocol":…, …} as text that the caller frees; strings that are not UTF-8 are left out. */
static char *make_details(const char *protocol, const char *key, const char *value,
                          const char *claimed)
{
    json_t *details = json_object();
    char *text;

    json_object_set_new(details, "protocol", json_string(protocol));
    json_object_set_new(details, key, json_string(value));
    if (claimed && str_is_printable(str_from(claimed)))
        json_object_set_new(details, "claimed_spiffe_id",
                            json_stringn(claimed, strnlen(claimed, CLAIMED_MAX)));
    text = json_dumps(details, JSON_COMPACT);
    json_decref(details);
    if (!text)
        log_fatal("out of memory");
    return text;
}

void notes_handshake(struct worker *worker, const struct tls_peer *peer, const char *source_ip,
                     const char *protocol, const char *failure)
{
    bool accepted = !failure && peer->identity.kind != IDENTITY_NONE;
    bool known = accepted || peer->is_denied;
    char *details;
    struct msg_event_note note;

    if (!failure && !accepted)
        return;
    details = failure ? make_details(protocol, "reason", failure, peer->claimed)
                      : make_details(protocol, "role", role_name(peer->identity.role), NULL);
    note = (struct msg_event_note){
        .tenant_id = known ? peer->identity.tenant : STR("_system"),
        .event_type = accepted ? STR("auth.mtls_success") : STR("auth.mtls_failure"),
        .spiffe_id = known ? str_from(peer->identity.spiffe_id) : STR_ABSENT,
        .source_ip = str_from(source_ip),
        .occurred_at = clock_wall_ms(),
        .details = str_from(details),
    };
    tell(worker, &note);
    free(details);
}
