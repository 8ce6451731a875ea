/* Events that frontd saw itself, auth.*. Each note counts once, however often it is sent: within
 * this life by its sender's order, across lives by asking the database. The answer says that it is
 * stored, or counted with one that is. The severity is the table's, never the sender's. */
#include "eventd/eventd.h"

#include "eventd/aggregate.h"
#include "eventd/insist.h"
#include "eventd/senders.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <uthash.h>

struct event_type {
    const char *name, *severity;
};

static const struct event_type event_types[] = {
#define EVENT(name, type, severity) {type, severity},
#include "common/event_types.def"
#undef EVENT
};

/* One who waits for the answer. */
struct asker {
    struct ipc_reply_to to;
    struct asker *next;
};

/* A note that is on its way to the database, and all who sent it: once, as a rule. */
struct held_note {
    struct request_id id;
    struct asker *askers;
    UT_hash_handle hh;
};

struct notes {
    int64_t opened_at; /* wall clock: notes from before may have been another life's */
    struct senders *senders;
    struct held_note *held;
};

static const struct event_type *find_type(struct str name)
{
    for (size_t i = 0; i < sizeof(event_types) / sizeof(event_types[0]); i++)
        if (str_equal(name, str_from(event_types[i].name)))
            return &event_types[i];
    return NULL;
}

/* As aggregate_take, counted by type. */
static bool take(struct eventd *daemon, const struct request_id *id,
                 const struct msg_event_note *note, const struct event_type *type)
{
    daemon->metrics.events_noted_total[type - event_types] += note->count;
    return aggregate_take(daemon->aggregate, id, note, type->severity);
}

/* ---- answers -------------------------------------------------------------------------------- */

static void answer_done(struct ipc_reply_to to)
{
    ipc_reply(to, MSG_event_done, &(struct msg_event_done){});
}

static struct held_note *find_held(struct notes *notes, const struct request_id *id)
{
    struct held_note *held;

    HASH_FIND(hh, notes->held, id, sizeof(*id), held);
    return held;
}

static void add_asker(struct held_note *held, struct ipc_reply_to to)
{
    struct asker *asker = memory_new(1, sizeof(*asker));

    *asker = (struct asker){to, held->askers};
    held->askers = asker;
}

static void hold(struct notes *notes, struct ipc_reply_to to)
{
    struct held_note *held = memory_new(1, sizeof(*held));

    held->id = to.id;
    add_asker(held, to);
    HASH_ADD(hh, notes->held, id, sizeof(held->id), held);
}

void notes_settle(struct eventd *daemon, const struct request_id *id,
                  const struct pg_answer *answer)
{
    struct held_note *held = find_held(daemon->notes, id);
    struct asker *asker;

    HASH_DEL(daemon->notes->held, held);
    while ((asker = held->askers)) {
        held->askers = asker->next;
        if (answer->outcome == PG_OK)
            answer_done(asker->to);
        else
            back_fail(asker->to, answer);
        free(asker);
    }
    free(held);
}

/* ---- notes of an earlier life --------------------------------------------------------------- */

/* A note that waits for the database's word on whether it is stored already. */
struct old_note {
    struct eventd *daemon;
    struct request_id id;
    struct msg_event_note note; /* its strings are this one's */
    const struct event_type *type;
};

static struct old_note *old_note_new(struct eventd *daemon, const struct message *message,
                                     const struct event_type *type)
{
    struct old_note *old = memory_new(1, sizeof(*old));
    struct msg_event_note *note = &old->note;
    struct str *const strings[] = {&note->tenant_id, &note->event_type, &note->spiffe_id,
                                   &note->source_ip, &note->details,    &note->sample};

    *old = (struct old_note){daemon, message->id, message->body.event_note, type};
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        strings[i]->ptr = str_dup(*strings[i]);
    return old;
}

static void old_note_free(struct old_note *old)
{
    const struct msg_event_note *note = &old->note;
    const struct str strings[] = {note->tenant_id, note->event_type, note->spiffe_id,
                                  note->source_ip, note->details,    note->sample};

    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        free((char *)strings[i].ptr);
    free(old);
}

static void on_looked_up(void *arg, const struct pg_answer *answer)
{
    struct old_note *old = arg;
    bool stored = answer->outcome == PG_OK && answer->row_count > 0;

    if (answer->outcome != PG_OK || stored || !take(old->daemon, &old->id, &old->note, old->type))
        notes_settle(old->daemon, &old->id, answer);
    old_note_free(old);
}

static void look_up(struct eventd *daemon, const struct message *message,
                    const struct event_type *type)
{
    const struct msg_event_note *note = &message->body.event_note;
    char id[UUID_TEXT_BYTES], occurred_ms[STR_NUMBER_BYTES];

    ids_uuid_text(message->id.bytes, id);
    const struct str params[] = {str_from(id), note->tenant_id, note->event_type,
                                 str_from_number(note->occurred_at, occurred_ms)};
    insist_submit(daemon->insist, &eventd_statements[STATEMENT_KNOWN], params, on_looked_up,
                  old_note_new(daemon, message, type));
}

/* ---- for all -------------------------------------------------------------------------------- */

void eventd_note(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct eventd *daemon = arg;
    struct notes *notes = daemon->notes;
    const struct msg_event_note *body = &message->body.event_note;
    const struct event_type *type = find_type(body->event_type);
    struct held_note *held = find_held(notes, &message->id);

    if (!type) {
        ipc_fail(to, ERROR_VALIDATION, "this event is not frontd's to note");
    } else if (held) {
        add_asker(held, to);
    } else if (senders_have_seen(notes->senders, &message->id)) {
        answer_done(to);
    } else if (body->occurred_at < notes->opened_at) {
        hold(notes, to);
        look_up(daemon, message, type);
    } else if (take(daemon, &message->id, body, type)) {
        hold(notes, to);
    } else {
        answer_done(to);
    }
}

void notes_open(struct eventd *daemon)
{
    daemon->notes = memory_new(1, sizeof(*daemon->notes));
    daemon->notes->opened_at = clock_wall_ms();
    daemon->notes->senders = senders_new();
}

void notes_close(struct eventd *daemon)
{
    struct held_note *held, *next;

    HASH_ITER(hh, daemon->notes->held, held, next)
    {
        HASH_DEL(daemon->notes->held, held);
        while (held->askers) {
            struct asker *asker = held->askers;

            held->askers = asker->next;
            free(asker);
        }
        free(held);
    }
    senders_free(daemon->notes->senders);
    free(daemon->notes);
}
