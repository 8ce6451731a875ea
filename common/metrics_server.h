/* The metrics of a daemon that frontd asks (common/metrics_server.def), and the answer when frontd
 * asks for all of them. */
#ifndef CAF_COMMON_METRICS_SERVER_H
#define CAF_COMMON_METRICS_SERVER_H

#include "common/ipc.h"
#include "common/metrics.h"

/* IPC_HANDLER is the set of a dispatch table's messages. */
enum { IPC_HANDLER_COUNT = IPC_HANDLERS_MAX };

struct server_metrics {
#define METRIC METRIC_MEMBER
#include "common/metrics_server.def"
#undef METRIC
};

/* The reasons in common/ipc_refusals.def. */
extern const struct metric_set IPC_REFUSAL_SET;

/* For IPC_HANDLER_SET: the message that the n-th row of a dispatch table serves, NULL behind the
 * last. */
const char *server_handler_name(const void *handlers, size_t n);

/* Takes over what the server has counted. */
void server_metrics_update(struct server_metrics *metrics, const struct ipc_server *server);

/* Answers MSG_metrics_get with every metric of the table, as metrics_write takes them. */
void server_metrics_reply(struct ipc_reply_to to, const struct metric *table, const void *values,
                          const char *daemon);

#endif
