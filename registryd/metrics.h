/* What registryd counts: registryd/metrics.def. */
#ifndef CAF_REGISTRYD_METRICS_H
#define CAF_REGISTRYD_METRICS_H

#include "common/back.h"

#define METRIC_SETS "registryd/metric_sets.def"
#include "common/metric_set_enums.h"
#undef METRIC_SETS

struct registryd_metrics {
    struct back_metrics back;
#define METRIC METRIC_MEMBER
#include "registryd/metrics.def"
#undef METRIC
};

#endif
