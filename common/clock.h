/* The two clocks: wall time for records, monotonic time for waiting. */
#ifndef CAF_COMMON_CLOCK_H
#define CAF_COMMON_CLOCK_H

#include <stdint.h>
#include <sys/time.h>

/* Milliseconds since 1970 UTC. */
int64_t clock_wall_ms(void);

/* Milliseconds of a clock that never jumps. */
int64_t clock_monotonic_ms(void);

/* The same in microseconds. */
int64_t clock_monotonic_us(void);

/* ms as libevent takes it; negative counts as 0. */
struct timeval clock_timeval(int64_t ms);

enum { CLOCK_TEXT_BYTES = 25 };

/* Writes ms since 1970 as RFC 3339 UTC with milliseconds: 2026-01-02T03:04:05.678Z. A time before
 * 1970 or beyond the year 9999 is written as the nearest that RFC 3339 can say. */
void clock_format(int64_t ms, char text[CLOCK_TEXT_BYTES]);

#endif
