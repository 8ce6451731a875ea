/* registryd: who the agents are. Serves frontd over one Unix socket; talks to PostgreSQL as
 * caf_registry (agent_registry, identity_outbox, nodes) and to Redis (hints). Must never touch
 * audit rows, events, certificates or clients. */
#include "registryd/deny_list.h"
#include "registryd/feed.h"
#include "registryd/hints.h"
#include "registryd/registryd.h"

#include "common/clock.h"
#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROOM_POLL_MS = 10 };

static const struct config_option options[] = {
#define CONFIG_STRUCT struct registryd_options
#define BACK_NAME     "registryd"
#define BACK_ROLE     "caf_registry"
#define OPTION        BACK_ROW
#include "common/options_back.def"
#undef OPTION
#define OPTION CONFIG_ROW
#include "registryd/options.def"
#undef OPTION
    CONFIG_END,
};

const struct ipc_handler registryd_handlers[] = {
    {MSG_status_get, registryd_status},
    {MSG_metrics_get, back_metrics},
    {MSG_mesh_register, registryd_register},
    {MSG_mesh_heartbeat, registryd_heartbeat},
    {MSG_mesh_self, registryd_self},
    {MSG_deny_subscribe, registryd_deny_subscribe},
    {MSG_mesh_deregister, registryd_deregister},
    {MSG_agent_list, registryd_list},
    {MSG_agent_get, registryd_get},
    {0, NULL},
};

/* What the role may do, and at start is proven to be all that it may do: an agent's identity is
 * written once. */
static const char *const allowed[] = {
    "agent_registry:SELECT",
    "agent_registry:INSERT",
    "agent_registry(hostname):UPDATE",
    "agent_registry(machine_id_fingerprint):UPDATE",
    "agent_registry(endpoint):UPDATE",
    "agent_registry(version):UPDATE",
    "agent_registry(capabilities):UPDATE",
    "agent_registry(metadata):UPDATE",
    "agent_registry(state):UPDATE",
    "agent_registry(last_heartbeat):UPDATE",
    "agent_registry(heartbeat_status):UPDATE",
    "agent_registry(last_heartbeat_via):UPDATE",
    "agent_registry(previous_fingerprint):UPDATE",
    "agent_registry(previous_hostname):UPDATE",
    "agent_registry(recent_requests):UPDATE",
    "agent_registry(recent_outcomes):UPDATE",
    "agent_registry(changed_xid):UPDATE",
    "agent_registry(fingerprint_source_ip):UPDATE",
    "agent_registry(fingerprint_reported_at):UPDATE",
    "agent_registry(previous_fingerprint_source_ip):UPDATE",
    "agent_registry(previous_fingerprint_reported_at):UPDATE",
    "agent_registry(previous_fingerprint_heard_at):UPDATE",
    "agent_registry(metadata_at):UPDATE",
    "identity_outbox:INSERT",
    "nodes:SELECT",
    "nodes:INSERT",
    "nodes:DELETE",
    "nodes(last_seen):UPDATE",
    "nodes(applied):UPDATE",
    NULL,
};

/* A round writes what was noted before it began; what finds no room waits for some. */
static void on_write_behind(evutil_socket_t fd, short what, void *arg)
{
    struct registryd *daemon = arg;
    size_t noted = daemon->cache.dirty_count;
    struct timeval wait;

    (void)fd;
    (void)what;
    if (daemon->round_left == 0 || daemon->round_left > noted)
        daemon->round_left = noted;
    daemon->round_left -= heartbeat_write_some(daemon, daemon->round_left);
    wait = clock_timeval(daemon->round_left ? ROOM_POLL_MS
                                            : daemon->options.mesh_write_behind_seconds * 1000);
    event_add(daemon->write_behind, &wait);
}

static void open_write_behind(struct registryd *daemon)
{
    daemon->write_behind = evtimer_new(daemon->back.service.base, on_write_behind, daemon);
    on_write_behind(-1, 0, daemon);
}

void registryd_status(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct registryd *daemon = arg;
    bool ready = pg_writable(daemon->back.pg);
    bool hinted = !daemon->hints || hints_connected(daemon->hints);
    bool degraded = !hinted || !feed_is_fresh(daemon->feed) || deny_list_is_full(daemon->deny);
    char detail[320];

    (void)message;
    snprintf(detail, sizeof(detail),
             "{\"database\":\"%s\",\"redis\":\"%s\",\"agents_cached\":%u,"
             "\"requests_pending\":%zu,\"feed_lag_ms\":%lld,\"feed_read_age_ms\":%lld,"
             "\"denied\":%zu,\"deny_list\":\"%s\"}",
             ready ? "ok" : "unavailable",
             !daemon->hints ? "off"
             : hinted       ? "ok"
                            : "unavailable",
             HASH_COUNT(daemon->cache.by_key), pg_pending(daemon->back.pg),
             (long long)feed_lag_ms(daemon->feed), (long long)feed_read_age_ms(daemon->feed),
             deny_list_count(daemon->deny),
             deny_list_is_full(daemon->deny)    ? "full"
             : deny_list_is_whole(daemon->deny) ? "ok"
                                                : "loading");
    ipc_reply(
        to, MSG_status,
        &(struct msg_status){.ready = ready, .degraded = degraded, .detail = str_from(detail)});
}

void registryd_deny_subscribe(void *arg, struct ipc_reply_to to, const struct message *message)
{
    (void)message;
    deny_list_subscribe(((struct registryd *)arg)->deny, to);
}

/* ---- stopping: answer what was asked, then write what was noted ----------------------------- */

/* Requests under way whose answer nobody waits for. */
static size_t nobodys_requests(const struct registryd *daemon)
{
    return feed_pending(daemon->feed) + deny_list_pending(daemon->deny) + daemon->nodes_pending;
}

static void stop_when_written(evutil_socket_t fd, short what, void *arg)
{
    struct registryd *daemon = arg;
    struct timeval soon = clock_timeval(ROOM_POLL_MS);

    (void)fd;
    (void)what;
    heartbeat_write_some(daemon, daemon->cache.dirty_count);
    if (pg_pending(daemon->back.pg) == nobodys_requests(daemon) && daemon->cache.dirty_count == 0)
        service_stop(&daemon->back.service);
    else
        event_base_once(daemon->back.service.base, -1, EV_TIMEOUT, stop_when_written, daemon,
                        &soon);
}

static void before_drain(struct back *back)
{
    struct registryd *daemon = (struct registryd *)back;

    event_del(daemon->write_behind);
    feed_stop(daemon->feed);
    deny_list_stop(daemon->deny);
}

static void after_drain(struct back *back)
{
    stop_when_written(-1, 0, back);
}

static const struct back_spec spec = {
    .name = "registryd",
    .default_file = CAF_SYSCONF "/registryd.conf",
    .self = PEER_REGISTRYD,
    .options = options,
    .handlers = registryd_handlers,
    .statements = registryd_statements,
    .allowed = allowed,
    .metrics = registryd_metrics_table,
    .update_metrics = registryd_update_metrics,
    .before_drain = before_drain,
    .after_drain = after_drain,
};

int main(int argc, char **argv)
{
    struct registryd daemon = {.beat_stretch = 1};
    int status;

    back_open(&daemon.back, &spec, &daemon.options.back, &daemon.metrics.back, argc, argv);
    daemon.cache.max_agents = (size_t)daemon.options.cache_max_agents;
    daemon.deny = deny_list_open(&daemon);
    daemon.feed = feed_open(&daemon);
    daemon.hints = hints_open(&daemon, daemon.options.redis_socket);
    open_write_behind(&daemon);
    status = back_serve(&daemon.back);
    hints_close(daemon.hints);
    feed_close(daemon.feed);
    deny_list_close(daemon.deny);
    event_free(daemon.write_behind);
    cache_free(&daemon.cache);
    back_close(&daemon.back);
    return status;
}
