/* Reads the wall clock for records and the monotonic clock for waiting, and spells times as clients
 * see them. Touches nothing but the clocks. */
#include "common/clock.h"

#include <stdio.h>
#include <time.h>

static const int64_t last_ms = 253402300799999; /* of the year 9999: RFC 3339 has four digits */

static int64_t clock_read_us(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
    return clock_read_us(CLOCK_REALTIME) / 1000;
}

int64_t clock_monotonic_ms(void)
{
    return clock_read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_monotonic_us(void)
{
    return clock_read_us(CLOCK_MONOTONIC);
}

struct timeval clock_timeval(int64_t ms)
{
    if (ms < 0)
        ms = 0;
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

void clock_format(int64_t ms, char text[CLOCK_TEXT_BYTES])
{
    struct tm utc;
    time_t seconds;
    size_t written;

    ms = ms < 0 ? 0 : ms > last_ms ? last_ms : ms;
    seconds = (time_t)(ms / 1000);
    gmtime_r(&seconds, &utc);
    written = strftime(text, CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + written, CLOCK_TEXT_BYTES - written, ".%03uZ", (unsigned)(ms % 1000) % 1000U);
}
