/* PostgreSQL with natural batching, on the event loop.
 *
 * A request is one row of parameters for a statement. While a connection is idle a request goes out
 * at once; while all are busy requests gather, and all that gathered for a statement goes out, as
 * soon as a connection is free, as one statement over unnest($1::…[], …). No timer, nothing to
 * tune.
 *
 * Requests with one key never run at the same time, nor twice in one batch: a second one waits for
 * the first. A batch that fails on data is split until the bad row stands alone. 40P01 and 40001
 * are tried again. A lost connection, SQLSTATE 25006 and 57P01-57P03 reconnect with backoff and
 * jitter, and what was in flight is sent again: every statement must be idempotent, by its request
 * id or by its nature. */
#ifndef CAF_COMMON_PG_H
#define CAF_COMMON_PG_H

#include "common/str.h"

#include <event2/event.h>
#include <libpq-fe.h>

enum { PG_PARAMS_MAX = 24 };

/* A statement that the daemon may run. sql comes from sql/DAEMON.sql (build/gen/DAEMON_sql.h).
 * batched: each parameter is an array (text format) with one element a request, in $2…; $1 is int[]
 * with the requests' ordinals, and the first result column is the ordinal of the request that the
 * row answers; a request may get no row or many. Not batched: $1… are the request's own parameters,
 * and all rows are its answer, from column 0. */
struct pg_statement {
    const char *name;
    const char *sql;
    int params; /* without the ordinals */
    bool batched;
};

enum pg_outcome {
    PG_OK,
    PG_REFUSED,     /* the database refused this row: sqlstate and message say why */
    PG_UNAVAILABLE, /* not answered within the deadline; it may yet have been done */
};

struct pg_answer {
    enum pg_outcome outcome;
    char sqlstate[6];
    const char *message;
    const PGresult *result;
    const int *rows; /* this request's rows of result */
    int row_count;
    int first_column; /* 1 for a batched statement, whose column 0 is the ordinal; else 0 */
};

/* Called exactly once per request, never from within pg_submit. answer lives until it returns. */
typedef void pg_answer_fn(void *arg, const struct pg_answer *answer);

struct pg_options {
    const char *conninfo; /* libpq's; target_session_attrs=read-write is added */
    const char *application_name;
    int connections;
    int batch_max;        /* requests in one statement */
    int queue_max;        /* requests waiting */
    int64_t statement_ms; /* a statement that runs longer: the connection is given up */
    const struct pg_statement *statements; /* ends with name NULL; prepared on every connection */
    const char *const
        *allowed; /* "table:PRIVILEGE"…, NULL at the end: the self-test at the first connection
                     ends the process when the role can do more; NULL: no self-test */
};

struct pg;

/* Starts connecting. options is copied; what it points to must stay. */
struct pg *pg_new(struct event_base *base, const struct pg_options *options);

/* Queues a request. statement: an entry of options->statements. key: requests with an equal key are
 * serialised (may be absent); batches are sorted by it. params: statement->params of them, copied
 * here; an absent str is NULL in SQL. Returns false when queue_max are waiting: the caller answers
 * UNAVAILABLE, and fn is not called. */
bool pg_submit(struct pg *pg, const struct pg_statement *statement, struct str key,
               const struct str *params, int64_t deadline_ms, pg_answer_fn *fn, void *arg);

/* The value at the answer's n-th row (0…) and column (0… without the ordinal); absent when SQL
 * NULL. */
struct str pg_value(const struct pg_answer *answer, int row, int column);

/* Whether at least one connection is up (it is read-write, or it would not be). */
bool pg_writable(const struct pg *pg);

/* Requests waiting or in flight. */
size_t pg_pending(const struct pg *pg);

/* Closes everything; requests not answered are dropped without a call. */
void pg_free(struct pg *pg);

#endif
