/* The times that a load took, and what is told of them. */
#ifndef CAF_TESTS_BENCH_LOAD_SAMPLES_H
#define CAF_TESTS_BENCH_LOAD_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

/* Durations in nanoseconds; starts out as all zero. */
struct samples {
    uint64_t *ns;
    size_t count, room;
};

/* Adds a duration; ends the program when memory is out. */
void samples_add(struct samples *samples, uint64_t ns);

/* The duration in microseconds that this share of the samples (0 to 1) does not exceed; 0 when
 * there are none. Sorts them. */
double samples_percentile_us(struct samples *samples, double share);

void samples_free(struct samples *samples);

/* The monotonic clock. */
uint64_t samples_now_ns(void);

/* The processor time that this process has used so far. */
double samples_cpu_seconds(void);

/* The processor time that a process has used so far, as /proc/PID/schedstat has it; 0 when there is
 * none. */
double samples_cpu_seconds_of(const char *pid);

#endif
