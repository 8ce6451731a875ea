/* Tells eventd what the worker itself sees: how handshakes end. Never holds a client up. While
 * eventd is away notes wait in its client; when that is full they are counted here by type, and
 * told as one note each when there is room, so that the counts still add up. */
#include "frontd/notes.h"

#include "frontd/worker.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <utlist.h>

enum {
    CLAIMED_MAX = 1024, /* of a SPIFFE ID that nobody proved: escaped it fits into an event still */
    AGAIN_MS = 1000,
};

/* No note is given up for waiting: eventd may have counted it, and only its answer is missing. */
static const int64_t patience_ms = 365LL * 86400 * 1000;

enum note_type {
#define EVENT(name, type, severity) NOTE_##name,
#include "common/event_types.def"
#undef EVENT
    NOTE_TYPES,
};

static const char *const type_names[NOTE_TYPES] = {
#define EVENT(name, type, severity) [NOTE_##name] = type,
#include "common/event_types.def"
#undef EVENT
};

/* Events of one type that found no room. */
struct kept {
    uint64_t count;
    int64_t first_at;
};

struct notes {
    struct worker *worker;
    struct ipc_client *eventd;
    struct kept kept[NOTE_TYPES];
    struct told *told; /* and not answered yet */
    struct event *again;
};

/* A note that eventd has not answered. */
struct told {
    struct notes *notes;
    enum note_type type;
    uint64_t count;
    int64_t occurred_at;
    struct told *prev, *next;
};

/* ---- telling -------------------------------------------------------------------------------- */

static void tell_kept(struct notes *notes);

static void keep(struct notes *notes, enum note_type type, uint64_t count, int64_t occurred_at)
{
    struct timeval again = clock_timeval(AGAIN_MS);
    struct kept *kept = &notes->kept[type];

    if (kept->count == 0 || occurred_at < kept->first_at)
        kept->first_at = occurred_at;
    kept->count += count;
    if (!evtimer_pending(notes->again, NULL))
        evtimer_add(notes->again, &again);
}

static bool is_unavailable(const struct message *answer)
{
    return str_equal(answer->body.fail.code, str_from(error_name(ERROR_UNAVAILABLE)));
}

static void on_told(void *arg, const struct message *answer)
{
    struct told *told = arg;
    struct notes *notes = told->notes;

    DL_DELETE(notes->told, told);
    if (!answer || (answer->type == MSG_fail && is_unavailable(answer))) {
        keep(notes, told->type, told->count, told->occurred_at);
    } else {
        if (answer->type == MSG_fail) {
            notes->worker->metrics->events_lost_total += told->count;
            log_warn("eventd refused an event", LOG_STR("reason", answer->body.fail.message),
                     LOG_NUMBER("count", (long long)told->count));
        }
        tell_kept(notes);
    }
    free(told);
    worker_finish_when_done(notes->worker);
}

/* False: there is no room for it. */
static bool tell(struct notes *notes, enum note_type type, struct msg_event_note *note)
{
    struct told *told;

    if (ipc_client_in_flight(notes->eventd) >= notes->worker->admission.in_flight_open_to_all)
        return false; /* the rest is the operators' share */
    told = memory_new(1, sizeof(*told));
    *told = (struct told){
        .notes = notes, .type = type, .count = note->count, .occurred_at = note->occurred_at};
    note->event_type = str_from(type_names[type]);
    if (!ipc_client_call(notes->eventd, MSG_event_note, note, patience_ms, on_told, told)) {
        free(told);
        return false;
    }
    DL_APPEND(notes->told, told);
    ipc_client_flush(notes->eventd); /* before the client hears: it counts though we die now */
    return true;
}

static void tell_or_keep(struct notes *notes, enum note_type type, struct msg_event_note *note)
{
    uint64_t *told_late = &notes->worker->metrics->events_told_late_total;

    if (tell(notes, type, note))
        return;
    *told_late += note->count;
    if ((*told_late & (*told_late - 1)) == 0) /* whoever fails handshakes does not fill the log */
        log_warn("events are counted and told later: eventd is away and too many wait",
                 LOG_TEXT("type", type_names[type]),
                 LOG_NUMBER("told_late", (long long)*told_late));
    keep(notes, type, note->count, note->occurred_at);
}

static void tell_kept(struct notes *notes)
{
    for (int type = 0; type < NOTE_TYPES; type++) {
        struct kept *kept = &notes->kept[type];
        struct msg_event_note note = {
            .tenant_id = STR("_system"),
            .occurred_at = kept->first_at,
            .count = kept->count,
            .details = STR("{\"told_late\":true}"),
        };

        if (kept->count > 0 && tell(notes, (enum note_type)type, &note))
            *kept = (struct kept){.count = 0};
    }
}

static uint64_t count_kept(const struct notes *notes)
{
    uint64_t count = 0;

    for (int type = 0; type < NOTE_TYPES; type++)
        count += notes->kept[type].count;
    return count;
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    struct notes *notes = arg;
    struct timeval again = clock_timeval(AGAIN_MS);

    (void)fd;
    (void)what;
    tell_kept(notes);
    if (count_kept(notes) > 0)
        evtimer_add(notes->again, &again);
}

/* ---- handshakes ----------------------------------------------------------------------------- */

/* {"protocol":…, …} as text that the caller frees. */
static char *make_details(const struct tls_peer *peer, const char *protocol, const char *failure)
{
    json_t *details =
        failure ? json_pack("{s:s, s:s}", "protocol", protocol, "reason", failure)
                : json_pack("{s:s, s:s, s:b}", "protocol", protocol, "role",
                            role_name(peer->identity.role), "resumed", (int)peer->resumed);
    char *text = json_dumps(details, JSON_COMPACT);

    json_decref(details);
    if (!text)
        log_fatal("out of memory");
    return text;
}

/* {"claimed_spiffe_id":…} as text that the caller frees; NULL when nothing printable was claimed.
 */
static char *make_sample(const char *claimed)
{
    json_t *sample;
    char *text;

    if (!claimed || !str_is_printable(str_from(claimed)))
        return NULL;
    sample = json_object();
    json_object_set_new(sample, "claimed_spiffe_id",
                        json_stringn(claimed, strnlen(claimed, CLAIMED_MAX)));
    text = json_dumps(sample, JSON_COMPACT);
    json_decref(sample);
    return text;
}

void notes_handshake(struct worker *worker, const struct tls_peer *peer, const char *source_ip,
                     const char *protocol, const char *failure)
{
    bool identified = peer->identity.kind != IDENTITY_NONE;
    bool proven = identified && (!failure || peer->is_denied);
    cleanup_free char *details = NULL, *sample = NULL;
    struct msg_event_note note;

    if (!failure && !identified)
        return;
    details = make_details(peer, protocol, failure);
    if (failure)
        sample = make_sample(identified ? peer->identity.spiffe_id : peer->claimed);
    note = (struct msg_event_note){
        .tenant_id = proven ? peer->identity.tenant : STR("_system"),
        .spiffe_id = proven ? str_from(peer->identity.spiffe_id) : STR_ABSENT,
        .source_ip = str_from(source_ip),
        .occurred_at = clock_wall_ms(),
        .count = 1,
        .details = str_from(details),
        .sample = proven ? STR_ABSENT : str_from(sample),
    };
    tell_or_keep(worker->notes, failure ? NOTE_mtls_failure : NOTE_mtls_success, &note);
}

/* ---- life ----------------------------------------------------------------------------------- */

bool notes_settled(const struct notes *notes)
{
    return !notes->told && count_kept(notes) == 0;
}

struct notes *notes_new(struct worker *worker, struct ipc_client *eventd)
{
    struct notes *notes = memory_new(1, sizeof(*notes));

    notes->worker = worker;
    notes->eventd = eventd;
    notes->again = evtimer_new(worker->service.base, on_again, notes);
    if (!notes->again)
        log_fatal("out of memory");
    return notes;
}

void notes_free(struct notes *notes)
{
    uint64_t untold = count_kept(notes);
    struct told *told, *next;

    DL_FOREACH_SAFE(notes->told, told, next)
    {
        untold += told->count;
        free(told);
    }
    if (untold > 0)
        log_error("events may be lost: eventd did not take them in time",
                  LOG_NUMBER("count", (long long)untold));
    event_free(notes->again);
    free(notes);
}
