/* What eventd counts: eventd/metrics.def. */
#ifndef CAF_EVENTD_METRICS_H
#define CAF_EVENTD_METRICS_H

#include "common/back.h"

#define METRIC_SETS "eventd/metric_sets.def"
#include "common/metric_set_enums.h"
#undef METRIC_SETS

enum {
    EVENT_COUNT = 0 /* the rows of common/event_types.def */
#define EVENT(name, type, severity) +1
#include "common/event_types.def"
#undef EVENT
};

struct eventd_metrics {
    struct back_metrics back;
#define METRIC METRIC_MEMBER
#include "eventd/metrics.def"
#undef METRIC
};

/* The table of these. */
extern const struct metric eventd_metrics_table[];

/* Counts an event that was moved from the outbox. */
void eventd_count_moved(struct eventd_metrics *metrics, struct str type);

/* Sets what is not counted as it happens: for back_spec. */
void eventd_update_metrics(struct back *back);

#endif
