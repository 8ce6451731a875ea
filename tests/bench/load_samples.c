/* The times that a load took: an array that grows, sorted when it is asked. Touches nothing outside
 * this process' memory but the clocks, and reads /proc. */
#include "tests/bench/load_samples.h"

#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROOM_FIRST = 65536 };

void samples_add(struct samples *samples, uint64_t ns)
{
    if (samples->count == samples->room) {
        samples->room = samples->room ? 2 * samples->room : ROOM_FIRST;
        samples->ns = reallocarray(samples->ns, samples->room, sizeof(*samples->ns));
        if (!samples->ns)
            err(2, "reallocarray");
    }
    samples->ns[samples->count++] = ns;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

double samples_percentile_us(struct samples *samples, double share)
{
    if (samples->count == 0)
        return 0;
    qsort(samples->ns, samples->count, sizeof(*samples->ns), compare);
    size_t place = (size_t)(share * (double)(samples->count - 1) + 0.5);
    return (double)samples->ns[place] / 1e3;
}

void samples_free(struct samples *samples)
{
    free(samples->ns);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

uint64_t samples_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

double samples_cpu_seconds(void)
{
    return (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
}

double samples_cpu_seconds_of(const char *pid)
{
    char path[64];
    uint64_t ns = 0;
    snprintf(path, sizeof(path), "/proc/%.20s/schedstat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%" SCNu64, &ns) != 1)
        ns = 0;
    fclose(file);
    return (double)ns / 1e9;
}
