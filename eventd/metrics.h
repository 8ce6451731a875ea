/* What eventd counts: eventd/metrics.def. */
#ifndef CAF_EVENTD_METRICS_H
#define CAF_EVENTD_METRICS_H

#include "common/back.h"

struct eventd_metrics {
    struct back_metrics back;
#define METRIC METRIC_MEMBER
#include "eventd/metrics.def"
#undef METRIC
};

#endif
