/* The deny list as a set in memory. Touches nothing else: registryd pushes the list
 * (frontd/deny_link.c), and the handshake asks (frontd/tls.c). Must never let go of a list before a
 * complete one takes its place. */
#include "frontd/deny.h"

#include "common/log.h"

#include <stdlib.h>

void deny_open(struct deny *deny, size_t max)
{
    *deny = (struct deny){.in_force.max = max, .coming.max = max};
}

/* ---- taking --------------------------------------------------------------------------------- */

/* Beyond max an identity is not refused in its handshake, but by each request, as its state says:
 * refusing everybody would let whoever fills the list close the door. */
static void note_full(struct deny *deny)
{
    if (!deny->full)
        log_error("the deny list is full: identities beyond it are refused by request, not in the "
                  "handshake; raise limits.denied",
                  LOG_NUMBER("denied", (long long)deny->in_force.max));
    deny->full = true;
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

static bool add_all(struct deny *deny, struct deny_set *set, struct str ids)
{
    bool added = false;
    struct str key;

    while ((key = next_key(&ids)).ptr) {
        enum deny_outcome outcome = deny_set_add(set, key);

        added |= outcome == DENY_ADDED;
        if (outcome == DENY_FULL)
            note_full(deny);
    }
    if (ids.len > 0)
        log_error("a malformed part of the deny list", LOG_NUMBER("bytes", (long long)ids.len));
    return added;
}

static void begin_list(struct deny *deny)
{
    deny_set_clear(&deny->coming);
    deny->is_coming = true;
    deny->full = false;
}

static void finish_list(struct deny *deny)
{
    deny_set_clear(&deny->in_force);
    deny->in_force = deny->coming;
    deny->coming = (struct deny_set){.max = deny->in_force.max};
    deny->is_coming = false;
    deny->complete = true;
}

bool deny_take(struct deny *deny, const struct msg_deny_list *part)
{
    bool changed;

    if (part->first)
        begin_list(deny);
    changed = add_all(deny, deny->is_coming ? &deny->coming : &deny->in_force, part->ids);
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
    struct str key = deny_key_new(tenant_id, spiffe_id);
    bool listed = deny_set_has(&deny->in_force, key);

    free((char *)key.ptr);
    return listed;
}

const char *deny_refusal(const struct deny *deny, const struct identity *identity)
{
    if (deny_count(deny) == 0 || !identity->spiffe_id || !identity->tenant.ptr)
        return NULL;
    return is_listed(deny, identity->tenant, str_from(identity->spiffe_id))
               ? "the identity is revoked"
               : NULL;
}

size_t deny_count(const struct deny *deny)
{
    return deny->in_force.count;
}

void deny_clear(struct deny *deny)
{
    deny_set_clear(&deny->in_force);
    deny_set_clear(&deny->coming);
}
