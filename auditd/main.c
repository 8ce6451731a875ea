/* auditd: who did what. Serves frontd over one Unix socket; talks to PostgreSQL as caf_audit
 * (god_mode_executions: insert, select). Must never touch the registry, events or clients, nor
 * change a row that is written. */
#include "common/ipc.h"
#include "common/log.h"
#include "common/pg.h"
#include "common/service.h"

#include <stdio.h>
#include <stdlib.h>

struct auditd_options {
#define OPTION CONFIG_MEMBER
#include "auditd/options.def"
#undef OPTION
};

struct auditd {
    struct service service;
    struct auditd_options options;
    struct pg *pg;
    struct ipc_server *server;
    uid_t *peers;
};

static const struct config_option options[] = {
#define CONFIG_STRUCT struct auditd_options
#define OPTION        CONFIG_ROW
#include "auditd/options.def"
#undef OPTION
    CONFIG_END,
};

static const struct pg_statement statements[] = {
    {NULL, NULL, 0, false},
};

/* What the role may do, and at start is proven to be all that it may do. */
static const char *const allowed[] = {
    "god_mode_executions:SELECT",
    "god_mode_executions:INSERT",
    NULL,
};

static void answer_status(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct auditd *daemon = arg;
    bool ready = pg_writable(daemon->pg);
    char detail[64];

    (void)message;
    snprintf(detail, sizeof(detail), "{\"database\":\"%s\"}", ready ? "ok" : "unavailable");
    ipc_reply(to, MSG_status, &(struct msg_status){.ready = ready, .detail = str_from(detail)});
}

static const struct ipc_handler handlers[] = {
    {MSG_status_get, answer_status},
    {0, NULL},
};

static void open_database(struct auditd *daemon)
{
    const struct auditd_options *o = &daemon->options;
    struct pg_options database = {
        .conninfo = o->database_conninfo,
        .application_name = "caf-auditd",
        .connections = (int)o->database_connections,
        .batch_max = (int)o->database_batch_max,
        .queue_max = (int)o->database_queue_max,
        .statement_ms = o->database_statement_seconds * 1000,
        .statements = statements,
        .allowed = allowed,
    };

    daemon->pg = pg_new(daemon->service.base, &database);
}

static void open_server(struct auditd *daemon)
{
    const struct auditd_options *o = &daemon->options;
    struct ipc_server_options server = {
        .self = PEER_AUDITD,
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

static void on_drained(void *arg)
{
    struct auditd *daemon = arg;

    service_stop(&daemon->service);
}

static void drain(void *arg)
{
    struct auditd *daemon = arg;

    ipc_server_drain(daemon->server, on_drained);
}

static void close_all(struct auditd *daemon)
{
    ipc_server_free(daemon->server);
    pg_free(daemon->pg);
    service_close(&daemon->service);
    free(daemon->peers);
    config_free(options, &daemon->options);
}

int main(int argc, char **argv)
{
    static const struct service_events events = {.drain = drain};
    struct auditd daemon = {0};
    int status;

    service_configure("auditd", argc, argv, options, &daemon.options, CAF_SYSCONF "/auditd.conf",
                      NULL);
    service_open(&daemon.service, "auditd", &events, &daemon, daemon.options.service_stop_seconds);
    open_database(&daemon);
    open_server(&daemon);
    status = service_run(&daemon.service);
    close_all(&daemon);
    return status;
}
