/* Tells frontd what this daemon counted: the one place that answers MSG_metrics_get. Touches the
 * daemon's own numbers only. */
#include "common/metrics_server.h"

#include "common/log.h"

#include <stdlib.h>

const struct metric_set IPC_REFUSAL_SET = {"reason", metric_text_name, ipc_refusal_names};

const char *server_handler_name(const void *handlers, size_t n)
{
    const struct ipc_handler *handler = (const struct ipc_handler *)handlers + n;

    return handler->handle ? proto_name(handler->type) : NULL;
}

void server_metrics_update(struct server_metrics *metrics, const struct ipc_server *server)
{
    const struct ipc_server_counters *counters = ipc_server_counters(server);

    metrics->ipc_channels = counters->channels;
    memcpy(metrics->ipc_refusals_total, counters->refusals, sizeof(counters->refusals));
    metrics->ipc_accept_failed_total = counters->accept_failed;
    metrics->ipc_channels_broken_total = counters->broken;
    memcpy(metrics->ipc_requests_total, counters->requests, sizeof(counters->requests));
    metrics->ipc_requests_unanswered = ipc_server_unanswered(server);
}

void server_metrics_reply(struct ipc_reply_to to, const struct metric *table, const void *values,
                          const char *daemon)
{
    struct msg_metrics answer;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        log_fatal("out of memory");
    metrics_write(out, table, values, daemon);
    if (fclose(out) != 0)
        log_fatal("out of memory");
    answer.text = (struct str){text, len};
    ipc_reply(to, MSG_metrics, &answer);
    free(text);
}
