/* The metrics that every daemon has of itself: common/metrics_process.def. */
#ifndef CAF_COMMON_METRICS_PROCESS_H
#define CAF_COMMON_METRICS_PROCESS_H

#include "common/metrics.h"

enum { VERSION_COUNT = 1 };

struct process_metrics {
#define METRIC METRIC_MEMBER
#include "common/metrics_process.def"
#undef METRIC
};

/* The label set of build_info: for METRIC_ROW. */
extern const struct metric_set VERSION_SET;

/* Sets what does not change: version and start. Of a daemon with several processes, one calls it.
 */
void process_metrics_open(struct process_metrics *metrics);

/* Adds the processor time since the last call, which *seen_us remembers (0 at first). */
void process_metrics_update(struct process_metrics *metrics, uint64_t *seen_us);

#endif
