/* The table of keys in use: one request holds a key, the others stand in line behind it, so that no
 * turn ever searches through requests that cannot run. Touches the table and the requests' places
 * in line, and nothing else. */
#include "common/memory.h"
#include "common/pg_internal.h"

#include <stdlib.h>
#include <utlist.h>

static struct pg_key *key_add(struct pg_key **keys, struct str bytes)
{
    struct pg_key *key = memory_new(1, sizeof(*key) + bytes.len);

    key->len = bytes.len;
    memcpy(key->bytes, bytes.ptr, bytes.len);
    HASH_ADD_KEYPTR(hh, *keys, key->bytes, key->len, key);
    return key;
}

bool pg_key_join(struct pg_key **keys, struct pg_request *request, struct str key)
{
    if (!key.ptr)
        return true;
    HASH_FIND(hh, *keys, key.ptr, key.len, request->key);
    if (!request->key) {
        request->key = key_add(keys, key);
        return true;
    }
    DL_APPEND2(request->key->line, request, place_prev, place_next);
    return false;
}

struct pg_request *pg_key_leave(struct pg_key **keys, struct pg_request *request)
{
    struct pg_key *key = steal_pointer(request->key);
    struct pg_request *heir;

    if (!key)
        return NULL;
    if (request->state == PG_BLOCKED) {
        DL_DELETE2(key->line, request, place_prev, place_next);
        return NULL;
    }
    heir = key->line;
    if (heir) {
        DL_DELETE2(key->line, heir, place_prev, place_next);
    } else {
        HASH_DEL(*keys, key);
        free(key);
    }
    return heir;
}

void pg_key_free_all(struct pg_key **keys)
{
    struct pg_key *key = *keys, *next;

    HASH_CLEAR(hh, *keys);
    for (; key; key = next) {
        next = key->hh.next;
        free(key);
    }
}
