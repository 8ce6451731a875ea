/* auditd: who did what. Serves frontd over one Unix socket; talks to PostgreSQL as caf_audit
 * (god_mode_executions: insert, select). Must never touch the registry, events or clients, nor
 * change a row that is written. */
#include "common/back.h"

#include <stdio.h>

struct auditd_options {
    struct back_options back;
};

struct auditd_metrics {
    struct back_metrics back;
#define METRIC METRIC_MEMBER
#include "auditd/metrics.def"
#undef METRIC
};

struct auditd {
    struct back back;
    struct auditd_options options;
    struct auditd_metrics metrics;
};

static const struct config_option options[] = {
#define CONFIG_STRUCT struct auditd_options
#define BACK_NAME     "auditd"
#define BACK_ROLE     "caf_audit"
#define OPTION        BACK_ROW
#include "common/options_back.def"
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
    bool ready = pg_writable(daemon->back.pg);
    char detail[64];

    (void)message;
    snprintf(detail, sizeof(detail), "{\"database\":\"%s\"}", ready ? "ok" : "unavailable");
    ipc_reply(to, MSG_status, &(struct msg_status){.ready = ready, .detail = str_from(detail)});
}

static const struct ipc_handler handlers[] = {
    {MSG_status_get, answer_status},
    {MSG_metrics_get, back_metrics},
    {0, NULL},
};

static const struct metric_set IPC_HANDLER_SET = {"message", server_handler_name, handlers};
static const struct metric_set PG_STATEMENT_SET = {"statement", back_statement_name, statements};

static const struct metric metrics[] = {
#define METRIC_STRUCT struct auditd_metrics
#include "common/metrics_back.def"
#define METRIC METRIC_ROW
#include "auditd/metrics.def"
#undef METRIC
    METRIC_END,
};

static const struct back_spec spec = {
    .name = "auditd",
    .default_file = CAF_SYSCONF "/auditd.conf",
    .self = PEER_AUDITD,
    .options = options,
    .handlers = handlers,
    .statements = statements,
    .allowed = allowed,
    .metrics = metrics,
};

int main(int argc, char **argv)
{
    struct auditd daemon = {0};
    int status;

    back_open(&daemon.back, &spec, &daemon.options.back, &daemon.metrics.back, argc, argv);
    status = back_serve(&daemon.back);
    back_close(&daemon.back);
    return status;
}
