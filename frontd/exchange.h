/* One request and its answer, as handlers see them. */
#ifndef CAF_FRONTD_EXCHANGE_H
#define CAF_FRONTD_EXCHANGE_H

#include "common/errors.h"
#include "common/ids.h"
#include "common/ipc.h"
#include "frontd/identity.h"

struct exchange;
struct worker;

/* Answers the exchange, now or later; it may be gone as soon as it is answered. */
typedef void exchange_handler(struct exchange *exchange);

/* The rows of routes.def by number; none: the request found no route. */
enum route_number {
    ROUTE_none,
#define ROUTE(method, path, permission, query, handler) ROUTE_##handler,
#include "frontd/routes.def"
#undef ROUTE
    ROUTE_COUNT,
};

/* Who reads a route's query: nobody, and parameters are refused; or its handler. */
enum route_query { NO_QUERY, QUERY_TABLE, ANY_QUERY };

struct route {
    enum route_number number;
    const char *method, *path;
    unsigned permission; /* MAY_ bit, 0: anyone */
    enum route_query query;
    exchange_handler *handle;
};

enum { EXCHANGE_CALLS_MAX = 4 };

/* A backend's answer to the call in that slot; NULL: the deadline passed. */
typedef void exchange_answer_fn(struct exchange *exchange, size_t slot,
                                const struct message *answer);

/* A call under way; it is cancelled when the connection ends. */
struct exchange_call {
    struct exchange *exchange;
    struct ipc_call *call; /* NULL: none */
    exchange_answer_fn *answer;
};

/* A part of a connection, made anew for each request. Views live until the exchange is answered. */
struct exchange {
    struct worker *worker;
    const struct route *route;
    const struct identity *identity;
    bool certificate_expired;     /* since the handshake: the identity is nobody's now */
    const char *source_ip;        /* by the contract (frontd/source.h) */
    struct str source_ip_claimed; /* what a peer that is not believed says of it; absent: nothing */
    struct str method, path, query, content_type, body;
    struct str parameter; /* what stands for {name} in the route's path; absent where it has none */
    char trace_id[TRACE_ID_LEN + 1];
    int64_t received_ms; /* wall clock: the time of every record that comes of it */
    int64_t started_us;  /* the same on the monotonic clock */
    struct exchange_call calls[EXCHANGE_CALLS_MAX];
    void *state; /* the handler's own, freed when the exchange is over */
};

/* Answers with a JSON body made by the format. Exactly once per exchange, from the handler or
 * later. */
void exchange_answer(struct exchange *exchange, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What a client can do about an error. */
struct recovery {
    const char *action, *method, *path, *hint;
};

/* Answers with the one error shape of the contract. message: for people, any text; recovery NULL:
 * none. */
void exchange_fail(struct exchange *exchange, enum error_code code, const char *message,
                   const struct recovery *recovery);

/* Answers 405 with the methods that the route does know. */
void exchange_fail_method(struct exchange *exchange, const char *allow);

/* How long a backend may take: timeouts.read_deadline_seconds, .write_deadline_seconds, or two
 * seconds. */
enum exchange_patience { PATIENCE_READ, PATIENCE_WRITE, PATIENCE_CHECK };

/* As exchange_call, but when the call cannot be made the exchange is not answered. ERROR_NONE: it
 * is made; UNAVAILABLE: too many wait already; INTERNAL: body is out of the message's bounds. */
enum error_code exchange_try_call(struct exchange *exchange, size_t slot, enum proto_peer peer,
                                  enum message_type type, const void *body,
                                  enum exchange_patience patience, exchange_answer_fn *answer);

/* Calls a backend; the call takes slot `slot` until its answer. False: it could not be made, and
 * the exchange has been answered with 503, or with 500 where that is our own fault. */
bool exchange_call(struct exchange *exchange, size_t slot, enum proto_peer peer,
                   enum message_type type, const void *body, enum exchange_patience patience,
                   exchange_answer_fn *answer);

/* Sees to every answer that is not of the expected type: NULL (the deadline passed), MSG_fail, and
 * what only a broken backend says, which is INTERNAL and logged. True: it was one, and the exchange
 * is answered. */
bool exchange_failed(struct exchange *exchange, const struct message *answer,
                     enum message_type expected);

#endif
