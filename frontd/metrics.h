/* What frontd counts (frontd/metrics.def), in memory that all of its processes share: what a worker
 * has counted outlives it, and whichever worker is asked tells the sum. */
#ifndef CAF_FRONTD_METRICS_H
#define CAF_FRONTD_METRICS_H

#include "common/errors.h"
#include "common/ipc.h"
#include "common/metrics_process.h"
#include "frontd/admission.h"
#include "frontd/backends.h"
#include "frontd/exchange.h"

#define METRIC_SETS "frontd/metric_sets.def"
#include "common/metric_set_enums.h"
#undef METRIC_SETS

enum {
    CODE_COUNT = 1 /* OK */
#define ERROR(code, status, retry_after) +1
#include "common/errors.def"
#undef ERROR
    ,
    DAEMON_COUNT = BACKEND_COUNT + 1, /* frontd itself is the last */
};

struct frontd_metrics {
    struct process_metrics process;
#define METRIC METRIC_MEMBER
#include "frontd/metrics.def"
#undef METRIC
};

/* The table of frontd's metrics. */
extern const struct metric frontd_metrics_table[];

/* ---- shared memory -------------------------------------------------------------------------- */

/* A struct of metrics for each process, one behind the other: slot 0 is the supervisor's. A process
 * adds to its own alone; nothing decides anything by what another has written there. */
struct metrics_memory {
    char *slots;
    size_t count;
};

/* The supervisor's: makes the memory, zeroed and of a size that nobody can change. Returns the
 * descriptor to hand to workers. Ends the process when it cannot. */
int metrics_memory_create(struct metrics_memory *memory, size_t count);

/* A worker's: maps what it was handed. False: it is not memory of that many slots. fd stays the
 * caller's. */
bool metrics_memory_map(struct metrics_memory *memory, int fd, size_t count);

/* The n-th struct of metrics. */
struct frontd_metrics *metrics_memory_slot(const struct metrics_memory *memory, size_t n);

/* Sets sum to the sum of all slots. */
void metrics_memory_sum(const struct metrics_memory *memory, struct frontd_metrics *sum);

void metrics_memory_unmap(struct metrics_memory *memory);

#endif
