/* The deny list as a set in memory. Touches nothing else: registryd pushes the list
 * (frontd/deny_link.c), and the handshake asks (frontd/tls.c). Must never let go of a list before a
 * complete one takes its place. */
#include "frontd/deny.h"

#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <uthash.h>

struct deny_entry {
    UT_hash_handle hh;
    size_t len;
    char key[]; /* tenant_id, NUL, spiffe_id, NUL */
};

static void set_free(struct deny_entry **set)
{
    struct deny_entry *entry, *next;

    HASH_ITER(hh, *set, entry, next)
    {
        HASH_DEL(*set, entry);
        free(entry);
    }
}

/* ---- taking --------------------------------------------------------------------------------- */

/* Beyond max an identity is not refused in its handshake, but by each request, as its state says:
 * refusing everybody would let whoever fills the list close the door. */
static void note_full(struct deny *deny)
{
    if (!deny->full)
        log_error("the deny list is full: identities beyond it are refused by request, not in the "
                  "handshake; raise limits.denied",
                  LOG_NUMBER("denied", (long long)deny->max));
    deny->full = true;
}

static bool set_add(struct deny *deny, struct deny_entry **set, struct str key)
{
    struct deny_entry *entry;

    HASH_FIND(hh, *set, key.ptr, key.len, entry);
    if (entry)
        return false;
    if (HASH_COUNT(*set) >= deny->max) {
        note_full(deny);
        return false;
    }
    entry = memory_new(1, sizeof(*entry) + key.len);
    entry->len = key.len;
    memcpy(entry->key, key.ptr, key.len);
    HASH_ADD(hh, *set, key, key.len, entry);
    return true;
}

/* The next "tenant_id NUL spiffe_id NUL" of ids, which moves behind it; absent at the end, or where
 * there is none. */
static struct str next_key(struct str *ids)
{
    const char *end = ids->ptr + ids->len;
    const char *first = ids->len ? memchr(ids->ptr, '\0', ids->len) : NULL;
    const char *second = first ? memchr(first + 1, '\0', (size_t)(end - first - 1)) : NULL;
    struct str key;

    if (!second)
        return STR_ABSENT;
    key = (struct str){ids->ptr, (size_t)(second + 1 - ids->ptr)};
    *ids = (struct str){second + 1, (size_t)(end - second - 1)};
    return key;
}

static bool set_add_all(struct deny *deny, struct deny_entry **set, struct str ids)
{
    bool added = false;
    struct str key;

    while ((key = next_key(&ids)).ptr)
        added |= set_add(deny, set, key);
    if (ids.len > 0)
        log_error("a malformed part of the deny list", LOG_NUMBER("bytes", (long long)ids.len));
    return added;
}

static void begin_list(struct deny *deny)
{
    set_free(&deny->coming);
    deny->is_coming = true;
    deny->full = false;
}

static void finish_list(struct deny *deny)
{
    set_free(&deny->in_force);
    deny->in_force = deny->coming;
    deny->coming = NULL;
    deny->is_coming = false;
    deny->complete = true;
}

bool deny_take(struct deny *deny, const struct msg_deny_list *part)
{
    bool changed;

    if (part->first)
        begin_list(deny);
    changed = set_add_all(deny, deny->is_coming ? &deny->coming : &deny->in_force, part->ids);
    if (deny->is_coming)
        changed = part->last;
    if (part->last && deny->is_coming)
        finish_list(deny);
    if (part->last)
        deny->serial = part->serial;
    return changed;
}

/* ---- asking --------------------------------------------------------------------------------- */

/* Runs on the small stack of a handshake's job: the key is not made there. */
static bool is_listed(const struct deny *deny, struct str tenant_id, struct str spiffe_id)
{
    size_t len = tenant_id.len + spiffe_id.len + 2;
    cleanup_free char *key = memory_new(1, len);
    struct deny_entry *entry;

    memcpy(key, tenant_id.ptr, tenant_id.len);
    memcpy(key + tenant_id.len + 1, spiffe_id.ptr, spiffe_id.len);
    HASH_FIND(hh, deny->in_force, key, len, entry);
    return entry != NULL;
}

const char *deny_refusal(const struct deny *deny, const struct identity *identity)
{
    if (!deny->in_force || !identity->spiffe_id || !identity->tenant.ptr)
        return NULL;
    return is_listed(deny, identity->tenant, str_from(identity->spiffe_id))
               ? "the identity is revoked"
               : NULL;
}

size_t deny_count(const struct deny *deny)
{
    return HASH_COUNT(deny->in_force);
}

void deny_clear(struct deny *deny)
{
    set_free(&deny->in_force);
    set_free(&deny->coming);
}
