/* POST /v1/mesh/heartbeat: answered from the cache; a miss asks the database once for all who wait,
 * fills the cache and completes. Times are written behind, in batches. A hostname never reaches
 * this code: the row is the caller's own. */
#include "registryd/feed.h"
#include "registryd/registryd.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/memory.h"

#include <stdlib.h>
#include <utlist.h>

enum { BEAT_WINDOW_MS = 1000, BEAT_STRETCH_MAX = 60, INTERVAL_MAX_MS = 86400000 };

/* A heartbeat that waits for its agent's look-up. */
struct cache_waiter {
    struct ipc_reply_to to;
    int64_t received_ms;
    char *status, *metadata;
    struct cache_waiter *prev, *next;
};

/* ---- when the next one is due --------------------------------------------------------------- */

/* Counts a beat, and once a second decides how far the next ones are to be stretched. */
static void count_beat(struct registryd *daemon)
{
    int64_t now = clock_monotonic_ms(), elapsed = now - daemon->beat_window_start_ms;
    double rate;

    daemon->beats_in_window++;
    if (elapsed < BEAT_WINDOW_MS)
        return;
    rate = (double)daemon->beats_in_window * 1000 / (double)elapsed;
    daemon->beat_stretch = rate / (double)daemon->options.mesh_beats_per_second;
    if (daemon->beat_stretch < 1)
        daemon->beat_stretch = 1;
    if (daemon->beat_stretch > BEAT_STRETCH_MAX)
        daemon->beat_stretch = BEAT_STRETCH_MAX;
    daemon->beat_window_start_ms = now;
    daemon->beats_in_window = 0;
}

int64_t heartbeat_next_due_ms(const struct registryd *daemon, struct str key, int64_t now_ms)
{
    int64_t stretched = (int64_t)((double)daemon->options.mesh_heartbeat_interval_seconds * 1000 *
                                  daemon->beat_stretch);
    int64_t interval = stretched < INTERVAL_MAX_MS ? stretched : INTERVAL_MAX_MS;
    int64_t phase = (int64_t)(ids_hash(key.ptr, key.len) % (uint64_t)interval);
    int64_t until_phase = interval - (now_ms - phase) % interval;

    return until_phase < interval / 2 ? until_phase + interval / 2 : until_phase;
}

/* ---- answering ------------------------------------------------------------------------------ */

static void complete(struct registryd *daemon, struct cache_agent *agent, struct ipc_reply_to to,
                     int64_t received_ms, struct str status, struct str metadata)
{
    struct msg_mesh_beat reply;

    if (agent->state != AGENT_ACTIVE && agent->state != AGENT_QUARANTINED) {
        registryd_refuse_state(to, agent->state);
        return;
    }
    count_beat(daemon);
    daemon->metrics.registry_heartbeats_total++;
    cache_note_heartbeat(&daemon->cache, agent, received_ms, status, metadata);
    reply = (struct msg_mesh_beat){
        .agent_id = str_from(agent->agent_id),
        .state = str_from(agent_state_name(agent->state)),
        .last_heartbeat = received_ms,
        .next_due_ms = (uint64_t)heartbeat_next_due_ms(daemon, cache_key(agent), clock_wall_ms()),
    };
    ipc_reply(to, MSG_mesh_beat, &reply);
}

/* Takes the waiters off the agent; the caller serves each and frees it by waiter_free. */
static struct cache_waiter *take_waiters(struct cache_agent *agent)
{
    return steal_pointer(agent->waiters);
}

static void waiter_free(struct registryd *daemon, struct cache_waiter *waiter)
{
    daemon->waiter_count--;
    free(waiter->status);
    free(waiter->metadata);
    free(waiter);
}

static void complete_waiters(struct registryd *daemon, struct cache_agent *agent)
{
    struct cache_waiter *waiters = take_waiters(agent), *waiter, *next;

    DL_FOREACH_SAFE(waiters, waiter, next)
    {
        complete(daemon, agent, waiter->to, waiter->received_ms, str_from(waiter->status),
                 str_from(waiter->metadata));
        waiter_free(daemon, waiter);
    }
}

static void fail_waiters(struct registryd *daemon, struct cache_agent *agent,
                         const struct pg_answer *answer)
{
    struct cache_waiter *waiters = take_waiters(agent), *waiter, *next;

    DL_FOREACH_SAFE(waiters, waiter, next)
    {
        back_fail(waiter->to, answer);
        waiter_free(daemon, waiter);
    }
}

static void refuse_waiters(struct registryd *daemon, struct cache_agent *agent)
{
    struct cache_waiter *waiters = take_waiters(agent), *waiter, *next;

    DL_FOREACH_SAFE(waiters, waiter, next)
    {
        registryd_refuse_state(waiter->to, AGENT_UNKNOWN);
        waiter_free(daemon, waiter);
    }
}

/* ---- looking up ----------------------------------------------------------------------------- */

/* A look-up under way. The entry stays in the cache as long as looking_up is set. */
struct lookup {
    struct registryd *daemon;
    struct cache_agent *agent;
    uint64_t revision;
    int64_t sent_ms;
};

static bool look_up(struct registryd *daemon, struct cache_agent *agent);

static void on_looked_up(void *arg, const struct pg_answer *answer)
{
    struct lookup lookup = *(struct lookup *)arg;
    struct cache_agent *agent = lookup.agent;
    static const struct pg_answer full = {.outcome = PG_UNAVAILABLE};

    free(arg);
    agent->looking_up = false;
    if (answer->outcome != PG_OK) {
        fail_waiters(lookup.daemon, agent, answer);
    } else if (agent->revision != lookup.revision) {
        /* Something changed while the answer was on its way: only a new look counts. */
        if (!look_up(lookup.daemon, agent))
            fail_waiters(lookup.daemon, agent, &full);
    } else if (answer->row_count == 0) {
        refuse_waiters(lookup.daemon, agent);
        cache_drop(&lookup.daemon->cache, agent);
    } else {
        cache_fill(agent, pg_value(answer, 0, 0), agent_state_from_name(pg_value(answer, 0, 1)),
                   cache_changed_from(pg_value(answer, 0, 2)), lookup.revision, lookup.sent_ms);
        complete_waiters(lookup.daemon, agent);
    }
}

/* Asks the database for this agent, unless that is under way. False: the queue is full. */
static bool look_up(struct registryd *daemon, struct cache_agent *agent)
{
    struct str params[] = {cache_tenant_id(agent), cache_spiffe_id(agent)};
    struct lookup *lookup;

    if (agent->looking_up)
        return true;
    lookup = memory_new(1, sizeof(*lookup));
    *lookup = (struct lookup){.daemon = daemon,
                              .agent = agent,
                              .revision = agent->revision,
                              .sent_ms = clock_monotonic_ms()};
    agent->looking_up = back_submit(&daemon->back, &registryd_statements[STATEMENT_LOOKUP],
                                    cache_key(agent), params, on_looked_up, lookup);
    if (!agent->looking_up)
        free(lookup);
    return agent->looking_up;
}

static void wait_for_look_up(struct registryd *daemon, struct cache_agent *agent,
                             struct ipc_reply_to to, const struct msg_mesh_heartbeat *body)
{
    struct cache_waiter *waiter;

    if (daemon->waiter_count >= (size_t)daemon->options.back.database_queue_max ||
        !look_up(daemon, agent)) {
        back_fail_full(to);
        return;
    }
    waiter = memory_new(1, sizeof(*waiter));
    *waiter = (struct cache_waiter){.to = to,
                                    .received_ms = body->received_at,
                                    .status = str_dup(body->status),
                                    .metadata = str_dup(body->metadata)};
    DL_APPEND(agent->waiters, waiter);
    daemon->waiter_count++;
}

/* While the feed is fresh it tells of every change; each entry is looked at anew now and then all
 * the same, at a time of its own. */
static bool is_known(const struct registryd *daemon, const struct cache_agent *agent)
{
    int64_t age = clock_monotonic_ms() - agent->known_since_ms;

    return agent->state != AGENT_UNKNOWN && feed_is_fresh(daemon->feed) &&
           age < daemon->options.feed_reload_seconds * 1000;
}

void registryd_heartbeat(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct registryd *daemon = arg;
    const struct msg_mesh_heartbeat *body = &message->body.mesh_heartbeat;
    struct cache_agent *agent = cache_get(&daemon->cache, body->tenant_id, body->spiffe_id);

    if (is_known(daemon, agent)) {
        daemon->metrics.registry_cache_hits_total++;
        complete(daemon, agent, to, body->received_at, body->status, body->metadata);
    } else {
        daemon->metrics.registry_cache_misses_total++;
        wait_for_look_up(daemon, agent, to, body);
    }
}

/* ---- writing behind ------------------------------------------------------------------------- */

/* A write on its way, with a copy of its values: should it fail, they are noted again. */
struct heartbeat_values {
    struct registryd *daemon;
    char *tenant_id, *spiffe_id, *status, *metadata;
    int64_t heartbeat_ms, metadata_ms;
};

static void values_free(struct heartbeat_values *values)
{
    free(values->tenant_id);
    free(values->spiffe_id);
    free(values->status);
    free(values->metadata);
    free(values);
}

/* Values that could not be written wait for the next interval, behind any newer ones: of these in
 * the cache none is overwritten here, and those in the database the statement guards. */
static void note_again(const struct heartbeat_values *values, struct cache_agent *agent)
{
    struct cache *cache = &values->daemon->cache;
    struct str status = agent->status ? STR_ABSENT : str_from(values->status);
    struct str metadata = agent->metadata ? STR_ABSENT : str_from(values->metadata);

    cache_note_heartbeat(cache, agent, values->metadata_ms, STR_ABSENT, metadata);
    cache_note_heartbeat(cache, agent, values->heartbeat_ms, status, STR_ABSENT);
}

static void on_written(void *arg, const struct pg_answer *answer)
{
    struct heartbeat_values *values = arg;
    struct cache_agent *agent =
        cache_get(&values->daemon->cache, str_from(values->tenant_id), str_from(values->spiffe_id));

    if (answer->outcome == PG_UNAVAILABLE)
        note_again(values, agent);
    else if (answer->outcome == PG_REFUSED || answer->row_count == 0)
        cache_invalidate(&values->daemon->cache, agent); /* its state is not what was believed */
    values_free(values);
}

static struct heartbeat_values *values_new(struct registryd *daemon,
                                           const struct cache_agent *agent)
{
    struct heartbeat_values *values = memory_new(1, sizeof(*values));

    *values = (struct heartbeat_values){.daemon = daemon,
                                        .tenant_id = str_dup(cache_tenant_id(agent)),
                                        .spiffe_id = str_dup(cache_spiffe_id(agent)),
                                        .status = str_dup(str_from(agent->status)),
                                        .metadata = str_dup(str_from(agent->metadata)),
                                        .heartbeat_ms = agent->heartbeat_ms,
                                        .metadata_ms = agent->metadata_ms};
    return values;
}

bool heartbeat_write(struct registryd *daemon, struct cache_agent *agent)
{
    struct heartbeat_values *values = values_new(daemon, agent);
    char heartbeat_ms[STR_NUMBER_BYTES], metadata_ms[STR_NUMBER_BYTES];
    const struct str params[] = {
        cache_tenant_id(agent),
        cache_spiffe_id(agent),
        str_from_number(agent->heartbeat_ms, heartbeat_ms),
        str_from(agent->status),
        str_from(agent->metadata),
        agent->metadata ? str_from_number(agent->metadata_ms, metadata_ms) : STR_ABSENT,
    };

    if (!back_submit(&daemon->back, &registryd_statements[STATEMENT_WRITE_HEARTBEAT],
                     cache_key(agent), params, on_written, values)) {
        values_free(values);
        return false;
    }
    cache_note_written(&daemon->cache, agent);
    return true;
}

size_t heartbeat_write_some(struct registryd *daemon, size_t most)
{
    size_t room = ((size_t)daemon->options.back.database_queue_max + 1) / 2;
    size_t written = 0;

    while (written < most && daemon->cache.dirty && pg_pending(daemon->back.pg) < room &&
           heartbeat_write(daemon, daemon->cache.dirty))
        written++;
    return written;
}
