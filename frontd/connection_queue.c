/* Handshakes in line. A step of one costs a hundred times what a request costs, and anyone can ask
 * for them: so in each turn of the loop they get a short time together, in the order in which they
 * became ready, and connections that are through run in every turn. Where those are many, the time
 * is a share of what they took: nor may they keep others out. Touches the line and its event only.
 */
#include "frontd/connection_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <utlist.h>

enum {
    TURN_US = 500, /* one step at least, and more while this lasts */
    TURN_MAX_US = 50000,
    SHARE = 3, /* a turn lasts as long as the rest of the loop by this */
};

/* A time-out of nothing is due when the loop has looked at the sockets again; event_active() would
 * run before that. */
static void ask_for_turn(struct worker *worker)
{
    static const struct timeval at_once;

    worker->turn_asked_us = clock_monotonic_us();
    event_add(worker->turn, &at_once);
}

static int64_t turn_us(const struct worker *worker, int64_t now_us)
{
    int64_t share = (now_us - worker->turn_asked_us) / SHARE;

    if (share > TURN_MAX_US)
        return TURN_MAX_US;
    return share > TURN_US ? share : TURN_US;
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;
    int64_t now_us = clock_monotonic_us(), until_us = now_us + turn_us(worker, now_us);

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
