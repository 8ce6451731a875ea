/* Handshakes in line. A step of one costs a hundred times what a request costs, and anyone can ask
 * for them: so they get turns of their own, in the order in which they became ready, and
 * connections that are through run in every turn of the loop. A turn waits a moment for answers
 * that are on their way from the back daemons, and is one step long, or a share of the time that
 * the line has waited for it: nor may those who ask without end keep others out. Touches the line
 * and its event only.
 */
#include "frontd/connection_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <utlist.h>

enum {
    HOLD_US = 1000, /* the moment; an answer from memory takes a fifth of it */
    SHARE = 3,      /* a turn lasts as long as the rest of the loop by this */
    TURN_MAX_US = 50000,
};

static int64_t min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* A time-out of nothing is due when the loop has looked at the sockets again; event_active() would
 * run before that. */
static void schedule(struct worker *worker, int64_t in_us)
{
    const struct timeval when = {.tv_usec = in_us};

    event_add(worker->turn, &when);
}

static void ask_for_turn(struct worker *worker)
{
    worker->turn_asked_us = clock_monotonic_us();
    schedule(worker, 0);
}

static void run_turn(struct worker *worker, int64_t until_us)
{
    while (worker->queue) {
        struct connection *connection = worker->queue;

        connection_unqueue(connection);
        connection_advance(connection);
        if (clock_monotonic_us() >= until_us)
            break;
    }
    if (worker->queue)
        ask_for_turn(worker);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;
    int64_t now_us = clock_monotonic_us(), waited_us = now_us - worker->turn_asked_us;

    (void)fd;
    (void)what;
    worker->turn_held = worker->answers_due > 0 && waited_us < HOLD_US;
    if (worker->turn_held)
        schedule(worker, HOLD_US - waited_us);
    else
        run_turn(worker, now_us + min(waited_us / SHARE, TURN_MAX_US));
}

/* A turn that is not held is due already: scheduled again before it has run, it would never run. */
void connection_queue_resume(struct worker *worker)
{
    if (worker->turn_held)
        schedule(worker, 0);
    worker->turn_held = false;
}

void connection_queue(struct connection *connection)
{
    struct worker *worker = connection->worker;

    if (connection->queued)
        return;
    if (!worker->queue)
        ask_for_turn(worker);
    connection->queued = true;
    DL_APPEND2(worker->queue, connection, queue_prev, queue_next);
}

void connection_unqueue(struct connection *connection)
{
    if (!connection->queued)
        return;
    connection->queued = false;
    DL_DELETE2(connection->worker->queue, connection, queue_prev, queue_next);
}

void connection_queue_open(struct worker *worker)
{
    worker->turn = evtimer_new(worker->service.base, on_turn, worker);
    if (!worker->turn)
        log_fatal("out of memory");
}

void connection_queue_close(struct worker *worker)
{
    event_free(worker->turn);
}
