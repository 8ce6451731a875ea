/* eventd: what happened, for the SIEM. Serves frontd over one Unix socket; talks to PostgreSQL as
 * caf_event (security_events: insert, select; identity_outbox: select, delete). Must never touch
 * audit rows or the registry. */
#include "eventd/eventd.h"

#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>

static const struct config_option options[] = {
#define CONFIG_STRUCT struct eventd_options
#define OPTION        CONFIG_ROW
#include "eventd/options.def"
#undef OPTION
    CONFIG_END,
};

static const struct ipc_handler handlers[] = {
    {MSG_status_get, eventd_status},
    {MSG_event_note, eventd_note},
    {MSG_event_collect, eventd_collect},
    {MSG_event_list, eventd_list},
    {0, NULL},
};

/* What the role may do, and at start is proven to be all that it may do. */
static const char *const allowed[] = {
    "security_events:SELECT",
    "security_events:INSERT",
    "identity_outbox:SELECT",
    "identity_outbox:DELETE",
    NULL,
};

static void open_database(struct eventd *daemon)
{
    const struct eventd_options *o = &daemon->options;
    struct pg_options database = {
        .conninfo = o->database_conninfo,
        .application_name = "caf-eventd",
        .connections = (int)o->database_connections,
        .batch_max = (int)o->database_batch_max,
        .queue_max = (int)o->database_queue_max,
        .statement_ms = o->database_statement_seconds * 1000,
        .statements = eventd_statements,
        .allowed = allowed,
    };

    daemon->pg = pg_new(daemon->service.base, &database);
}

static void open_server(struct eventd *daemon)
{
    const struct eventd_options *o = &daemon->options;
    struct ipc_server_options server = {
        .self = PEER_EVENTD,
        .peers = PEER_FRONTD,
        .handlers = handlers,
        .daemon = daemon,
        .uids = daemon->peers = service_uids(&o->ipc_peer_users),
        .uid_count = o->ipc_peer_users.count,
        .max_channels = (size_t)o->ipc_max_channels,
    };

    daemon->server =
        ipc_server_new(daemon->service.base, service_unix_listener(o->ipc_socket), &server);
}

void eventd_status(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct eventd *daemon = arg;
    bool ready = pg_writable(daemon->pg);
    char detail[128];

    (void)message;
    snprintf(detail, sizeof(detail), "{\"database\":\"%s\",\"requests_pending\":%zu}",
             ready ? "ok" : "unavailable", pg_pending(daemon->pg));
    ipc_reply(to, MSG_status, &(struct msg_status){.ready = ready, .detail = str_from(detail)});
}

static void on_drained(void *arg)
{
    struct eventd *daemon = arg;

    service_stop(&daemon->service);
}

static void drain(void *arg)
{
    struct eventd *daemon = arg;

    ipc_server_drain(daemon->server, on_drained);
}

static void close_all(struct eventd *daemon)
{
    ipc_server_free(daemon->server);
    pg_free(daemon->pg);
    event_free(daemon->sweep);
    service_close(&daemon->service);
    free(daemon->node);
    free(daemon->peers);
    config_free(options, &daemon->options);
}

int main(int argc, char **argv)
{
    static const struct service_events events = {.drain = drain};
    struct eventd daemon = {0};
    int status;

    service_configure("eventd", argc, argv, options, &daemon.options, CAF_SYSCONF "/eventd.conf",
                      NULL);
    daemon.node = service_node_name(daemon.options.node_name);
    service_open(&daemon.service, "eventd", &events, &daemon, daemon.options.service_stop_seconds);
    open_database(&daemon);
    outbox_open(&daemon);
    open_server(&daemon);
    status = service_run(&daemon.service);
    close_all(&daemon);
    return status;
}
