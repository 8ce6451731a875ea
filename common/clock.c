/* Reads the clocks and formats times. Touches nothing else. */
#include "common/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t clock_read_ms(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_wall_ms(void)
{
    return clock_read_ms(CLOCK_REALTIME);
}

int64_t clock_monotonic_ms(void)
{
    return clock_read_ms(CLOCK_MONOTONIC);
}

struct timeval clock_timeval(int64_t ms)
{
    if (ms < 0)
        ms = 0;
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

void clock_format(int64_t ms, char text[CLOCK_TEXT_BYTES])
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm utc;
    int written;

    gmtime_r(&seconds, &utc);
    strftime(text, CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    written = (int)strlen(text);
    snprintf(text + written, (size_t)(CLOCK_TEXT_BYTES - written), ".%03uZ",
             (unsigned)(ms % 1000) % 1000U);
}
