/* Counts auth.* events in buckets. The first note of a bucket becomes a row at once; its repeats
 * are counted, and become one row when the bucket's window ends. A bucket lives on while repeats
 * come, and goes with the first window that has none. Of each bucket at most one row is on its way
 * to the database, so that the database may be away for as long as it likes. */
#include "eventd/aggregate.h"

#include "eventd/bucket.h"
#include "eventd/insist.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <utlist.h>

struct aggregate {
    struct eventd *daemon;
    struct bucket *table;
    struct bucket *order; /* the one whose window ends first in front */
    size_t kinds[BUCKET_OVERFLOW + 1];
    uint64_t unwritten;
    struct event *window_ends;
    struct aggregate_counters counters;
};

/* A row on its way to the database. */
struct row {
    struct aggregate *aggregate;
    struct bucket *bucket;
    struct request_id id;
    uint64_t count;
    bool first;
};

/* ---- buckets -------------------------------------------------------------------------------- */

static struct bucket *find(struct aggregate *aggregate, const struct bucket_key *key)
{
    struct bucket *bucket;

    HASH_FIND(hh, aggregate->table, key->bytes, key->len, bucket);
    return bucket;
}

static bool has_room(const struct aggregate *aggregate, enum bucket_kind kind)
{
    const struct eventd_options *options = &aggregate->daemon->options;

    switch (kind) {
    case BUCKET_IDENTITY:
        return aggregate->kinds[kind] < (size_t)options->aggregate_identities;
    case BUCKET_ADDRESS:
        return aggregate->kinds[kind] < (size_t)options->aggregate_addresses;
    default:
        return true; /* one a type */
    }
}

static void begin_window(struct aggregate *aggregate, struct bucket *bucket)
{
    int64_t length = aggregate->daemon->options.aggregate_seconds * 1000;
    struct timeval wait = clock_timeval(length);

    bucket->ends_ms = clock_monotonic_ms() + length;
    DL_APPEND(aggregate->order, bucket);
    if (aggregate->order == bucket)
        event_add(aggregate->window_ends, &wait);
}

static struct bucket *add(struct aggregate *aggregate, const struct bucket_key *key,
                          const char *severity)
{
    struct bucket *bucket = bucket_new(key, severity);

    HASH_ADD_KEYPTR(hh, aggregate->table, bucket->key, bucket->key_len, bucket);
    aggregate->kinds[bucket->kind]++;
    begin_window(aggregate, bucket);
    return bucket;
}

static void drop(struct aggregate *aggregate, struct bucket *bucket)
{
    aggregate->kinds[bucket->kind]--;
    HASH_DEL(aggregate->table, bucket);
    bucket_free(bucket);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void log_refused(const struct row *row, const struct pg_answer *answer)
{
    log_error("the database refused an event", LOG_STR("type", row->bucket->type),
              LOG_NUMBER("count", (long long)row->count), LOG_TEXT("sqlstate", answer->sqlstate),
              LOG_TEXT("reason", answer->message));
}

static void on_row(void *arg, const struct pg_answer *answer)
{
    struct row *row = arg;
    struct aggregate *aggregate = row->aggregate;

    row->bucket->rows--;
    if (answer->outcome != PG_UNAVAILABLE && !row->first)
        aggregate->unwritten -= row->count;
    if (answer->outcome == PG_REFUSED) {
        aggregate->counters.refused += row->count;
        log_refused(row, answer);
    }
    aggregate->counters.rows += answer->outcome == PG_OK;
    if (row->first)
        notes_settle(aggregate->daemon, &row->id, answer);
    free(row);
}

/* What one row says beyond its bucket. */
struct row_values {
    struct request_id id;
    struct str source_ip, sample, repeats;
    uint64_t count;
    int64_t occurred_at;
    bool first;
};

static void send_row(struct aggregate *aggregate, struct bucket *bucket,
                     const struct row_values *values)
{
    char id[UUID_TEXT_BYTES], count[STR_NUMBER_BYTES], occurred_ms[STR_NUMBER_BYTES];
    struct row *row = memory_new(1, sizeof(*row));

    ids_uuid_text(values->id.bytes, id);
    const struct str params[] = {
        str_from(id),
        bucket->tenant,
        bucket->type,
        str_from(bucket->severity),
        bucket->spiffe_id,
        values->source_ip,
        bucket->details,
        values->sample,
        values->repeats,
        str_from_number((long long)values->count, count),
        str_from_number(values->occurred_at, occurred_ms),
        str_from(aggregate->daemon->back.node),
    };
    *row = (struct row){aggregate, bucket, values->id, values->count, values->first};
    bucket->rows++;
    insist_submit(aggregate->daemon->insist, &eventd_statements[STATEMENT_NOTE], params, on_row,
                  row);
}

static void send_first(struct aggregate *aggregate, struct bucket *bucket,
                       const struct request_id *id, const struct msg_event_note *note)
{
    const struct row_values values = {
        .id = *id,
        .source_ip = note->source_ip,
        .sample = bucket->kind == BUCKET_OVERFLOW ? STR_ABSENT : note->sample,
        .repeats = STR_ABSENT,
        .count = note->count,
        .occurred_at = note->occurred_at,
        .first = true,
    };

    send_row(aggregate, bucket, &values);
}

static void send_repeats(struct aggregate *aggregate, struct bucket *bucket)
{
    const struct bucket_repeats *repeats = &bucket->repeats;
    cleanup_free char *text = bucket_repeats_text(bucket);
    char address[INET6_ADDRSTRLEN];
    struct row_values values = {
        .id = repeats->id,
        .source_ip = STR_ABSENT,
        .sample = repeats->samples_differ ? STR_ABSENT : str_from(repeats->sample),
        .repeats = str_from(text),
        .count = repeats->count,
        .occurred_at = repeats->occurred_at,
    };

    bucket_address_text(bucket, address);
    if (*address)
        values.source_ip = str_from(address);
    send_row(aggregate, bucket, &values);
    bucket_restart(bucket);
}

/* ---- windows -------------------------------------------------------------------------------- */

static void end_window(struct aggregate *aggregate, struct bucket *bucket)
{
    DL_DELETE(aggregate->order, bucket);
    if (bucket->repeats.count == 0 && bucket->rows == 0) {
        drop(aggregate, bucket);
        return;
    }
    if (bucket->rows == 0)
        send_repeats(aggregate, bucket);
    begin_window(aggregate, bucket);
}

static void on_window_ends(evutil_socket_t fd, short what, void *arg)
{
    struct aggregate *aggregate = arg;
    int64_t now = clock_monotonic_ms();
    struct timeval wait;

    (void)fd;
    (void)what;
    while (aggregate->order && aggregate->order->ends_ms <= now)
        end_window(aggregate, aggregate->order);
    if (!aggregate->order)
        return;
    wait = clock_timeval(aggregate->order->ends_ms - now);
    event_add(aggregate->window_ends, &wait);
}

/* ---- for all -------------------------------------------------------------------------------- */

bool aggregate_take(struct aggregate *aggregate, const struct request_id *id,
                    const struct msg_event_note *note, const char *severity)
{
    struct bucket_key key;
    struct bucket *bucket;

    aggregate->counters.noted += note->count;
    bucket_key_of(&key, note);
    bucket = find(aggregate, &key);
    if (!bucket && !has_room(aggregate, key.kind)) {
        aggregate->counters.overflowed += note->count;
        bucket_key_overflow(&key, note);
        bucket = find(aggregate, &key);
    }
    if (!bucket) {
        send_first(aggregate, add(aggregate, &key, severity), id, note);
        return true;
    }
    bucket_add(bucket, id, note);
    aggregate->counters.repeats += note->count;
    aggregate->unwritten += note->count;
    return false;
}

void aggregate_flush(struct aggregate *aggregate)
{
    struct bucket *bucket;

    DL_FOREACH(aggregate->order, bucket)
    {
        if (bucket->repeats.count > 0)
            send_repeats(aggregate, bucket);
    }
}

size_t aggregate_buckets(const struct aggregate *aggregate)
{
    return HASH_COUNT(aggregate->table);
}

uint64_t aggregate_unwritten(const struct aggregate *aggregate)
{
    return aggregate->unwritten;
}

const struct aggregate_counters *aggregate_counters(const struct aggregate *aggregate)
{
    return &aggregate->counters;
}

struct aggregate *aggregate_new(struct eventd *daemon)
{
    struct aggregate *aggregate = memory_new(1, sizeof(*aggregate));

    aggregate->daemon = daemon;
    aggregate->window_ends = evtimer_new(daemon->back.service.base, on_window_ends, aggregate);
    if (!aggregate->window_ends)
        log_fatal("out of memory");
    return aggregate;
}

void aggregate_free(struct aggregate *aggregate)
{
    if (aggregate->unwritten > 0)
        log_error("events are lost: the database did not take their counts in time",
                  LOG_NUMBER("count", (long long)aggregate->unwritten));
    event_free(aggregate->window_ends);
    while (aggregate->order) {
        struct bucket *bucket = aggregate->order;

        DL_DELETE(aggregate->order, bucket);
        drop(aggregate, bucket);
    }
    free(aggregate);
}
