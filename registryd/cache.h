/* The agents that registryd keeps in memory: enough to answer a heartbeat without the database.
 *
 * An entry is keyed by (tenant_id, spiffe_id), as the table is. It is authority only after a
 * look-up that nothing has contradicted meanwhile, and only while the change feed is fresh
 * (feed.c). */
#ifndef CAF_REGISTRYD_CACHE_H
#define CAF_REGISTRYD_CACHE_H

#include "common/str.h"

#include <stdint.h>
#include <uthash.h>

enum agent_state {
    AGENT_UNKNOWN, /* not looked up yet, or to be looked up again */
    AGENT_ACTIVE,
    AGENT_QUARANTINED,
    AGENT_REVOKED,
    AGENT_DEREGISTERED,
};

/* Somebody who waits for an entry's look-up. */
struct cache_waiter;

struct cache_agent {
    char *key; /* tenant_id, NUL, spiffe_id, NUL */
    size_t key_len, tenant_len;
    char *agent_id;
    enum agent_state state;
    uint64_t changed_xid;   /* of what is known: the transaction that changed the row last */
    int64_t known_since_ms; /* monotonic: when the look-up that filled it was sent */
    uint64_t revision; /* moves at each invalidation: a look-up sent before it does not count */
    bool looking_up;   /* a look-up is under way, for all who wait */
    struct cache_waiter *waiters;

    bool dirty; /* heartbeat values not yet written */
    int64_t heartbeat_ms;
    char *status, *metadata; /* NULL: not given since the last write */
    int64_t metadata_ms;     /* when metadata was given */

    struct cache_agent *prev, *next; /* by last use, the least recent first */
    struct cache_agent *dirty_prev, *dirty_next;
    UT_hash_handle hh;
};

struct cache {
    struct cache_agent *by_key;
    struct cache_agent *by_use;
    struct cache_agent *dirty;
    size_t dirty_count;
    size_t max_agents;
    uint64_t evictions; /* entries dropped to make room */
    uint64_t revision;  /* of the newest invalidation; a new entry begins with it */
};

/* The entry of that agent, made when there is none; owned by the cache. An entry that is neither
 * dirty, nor looked up, nor waited for may be dropped to keep max_agents: do not keep the pointer
 * beyond such a moment. */
struct cache_agent *cache_get(struct cache *cache, struct str tenant_id, struct str spiffe_id);

/* The entry, or NULL. */
struct cache_agent *cache_find(struct cache *cache, struct str tenant_id, struct str spiffe_id);

/* Sets what a look-up or a write told, unless the entry was invalidated since it was sent: revision
 * is the entry's at that moment, sent_ms the monotonic time. agent_id is copied. Returns whether it
 * counted. */
bool cache_fill(struct cache_agent *agent, struct str agent_id, enum agent_state state,
                uint64_t changed_xid, uint64_t revision, int64_t sent_ms);

/* The database says that this agent's row was changed last by changed_xid: invalidates what is
 * known of it, but for what that very transaction left. Two numbers are only ever compared for
 * equality: a lower one may be the later change. Where there is no entry, answers on their way for
 * it will not count. Returns whether an entry was told what it did not know. */
bool cache_apply_change(struct cache *cache, struct str tenant_id, struct str spiffe_id,
                        uint64_t changed_xid);

/* PostgreSQL's spelling of an xid8 as a number; 0, which no transaction has, for anything else. */
uint64_t cache_changed_from(struct str text);

/* What is known no longer counts; a look-up under way will not count either. Heartbeat values stay
 * to be written. */
void cache_invalidate(struct cache *cache, struct cache_agent *agent);

/* cache_invalidate for every entry, and for those that are not there. */
void cache_invalidate_all(struct cache *cache);

/* Notes heartbeat values for the next write-behind; status and metadata, given at heartbeat_ms, are
 * copied, absent ones change nothing. */
void cache_note_heartbeat(struct cache *cache, struct cache_agent *agent, int64_t heartbeat_ms,
                          struct str status, struct str metadata);

/* The values are on their way to the database: no longer dirty. */
void cache_note_written(struct cache *cache, struct cache_agent *agent);

/* Forgets an agent that does not exist; nobody may wait for it. */
void cache_drop(struct cache *cache, struct cache_agent *agent);

void cache_free(struct cache *cache);

/* The views into an entry's key. */
struct str cache_tenant_id(const struct cache_agent *agent);
struct str cache_spiffe_id(const struct cache_agent *agent);
struct str cache_key(const struct cache_agent *agent);

/* The state of that name (the contract's), AGENT_UNKNOWN for none. */
enum agent_state agent_state_from_name(struct str name);
const char *agent_state_name(enum agent_state state);

#endif
