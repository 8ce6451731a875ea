/* Moves identity.* events from the registry's outbox to security_events: at once when frontd
 * announces them, and by sweeping for what a crash left behind. Content comes from the outbox
 * alone, never from frontd. */
#include "eventd/eventd.h"

#include "eventd/insist.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>

enum { IDS_MAX = 16 };

/* Counts the rows of the answer that name the type of an event that was moved; returns how many. */
static int count_moved(struct eventd *daemon, const struct pg_answer *answer)
{
    int moved = 0;

    for (int row = 0; row < answer->row_count; row++) {
        struct str type = pg_value(answer, row, 0);

        if (!type.ptr)
            continue;
        eventd_count_moved(&daemon->metrics, type);
        moved++;
    }
    return moved;
}

struct collection {
    struct eventd *daemon;
    struct ipc_reply_to to;
};

static void on_collected(void *arg, const struct pg_answer *answer)
{
    struct collection *collection = arg;

    if (answer->outcome == PG_OK) {
        count_moved(collection->daemon, answer);
        ipc_reply(collection->to, MSG_event_done, &(struct msg_event_done){});
    } else {
        back_fail(collection->to, answer);
    }
    free(collection);
}

void eventd_collect(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct eventd *daemon = arg;
    const struct msg_event_collect *body = &message->body.event_collect;
    char ids[IDS_MAX * UUID_TEXT_BYTES];
    size_t count = body->ids.len / 16;
    struct collection *collection = memory_new(1, sizeof(*collection));

    for (size_t i = 0; i < count; i++) {
        char *at = ids + i * UUID_TEXT_BYTES;

        ids_uuid_text((const uint8_t *)body->ids.ptr + i * 16, at);
        at[UUID_TEXT_BYTES - 1] = ',';
    }
    const struct str params[] = {body->tenant_id, {ids, count * UUID_TEXT_BYTES - 1}};
    *collection = (struct collection){daemon, to};
    insist_submit(daemon->insist, &eventd_statements[STATEMENT_COLLECT], params, on_collected,
                  collection);
}

/* ---- sweeping ------------------------------------------------------------------------------- */

static void sweep(struct eventd *daemon);

static void sweep_later(struct eventd *daemon)
{
    struct timeval interval = clock_timeval(daemon->options.outbox_sweep_seconds * 1000);

    evtimer_add(daemon->sweep, &interval);
}

/* Takes the sweep's answer in; returns how many events it moved. */
static int take_swept(struct eventd *daemon, const struct pg_answer *answer)
{
    int moved = count_moved(daemon, answer);

    for (int row = 0; row < answer->row_count; row++) {
        struct str age_ms = pg_value(answer, row, 1);

        if (age_ms.ptr)
            daemon->metrics.events_outbox_oldest_age_seconds = strtoull(age_ms.ptr, NULL, 10);
    }
    daemon->metrics.events_swept_total += (uint64_t)moved;
    return moved;
}

static void on_swept(void *arg, const struct pg_answer *answer)
{
    struct eventd *daemon = arg;
    int moved = answer->outcome == PG_OK ? take_swept(daemon, answer) : 0;

    back_note_refusal(answer, "the sweep of the outbox");
    if (moved > 0)
        log_debug("events found in the outbox", LOG_NUMBER("moved", moved));
    if (moved >= daemon->options.outbox_sweep_max)
        sweep(daemon);
    else
        sweep_later(daemon);
}

static void sweep(struct eventd *daemon)
{
    char most[STR_NUMBER_BYTES], age[STR_NUMBER_BYTES];
    const struct str params[] = {
        str_from_number(daemon->options.outbox_sweep_max, most),
        str_from_number(daemon->options.outbox_sweep_seconds, age),
    };

    if (daemon->back.service.draining ||
        !back_submit(&daemon->back, &eventd_statements[STATEMENT_SWEEP], STR_ABSENT, params,
                     on_swept, daemon))
        sweep_later(daemon);
}

static void on_sweep_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    sweep(arg);
}

void outbox_open(struct eventd *daemon)
{
    daemon->sweep = evtimer_new(daemon->back.service.base, on_sweep_timer, daemon);
    if (!daemon->sweep)
        log_fatal("out of memory");
    sweep(daemon);
}
