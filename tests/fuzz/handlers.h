/* For fuzz targets of route handlers: stand-ins of what a handler calls. A request that a handler
 * lets through must be a message within its bounds: what frontd has validated, the codec does not
 * refuse. */
#ifndef CAF_TESTS_FUZZ_HANDLERS_H
#define CAF_TESTS_FUZZ_HANDLERS_H

#include "frontd/handlers.h"
#include "frontd/worker.h"
#include "tests/fuzz/fuzz.h"

static int outcomes; /* of the exchange under way: called, or refused with an error */

static const struct route routes[] = {
#define ROUTE(method, path, permission, query, handler)                                            \
    {ROUTE_##handler, method, path, permission, query, handler},
#include "frontd/routes.def"
#undef ROUTE
};

/* The pick-th of the method's /v1 routes, counted around. */
static inline const struct route *pick_route(const char *method, unsigned pick)
{
    size_t at = 0;

    for (;; at = (at + 1) % (sizeof(routes) / sizeof(routes[0])))
        if (strcmp(routes[at].method, method) == 0 && strncmp(routes[at].path, "/v1/", 4) == 0 &&
            pick-- == 0)
            return &routes[at];
}

/* Has the picked route's handler serve the exchange, which must come to one end. */
static inline void run_handler(struct exchange *exchange, unsigned pick)
{
    static char spiffe_id[] = "spiffe://caf.example/agent/acme/a-1";
    const struct identity identity = {IDENTITY_AGENT, spiffe_id, STR("acme"), STR("a-1"),
                                      ROLE_agent};

    exchange->route = pick_route(exchange->method.ptr, pick);
    exchange->identity = &identity;
    exchange->source_ip = "192.0.2.1";
    ids_trace(exchange->trace_id);
    outcomes = 0;
    exchange->route->handle(exchange);
    MUST_HOLD(outcomes == 1);
    free(exchange->state);
}

enum error_code exchange_try_call(struct exchange *exchange, size_t slot, enum proto_peer peer,
                                  enum message_type type, const void *body,
                                  enum exchange_patience patience, exchange_answer_fn *answer)
{
    const struct request_id id = {{0}};
    struct message message;
    struct frame frame;
    const char *why;

    (void)exchange, (void)peer, (void)patience;
    MUST_HOLD(slot < EXCHANGE_CALLS_MAX && answer);
    MUST_HOLD(proto_encode(type, &id, body, &frame, &why));
    MUST_HOLD(proto_decode(frame.bytes + PROTO_FRAME_HEAD, frame.len - PROTO_FRAME_HEAD,
                           PEER_FRONTD, &message, &why));
    free(frame.bytes);
    outcomes++;
    return ERROR_NONE;
}

bool exchange_call(struct exchange *exchange, size_t slot, enum proto_peer peer,
                   enum message_type type, const void *body, enum exchange_patience patience,
                   exchange_answer_fn *answer)
{
    return exchange_try_call(exchange, slot, peer, type, body, patience, answer) == ERROR_NONE;
}

void exchange_fail(struct exchange *exchange, enum error_code code, const char *message,
                   const struct recovery *recovery)
{
    (void)exchange, (void)code, (void)recovery;
    MUST_HOLD(str_is_utf8(str_from(message)));
    outcomes++;
}

void exchange_answer(struct exchange *exchange, int status, const char *format, ...)
{
    (void)exchange, (void)status, (void)format;
    outcomes++;
}

bool exchange_failed(struct exchange *exchange, const struct message *answer,
                     enum message_type expected)
{
    (void)exchange, (void)answer, (void)expected;
    return true;
}

bool worker_tell(struct worker *worker, enum proto_peer peer, enum message_type type,
                 const void *body)
{
    (void)worker, (void)peer, (void)type, (void)body;
    return true;
}

#endif
