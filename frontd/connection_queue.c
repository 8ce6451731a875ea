/* Handshakes in line. A step of one costs a hundred times what a request costs, and anyone can ask
 * for them: so in each turn of the loop they get a short time together, in the order in which they
 * became ready, and connections that are through run in every turn. Touches the line and its event
 * only. */
#include "frontd/connection_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <utlist.h>

enum { TURN_US = 500 }; /* one step at least, and more while this lasts */

/* A time-out of nothing is due when the loop has looked at the sockets again; event_active() would
 * run before that. */
static void ask_for_turn(struct worker *worker)
{
    static const struct timeval at_once;

    event_add(worker->turn, &at_once);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;
    int64_t until_us = clock_monotonic_us() + TURN_US;

    (void)fd;
    (void)what;
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
