/* eventd: what happened, for the SIEM. Serves frontd over one Unix socket; talks to PostgreSQL as
 * caf_event (security_events: insert, select; identity_outbox: select, delete). Must never touch
 * audit rows or the registry. */
#include "eventd/eventd.h"

#include "eventd/aggregate.h"
#include "eventd/insist.h"

#include <stdio.h>

static const struct config_option options[] = {
#define CONFIG_STRUCT struct eventd_options
#define BACK_NAME     "eventd"
#define BACK_ROLE     "caf_event"
#define OPTION        BACK_ROW
#include "common/options_back.def"
#undef OPTION
#define OPTION CONFIG_ROW
#include "eventd/options.def"
#undef OPTION
    CONFIG_END,
};

const struct ipc_handler eventd_handlers[] = {
    {MSG_status_get, eventd_status}, {MSG_metrics_get, back_metrics},
    {MSG_event_note, eventd_note},   {MSG_event_collect, eventd_collect},
    {MSG_event_list, eventd_list},   {0, NULL},
};

/* What the role may do, and at start is proven to be all that it may do. */
static const char *const allowed[] = {
    "security_events:SELECT",
    "security_events:INSERT",
    "identity_outbox:SELECT",
    "identity_outbox:DELETE",
    NULL,
};

void eventd_status(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct eventd *daemon = arg;
    bool ready = pg_writable(daemon->back.pg);
    char detail[192];

    (void)message;
    snprintf(detail, sizeof(detail),
             "{\"database\":\"%s\",\"requests_pending\":%zu,\"events_unwritten\":%llu}",
             ready ? "ok" : "unavailable",
             pg_pending(daemon->back.pg) + insist_pending(daemon->insist),
             (unsigned long long)aggregate_unwritten(daemon->aggregate));
    ipc_reply(to, MSG_status, &(struct msg_status){.ready = ready, .detail = str_from(detail)});
}

/* ---- the end -------------------------------------------------------------------------------- */

static void stop(void *arg)
{
    service_stop(arg);
}

/* Nothing comes any more: what was counted is written. */
static void write_all(struct back *back)
{
    struct eventd *daemon = (struct eventd *)back;

    aggregate_flush(daemon->aggregate);
    insist_when_done(daemon->insist, stop, &back->service);
}

static void close_all(struct back *back)
{
    struct eventd *daemon = (struct eventd *)back;

    insist_free(daemon->insist);
    notes_close(daemon);
    aggregate_free(daemon->aggregate);
    event_free(daemon->sweep);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static const struct back_spec spec = {
    .name = "eventd",
    .default_file = CAF_SYSCONF "/eventd.conf",
    .self = PEER_EVENTD,
    .options = options,
    .handlers = eventd_handlers,
    .statements = eventd_statements,
    .allowed = allowed,
    .after_drain = write_all,
    .close = close_all,
    .metrics = eventd_metrics_table,
    .update_metrics = eventd_update_metrics,
};

int main(int argc, char **argv)
{
    struct eventd daemon = {0};
    int status;

    back_open(&daemon.back, &spec, &daemon.options.back, &daemon.metrics.back, argc, argv);
    daemon.insist = insist_new(daemon.back.service.base, daemon.back.pg);
    daemon.aggregate = aggregate_new(&daemon);
    notes_open(&daemon);
    outbox_open(&daemon);
    status = back_serve(&daemon.back);
    back_close(&daemon.back);
    return status;
}
