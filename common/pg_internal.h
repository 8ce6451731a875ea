/* The parts of common/pg behind its header: what each owns, and who calls whom.
 *
 *   pg.c             requests from pg_submit to their one answer; which batch goes next
 *   pg_key.c         requests with one key stand in line; the first holds the key
 *   pg_batch.c       a batch: gathered, sent, answered row by row, cut in two, set aside
 *   pg_connection.c  a connection's life, from the first attempt to its loss and the next
 *   pg_session.c     what runs on a new connection before it counts as up
 *   pg_selftest.c    the proof that the role can do no more than it must
 *   pg_conninfo.c    where to connect and how
 *   pg_remedy.c      what each kind of error calls for */
#ifndef CAF_COMMON_PG_INTERNAL_H
#define CAF_COMMON_PG_INTERNAL_H

#include "common/pg.h"

#include <event2/event_struct.h>
#include <uthash.h>

/* ---- requests ------------------------------------------------------------------------------- */

enum pg_request_state {
    PG_BLOCKED, /* in its key's line: another request holds the key */
    PG_READY,   /* in its statement's queue; holds its key, if it has one */
    PG_TAKEN,   /* in a batch; holds its key, if it has one */
};

struct pg_request {
    struct pg *pg;
    struct pg_queue *queue;
    struct pg_key *key; /* NULL: nothing to wait for */
    enum pg_request_state state;
    uint64_t turn;    /* when it first became runnable: the lowest goes first */
    pg_answer_fn *fn; /* NULL once answered */
    void *arg;
    struct event deadline;
    struct pg_request *prev, *next;             /* all requests */
    struct pg_request *place_prev, *place_next; /* while blocked or ready */
    size_t bytes;                               /* of the parameters */
    struct str params[];                        /* each with a NUL byte after it */
};

/* Calls fn with the answer, unless the request has had its answer already. */
void pg_request_answer(struct pg_request *request, const struct pg_answer *answer);

/* Puts a request that holds its key, or has none, at the end of its statement's queue. */
void pg_request_make_ready(struct pg_request *request);

/* Puts a request that was in a batch back at the front of its statement's queue. */
void pg_request_put_back(struct pg_request *request);

/* Takes the request out of wherever it stands, hands its key on, and frees it. Not answered here.
 */
void pg_request_end(struct pg_request *request);

/* ---- keys (pg_key.c) ------------------------------------------------------------------------ */

struct pg_key {
    UT_hash_handle hh;
    struct pg_request *line; /* who waits for the holder, in order */
    size_t len;
    char bytes[];
};

/* Binds the request to its key. Returns whether it holds the key; else it stands in line. */
bool pg_key_join(struct pg_key **keys, struct pg_request *request, struct str key);

/* Unbinds the request. Returns the request that holds the key from now on, NULL when none does or
 * the holder stays. */
struct pg_request *pg_key_leave(struct pg_key **keys, struct pg_request *request);

/* Frees all keys. */
void pg_key_free_all(struct pg_key **keys);

/* ---- batches (pg_batch.c) ------------------------------------------------------------------- */

struct pg_queue {
    const struct pg_statement *statement;
    struct pg_request *ready; /* in the order in which they became so: no line behind one key,
                                 however long, comes before another key's turn */
    struct pg_statement_counters counters;
};

/* Requests with different keys for one statement, sorted by key. Owned by the connection that runs
 * it, else by the list of those set aside. */
struct pg_batch {
    struct pg_batch *prev, *next;
    struct pg_queue *queue;
    int attempts;   /* that failed for a reason that may pass */
    int64_t due_ms; /* when set aside: not before, on the monotonic clock */
    int count;
    struct pg_request *requests[];
};

/* What to do about a statement that failed (pg_remedy.c). */
enum pg_remedy {
    PG_REMEDY_NONE,      /* it did not fail */
    PG_REMEDY_SPLIT,     /* the data's fault: halves, until the bad row stands alone */
    PG_REMEDY_REFUSE,    /* the statement's or the grants' fault: no row of it can do better */
    PG_REMEDY_RETRY,     /* again, a little later */
    PG_REMEDY_HALVE,     /* too slow or locked out: again in halves, a little later */
    PG_REMEDY_RECONNECT, /* the server's or the session's fault: again on another connection */
};

/* The remedy for result. NULL and a result without SQLSTATE are a lost link. */
enum pg_remedy pg_remedy_for(const PGresult *result);

/* A batch of the first runnable requests of queue, which has at least one. */
struct pg_batch *pg_batch_gather(struct pg *pg, struct pg_queue *queue);

/* Sends the batch; false when the connection took it not. */
bool pg_batch_send(struct pg *pg, const struct pg_batch *batch, PGconn *link);

/* Ends the batch: answers its requests from result, or cuts it, or sets it aside, as remedy says
 * (any but RECONNECT). result stays the caller's. */
void pg_batch_finish(struct pg *pg, struct pg_batch *batch, const PGresult *result,
                     enum pg_remedy remedy);

/* Puts the requests back at the front of their queue, but for those answered meanwhile. */
void pg_batch_return(struct pg_batch *batch);

/* Takes the first batch set aside that is due, without those answered meanwhile; NULL when none is.
 */
struct pg_batch *pg_batch_take_due(struct pg *pg);

/* Milliseconds until the next batch set aside is due, -1 when there is none. */
int64_t pg_batch_next_due(const struct pg *pg);

/* ---- connections (pg_connection.c) ---------------------------------------------------------- */

enum pg_connection_state {
    PG_CONNECTION_DOWN,       /* waits for its next attempt */
    PG_CONNECTION_CONNECTING, /* libpq negotiates */
    PG_CONNECTION_SETTLING,   /* the session's steps run (pg_session.c) */
    PG_CONNECTION_IDLE,
    PG_CONNECTION_BUSY, /* a batch runs */
};

struct pg_connection {
    struct pg *pg;
    int number;
    PGconn *link;
    enum pg_connection_state state;
    struct event io, timer;
    short watched;          /* what io waits for */
    unsigned attempts;      /* failed in a row; each doubles the wait */
    unsigned first_host;    /* of the list: moved on when an attempt hangs */
    int64_t up_ms;          /* monotonic, 0 until up */
    int step;               /* of the session's */
    struct pg_batch *batch; /* while busy */
    int64_t sent_us;        /* when it went out, monotonic */
    PGresult *result;       /* of what runs; not to be believed before the server is ready again */
};

/* Opens the pool: one connection alone as long as the self-test is to be passed. */
void pg_connections_open(struct pg *pg);

/* An idle connection, NULL when none is. */
struct pg_connection *pg_connection_find_idle(const struct pg *pg);

/* Runs the batch on an idle connection. */
void pg_connection_run(struct pg_connection *connection, struct pg_batch *batch);

void pg_connections_close(struct pg *pg);

/* ---- sessions (pg_session.c, pg_selftest.c) ------------------------------------------------- */

enum pg_session_progress { PG_SESSION_GOES_ON, PG_SESSION_READY, PG_SESSION_FAILED };

/* Sends the session's next step. READY when there is none; FAILED when the link took it not. */
enum pg_session_progress pg_session_advance(struct pg_connection *connection);

/* Judges the result of the step that ran. False, logged: the connection is of no use now. */
bool pg_session_judge(struct pg_connection *connection, const PGresult *result);

/* The self-test's three steps, as pg_session.c runs them: sending is libpq's 1 or 0. */
int pg_selftest_send_catalogue(struct pg_connection *connection);
bool pg_selftest_judge_catalogue(const PGresult *result);
int pg_selftest_send_allowed(struct pg_connection *connection);
int pg_selftest_send_attempts(struct pg_connection *connection);
bool pg_selftest_judge_attempts(const PGresult *result);

/* ---- where to connect (pg_conninfo.c) ------------------------------------------------------- */

enum { PG_CONNINFO_MAX = 64 };

struct pg_conninfo {
    PQconninfoOption *parsed;
    const char *keywords[PG_CONNINFO_MAX], *values[PG_CONNINFO_MAX]; /* end with NULL */
};

/* Reads options->conninfo; ends the process when it is none. */
void pg_conninfo_load(struct pg_conninfo *info, const struct pg_options *options);

/* Starts to connect, trying the hosts from the first_host-th on, round the list. */
PGconn *pg_conninfo_connect(const struct pg_conninfo *info, unsigned first_host);

/* How long an attempt to connect may take: connect_timeout; 0 is an hour. Ends the process when it
 * is no number. */
int64_t pg_conninfo_connect_ms(const struct pg_conninfo *info);

void pg_conninfo_free(struct pg_conninfo *info);

/* ---- the whole ------------------------------------------------------------------------------ */

/* Lets one log line through each few seconds, and counts the others. */
struct pg_quiet {
    int64_t until_ms;
    long long suppressed;
};

struct pg {
    struct event_base *base;
    struct pg_options options;
    struct pg_conninfo conninfo;
    int64_t connect_ms;
    struct pg_queue *queues; /* one per statement, in their order */
    size_t queue_count;
    struct pg_key *keys;
    struct pg_request *requests; /* all */
    struct pg_batch *aside;
    struct pg_connection *connections;
    int connection_count; /* opened so far */
    struct event dispatch;
    bool proven;    /* the self-test has passed, or there is none */
    size_t held;    /* requests in existence */
    size_t running; /* of them, on a connection; the others wait */
    size_t pending; /* of them, not yet answered */
    uint64_t turn;  /* the next request's to become runnable */
    struct pg_quiet refusals, losses;
    struct pg_counters counters;
};

/* Has pg_dispatch run in this turn of the loop. */
void pg_schedule(struct pg *pg);

/* Whether a line may be logged now; *suppressed: how many were not since the last. */
bool pg_quiet_passed(struct pg_quiet *quiet, long long *suppressed);

/* A wait that doubles from first_ms with each attempt (0…) up to max_ms, of which a random part of
 * up to a half is taken off, so that no herd forms. */
int64_t pg_backoff_ms(unsigned attempts, int64_t first_ms, int64_t max_ms);

#endif
