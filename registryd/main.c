/* registryd: who the agents are. Serves frontd over one Unix socket; talks to PostgreSQL as
 * caf_registry (agent_registry, identity_outbox) and to Redis (hints). Must never touch audit rows,
 * events, certificates or clients. */
#include "registryd/registryd.h"

#include "common/clock.h"
#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct config_option options[] = {
#define CONFIG_STRUCT struct registryd_options
#define OPTION        CONFIG_ROW
#include "registryd/options.def"
#undef OPTION
    CONFIG_END,
};

static const struct ipc_handler handlers[] = {
    {MSG_status_get, registryd_status},
    {MSG_mesh_register, registryd_register},
    {MSG_mesh_heartbeat, registryd_heartbeat},
    {MSG_mesh_self, registryd_self},
    {0, NULL},
};

/* What the role may do, and at start is proven to be all that it may do. */
static const char *const allowed[] = {
    "agent_registry:SELECT",
    "agent_registry:INSERT",
    "agent_registry:UPDATE",
    "identity_outbox:INSERT",
    NULL,
};

static void open_database(struct registryd *daemon)
{
    const struct registryd_options *o = &daemon->options;
    struct pg_options database = {
        .conninfo = o->database_conninfo,
        .application_name = "caf-registryd",
        .connections = (int)o->database_connections,
        .batch_max = (int)o->database_batch_max,
        .queue_max = (int)o->database_queue_max,
        .statement_ms = o->database_statement_seconds * 1000,
        .statements = registryd_statements,
        .allowed = allowed,
    };

    daemon->pg = pg_new(daemon->service.base, &database);
}

static void open_server(struct registryd *daemon)
{
    const struct registryd_options *o = &daemon->options;
    struct ipc_server_options server = {
        .self = PEER_REGISTRYD,
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

static void on_write_behind(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    heartbeat_write_all(arg);
}

static void open_write_behind(struct registryd *daemon)
{
    struct timeval interval = clock_timeval(daemon->options.mesh_write_behind_seconds * 1000);

    daemon->write_behind = event_new(daemon->service.base, -1, EV_PERSIST, on_write_behind, daemon);
    event_add(daemon->write_behind, &interval);
}

void registryd_status(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct registryd *daemon = arg;
    bool ready = pg_writable(daemon->pg);
    bool degraded = daemon->hints && !hints_connected(daemon->hints);
    char detail[256];

    (void)message;
    snprintf(detail, sizeof(detail),
             "{\"database\":\"%s\",\"redis\":\"%s\",\"agents_cached\":%u,\"requests_pending\":%zu}",
             ready ? "ok" : "unavailable",
             !daemon->hints ? "off"
             : degraded     ? "unavailable"
                            : "ok",
             HASH_COUNT(daemon->cache.by_key), pg_pending(daemon->pg));
    ipc_reply(
        to, MSG_status,
        &(struct msg_status){.ready = ready, .degraded = degraded, .detail = str_from(detail)});
}

/* ---- stopping: answer what was asked, then write what was noted ----------------------------- */

static void stop_when_written(evutil_socket_t fd, short what, void *arg)
{
    struct registryd *daemon = arg;
    struct timeval soon = clock_timeval(10);

    (void)fd;
    (void)what;
    if (pg_pending(daemon->pg) == 0)
        service_stop(&daemon->service);
    else
        event_base_once(daemon->service.base, -1, EV_TIMEOUT, stop_when_written, daemon, &soon);
}

static void on_drained(void *arg)
{
    heartbeat_write_all(arg);
    stop_when_written(-1, 0, arg);
}

static void drain(void *arg)
{
    struct registryd *daemon = arg;

    event_del(daemon->write_behind);
    ipc_server_drain(daemon->server, on_drained);
}

static void close_all(struct registryd *daemon)
{
    hints_close(daemon->hints);
    ipc_server_free(daemon->server);
    pg_free(daemon->pg);
    cache_free(&daemon->cache);
    event_free(daemon->write_behind);
    service_close(&daemon->service);
    free(daemon->node);
    free(daemon->peers);
    config_free(options, &daemon->options);
}

int main(int argc, char **argv)
{
    static const struct service_events events = {.drain = drain};
    struct registryd daemon = {.beat_stretch = 1};
    int status;

    service_configure("registryd", argc, argv, options, &daemon.options,
                      CAF_SYSCONF "/registryd.conf", NULL);
    daemon.node = service_node_name(daemon.options.node_name);
    daemon.cache.max_agents = (size_t)daemon.options.cache_max_agents;
    service_open(&daemon.service, "registryd", &events, &daemon,
                 daemon.options.service_stop_seconds);
    open_database(&daemon);
    daemon.hints = hints_open(&daemon, daemon.options.redis_socket);
    open_write_behind(&daemon);
    open_server(&daemon);
    status = service_run(&daemon.service);
    close_all(&daemon);
    return status;
}
