/* What a client connection does in each of its states: handshake, head, body, answer, write,
 * discard. Hands whole, checked requests to the routes. Reads hostile bytes; touches its own
 * connection only.
 */
#include "frontd/connection_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <openssl/err.h>

enum { STEPS_PER_TURN = 16 }; /* a request takes four */

/* ---- handshake ------------------------------------------------------------------------------ */

static void on_signed(void *arg)
{
    connection_queue(arg);
}

static void note_handshake(const struct connection *connection, const char *failure)
{
    notes_handshake(connection->worker, &connection->peer, connection->source_ip,
                    SSL_get_version(connection->ssl), failure);
}

static void on_refused(const struct tls_peer *peer)
{
    const size_t place = offsetof(struct connection, peer);

    note_handshake((const struct connection *)((const char *)peer - place),
                   tls_refusal_reason(peer));
}

/* The client has sent something: only now is there a TLS session to pay for. */
static void start_handshake(struct connection *connection)
{
    connection->ssl =
        tls_connection_new(connection->worker->tls, connection->fd, &connection->peer);
    if (!connection->ssl)
        log_fatal("out of memory");
    connection->trust = connection->worker->trust;
    connection->peer.refused = on_refused;
    signer_handshake_start(&connection->handshake, connection->worker->signer, connection->ssl,
                           on_signed, connection);
}

static void count_accepted(const struct connection *connection)
{
    struct frontd_metrics *metrics = connection->worker->metrics;
    bool known = connection->peer.identity.kind != IDENTITY_NONE;

    metrics->tls_handshakes_total[known ? HANDSHAKE_ACCEPTED : HANDSHAKE_ANONYMOUS]++;
    metrics->tls_handshakes_resumed_total += connection->peer.resumed;
}

/* Whether the identity has been revoked since it was verified. */
static bool is_denied_by_now(struct connection *connection)
{
    struct tls_peer *peer = &connection->peer;
    const char *why = deny_refusal(peer->deny, &peer->identity);

    peer->is_denied = why != NULL;
    if (why)
        snprintf(peer->reason, sizeof(peer->reason), "%s", why);
    return peer->is_denied;
}

/* The handshake is complete. The deny list, the CA bundle or the CRLs may have changed under way.
 */
static enum progress finish_handshake(struct connection *connection)
{
    struct admission *admission = &connection->worker->admission;

    connection->peer.refused = NULL;
    tls_connection_settle(connection->ssl);
    if (is_denied_by_now(connection) || !connection_is_trusted(connection)) {
        connection->worker->metrics
            ->tls_handshakes_total[connection->peer.is_denied ? HANDSHAKE_REVOKED
                                                              : HANDSHAKE_CERTIFICATE]++;
        note_handshake(connection, connection->peer.reason);
        return connection_end(connection);
    }
    count_accepted(connection);
    note_handshake(connection, NULL);
    admission_handshake_over(admission, &connection->place);
    connection->reserved = connection->reserved && admission_in_reserve(admission) &&
                           connection->peer.identity.kind != IDENTITY_OPERATOR;
    connection_enter(connection, STATE_HEAD);
    return GO_ON;
}

static enum progress fail_handshake(struct connection *connection)
{
    uint64_t *total = connection->worker->metrics->tls_handshakes_total;
    struct tls_peer *peer = &connection->peer;

    if (ERR_peek_error() == 0) { /* the client went away, which is no refusal */
        total[HANDSHAKE_ABANDONED]++;
    } else {
        total[peer->is_denied ? HANDSHAKE_REVOKED
              : *peer->reason ? HANDSHAKE_CERTIFICATE
                              : HANDSHAKE_PROTOCOL]++;
        if (peer->refused) /* no alert told the client */
            on_refused(peer);
    }
    peer->refused = NULL;
    ERR_clear_error();
    return connection_part(connection);
}

static enum progress step_handshake(struct connection *connection)
{
    int result;

    if (!connection->ssl)
        start_handshake(connection);
    result = signer_handshake_run(&connection->handshake);
    switch (result) {
    case SSL_ERROR_WANT_ASYNC:
        return WAIT; /* for the keeper: on_signed */
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return connection_wait(connection, result);
    case SSL_ERROR_NONE:
        return finish_handshake(connection);
    default:
        return fail_handshake(connection);
    }
}

/* ---- requests ------------------------------------------------------------------------------- */

/* The exchange for the request whose head is read: everything a handler may look at. */
static void begin_exchange(struct connection *connection)
{
    const struct http_request *request = &connection->request;
    const char *in = connection->in;
    bool has_type = request->given[HTTP_CONTENT_TYPE];

    if (request->complete)
        source_find(&connection->worker->trusted_proxies, &connection->address, request, in,
                    &connection->source);
    else
        memcpy(connection->source.ip, connection->source_ip, sizeof(connection->source.ip));
    connection->exchange = (struct exchange){
        .worker = connection->worker,
        .identity = &connection->peer.identity,
        .source_ip = connection->source.ip,
        .source_ip_claimed = str_from(connection->source.claimed),
        .method = http_span_view(in, request->method),
        .path = http_span_view(in, request->path),
        .query = request->has_query ? http_span_view(in, request->query) : STR_ABSENT,
        .content_type =
            has_type ? http_span_view(in, request->fields[HTTP_CONTENT_TYPE]) : STR_ABSENT,
        .received_ms = clock_wall_ms(),
        .started_us = clock_monotonic_us(),
    };
    ids_trace(connection->exchange.trace_id);
    connection_enter(connection, STATE_ANSWER);
}

static void refuse(struct connection *connection, enum error_code code, const char *why)
{
    connection->close_after_answer = true;
    begin_exchange(connection);
    exchange_fail(&connection->exchange, code, why, NULL);
}

static enum progress step_head(struct connection *connection)
{
    struct http_request *request = &connection->request;
    const char *why;
    enum error_code code;

    if (!connection_is_trusted(connection))
        return connection_end(connection);
    code = http_request_feed(request, connection->in, connection->in_len, &why);
    if (code != ERROR_NONE) {
        refuse(connection, code, why);
    } else if (!request->complete) {
        enum progress progress = connection_fill(connection);

        if (progress == GO_ON && !connection->had_bytes && connection->in_len > 0) {
            connection->had_bytes = true;
            connection_set_timer(connection);
        }
        return progress;
    } else if (connection->reserved) {
        admission_count(&connection->worker->admission, REFUSAL_reserved_connection);
        refuse(connection, ERROR_UNAVAILABLE, "too many connections: only operators' are served");
    } else if (request->content_length > HTTP_BODY_MAX) {
        refuse(connection, ERROR_TOO_LARGE, "the body is longer than 64 KiB");
    } else {
        connection_enter(connection, STATE_BODY);
    }
    return GO_ON;
}

/* Says that the body may come, once, where the client waits to hear it (RFC 9110 10.1.1). A client
 * whose socket has no room for that line is not one that waits. */
static bool say_continue(struct connection *connection)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    size_t written;

    if (!connection->request.expects_continue || connection->continue_said)
        return true;
    connection->continue_said = true;
    ERR_clear_error();
    return SSL_write_ex(connection->ssl, text, sizeof(text) - 1, &written) == 1;
}

static enum progress step_body(struct connection *connection)
{
    const struct http_request *request = &connection->request;
    size_t have = connection->in_len - request->scanned;
    bool expired;

    if (have < request->content_length)
        return say_continue(connection) ? connection_fill(connection) : connection_end(connection);
    expired = connection_drop_expired(connection);
    if (!request->keep_alive || connection->worker->service.draining || expired)
        connection->close_after_answer = true;
    begin_exchange(connection);
    connection->exchange.certificate_expired = expired;
    connection->exchange.body =
        (struct str){connection->in + request->scanned, (size_t)request->content_length};
    routes_dispatch(&connection->exchange);
    return GO_ON;
}

static enum progress step_write(struct connection *connection)
{
    enum progress progress = connection_flush(connection);

    if (progress != GO_ON)
        return progress;
    if (connection->close_after_answer)
        return connection_part(connection);
    connection_consume_request(connection);
    connection->answered = true;
    connection_enter(connection, STATE_HEAD);
    return GO_ON;
}

static enum progress step(struct connection *connection)
{
    switch (connection->state) {
    case STATE_PROXY:
        return connection_step_proxy(connection);
    case STATE_HANDSHAKE:
        return step_handshake(connection);
    case STATE_HEAD:
        return step_head(connection);
    case STATE_BODY:
        return step_body(connection);
    case STATE_WRITE:
        return step_write(connection);
    default:
        return WAIT;
    }
}

/* What is left to do is done in the next turn of the loop, after a look at all other sockets:
 * event_active() would run in this one. */
static void go_on_next_turn(struct connection *connection)
{
    static const struct timeval at_once;

    event_add(connection->readable, &at_once);
}

enum progress connection_advance(struct connection *connection)
{
    enum progress progress = GO_ON;

    connection->in_step = true;
    connection->peer.reads_left = TLS_READS_PER_TURN;
    for (int steps = 0; steps < STEPS_PER_TURN && progress == GO_ON; steps++)
        progress = step(connection);
    if (progress == GONE)
        return GONE;
    connection->in_step = false;
    if (progress == GO_ON)
        go_on_next_turn(connection);
    return progress;
}
