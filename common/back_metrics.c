/* What every back daemon can tell of itself: its process, its socket, its database. */
#include "common/back.h"

const char *back_statement_name(const void *statements, size_t n)
{
    return ((const struct pg_statement *)statements)[n].name;
}

static void update_database(struct database_metrics *metrics, const struct back *back)
{
    const struct pg_counters *counters = pg_counters(back->pg);

    metrics->database_up = pg_writable(back->pg);
    metrics->database_requests_pending = pg_pending(back->pg);
    metrics->database_splits_total = counters->splits;
    metrics->database_retries_total = counters->retries;
    metrics->database_refused_total = counters->refused;
    metrics->database_unavailable_total = counters->unavailable;
    metrics->database_connections_lost_total = counters->losses;
    for (size_t i = 0; back->spec->statements[i].name; i++) {
        const struct pg_statement_counters *statement = pg_statement_counters(back->pg, i);

        metrics->database_statement_duration_seconds[i] = statement->duration;
        metrics->database_batch_requests[i] = statement->requests;
    }
}

void back_metrics(void *daemon, struct ipc_reply_to to, const struct message *message)
{
    struct back *back = daemon;
    struct back_metrics *metrics = back->metrics;

    (void)message;
    process_metrics_update(&metrics->process, &back->cpu_seen_us);
    server_metrics_update(&metrics->server, back->server);
    update_database(&metrics->database, back);
    if (back->spec->update_metrics)
        back->spec->update_metrics(back);
    server_metrics_reply(to, back->spec->metrics, metrics, back->spec->name);
}
