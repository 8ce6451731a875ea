/* What a client connection does in each of its states: handshake, head, body, answer, write,
 * discard. Hands whole, checked requests to the routes. Reads hostile bytes; touches its own
 * connection only.
 */
#include "frontd/connection_internal.h"

#include "common/clock.h"

#include <openssl/err.h>

enum { STEPS_PER_TURN = 256 };

static enum progress step_handshake(struct connection *connection)
{
    int result = signer_handshake_run(&connection->handshake);
    const char *reason;

    if (result == SSL_ERROR_WANT_ASYNC)
        return WAIT; /* for the keeper: on_signed */
    if (result == SSL_ERROR_WANT_READ || result == SSL_ERROR_WANT_WRITE)
        return connection_wait(connection, result);
    if (result == SSL_ERROR_NONE) {
        notes_handshake(connection->worker, &connection->peer, connection->source_ip,
                        SSL_get_version(connection->ssl), NULL);
        connection_enter(connection, STATE_HEAD);
        return GO_ON;
    }
    if (ERR_peek_error() != 0) { /* else the client went away, which is no refusal */
        reason = tls_error_text();
        notes_handshake(connection->worker, &connection->peer, connection->source_ip,
                        SSL_get_version(connection->ssl),
                        *connection->peer.reason ? connection->peer.reason : reason);
    }
    connection_say_goodbye(connection);
    return GO_ON;
}

/* The exchange for the request whose head is read: everything a handler may look at. */
static void begin_exchange(struct connection *connection)
{
    const struct http_request *request = &connection->request;
    const char *in = connection->in;
    bool has_type = request->given[HTTP_CONTENT_TYPE];

    connection->exchange = (struct exchange){
        .worker = connection->worker,
        .identity = &connection->peer.identity,
        .source_ip = connection->source_ip,
        .method = http_span_view(in, request->method),
        .path = http_span_view(in, request->path),
        .query = request->has_query ? http_span_view(in, request->query) : STR_ABSENT,
        .content_type =
            has_type ? http_span_view(in, request->fields[HTTP_CONTENT_TYPE]) : STR_ABSENT,
        .received_ms = clock_wall_ms(),
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
    enum error_code code = http_request_feed(request, connection->in, connection->in_len, &why);

    if (code != ERROR_NONE) {
        refuse(connection, code, why);
    } else if (!request->complete) {
        enum progress progress = connection_fill(connection);

        if (progress == GO_ON && !connection->had_bytes && connection->in_len > 0) {
            connection->had_bytes = true;
            connection_set_timer(connection);
        }
        return progress;
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

    if (have < request->content_length)
        return say_continue(connection) ? connection_fill(connection) : connection_end(connection);
    if (!request->keep_alive || connection->worker->service.draining)
        connection->close_after_answer = true;
    begin_exchange(connection);
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
    if (connection->close_after_answer) {
        SSL_shutdown(connection->ssl);
        connection_say_goodbye(connection);
    } else {
        connection_consume_request(connection);
        connection->answered = true;
        connection_enter(connection, STATE_HEAD);
    }
    return GO_ON;
}

static enum progress step(struct connection *connection)
{
    switch (connection->state) {
    case STATE_HANDSHAKE:
        return step_handshake(connection);
    case STATE_HEAD:
        return step_head(connection);
    case STATE_BODY:
        return step_body(connection);
    case STATE_WRITE:
        return step_write(connection);
    case STATE_DISCARD:
        return connection_discard(connection);
    default:
        return WAIT;
    }
}

void connection_advance(struct connection *connection)
{
    enum progress progress = GO_ON;

    connection->in_step = true;
    connection->peer.reads_left = TLS_READS_PER_TURN;
    for (int steps = 0; steps < STEPS_PER_TURN && progress == GO_ON; steps++)
        progress = step(connection);
    if (progress == GONE)
        return;
    connection->in_step = false;
    if (progress == GO_ON)
        event_active(connection->readable, EV_READ, 0);
}
