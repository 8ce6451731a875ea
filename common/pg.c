/* Requests, from pg_submit to their one answer, and the choice of what runs next. Touches the
 * client's own tables; what goes over the wire is the connections' (pg_connection.c). Callbacks
 * come from the loop only: from a result, a deadline, never from pg_submit. */
#include "common/pg.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/pg_internal.h"

#include <stdlib.h>
#include <utlist.h>

enum { QUIET_MS = 5000 };

/* ---- a request's life ----------------------------------------------------------------------- */

void pg_request_answer(struct pg_request *request, const struct pg_answer *answer)
{
    struct pg *pg = request->pg;
    pg_answer_fn *fn = steal_pointer(request->fn);

    if (!fn)
        return;
    event_del(&request->deadline);
    pg->pending--;
    pg->counters.refused += answer->outcome == PG_REFUSED;
    pg->counters.unavailable += answer->outcome == PG_UNAVAILABLE;
    fn(request->arg, answer);
}

void pg_request_make_ready(struct pg_request *request)
{
    request->state = PG_READY;
    request->turn = request->pg->turn++;
    DL_APPEND2(request->queue->ready, request, place_prev, place_next);
    pg_schedule(request->pg);
}

void pg_request_put_back(struct pg_request *request)
{
    request->state = PG_READY;
    DL_PREPEND2(request->queue->ready, request, place_prev, place_next);
    pg_schedule(request->pg);
}

static void request_free(struct pg_request *request)
{
    struct pg *pg = request->pg;

    DL_DELETE(pg->requests, request);
    pg->held--;
    pg->pending -= request->fn != NULL;
    event_del(&request->deadline);
    free(request);
}

void pg_request_end(struct pg_request *request)
{
    struct pg_request *heir = pg_key_leave(&request->pg->keys, request);

    if (request->state == PG_READY)
        DL_DELETE2(request->queue->ready, request, place_prev, place_next);
    if (heir)
        pg_request_make_ready(heir);
    request_free(request);
}

/* One in a batch stays there and keeps its key until the batch ends: it may be running. */
static void request_expire(evutil_socket_t fd, short what, void *arg)
{
    static const struct pg_answer unavailable = {
        .outcome = PG_UNAVAILABLE, .message = "", .constraint = ""};
    struct pg_request *request = arg;

    (void)fd;
    (void)what;
    pg_request_answer(request, &unavailable);
    if (request->state != PG_TAKEN)
        pg_request_end(request);
}

/* ---- submitting ----------------------------------------------------------------------------- */

/* Copies a parameter to out, which takes len + 1 bytes, and returns its view. A NUL byte cannot be
 * sent as text: 0xff, which UTF-8 never has, takes its place, so that the server refuses the row
 * and does not store it cut short. */
static struct str param_copy(struct str param, char *out)
{
    if (!param.ptr)
        return STR_ABSENT;
    memcpy(out, param.ptr, param.len);
    for (char *nul = out; (nul = memchr(nul, '\0', (size_t)(out + param.len - nul)));)
        *nul = '\xff';
    out[param.len] = '\0';
    return (struct str){out, param.len};
}

static struct pg_request *request_new(const struct str *params, size_t count)
{
    size_t bytes = 0;
    struct pg_request *request;
    char *out;

    for (size_t i = 0; i < count; i++)
        bytes += params[i].len + 1;
    request = memory_new(1, sizeof(*request) + count * sizeof(*params) + bytes);
    request->bytes = bytes;
    out = (char *)(request->params + count);
    for (size_t i = 0; i < count; i++) {
        request->params[i] = param_copy(params[i], out);
        out += params[i].len + 1;
    }
    return request;
}

static struct pg_queue *queue_find(const struct pg *pg, const struct pg_statement *statement)
{
    for (size_t i = 0; i < pg->queue_count; i++)
        if (pg->queues[i].statement == statement)
            return &pg->queues[i];
    log_fatal("a statement is none of this client's", LOG_TEXT("statement", statement->name));
}

bool pg_submit(struct pg *pg, const struct pg_statement *statement, struct str key,
               const struct str *params, int64_t deadline_ms, pg_answer_fn *fn, void *arg)
{
    struct timeval deadline = clock_timeval(deadline_ms);
    struct pg_request *request;

    if (pg->held - pg->running >= (size_t)pg->options.queue_max)
        return false;
    request = request_new(params, (size_t)statement->params);
    request->pg = pg;
    request->queue = queue_find(pg, statement);
    request->fn = fn;
    request->arg = arg;
    evtimer_assign(&request->deadline, pg->base, request_expire, request);
    event_add(&request->deadline, &deadline);
    DL_APPEND(pg->requests, request);
    pg->held++;
    pg->pending++;
    if (pg_key_join(&pg->keys, request, key))
        pg_request_make_ready(request);
    return true;
}

/* ---- choosing what runs next ---------------------------------------------------------------- */

/* The statement whose first request has been runnable for longest; NULL when nothing can run. */
static struct pg_queue *queue_choose(const struct pg *pg)
{
    struct pg_queue *chosen = NULL;

    for (size_t i = 0; i < pg->queue_count; i++) {
        struct pg_queue *queue = &pg->queues[i];

        if (queue->ready && (!chosen || queue->ready->turn < chosen->ready->turn))
            chosen = queue;
    }
    return chosen;
}

/* What was set aside is older than what waits. */
static struct pg_batch *batch_choose(struct pg *pg)
{
    struct pg_batch *batch = pg_batch_take_due(pg);
    struct pg_queue *queue = batch ? NULL : queue_choose(pg);

    return queue ? pg_batch_gather(pg, queue) : batch;
}

static void pg_dispatch(evutil_socket_t fd, short what, void *arg)
{
    struct pg *pg = arg;
    struct pg_connection *connection;
    struct pg_batch *batch;
    int64_t due;

    (void)fd;
    (void)what;
    while ((connection = pg_connection_find_idle(pg)) && (batch = batch_choose(pg)))
        pg_connection_run(connection, batch);
    due = connection ? pg_batch_next_due(pg) : -1;
    if (due >= 0)
        event_add(&pg->dispatch, &(struct timeval){due / 1000, due % 1000 * 1000});
}

/* Not at once: what one turn of the loop submits goes out together. */
void pg_schedule(struct pg *pg)
{
    event_active(&pg->dispatch, EV_TIMEOUT, 1);
}

/* ---- small things for all parts ------------------------------------------------------------- */

bool pg_quiet_passed(struct pg_quiet *quiet, long long *suppressed)
{
    int64_t now = clock_monotonic_ms();

    if (now < quiet->until_ms) {
        quiet->suppressed++;
        return false;
    }
    *suppressed = quiet->suppressed;
    *quiet = (struct pg_quiet){.until_ms = now + QUIET_MS};
    return true;
}

int64_t pg_backoff_ms(unsigned attempts, int64_t first_ms, int64_t max_ms)
{
    int64_t wait = first_ms;
    uint32_t random;

    while (attempts-- > 0 && wait < max_ms)
        wait *= 2;
    if (wait > max_ms)
        wait = max_ms;
    ids_random(&random, sizeof(random));
    return wait - random % (wait / 2 + 1);
}

/* ---- the client ----------------------------------------------------------------------------- */

static void queues_open(struct pg *pg)
{
    while (pg->options.statements[pg->queue_count].name)
        pg->queue_count++;
    if (pg->queue_count > PG_STATEMENTS_MAX)
        log_fatal("too many statements");
    pg->queues = memory_new(pg->queue_count + 1, sizeof(*pg->queues));
    for (size_t i = 0; i < pg->queue_count; i++) {
        const struct pg_statement *statement = &pg->options.statements[i];

        if (statement->params > PG_PARAMS_MAX)
            log_fatal("a statement has too many parameters",
                      LOG_TEXT("statement", statement->name));
        pg->queues[i].statement = statement;
    }
}

struct pg *pg_new(struct event_base *base, const struct pg_options *options)
{
    struct pg *pg = memory_new(1, sizeof(*pg));

    pg->base = base;
    pg->options = *options;
    pg->proven = options->allowed == NULL;
    pg_conninfo_load(&pg->conninfo, options);
    pg->connect_ms = pg_conninfo_connect_ms(&pg->conninfo);
    queues_open(pg);
    evtimer_assign(&pg->dispatch, base, pg_dispatch, pg);
    pg->connections = memory_new((size_t)options->connections, sizeof(*pg->connections));
    pg_connections_open(pg);
    return pg;
}

struct str pg_value(const struct pg_answer *answer, int row, int column)
{
    int at = answer->rows[row];

    column += answer->first_column;
    if (PQgetisnull(answer->result, at, column))
        return STR_ABSENT;
    return (struct str){PQgetvalue(answer->result, at, column),
                        (size_t)PQgetlength(answer->result, at, column)};
}

bool pg_writable(const struct pg *pg)
{
    for (int i = 0; i < pg->connection_count; i++)
        if (pg->connections[i].state >= PG_CONNECTION_IDLE)
            return true;
    return false;
}

size_t pg_pending(const struct pg *pg)
{
    return pg->pending;
}

const struct pg_counters *pg_counters(const struct pg *pg)
{
    return &pg->counters;
}

const struct pg_statement_counters *pg_statement_counters(const struct pg *pg, size_t n)
{
    return &pg->queues[n].counters;
}

void pg_free(struct pg *pg)
{
    struct pg_batch *batch, *next_batch;
    struct pg_request *request, *next_request;

    pg_connections_close(pg);
    event_del(&pg->dispatch);
    DL_FOREACH_SAFE(pg->aside, batch, next_batch)
    {
        free(batch);
    }
    DL_FOREACH_SAFE(pg->requests, request, next_request)
    {
        request_free(request);
    }
    pg_key_free_all(&pg->keys);
    free(pg->queues);
    free(pg->connections);
    pg_conninfo_free(&pg->conninfo);
    free(pg);
}
