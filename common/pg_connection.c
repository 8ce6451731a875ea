/* A connection's life: down, connecting, settling, idle, busy, and down again when anything is
 * wrong. The only part that reads from and writes to the server's socket. A loss gives the batch
 * back and never calls a caller.
 *
 * libpq looks a host's name up with the resolver's blocking call, also when it turns to the next
 * host: a name that answers slowly holds the loop up. Addresses and Unix sockets do not. */
#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/pg_internal.h"

#include <stdlib.h>

enum {
    BACKOFF_FIRST_MS = 50,
    BACKOFF_MAX_MS = 2000,
    GRACE_MS = 1000, /* the server's own time-out comes first: then the outcome is known */
};

/* ---- states --------------------------------------------------------------------------------- */

static void connection_on_timer(evutil_socket_t fd, short what, void *arg);
static void connection_on_io(evutil_socket_t fd, short what, void *arg);

/* Every state but idle ends by itself: after limit_ms. */
static void connection_enter(struct pg_connection *connection, enum pg_connection_state state,
                             int64_t limit_ms)
{
    struct timeval limit = clock_timeval(limit_ms);

    connection->state = state;
    if (state == PG_CONNECTION_IDLE)
        event_del(&connection->timer);
    else
        event_add(&connection->timer, &limit);
}

static void connection_unwatch(struct pg_connection *connection)
{
    event_del(&connection->io);
    connection->watched = 0;
}

/* While libpq connects it may change the socket at each step, so that nothing stays watched. */
static void connection_watch(struct pg_connection *connection, short what)
{
    if (connection->watched == what)
        return;
    connection_unwatch(connection);
    event_assign(&connection->io, connection->pg->base, PQsocket(connection->link), what,
                 connection_on_io, connection);
    event_add(&connection->io, NULL);
    connection->watched = what;
}

static struct pg_batch *connection_take_batch(struct pg_connection *connection)
{
    connection->pg->running -= (size_t)connection->batch->count;
    return steal_pointer(connection->batch);
}

/* ---- loss ----------------------------------------------------------------------------------- */

static void log_loss(struct pg_connection *connection, const char *why)
{
    struct str reason = str_from(PQerrorMessage(connection->link));
    long long suppressed;

    if (!pg_quiet_passed(&connection->pg->losses, &suppressed))
        return;
    while (reason.len > 0 && reason.ptr[reason.len - 1] == '\n')
        reason.len--;
    log_warn("a database connection is down", LOG_TEXT("why", why), LOG_STR("reason", reason),
             LOG_NUMBER("connection", connection->number), LOG_NUMBER("suppressed", suppressed));
}

/* The wait before the next attempt. One that stood for longer than the longest wait starts the
 * count anew; one that broke at once does not, or a server that takes connections and no statements
 * would be asked without end. */
static int64_t connection_wait_ms(struct pg_connection *connection)
{
    if (connection->up_ms && clock_monotonic_ms() - connection->up_ms > BACKOFF_MAX_MS)
        connection->attempts = 0;
    connection->up_ms = 0;
    return pg_backoff_ms(connection->attempts++, BACKOFF_FIRST_MS, BACKOFF_MAX_MS);
}

static void connection_drop_link(struct pg_connection *connection)
{
    connection_unwatch(connection);
    PQclear(steal_pointer(connection->result));
    PQfinish(steal_pointer(connection->link));
}

static void connection_lose(struct pg_connection *connection, const char *why)
{
    connection->pg->counters.losses++;
    log_loss(connection, why);
    connection_drop_link(connection);
    connection_enter(connection, PG_CONNECTION_DOWN, connection_wait_ms(connection));
    if (connection->batch)
        pg_batch_return(connection_take_batch(connection));
}

/* ---- up ------------------------------------------------------------------------------------- */

static void connection_up(struct pg_connection *connection)
{
    struct pg *pg = connection->pg;

    log_info("a database connection is up", LOG_NUMBER("connection", connection->number),
             LOG_TEXT("host", PQhost(connection->link)),
             LOG_NUMBER("server_version", PQserverVersion(connection->link)));
    connection->up_ms = clock_monotonic_ms();
    connection_enter(connection, PG_CONNECTION_IDLE, 0);
    pg_schedule(pg);
    if (!pg->proven) {
        pg->proven = true;
        pg_connections_open(pg);
    }
}

/* Writes what libpq holds; what the socket does not take now goes when it is writable. */
static void connection_flush(struct pg_connection *connection)
{
    int left = PQflush(connection->link);

    if (left < 0)
        connection_lose(connection, "cannot send");
    else
        connection_watch(connection, EV_PERSIST | EV_READ | (left ? EV_WRITE : 0));
}

static void connection_settle(struct pg_connection *connection)
{
    connection_enter(connection, PG_CONNECTION_SETTLING,
                     connection->pg->options.statement_ms + GRACE_MS);
    switch (pg_session_advance(connection)) {
    case PG_SESSION_GOES_ON:
        connection_flush(connection);
        return;
    case PG_SESSION_READY:
        connection_up(connection);
        return;
    case PG_SESSION_FAILED:
        connection_lose(connection, "cannot send");
        return;
    }
}

void pg_connection_run(struct pg_connection *connection, struct pg_batch *batch)
{
    struct pg *pg = connection->pg;

    connection->batch = batch;
    connection->sent_us = clock_monotonic_us();
    pg->running += (size_t)batch->count;
    connection_enter(connection, PG_CONNECTION_BUSY, pg->options.statement_ms + GRACE_MS);
    if (pg_batch_send(pg, batch, connection->link))
        connection_flush(connection);
    else
        connection_lose(connection, "cannot send");
}

/* ---- results -------------------------------------------------------------------------------- */

/* CommandComplete comes before the commit, which may still fail or never happen. So a result is
 * kept until the server is ready for the next statement, and an error after it takes its place. */
static void connection_keep_result(struct pg_connection *connection, PGresult *result)
{
    if (connection->result && pg_remedy_for(result) == PG_REMEDY_NONE) {
        PQclear(result);
        return;
    }
    PQclear(connection->result);
    connection->result = result;
}

static void connection_finish_batch(struct pg_connection *connection)
{
    struct pg *pg = connection->pg;
    enum pg_remedy remedy = pg_remedy_for(connection->result);
    PGresult *result;

    if (remedy == PG_REMEDY_RECONNECT) {
        connection_lose(connection, "the server cannot go on");
        return;
    }
    metric_observe_us(&connection->batch->queue->counters.duration,
                      clock_monotonic_us() - connection->sent_us);
    result = steal_pointer(connection->result);
    connection_enter(connection, PG_CONNECTION_IDLE, 0);
    pg_batch_finish(pg, connection_take_batch(connection), result, remedy);
    PQclear(result);
    pg_schedule(pg);
}

static void connection_finish_step(struct pg_connection *connection)
{
    bool passed = pg_session_judge(connection, connection->result);

    PQclear(steal_pointer(connection->result));
    if (passed)
        connection_settle(connection);
    else
        connection_lose(connection, "the session cannot be set up");
}

/* The server is ready: what ran, if anything, is done. */
static void connection_finish(struct pg_connection *connection)
{
    if (connection->state == PG_CONNECTION_BUSY)
        connection_finish_batch(connection);
    else if (connection->state == PG_CONNECTION_SETTLING)
        connection_finish_step(connection);
}

static void connection_read(struct pg_connection *connection)
{
    if (!PQconsumeInput(connection->link)) {
        connection_lose(connection, "link lost");
        return;
    }
    while (!PQisBusy(connection->link)) {
        PGresult *result = PQgetResult(connection->link);

        if (!result) {
            connection_finish(connection);
            return;
        }
        connection_keep_result(connection, result);
    }
}

/* ---- connecting ----------------------------------------------------------------------------- */

static void log_notice(void *arg, const char *message)
{
    (void)arg;
    log_debug("the database notes", LOG_TEXT("notice", message));
}

/* Text in any other encoding would be refused row by row, or stored unchecked. */
static void connection_made(struct pg_connection *connection)
{
    const char *encoding = PQparameterStatus(connection->link, "server_encoding");

    connection->step = 0;
    if (!encoding || strcmp(encoding, "UTF8") != 0)
        connection_lose(connection, "the database's encoding is not UTF8");
    else if (PQsetnonblocking(connection->link, 1) != 0)
        connection_lose(connection, "cannot set the link non-blocking");
    else
        connection_settle(connection);
}

static void connection_poll(struct pg_connection *connection)
{
    connection_unwatch(connection);
    switch (PQconnectPoll(connection->link)) {
    case PGRES_POLLING_READING:
        connection_watch(connection, EV_READ);
        return;
    case PGRES_POLLING_WRITING:
        connection_watch(connection, EV_WRITE);
        return;
    case PGRES_POLLING_OK:
        connection_made(connection);
        return;
    default:
        connection_lose(connection, "cannot connect");
        return;
    }
}

static void connection_start(struct pg_connection *connection)
{
    struct pg *pg = connection->pg;

    connection->link = pg_conninfo_connect(&pg->conninfo, connection->first_host);
    if (PQstatus(connection->link) == CONNECTION_BAD) {
        connection_lose(connection, "cannot connect");
        return;
    }
    PQsetNoticeProcessor(connection->link, log_notice, NULL);
    connection_enter(connection, PG_CONNECTION_CONNECTING, pg->connect_ms);
    connection_watch(connection, EV_WRITE);
}

/* ---- events --------------------------------------------------------------------------------- */

static void connection_on_io(evutil_socket_t fd, short what, void *arg)
{
    struct pg_connection *connection = arg;

    (void)fd;
    if (connection->state == PG_CONNECTION_CONNECTING) {
        connection_poll(connection);
        return;
    }
    if (what & EV_READ)
        connection_read(connection);
    if (connection->watched & EV_WRITE)
        connection_flush(connection);
}

/* An attempt that hangs would never reach the hosts behind the one that it hangs at, so the next
 * attempt begins one further on. */
static void connection_on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct pg_connection *connection = arg;

    (void)fd;
    (void)what;
    if (connection->state == PG_CONNECTION_DOWN) {
        connection_start(connection);
        return;
    }
    if (connection->state == PG_CONNECTION_CONNECTING)
        connection->first_host++;
    connection_lose(connection, "timed out");
}

/* ---- the pool ------------------------------------------------------------------------------- */

static void connection_open(struct pg *pg)
{
    struct pg_connection *connection = &pg->connections[pg->connection_count];

    connection->pg = pg;
    connection->number = pg->connection_count++;
    evtimer_assign(&connection->timer, pg->base, connection_on_timer, connection);
    event_assign(&connection->io, pg->base, -1, 0, connection_on_io, connection);
    connection_start(connection);
}

void pg_connections_open(struct pg *pg)
{
    int wanted = pg->proven ? pg->options.connections : 1;

    while (pg->connection_count < wanted)
        connection_open(pg);
}

struct pg_connection *pg_connection_find_idle(const struct pg *pg)
{
    for (int i = 0; i < pg->connection_count; i++)
        if (pg->connections[i].state == PG_CONNECTION_IDLE)
            return &pg->connections[i];
    return NULL;
}

void pg_connections_close(struct pg *pg)
{
    for (int i = 0; i < pg->connection_count; i++) {
        struct pg_connection *connection = &pg->connections[i];

        connection_drop_link(connection);
        event_del(&connection->timer);
        free(connection->batch);
    }
}
