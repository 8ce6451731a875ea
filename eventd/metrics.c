/* The table of eventd's metrics, with its label sets, and those values that show how things stand.
 */
#include "eventd/eventd.h"

#include "eventd/aggregate.h"

static const char *const event_names[] = {
#define EVENT(name, type, severity) type,
#include "common/event_types.def"
#undef EVENT
    NULL,
};

static const struct metric_set EVENT_SET = {"type", metric_text_name, event_names};
static const struct metric_set IPC_HANDLER_SET = {"message", server_handler_name, eventd_handlers};
static const struct metric_set PG_STATEMENT_SET = {"statement", back_statement_name,
                                                   eventd_statements};

#define METRIC_SETS "eventd/metric_sets.def"
#include "common/metric_set_names.h"
#undef METRIC_SETS

const struct metric eventd_metrics_table[] = {
#define METRIC_STRUCT struct eventd_metrics
#include "common/metrics_back.def"
#define METRIC METRIC_ROW
#include "eventd/metrics.def"
#undef METRIC
    METRIC_END,
};

void eventd_count_moved(struct eventd_metrics *metrics, struct str type)
{
    size_t n = 0;

    while (n < IDENTITY_EVENT_OTHER && !str_equal(type, str_from(IDENTITY_EVENT_names[n])))
        n++;
    metrics->events_moved_total[n]++;
}

void eventd_update_metrics(struct back *back)
{
    struct eventd *daemon = (struct eventd *)back;
    const struct aggregate_counters *counters = aggregate_counters(daemon->aggregate);
    struct eventd_metrics *metrics = &daemon->metrics;

    metrics->events_repeated_total = counters->repeats;
    metrics->events_overflowed_total = counters->overflowed;
    metrics->events_refused_total = counters->refused;
    metrics->events_rows_written_total = counters->rows;
    metrics->events_unwritten = aggregate_unwritten(daemon->aggregate);
    metrics->events_aggregates = aggregate_buckets(daemon->aggregate);
}
