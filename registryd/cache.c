/* The table of known agents, in memory. Touches nothing else: who looks up and who writes is
 * heartbeat.c. */
#include "registryd/cache.h"

#include "common/memory.h"

#include <stdlib.h>
#include <utlist.h>

enum { ROOM_LOOKS = 8 }; /* entries looked at for one new one: a bound on its time */

static const char *const state_names[] = {
    [AGENT_UNKNOWN] = "unknown",           [AGENT_ACTIVE] = "active",
    [AGENT_QUARANTINED] = "quarantined",   [AGENT_REVOKED] = "revoked",
    [AGENT_DEREGISTERED] = "deregistered",
};

const char *agent_state_name(enum agent_state state)
{
    return state_names[state];
}

enum agent_state agent_state_from_name(struct str name)
{
    for (int state = AGENT_ACTIVE; state <= AGENT_DEREGISTERED; state++)
        if (str_equal(name, str_from(state_names[state])))
            return (enum agent_state)state;
    return AGENT_UNKNOWN;
}

/* ---- entries -------------------------------------------------------------------------------- */

static char *make_key(struct str tenant_id, struct str spiffe_id, size_t *len)
{
    char *key = memory_new(1, tenant_id.len + spiffe_id.len + 2);

    memcpy(key, tenant_id.ptr, tenant_id.len);
    memcpy(key + tenant_id.len + 1, spiffe_id.ptr, spiffe_id.len);
    *len = tenant_id.len + spiffe_id.len + 2;
    return key;
}

static void mark_used(struct cache *cache, struct cache_agent *agent)
{
    DL_DELETE(cache->by_use, agent);
    DL_APPEND(cache->by_use, agent);
}

/* Without using it. */
static struct cache_agent *find(struct cache *cache, struct str tenant_id, struct str spiffe_id)
{
    struct cache_agent *agent;
    size_t len;
    cleanup_free char *key = make_key(tenant_id, spiffe_id, &len);

    HASH_FIND(hh, cache->by_key, key, len, agent);
    return agent;
}

struct cache_agent *cache_find(struct cache *cache, struct str tenant_id, struct str spiffe_id)
{
    struct cache_agent *agent = find(cache, tenant_id, spiffe_id);

    if (agent)
        mark_used(cache, agent);
    return agent;
}

static void agent_free(struct cache_agent *agent)
{
    free(agent->key);
    free(agent->agent_id);
    free(agent->status);
    free(agent->metadata);
    free(agent);
}

void cache_drop(struct cache *cache, struct cache_agent *agent)
{
    if (agent->dirty)
        cache_note_written(cache, agent);
    DL_DELETE(cache->by_use, agent);
    HASH_DEL(cache->by_key, agent);
    agent_free(agent);
}

static bool is_needed(const struct cache_agent *agent)
{
    return agent->dirty || agent->looking_up || agent->waiters;
}

static void evict(struct cache *cache, struct cache_agent *agent)
{
    cache_drop(cache, agent);
    cache->evictions++;
}

/* Drops the least recently used that nobody needs. One that is needed counts as used just now;
 * where it finds only such, the cache grows, to shrink when they are needed no more. */
static void make_room(struct cache *cache)
{
    for (int looks = 0;
         looks < ROOM_LOOKS && cache->by_use && HASH_COUNT(cache->by_key) >= cache->max_agents;
         looks++) {
        if (is_needed(cache->by_use))
            mark_used(cache, cache->by_use);
        else
            evict(cache, cache->by_use);
    }
}

struct cache_agent *cache_get(struct cache *cache, struct str tenant_id, struct str spiffe_id)
{
    struct cache_agent *agent = cache_find(cache, tenant_id, spiffe_id);

    if (agent)
        return agent;
    make_room(cache);
    agent = memory_new(1, sizeof(*agent));
    agent->key = make_key(tenant_id, spiffe_id, &agent->key_len);
    agent->tenant_len = tenant_id.len;
    agent->revision = cache->revision;
    HASH_ADD_KEYPTR(hh, cache->by_key, agent->key, agent->key_len, agent);
    DL_APPEND(cache->by_use, agent);
    return agent;
}

struct str cache_tenant_id(const struct cache_agent *agent)
{
    return (struct str){agent->key, agent->tenant_len};
}

struct str cache_spiffe_id(const struct cache_agent *agent)
{
    return (struct str){agent->key + agent->tenant_len + 1, agent->key_len - agent->tenant_len - 2};
}

struct str cache_key(const struct cache_agent *agent)
{
    return (struct str){agent->key, agent->key_len};
}

/* ---- what is known -------------------------------------------------------------------------- */

bool cache_fill(struct cache_agent *agent, struct str agent_id, enum agent_state state,
                uint64_t changed_xid, uint64_t revision, int64_t sent_ms)
{
    if (agent->revision != revision)
        return false;
    free(agent->agent_id);
    agent->agent_id = str_dup(agent_id);
    agent->state = state;
    agent->changed_xid = changed_xid;
    agent->known_since_ms = sent_ms;
    return true;
}

void cache_invalidate(struct cache *cache, struct cache_agent *agent)
{
    agent->state = AGENT_UNKNOWN;
    agent->revision = ++cache->revision;
}

void cache_invalidate_all(struct cache *cache)
{
    struct cache_agent *agent, *next;

    cache->revision++;
    HASH_ITER(hh, cache->by_key, agent, next)
    {
        cache_invalidate(cache, agent);
    }
}

bool cache_apply_change(struct cache *cache, struct str tenant_id, struct str spiffe_id,
                        uint64_t changed_xid)
{
    struct cache_agent *agent = find(cache, tenant_id, spiffe_id);

    if (!agent) {
        cache->revision++;
        return false;
    }
    if (agent->state != AGENT_UNKNOWN && changed_xid != 0 && agent->changed_xid == changed_xid)
        return false;
    cache_invalidate(cache, agent);
    return true;
}

uint64_t cache_changed_from(struct str text)
{
    long long number;

    return text.ptr && str_to_number(text, INT64_MAX, &number) ? (uint64_t)number : 0;
}

/* ---- heartbeat values ----------------------------------------------------------------------- */

static void replace_if_given(char **kept, struct str given)
{
    if (!given.ptr)
        return;
    free(*kept);
    *kept = str_dup(given);
}

void cache_note_heartbeat(struct cache *cache, struct cache_agent *agent, int64_t heartbeat_ms,
                          struct str status, struct str metadata)
{
    if (heartbeat_ms > agent->heartbeat_ms)
        agent->heartbeat_ms = heartbeat_ms;
    replace_if_given(&agent->status, status);
    replace_if_given(&agent->metadata, metadata);
    if (metadata.ptr)
        agent->metadata_ms = heartbeat_ms;
    if (agent->dirty)
        return;
    agent->dirty = true;
    cache->dirty_count++;
    DL_APPEND2(cache->dirty, agent, dirty_prev, dirty_next);
}

void cache_note_written(struct cache *cache, struct cache_agent *agent)
{
    agent->dirty = false;
    cache->dirty_count--;
    DL_DELETE2(cache->dirty, agent, dirty_prev, dirty_next);
    free(agent->status);
    free(agent->metadata);
    agent->status = agent->metadata = NULL;
}

void cache_free(struct cache *cache)
{
    while (cache->by_use)
        cache_drop(cache, cache->by_use);
}
