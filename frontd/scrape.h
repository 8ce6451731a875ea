/* The metrics of all daemons, gathered once. */
#ifndef CAF_FRONTD_SCRAPE_H
#define CAF_FRONTD_SCRAPE_H

#include "frontd/worker.h"

#include <event2/buffer.h>

struct scrape;

/* text: all metrics in Prometheus' format; the callee may take its content. */
typedef void scrape_done_fn(void *arg, struct evbuffer *text);

/* Asks every daemon behind the worker for its metrics, and calls done once, from the loop, when all
 * have answered or two seconds have passed; what is missing then is told by caf_up. The scrape is
 * gone when done has returned. */
struct scrape *scrape_start(struct worker *worker, scrape_done_fn *done, void *arg);

/* Forgets it: done will not be called. */
void scrape_cancel(struct scrape *scrape);

#endif
