/* Answers: status line, fields, JSON; and calls to the back daemons on behalf of one request. */
#include "frontd/exchange.h"

#include "common/clock.h"
#include "common/log.h"
#include "frontd/connection.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>

enum { CHECK_MS = 2000 };

static const struct {
    int status;
    const char *phrase;
} phrases[] = {
    {200, "OK"},
    {201, "Created"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {409, "Conflict"},
    {411, "Length Required"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {503, "Service Unavailable"},
};

static const char *phrase_of(int status)
{
    for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return "";
}

void exchange_abandon(struct exchange *exchange)
{
    for (size_t i = 0; i < EXCHANGE_CALLS_MAX; i++) {
        if (exchange->calls[i].call)
            ipc_call_cancel(exchange->calls[i].call);
        exchange->calls[i].call = NULL;
    }
    free(exchange->state);
    exchange->state = NULL;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* Fields that only some answers have. */
struct extra_fields {
    int retry_after;   /* seconds; 0: none */
    const char *allow; /* methods; NULL: none */
};

static void count_answer(const struct exchange *exchange, enum error_code code)
{
    struct frontd_metrics *metrics = exchange->worker->metrics;
    enum route_number route = exchange->route ? exchange->route->number : ROUTE_none;

    metrics->http_requests_total[route][code]++;
    metric_observe_us(&metrics->http_request_duration_seconds[route],
                      clock_monotonic_us() - exchange->started_us);
}

static void write_answer(struct exchange *exchange, int status, const struct extra_fields *extra,
                         struct evbuffer *body)
{
    struct connection *connection = connection_of(exchange);
    struct evbuffer *out = connection_output(connection);

    evbuffer_add_printf(out,
                        "HTTP/1.1 %d %s\r\n"
                        "Content-Type: application/json\r\n"
                        "Content-Length: %zu\r\n"
                        "Cache-Control: no-store\r\n",
                        status, phrase_of(status), evbuffer_get_length(body));
    if (connection_will_close(exchange))
        evbuffer_add_printf(out, "Connection: close\r\n");
    if (status == 401)
        evbuffer_add_printf(out, "WWW-Authenticate: Bearer\r\n");
    if (extra->retry_after)
        evbuffer_add_printf(out, "Retry-After: %d\r\n", extra->retry_after);
    if (extra->allow)
        evbuffer_add_printf(out, "Allow: %s\r\n", extra->allow);
    evbuffer_add(out, "\r\n", 2);
    if (!str_equal(exchange->method, STR("HEAD")))
        evbuffer_add_buffer(out, body);
    evbuffer_free(body);
    connection_answered(connection);
}

static struct evbuffer *new_body(void)
{
    struct evbuffer *body = evbuffer_new();

    if (!body)
        log_fatal("out of memory");
    return body;
}

void exchange_answer(struct exchange *exchange, int status, const char *format, ...)
{
    struct evbuffer *body = new_body();
    va_list args;

    va_start(args, format);
    evbuffer_add_vprintf(body, format, args);
    va_end(args);
    if (evbuffer_get_length(body) > connection_room(connection_of(exchange))) {
        evbuffer_free(body);
        admission_count(&exchange->worker->admission, REFUSAL_answer_bytes);
        exchange_fail(exchange, ERROR_INTERNAL, "the answer is too long for this server", NULL);
        return;
    }
    count_answer(exchange, status < 400 ? ERROR_NONE : ERROR_UNAVAILABLE);
    write_answer(exchange, status, &(struct extra_fields){0}, body);
}

static void fail_with(struct exchange *exchange, enum error_code code, const char *message,
                      const struct recovery *recovery, const char *allow)
{
    struct extra_fields extra = {.retry_after = error_retry_after(code), .allow = allow};
    struct evbuffer *body = new_body();
    json_t *root = json_pack("{s:b,s:{s:s,s:s},s:s}", "success", 0, "error", "code",
                             error_name(code), "message", message, "trace_id", exchange->trace_id);
    char *text;

    if (recovery)
        json_object_set_new(root, "recovery",
                            json_pack("{s:s,s:s,s:s,s:s}", "action", recovery->action, "method",
                                      recovery->method, "path", recovery->path, "hint",
                                      recovery->hint));
    text = json_dumps(root, JSON_COMPACT);
    if (!text)
        log_fatal("out of memory");
    evbuffer_add(body, text, strlen(text));
    free(text);
    json_decref(root);
    count_answer(exchange, code);
    write_answer(exchange, error_status(code), &extra, body);
}

void exchange_fail(struct exchange *exchange, enum error_code code, const char *message,
                   const struct recovery *recovery)
{
    fail_with(exchange, code, message, recovery, NULL);
}

void exchange_fail_method(struct exchange *exchange, const char *allow)
{
    fail_with(exchange, ERROR_METHOD_NOT_ALLOWED, "this route does not know that method", NULL,
              allow);
}

/* ---- calling -------------------------------------------------------------------------------- */

static void on_answer(void *arg, const struct message *answer)
{
    struct exchange_call *slot = arg;

    slot->call = NULL; /* the client has let go of it */
    slot->answer(slot->exchange, (size_t)(slot - slot->exchange->calls), answer);
}

static int64_t patience_ms(const struct frontd_options *options, enum exchange_patience patience)
{
    switch (patience) {
    case PATIENCE_READ:
        return options->timeouts_read_deadline_seconds * 1000;
    case PATIENCE_WRITE:
        return options->timeouts_write_deadline_seconds * 1000;
    default:
        return CHECK_MS;
    }
}

enum error_code exchange_try_call(struct exchange *exchange, size_t slot, enum proto_peer peer,
                                  enum message_type type, const void *body,
                                  enum exchange_patience patience, exchange_answer_fn *answer)
{
    struct exchange_call *call = &exchange->calls[slot];
    int64_t deadline_ms = patience_ms(&exchange->worker->options, patience);
    bool is_operator = exchange->identity->kind == IDENTITY_OPERATOR;

    if (!worker_may_call(exchange->worker, peer, is_operator))
        return ERROR_UNAVAILABLE;
    call->exchange = exchange;
    call->answer = answer;
    call->call = ipc_client_call(worker_backend(exchange->worker, peer), type, body, deadline_ms,
                                 on_answer, call);
    return call->call ? ERROR_NONE : ERROR_INTERNAL; /* there was room: the body is out of bounds */
}

bool exchange_call(struct exchange *exchange, size_t slot, enum proto_peer peer,
                   enum message_type type, const void *body, enum exchange_patience patience,
                   exchange_answer_fn *answer)
{
    enum error_code code = exchange_try_call(exchange, slot, peer, type, body, patience, answer);

    if (code == ERROR_UNAVAILABLE)
        exchange_fail(exchange, code, "too many requests wait for this service", NULL);
    else if (code != ERROR_NONE)
        exchange_fail(exchange, code, "the request could not be put into words", NULL);
    return code == ERROR_NONE;
}

static const struct recovery register_first = {
    .action = "register",
    .method = "POST",
    .path = "/v1/mesh/register",
    .hint = "Register this identity, then repeat the request.",
};

static void pass_failure_on(struct exchange *exchange, const struct msg_fail *fail)
{
    enum error_code code = error_from_name(fail->code);
    char message[513];

    snprintf(message, sizeof(message), "%.*s", STR_ARGS(fail->message));
    exchange_fail(exchange, code, message, code == ERROR_NOT_REGISTERED ? &register_first : NULL);
}

bool exchange_failed(struct exchange *exchange, const struct message *answer,
                     enum message_type expected)
{
    if (answer && answer->type == expected)
        return false;
    if (!answer) {
        exchange_fail(exchange, ERROR_UNAVAILABLE, "the service does not answer", NULL);
    } else if (answer->type == MSG_fail) {
        pass_failure_on(exchange, &answer->body.fail);
    } else {
        log_error("a backend's answer is another question's",
                  LOG_TEXT("answer", proto_name(answer->type)),
                  LOG_TEXT("expected", proto_name(expected)));
        exchange_fail(exchange, ERROR_INTERNAL, "the service gave a wrong answer", NULL);
    }
    return true;
}
