/* A client connection's life: opened, timed, closed. Each state has its time-out; what happens in
 * it is in connection_steps.c, and the bytes are in connection_io.c. Touches its own socket only.
 */
#include "frontd/connection_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

enum {
    DISCARD_SECONDS = 2,
    LAST_CALL_SECONDS = 1, /* for a first request, when the worker drains */
};

/* ---- time ----------------------------------------------------------------------------------- */

static int64_t state_seconds(const struct connection *connection)
{
    const struct frontd_options *options = &connection->worker->options;
    bool draining = connection->worker->service.draining;

    switch (connection->state) {
    case STATE_HANDSHAKE:
        return draining ? LAST_CALL_SECONDS : options->timeouts_handshake_seconds;
    case STATE_HEAD:
        if (connection->had_bytes)
            return options->timeouts_header_seconds;
        return draining ? LAST_CALL_SECONDS : options->timeouts_idle_seconds;
    case STATE_BODY:
        return options->timeouts_body_seconds;
    case STATE_WRITE:
        return options->timeouts_write_seconds;
    case STATE_DISCARD:
        return DISCARD_SECONDS;
    default:
        return 0; /* the backend calls have deadlines of their own */
    }
}

void connection_set_timer(struct connection *connection)
{
    struct timeval limit = clock_timeval(state_seconds(connection) * 1000);

    if (connection->state == STATE_ANSWER)
        event_del(connection->timer);
    else
        event_add(connection->timer, &limit);
}

void connection_enter(struct connection *connection, enum connection_state state)
{
    connection->state = state;
    connection_set_timer(connection);
}

void connection_close(struct connection *connection)
{
    struct worker *worker = connection->worker;

    DL_DELETE(worker->connections, connection);
    worker->connection_count--;
    exchange_abandon(&connection->exchange);
    signer_handshake_cancel(&connection->handshake);
    SSL_free(connection->ssl);
    ERR_clear_error();
    tls_peer_clear(&connection->peer);
    event_free(connection->readable);
    event_free(connection->writable);
    event_free(connection->timer);
    evbuffer_free(connection->out);
    close(connection->fd);
    free(connection->in);
    free(connection);
    worker_connection_gone(worker);
}

enum progress connection_end(struct connection *connection)
{
    connection_close(connection);
    return GONE;
}

/* ---- answers -------------------------------------------------------------------------------- */

bool connection_will_close(const struct exchange *exchange)
{
    const struct connection *connection = connection_of(exchange);

    return connection->close_after_answer;
}

struct connection *connection_of(const struct exchange *exchange)
{
    return (struct connection *)((char *)exchange - offsetof(struct connection, exchange));
}

struct evbuffer *connection_output(struct connection *connection)
{
    return connection->out;
}

void connection_answered(struct connection *connection)
{
    exchange_abandon(&connection->exchange);
    connection_enter(connection, STATE_WRITE);
    if (!connection->in_step)
        connection_advance(connection);
}

/* ---- events --------------------------------------------------------------------------------- */

static void on_io(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    connection_advance(arg);
}

static void on_signed(void *arg)
{
    connection_advance(arg);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct connection *connection = arg;

    (void)fd;
    (void)what;
    if (connection->state == STATE_HANDSHAKE)
        notes_handshake(connection->worker, &connection->peer, connection->source_ip, "none",
                        "the handshake took too long");
    connection_close(connection);
}

/* ---- life ----------------------------------------------------------------------------------- */

void connection_open(struct worker *worker, int fd, const char *source_ip)
{
    struct connection *connection = memory_new(1, sizeof(*connection));

    connection->worker = worker;
    connection->fd = fd;
    snprintf(connection->source_ip, sizeof(connection->source_ip), "%s", source_ip);
    connection->peer.options = &worker->options;
    connection->ssl = tls_connection_new(worker->tls, fd, &connection->peer);
    connection->readable = event_new(worker->service.base, fd, EV_READ, on_io, connection);
    connection->writable = event_new(worker->service.base, fd, EV_WRITE, on_io, connection);
    connection->timer = evtimer_new(worker->service.base, on_timer, connection);
    connection->out = evbuffer_new();
    if (!connection->ssl || !connection->readable || !connection->writable || !connection->timer ||
        !connection->out)
        log_fatal("out of memory");
    DL_APPEND(worker->connections, connection);
    worker->connection_count++;
    signer_handshake_start(&connection->handshake, worker->signer, connection->ssl, on_signed,
                           connection);
    connection_enter(connection, STATE_HANDSHAKE);
    connection_advance(connection);
}

/* Who has just connected has a request to make, and gets a moment for it; who was answered before
 * and is silent may go. */
void connection_drain_all(struct worker *worker)
{
    struct connection *connection, *next;

    DL_FOREACH_SAFE(worker->connections, connection, next)
    {
        bool silent = connection->state == STATE_HEAD && !connection->had_bytes;

        connection->close_after_answer = true;
        if (silent && connection->answered) {
            SSL_shutdown(connection->ssl);
            connection_close(connection);
        } else if (silent || connection->state == STATE_HANDSHAKE) {
            connection_set_timer(connection);
        }
    }
}

void connection_close_all(struct worker *worker)
{
    while (worker->connections)
        connection_close(worker->connections);
}
