/* Batches: gathered from the runnable requests, sent as one statement, answered row by row, cut in
 * two, set aside for another attempt. Sends on the connection it is given and knows nothing of
 * connections otherwise. */
#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/pg_array.h"
#include "common/pg_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

enum {
    BATCH_BYTES = 8 << 20, /* of parameters: enough for any batch to pay */
    RETRY_FIRST_MS = 10,
    RETRY_MAX_MS = 1000,
};

/* ---- gathering ------------------------------------------------------------------------------ */

static struct pg_batch *batch_new(struct pg_queue *queue, int room)
{
    struct pg_batch *batch =
        memory_new(1, sizeof(*batch) + (size_t)room * sizeof(batch->requests[0]));

    batch->queue = queue;
    return batch;
}

static struct str request_key(const struct pg_request *request)
{
    return request->key ? (struct str){request->key->bytes, request->key->len} : STR("");
}

/* By key, so that batches lock rows in one order; without keys by age. */
static int request_compare(const void *left, const void *right)
{
    const struct pg_request *a = *(struct pg_request *const *)left;
    const struct pg_request *b = *(struct pg_request *const *)right;
    struct str a_key = request_key(a), b_key = request_key(b);
    int order = memcmp(a_key.ptr, b_key.ptr, a_key.len < b_key.len ? a_key.len : b_key.len);

    if (order == 0 && a_key.len != b_key.len)
        order = a_key.len < b_key.len ? -1 : 1;
    if (order == 0)
        order = a->turn < b->turn ? -1 : 1;
    return order;
}

struct pg_batch *pg_batch_gather(struct pg *pg, struct pg_queue *queue)
{
    int room = queue->statement->batched ? pg->options.batch_max : 1;
    struct pg_batch *batch = batch_new(queue, room);
    struct pg_request *request;
    size_t bytes = 0;

    while (batch->count < room && bytes < BATCH_BYTES && (request = queue->ready)) {
        DL_DELETE2(queue->ready, request, place_prev, place_next);
        request->state = PG_TAKEN;
        bytes += request->bytes;
        batch->requests[batch->count++] = request;
    }
    qsort(batch->requests, (size_t)batch->count, sizeof(batch->requests[0]), request_compare);
    return batch;
}

/* ---- sending -------------------------------------------------------------------------------- */

static void array_add_ordinals(struct pg_array *array, int count)
{
    char number[STR_NUMBER_BYTES];

    for (int i = 0; i < count; i++)
        pg_array_add(array, str_from_number(i, number));
}

static bool send_arrays(const struct pg_batch *batch, PGconn *link)
{
    const struct pg_statement *statement = batch->queue->statement;
    struct pg_array arrays[1 + PG_PARAMS_MAX] = {{.text = NULL}};
    const char *values[1 + PG_PARAMS_MAX];
    bool sent;

    array_add_ordinals(&arrays[0], batch->count);
    for (int i = 0; i < batch->count; i++)
        for (int k = 0; k < statement->params; k++)
            pg_array_add(&arrays[1 + k], batch->requests[i]->params[k]);
    for (int k = 0; k <= statement->params; k++)
        values[k] = pg_array_close(&arrays[k]);
    sent = PQsendQueryPrepared(link, statement->name, 1 + statement->params, values, NULL, NULL, 0);
    for (int k = 0; k <= statement->params; k++)
        pg_array_free(&arrays[k]);
    return sent;
}

static bool send_single(const struct pg_batch *batch, PGconn *link)
{
    const struct pg_statement *statement = batch->queue->statement;
    const char *values[1 + PG_PARAMS_MAX];

    for (int k = 0; k < statement->params; k++)
        values[k] = batch->requests[0]->params[k].ptr;
    return PQsendQueryParams(link, statement->sql, statement->params, NULL, values, NULL, NULL, 0);
}

bool pg_batch_send(struct pg *pg, const struct pg_batch *batch, PGconn *link)
{
    pg->counters.batches++;
    pg->counters.rows += (uint64_t)batch->count;
    metric_observe_size(&batch->queue->counters.requests, (uint64_t)batch->count);
    return batch->queue->statement->batched ? send_arrays(batch, link) : send_single(batch, link);
}

/* ---- answering ------------------------------------------------------------------------------ */

/* The request that a row of result answers, -1 when its ordinal is none of ours. */
static int row_ordinal(const struct pg_batch *batch, const PGresult *result, int row)
{
    long long ordinal;

    if (!batch->queue->statement->batched)
        return 0;
    if (!str_to_number(str_from(PQgetvalue(result, row, 0)), batch->count - 1, &ordinal))
        return -1;
    return (int)ordinal;
}

/* A result's rows, put in order of the requests they answer: request i's are rows[first[i]] to
 * rows[first[i + 1] - 1]. */
struct routing {
    int *rows, *first;
};

/* Counts each request's rows into counts[i + 1]. */
static void routing_count(const struct pg_batch *batch, const PGresult *result, int *counts)
{
    int strays = 0;

    for (int row = 0; row < PQntuples(result); row++) {
        int ordinal = row_ordinal(batch, result, row);

        if (ordinal >= 0)
            counts[ordinal + 1]++;
        else
            strays++;
    }
    if (strays)
        log_error("rows answer no request of their batch",
                  LOG_TEXT("statement", batch->queue->statement->name), LOG_NUMBER("rows", strays));
}

/* A counting sort: it keeps the rows of one request in the result's order. While rows are placed,
 * next[i] moves from request i's first place to the one behind its last, and so becomes
 * first[i + 1]. */
static struct routing routing_new(const struct pg_batch *batch, const PGresult *result)
{
    struct routing routing = {memory_new((size_t)PQntuples(result) + 1, sizeof(int)),
                              memory_new((size_t)batch->count + 2, sizeof(int))};
    int *next = routing.first + 1;

    routing_count(batch, result, next);
    for (int i = 0; i < batch->count; i++)
        next[i + 1] += next[i];
    for (int row = 0; row < PQntuples(result); row++) {
        int ordinal = row_ordinal(batch, result, row);

        if (ordinal >= 0)
            routing.rows[next[ordinal]++] = row;
    }
    return routing;
}

/* The end of the requests and of the batch. What an answer submits under the same key stands in
 * line behind it until the next line here. */
static void batch_answer(struct pg_batch *batch, const struct pg_answer *common,
                         const struct routing *routing)
{
    for (int i = 0; i < batch->count; i++) {
        struct pg_answer answer = *common;

        if (routing) {
            answer.rows = routing->rows + routing->first[i];
            answer.row_count = routing->first[i + 1] - routing->first[i];
        }
        pg_request_answer(batch->requests[i], &answer);
        pg_request_end(batch->requests[i]);
    }
    free(batch);
}

static void batch_succeed(struct pg_batch *batch, const PGresult *result)
{
    struct routing routing = routing_new(batch, result);
    struct pg_answer answer = {
        .outcome = PG_OK,
        .message = "",
        .constraint = "",
        .result = result,
        .first_column = batch->queue->statement->batched ? 1 : 0,
    };

    batch_answer(batch, &answer, &routing);
    free(routing.rows);
    free(routing.first);
}

static const char *error_field(const PGresult *result, int field)
{
    const char *text = PQresultErrorField(result, field);

    return text ? text : "";
}

static void batch_refuse(struct pg_batch *batch, const PGresult *result)
{
    struct pg_answer answer = {
        .outcome = PG_REFUSED,
        .message = error_field(result, PG_DIAG_MESSAGE_PRIMARY),
        .constraint = error_field(result, PG_DIAG_CONSTRAINT_NAME),
        .result = result,
    };

    snprintf(answer.sqlstate, sizeof(answer.sqlstate), "%s", error_field(result, PG_DIAG_SQLSTATE));
    batch_answer(batch, &answer, NULL);
}

/* ---- other attempts ------------------------------------------------------------------------- */

/* Before all others: these have waited longest. */
static void batch_set_aside(struct pg *pg, struct pg_batch *batch, int64_t wait_ms)
{
    batch->due_ms = clock_monotonic_ms() + wait_ms;
    DL_PREPEND(pg->aside, batch);
    pg_schedule(pg);
}

static struct pg_batch *batch_part(const struct pg_batch *batch, int from, int to)
{
    struct pg_batch *part = batch_new(batch->queue, to - from);

    part->attempts = batch->attempts;
    part->count = to - from;
    memcpy(part->requests, batch->requests + from, (size_t)part->count * sizeof(part->requests[0]));
    return part;
}

static void batch_halve(struct pg *pg, struct pg_batch *batch, int64_t wait_ms)
{
    int middle = batch->count / 2;

    pg->counters.splits++;
    batch_set_aside(pg, batch_part(batch, middle, batch->count), wait_ms);
    batch_set_aside(pg, batch_part(batch, 0, middle), wait_ms);
    free(batch);
}

static void batch_retry(struct pg *pg, struct pg_batch *batch, bool in_halves)
{
    int64_t wait = pg_backoff_ms((unsigned)batch->attempts++, RETRY_FIRST_MS, RETRY_MAX_MS);

    pg->counters.retries++;
    if (in_halves && batch->count > 1)
        batch_halve(pg, batch, wait);
    else
        batch_set_aside(pg, batch, wait);
}

static void log_refusal(struct pg *pg, const struct pg_batch *batch, const PGresult *result)
{
    long long suppressed;

    if (pg_quiet_passed(&pg->refusals, &suppressed))
        log_error("the database refuses a statement",
                  LOG_TEXT("statement", batch->queue->statement->name),
                  LOG_TEXT("sqlstate", error_field(result, PG_DIAG_SQLSTATE)),
                  LOG_TEXT("reason", error_field(result, PG_DIAG_MESSAGE_PRIMARY)),
                  LOG_NUMBER("suppressed", suppressed));
}

void pg_batch_finish(struct pg *pg, struct pg_batch *batch, const PGresult *result,
                     enum pg_remedy remedy)
{
    switch (remedy) {
    case PG_REMEDY_NONE:
        batch_succeed(batch, result);
        return;
    case PG_REMEDY_RETRY:
    case PG_REMEDY_HALVE:
        batch_retry(pg, batch, remedy == PG_REMEDY_HALVE);
        return;
    case PG_REMEDY_SPLIT:
        if (batch->count > 1)
            batch_halve(pg, batch, 0);
        else
            batch_refuse(batch, result);
        return;
    case PG_REMEDY_REFUSE:
    case PG_REMEDY_RECONNECT:
        log_refusal(pg, batch, result);
        batch_refuse(batch, result);
        return;
    }
}

/* Ends the requests that had their answer meanwhile: nothing of them runs any more. */
static void batch_prune(struct pg_batch *batch)
{
    int kept = 0;

    for (int i = 0; i < batch->count; i++)
        if (batch->requests[i]->fn)
            batch->requests[kept++] = batch->requests[i];
        else
            pg_request_end(batch->requests[i]);
    batch->count = kept;
}

void pg_batch_return(struct pg_batch *batch)
{
    batch_prune(batch);
    for (int i = batch->count - 1; i >= 0; i--)
        pg_request_put_back(batch->requests[i]);
    free(batch);
}

struct pg_batch *pg_batch_take_due(struct pg *pg)
{
    int64_t now = clock_monotonic_ms();
    struct pg_batch *batch, *next;

    DL_FOREACH_SAFE(pg->aside, batch, next)
    {
        if (batch->due_ms > now)
            continue;
        DL_DELETE(pg->aside, batch);
        batch_prune(batch);
        if (batch->count > 0)
            return batch;
        free(batch);
    }
    return NULL;
}

int64_t pg_batch_next_due(const struct pg *pg)
{
    int64_t now = clock_monotonic_ms(), due = INT64_MAX;
    const struct pg_batch *batch;

    DL_FOREACH(pg->aside, batch)
    {
        if (batch->due_ms < due)
            due = batch->due_ms;
    }
    if (!pg->aside)
        return -1;
    return due > now ? due - now : 0;
}
