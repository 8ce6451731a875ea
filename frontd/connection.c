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
    LAST_CALL_SECONDS = 1, /* for a request that will be the only one */
};

/* ---- time ----------------------------------------------------------------------------------- */

static int64_t state_seconds(const struct connection *connection)
{
    const struct frontd_options *options = &connection->worker->options;
    bool draining = connection->worker->service.draining;

    switch (connection->state) {
    case STATE_PROXY:
    case STATE_HANDSHAKE:
        return draining ? LAST_CALL_SECONDS : options->timeouts_handshake_seconds;
    case STATE_HEAD:
        if (connection->had_bytes)
            return options->timeouts_header_seconds;
        return draining || connection->reserved ? LAST_CALL_SECONDS
                                                : options->timeouts_idle_seconds;
    case STATE_BODY:
        return options->timeouts_body_seconds;
    case STATE_WRITE:
        return options->timeouts_write_seconds;
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

/* Keeps count of the connections that wait for an answer. */
static void change_state(struct connection *connection, enum connection_state state)
{
    struct worker *worker = connection->worker;

    worker->answers_due += state == STATE_ANSWER;
    worker->answers_due -= connection->state == STATE_ANSWER;
    if (connection->state == STATE_ANSWER && worker->answers_due == 0)
        connection_queue_resume(worker);
    connection->state = state;
}

void connection_enter(struct connection *connection, enum connection_state state)
{
    change_state(connection, state);
    connection_set_timer(connection);
}

void connection_close(struct connection *connection)
{
    struct worker *worker = connection->worker;

    DL_DELETE(worker->connections, connection);
    change_state(connection, STATE_CLOSED);
    connection_unqueue(connection);
    admission_leave(&worker->admission, &connection->place);
    worker->metrics->connections--;
    exchange_abandon(&connection->exchange);
    signer_handshake_cancel(&connection->handshake);
    SSL_free(connection->ssl);
    ERR_clear_error();
    tls_peer_clear(&connection->peer);
    event_free(connection->readable);
    event_free(connection->writable);
    event_free(connection->timer);
    evbuffer_free(connection->out);
    if (connection->fd >= 0)
        close(connection->fd);
    source_clear(&connection->source);
    connection_drop_input(connection);
    free(connection);
    worker_finish_when_done(worker);
}

enum progress connection_end(struct connection *connection)
{
    connection_close(connection);
    return GONE;
}

enum progress connection_part(struct connection *connection)
{
    const struct address *limited = connection->place.use ? &connection->address : NULL;

    if (connection->ssl && SSL_is_init_finished(connection->ssl))
        SSL_shutdown(connection->ssl);
    lingering_take(&connection->worker->lingering, steal_descriptor(&connection->fd), limited);
    return connection_end(connection);
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

size_t connection_room(const struct connection *connection)
{
    return (size_t)connection->worker->options.limits_connection_bytes - connection->in_size;
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
    struct connection *connection = arg;

    (void)fd;
    (void)what;
    if (connection->state <= STATE_HANDSHAKE)
        connection_queue(connection);
    else
        connection_advance(connection);
}

/* What the client did not do in time. */
static enum refusal lateness(const struct connection *connection)
{
    switch (connection->state) {
    case STATE_PROXY:
    case STATE_HANDSHAKE:
        return REFUSAL_handshake_time;
    case STATE_HEAD:
        return connection->had_bytes ? REFUSAL_header_time : REFUSAL_NONE;
    case STATE_BODY:
        return REFUSAL_body_time;
    default:
        return REFUSAL_write_time;
    }
}

/* What the kernel still holds for a client that does not read goes with the connection. */
static void drop_unsent(const struct connection *connection)
{
    const struct linger at_once = {.l_onoff = 1};

    setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct connection *connection = arg;
    enum refusal late = lateness(connection);

    (void)fd;
    (void)what;
    if (late == REFUSAL_NONE) { /* idle */
        connection_part(connection);
        return;
    }
    admission_count(&connection->worker->admission, late);
    if (late == REFUSAL_handshake_time) {
        connection->worker->metrics->tls_handshakes_total[HANDSHAKE_TIMED_OUT]++;
        notes_handshake(connection->worker, &connection->peer, connection->source_ip, "none",
                        "the handshake took too long");
        connection->peer.refused = NULL; /* told; ending one that waits for the keeper fails it */
    }
    if (late == REFUSAL_write_time)
        drop_unsent(connection);
    connection_close(connection);
}

/* ---- life ----------------------------------------------------------------------------------- */

static bool is_silent(const struct connection *connection)
{
    return connection->state == STATE_HEAD && !connection->had_bytes;
}

/* The first byte brings it in line for a turn. */
void connection_open(struct worker *worker, int fd, const struct address *address)
{
    struct connection *connection = memory_new(1, sizeof(*connection));
    bool proxied = networks_have(&worker->trusted_proxies, address);

    connection->worker = worker;
    connection->fd = fd;
    connection->address = *address;
    address_format(address, connection->source_ip);
    connection->peer.options = &worker->options;
    connection->peer.deny = &worker->deny;
    connection->readable = event_new(worker->service.base, fd, EV_READ, on_io, connection);
    connection->writable = event_new(worker->service.base, fd, EV_WRITE, on_io, connection);
    connection->timer = evtimer_new(worker->service.base, on_timer, connection);
    connection->out = evbuffer_new();
    if (!connection->readable || !connection->writable || !connection->timer || !connection->out)
        log_fatal("out of memory");
    DL_APPEND(worker->connections, connection);
    worker->metrics->connections++;
    worker->metrics->connections_accepted_total++;
    admission_enter(&worker->admission, proxied ? NULL : address, &connection->place);
    connection->reserved = admission_in_reserve(&worker->admission);
    connection_enter(connection, proxied ? STATE_PROXY : STATE_HANDSHAKE);
    event_add(connection->readable, NULL);
}

/* Who has just connected has a request to make, and gets a moment for it; who was answered before
 * and is silent may go, unless a request of his has just arrived. */
static void drain_one(struct connection *connection)
{
    connection->close_after_answer = true;
    if (connection->state <= STATE_HANDSHAKE || (is_silent(connection) && !connection->answered))
        connection_set_timer(connection);
    else if (is_silent(connection) && connection_advance(connection) == WAIT &&
             is_silent(connection))
        connection_part(connection);
}

void connection_drain_all(struct worker *worker)
{
    struct connection *connection, *next;

    DL_FOREACH_SAFE(worker->connections, connection, next)
    {
        drain_one(connection);
    }
}

void connection_cut_denied(struct worker *worker)
{
    struct connection *connection, *next;

    DL_FOREACH_SAFE(worker->connections, connection, next)
    {
        if (connection->state <= STATE_HANDSHAKE ||
            !deny_refusal(&worker->deny, &connection->peer.identity))
            continue; /* a handshake under way is checked at its end, and told */
        admission_count(&worker->admission, REFUSAL_revoked);
        connection_close(connection);
    }
}

void connection_close_all(struct worker *worker)
{
    while (worker->connections)
        connection_close(worker->connections);
}
