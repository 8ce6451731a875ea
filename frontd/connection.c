/* One client connection: handshake, request, answer, and again. Reads hostile bytes; hands whole,
 * checked requests to the routes. Touches its own socket only. Each state says what the connection
 * waits for and for how long. */
#include "frontd/connection.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <event2/buffer.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

enum {
    READ_BYTES = 16384,
    DISCARD_BYTES_MAX = 1048576, /* of a body that nobody wants, read so that the answer arrives */
    DISCARD_SECONDS = 2,
    LAST_CALL_SECONDS = 1, /* for a first request, when the worker drains */
    STEPS_PER_TURN = 256,
};

enum connection_state {
    STATE_HANDSHAKE,
    STATE_HEAD,
    STATE_BODY,
    STATE_ANSWER, /* a handler has the request */
    STATE_WRITE,
    STATE_DISCARD, /* the last answer is out: read on until the client closes */
};

struct connection {
    struct worker *worker;
    int fd;
    char source_ip[64];
    SSL *ssl;
    struct tls_peer peer;
    struct signer_handshake handshake;
    struct event *readable, *writable, *timer;
    enum connection_state state;
    bool in_step;   /* advance() is on the stack: an answer only changes the state */
    bool had_bytes; /* of the request under way */
    bool answered;  /* a request before that one */
    bool end_of_input;
    bool close_after_answer;
    bool continue_said;
    char *in;
    size_t in_len, in_size, discarded;
    struct evbuffer *out;
    struct http_request request;
    struct exchange exchange;
    struct connection *prev, *next;
};

enum progress { WAIT, GO_ON, GONE };

/* ---- states --------------------------------------------------------------------------------- */

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

static void set_timer(struct connection *connection)
{
    struct timeval limit = clock_timeval(state_seconds(connection) * 1000);

    if (connection->state == STATE_ANSWER)
        event_del(connection->timer);
    else
        event_add(connection->timer, &limit);
}

static void enter(struct connection *connection, enum connection_state state)
{
    connection->state = state;
    set_timer(connection);
}

static void connection_close(struct connection *connection)
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

static enum progress end(struct connection *connection)
{
    connection_close(connection);
    return GONE;
}

/* ---- reading and writing -------------------------------------------------------------------- */

/* What to do after an OpenSSL call that did not go through. */
static enum progress wait_for_io(struct connection *connection, int ssl_error)
{
    if (ssl_error == SSL_ERROR_WANT_READ)
        event_add(connection->readable, NULL);
    else if (ssl_error == SSL_ERROR_WANT_WRITE)
        event_add(connection->writable, NULL);
    else
        return end(connection);
    return WAIT;
}

static void make_room(struct connection *connection)
{
    if (connection->in_size - connection->in_len >= READ_BYTES)
        return;
    connection->in_size = connection->in_len + READ_BYTES;
    connection->in = memory_resize(connection->in, connection->in_size);
}

/* Reads what there is. GO_ON with more bytes or at the end of input. */
static enum progress fill(struct connection *connection)
{
    size_t got;
    int error;

    if (connection->end_of_input)
        return end(connection);
    make_room(connection);
    ERR_clear_error();
    if (SSL_read_ex(connection->ssl, connection->in + connection->in_len,
                    connection->in_size - connection->in_len, &got) == 1) {
        connection->in_len += got;
        return GO_ON;
    }
    error = SSL_get_error(connection->ssl, 0);
    if (error != SSL_ERROR_ZERO_RETURN)
        return wait_for_io(connection, error);
    connection->end_of_input = true;
    return GO_ON;
}

/* Drops the bytes of the request that was answered; what was pipelined behind it moves to the
 * front. */
static void consume_request(struct connection *connection)
{
    size_t used = connection->request.scanned + (size_t)connection->request.content_length;

    connection->in_len -= used;
    memmove(connection->in, connection->in + used, connection->in_len);
    connection->request = (struct http_request){0};
    connection->had_bytes = connection->in_len > 0;
    connection->continue_said = false;
    if (connection->in_len == 0) { /* an idle connection keeps no buffer */
        free(connection->in);
        connection->in = NULL;
        connection->in_size = 0;
    }
}

/* Nothing more will be sent. */
static void say_goodbye(struct connection *connection)
{
    shutdown(connection->fd, SHUT_WR);
    enter(connection, STATE_DISCARD);
}

/* ---- steps ---------------------------------------------------------------------------------- */

static enum progress step_handshake(struct connection *connection)
{
    int result = signer_handshake_run(&connection->handshake);
    const char *reason;

    if (result == SSL_ERROR_WANT_ASYNC)
        return WAIT; /* for the keeper: on_signed */
    if (result == SSL_ERROR_WANT_READ || result == SSL_ERROR_WANT_WRITE)
        return wait_for_io(connection, result);
    if (result == SSL_ERROR_NONE) {
        notes_handshake(connection->worker, &connection->peer, connection->source_ip,
                        SSL_get_version(connection->ssl), NULL);
        enter(connection, STATE_HEAD);
        return GO_ON;
    }
    if (ERR_peek_error() != 0) { /* else the client went away, which is no refusal */
        reason = tls_error_text();
        notes_handshake(connection->worker, &connection->peer, connection->source_ip,
                        SSL_get_version(connection->ssl),
                        *connection->peer.reason ? connection->peer.reason : reason);
    }
    say_goodbye(connection);
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
    enter(connection, STATE_ANSWER);
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
        enum progress progress = fill(connection);

        if (progress == GO_ON && !connection->had_bytes && connection->in_len > 0) {
            connection->had_bytes = true;
            set_timer(connection);
        }
        return progress;
    } else if (request->content_length > HTTP_BODY_MAX) {
        refuse(connection, ERROR_TOO_LARGE, "the body is longer than 64 KiB");
    } else {
        enter(connection, STATE_BODY);
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
        return say_continue(connection) ? fill(connection) : end(connection);
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
    struct evbuffer_iovec chunk;
    size_t written;

    while (evbuffer_get_length(connection->out) > 0) {
        evbuffer_peek(connection->out, -1, NULL, &chunk, 1);
        ERR_clear_error();
        if (SSL_write_ex(connection->ssl, chunk.iov_base, chunk.iov_len, &written) != 1)
            return wait_for_io(connection, SSL_get_error(connection->ssl, 0));
        evbuffer_drain(connection->out, written);
    }
    if (connection->close_after_answer) {
        SSL_shutdown(connection->ssl);
        say_goodbye(connection);
    } else {
        consume_request(connection);
        connection->answered = true;
        enter(connection, STATE_HEAD);
    }
    return GO_ON;
}

/* Closing with unread bytes would reset the connection under the last answer or alert: read them
 * away, within bounds. */
static enum progress step_discard(struct connection *connection)
{
    char unwanted[4096];
    ssize_t got = recv(connection->fd, unwanted, sizeof(unwanted), MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        event_add(connection->readable, NULL);
        return WAIT;
    }
    connection->discarded += got > 0 ? (size_t)got : 0;
    if (got <= 0 || connection->discarded > DISCARD_BYTES_MAX)
        return end(connection);
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
        return step_discard(connection);
    default:
        return WAIT;
    }
}

/* Goes on as far as it can, but for a bounded while: others wait for the loop too. */
static void advance(struct connection *connection)
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

static void on_io(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    advance(arg);
}

static void on_signed(void *arg)
{
    advance(arg);
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
    enter(connection, STATE_WRITE);
    if (!connection->in_step)
        advance(connection);
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
    enter(connection, STATE_HANDSHAKE);
    advance(connection);
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
            set_timer(connection);
        }
    }
}

void connection_close_all(struct worker *worker)
{
    while (worker->connections)
        connection_close(worker->connections);
}
