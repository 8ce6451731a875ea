/* Redis as a messenger between nodes: "read the change feed now". It carries hints, never
 * authority. */
#ifndef CAF_REGISTRYD_HINTS_H
#define CAF_REGISTRYD_HINTS_H

#include <stdbool.h>

struct registryd;
struct hints;

/* Connects to Redis' Unix socket and goes on trying; NULL when socket is empty. The daemon's feed
 * must be open, and outlive it. */
struct hints *hints_open(struct registryd *daemon, const char *socket);

/* Tells the other nodes that something changed: at once, or with all that changes meanwhile when
 * the last time was less than feed.hint_gap_ms ago. Harmless while Redis is away. hints may be
 * NULL. */
void hints_publish(struct hints *hints);

/* Whether the subscription stands. */
bool hints_connected(const struct hints *hints);

void hints_close(struct hints *hints);

#endif
