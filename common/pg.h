/* PostgreSQL with natural batching, on the event loop.
 *
 * A request is one row of parameters for a statement. While a connection is idle a request goes out
 * in the same turn of the loop; while all are busy requests gather, and all that gathered for a
 * statement goes out, as soon as a connection is free, as one statement over unnest($1::…[], …). No
 * timer, nothing to tune.
 *
 * Requests with one key, whatever their statements, never run at the same time, nor twice in one
 * batch: they run in the order of their submission. A batch that fails on data is split until the
 * bad row stands alone. 40P01 and 40001 are tried again. A lost connection, SQLSTATE 25006 and
 * 57P01-57P03 reconnect with backoff and jitter, and what was in flight is sent again: every
 * statement must be idempotent, by its request id or by its nature. */
#ifndef CAF_COMMON_PG_H
#define CAF_COMMON_PG_H

#include "common/metrics.h"
#include "common/str.h"

#include <event2/event.h>
#include <libpq-fe.h>

enum { PG_PARAMS_MAX = 24 };

/* A statement that the daemon may run. sql comes from sql/DAEMON.sql (build/gen/DAEMON_sql.h).
 * batched: each parameter is an array (text format) with one element a request, in $2…; $1 is int[]
 * with the requests' ordinals, and the first result column is the ordinal of the request that the
 * row answers; a request may get no row or many. Not batched: $1… are the request's own parameters,
 * and all rows are its answer, from column 0; it is not prepared, so that PostgreSQL plans it for
 * these parameters each time: a plan for any would serve no list with optional filters well. */
struct pg_statement {
    const char *name;
    const char *sql;
    int params; /* without the ordinals; at most PG_PARAMS_MAX */
    bool batched;
};

enum pg_outcome {
    PG_OK,          /* committed; rows may be none */
    PG_REFUSED,     /* the database refused this row: sqlstate and message say why */
    PG_UNAVAILABLE, /* not answered within the deadline; it may yet have been done */
};

struct pg_answer {
    enum pg_outcome outcome;
    char sqlstate[6];    /* "" unless refused */
    const char *message; /* the primary message, "" unless refused; it may quote the row's values */
    const PGresult *result; /* NULL when unavailable */
    const int *rows;        /* this request's rows of result */
    int row_count;
    int first_column;       /* 1 for a batched statement, whose column 0 is the ordinal; else 0 */
    const char *constraint; /* the constraint that refused, "" when it was none */
};

/* Called exactly once per request, never from within pg_submit. answer lives until it returns. It
 * may call pg_submit, never pg_free. */
typedef void pg_answer_fn(void *arg, const struct pg_answer *answer);

struct pg_options {
    const char *conninfo; /* libpq's; target_session_attrs=read-write and client_encoding=UTF8 are
                             set. A host given by name is looked up while the loop waits; addresses
                             and sockets never block */
    const char *application_name;
    int connections;
    int batch_max;        /* requests in one statement */
    int queue_max;        /* requests waiting */
    int64_t statement_ms; /* the server cancels what runs longer, and it is tried again in halves; a
                             second without a word more, and the connection is given up */
    const struct pg_statement *statements; /* ends with name NULL; the batched ones
                                              are prepared on every connection */
    /* "table:PRIVILEGE"…, NULL at the end: the self-test at the first connection ends the process
     * when the role can do more. NULL: no self-test. */
    const char *const *allowed;
};

/* What happened since pg_new. */
struct pg_counters {
    uint64_t batches;     /* statements sent */
    uint64_t rows;        /* requests in them; rows / batches is the mean batch */
    uint64_t splits;      /* batches cut in two */
    uint64_t retries;     /* batches tried again after a deadlock, a lock wait or the like */
    uint64_t refused;     /* requests answered PG_REFUSED */
    uint64_t unavailable; /* requests answered PG_UNAVAILABLE */
    uint64_t losses;      /* connections lost, and attempts to connect that failed */
};

enum { PG_STATEMENTS_MAX = 32 };

/* What one statement's batches were like. */
struct pg_statement_counters {
    struct metric_histogram duration; /* from sending it to its result */
    struct metric_histogram requests; /* in it */
};

struct pg;

/* Starts connecting. options is copied; what it points to must stay. Ends the process when conninfo
 * is none, or there are too many statements or one has too many parameters. */
struct pg *pg_new(struct event_base *base, const struct pg_options *options);

/* Queues a request. statement: an entry of options->statements. key: requests with an equal key are
 * serialised (may be absent); batches are sorted by it. params: statement->params of them, UTF-8
 * text, copied here; an absent str is NULL in SQL, and one that holds a NUL byte is refused by the
 * database (22021). deadline_ms: how long from now it may wait for its answer, in milliseconds.
 * Returns false when queue_max are waiting: the caller answers
 * UNAVAILABLE, and fn is not called. */
bool pg_submit(struct pg *pg, const struct pg_statement *statement, struct str key,
               const struct str *params, int64_t deadline_ms, pg_answer_fn *fn, void *arg);

/* The value at the answer's n-th row (0…) and column (0… without the ordinal); absent when SQL
 * NULL. */
struct str pg_value(const struct pg_answer *answer, int row, int column);

/* Whether at least one connection is up (it is read-write, or it would not be). */
bool pg_writable(const struct pg *pg);

/* Requests not yet answered, waiting or in flight. */
size_t pg_pending(const struct pg *pg);

/* The counters, which live as long as pg. */
const struct pg_counters *pg_counters(const struct pg *pg);

/* The same of the n-th statement of options->statements. */
const struct pg_statement_counters *pg_statement_counters(const struct pg *pg, size_t n);

/* Closes everything; requests not answered are dropped without a call. Not from within a
 * pg_answer_fn. */
void pg_free(struct pg *pg);

#endif
