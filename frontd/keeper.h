/* The keeper: the one process that holds the TLS private keys, and signs handshakes with them. */
#ifndef CAF_FRONTD_KEEPER_H
#define CAF_FRONTD_KEEPER_H

#include "common/metrics_process.h"
#include "common/metrics_server.h"
#include "common/service.h"
#include "frontd/keeper_keys.h"

struct keeper_options {
#define OPTION CONFIG_MEMBER
#include "frontd/keeper_options.def"
#undef OPTION
};

struct keeper_metrics {
    struct process_metrics process;
    struct server_metrics server;
#define METRIC METRIC_MEMBER
#include "frontd/keeper_metrics.def"
#undef METRIC
};

/* The table of the keeper's metrics. */
extern const struct metric keeper_metrics_table[];

struct keeper {
    struct service service;
    struct keeper_options options;
    struct keeper_keys keys;
    struct ipc_server *server;
    uid_t *peers;
    struct keeper_metrics metrics;
    uint64_t cpu_seen_us;
};

/* Serves workers on a listening Unix socket, which stays the caller's, from the service's loop.
 * keeper->service, ->options and ->keys are set. */
void keeper_serve(struct keeper *keeper, int listener);

/* Answers what was asked, then stops the service: for service_events.drain. */
void keeper_drain(void *keeper);

#endif
