/* The change feed: what other nodes, and anybody else, changed in agent_registry. */
#ifndef CAF_REGISTRYD_FEED_H
#define CAF_REGISTRYD_FEED_H

#include <stdbool.h>
#include <stdint.h>

struct registryd;
struct feed;

/* Begins to read at once, then each feed.interval_ms. daemon's cache and deny list must be open,
 * and outlive it. */
struct feed *feed_open(struct registryd *daemon);

/* Somebody says that there is something to read: reads soon, at most once in feed.hint_gap_ms. */
void feed_hint(struct feed *feed);

/* Whether what the cache knows may be believed: all changes that were committed until
 * cache.authority_seconds ago are applied. */
bool feed_is_fresh(const struct feed *feed);

/* The age in ms of what is applied, and of the last answered read; before the first, of the feed.
 */
int64_t feed_lag_ms(const struct feed *feed);
int64_t feed_read_age_ms(const struct feed *feed);

/* Reads that the database has not answered: 0 or 1. */
unsigned feed_pending(const struct feed *feed);

/* Begins no other read: the daemon is about to end. */
void feed_stop(struct feed *feed);

/* After the loop has ended: an answer may come no more. */
void feed_close(struct feed *feed);

#endif
