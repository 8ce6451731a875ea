/* What a process can say of itself without opening a file: getrusage(2) and the clock. */
#include "common/metrics_process.h"

#include "common/clock.h"

#include <sys/resource.h>

static const char *const versions[] = {CAF_VERSION, NULL};

const struct metric_set VERSION_SET = {"version", metric_text_name, versions};

void process_metrics_open(struct process_metrics *metrics)
{
    metrics->build_info[0] = 1;
    metrics->process_start_time_seconds = (uint64_t)clock_wall_ms();
}

static uint64_t microseconds(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

void process_metrics_update(struct process_metrics *metrics, uint64_t *seen_us)
{
    struct rusage usage;
    uint64_t used_us;

    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return;
    used_us = microseconds(usage.ru_utime) + microseconds(usage.ru_stime);
    metrics->process_cpu_seconds_total += used_us - *seen_us;
    *seen_us = used_us;
}
