/* The set behind both copies of the deny list, registryd's and the workers'. Touches nothing but
 * memory. Whoever fills or empties it answers nobody meanwhile: so there is no allocation for each
 * identity, and nothing that is made anew when it has grown. */
#include "common/deny_set.h"

#include "common/memory.h"

#include <stdlib.h>
#include <uthash.h>

enum { BLOCK_BYTES = 1 << 20 };

struct deny_entry {
    const char *key;
    uint32_t len;
    uint32_t hash;
    uint32_t older; /* in its chain: number + 1, 0 for none */
};

struct deny_block {
    struct deny_block *older;
    size_t size, used;
    char bytes[];
};

struct str deny_key_new(struct str tenant_id, struct str spiffe_id)
{
    size_t len = tenant_id.len + spiffe_id.len + 2;
    char *key = memory_new(1, len);

    memcpy(key, tenant_id.ptr, tenant_id.len);
    memcpy(key + tenant_id.len + 1, spiffe_id.ptr, spiffe_id.len);
    return (struct str){key, len};
}

static uint32_t hash_of(struct str key)
{
    unsigned hash;

    HASH_VALUE(key.ptr, key.len, hash);
    return hash;
}

/* Room for all that may come, and a chain for each of them, their number a power of two. What is
 * not used of it is not touched, and costs address space only. */
static void make_room(struct deny_set *set)
{
    size_t chains = 1;

    while (chains < set->max)
        chains *= 2;
    set->chains = memory_new(chains, sizeof(*set->chains));
    set->chain_mask = (uint32_t)(chains - 1);
    set->entries = memory_resize(NULL, set->max * sizeof(*set->entries));
}

static bool find(const struct deny_set *set, struct str key, uint32_t hash)
{
    const struct deny_entry *entry;

    if (!set->chains)
        return false;
    for (uint32_t next = set->chains[hash & set->chain_mask]; next; next = entry->older) {
        entry = &set->entries[next - 1];
        if (entry->hash == hash && str_equal((struct str){entry->key, entry->len}, key))
            return true;
    }
    return false;
}

static const char *keep_bytes(struct deny_set *set, struct str key)
{
    struct deny_block *block = set->blocks;
    char *bytes;

    if (!block || block->size - block->used < key.len) {
        size_t size = key.len > BLOCK_BYTES ? key.len : BLOCK_BYTES;

        block = memory_resize(NULL, sizeof(*block) + size);
        *block = (struct deny_block){.older = set->blocks, .size = size};
        set->blocks = block;
    }
    bytes = memcpy(block->bytes + block->used, key.ptr, key.len);
    block->used += key.len;
    return bytes;
}

enum deny_outcome deny_set_add(struct deny_set *set, struct str key)
{
    uint32_t hash = hash_of(key), *chain;

    if (find(set, key, hash))
        return DENY_KNOWN;
    if (set->count >= set->max)
        return DENY_FULL;
    if (!set->chains)
        make_room(set);
    chain = &set->chains[hash & set->chain_mask];
    set->entries[set->count++] =
        (struct deny_entry){keep_bytes(set, key), (uint32_t)key.len, hash, *chain};
    *chain = (uint32_t)set->count;
    return DENY_ADDED;
}

bool deny_set_has(const struct deny_set *set, struct str key)
{
    return find(set, key, hash_of(key));
}

struct str deny_set_key(const struct deny_set *set, size_t number)
{
    return (struct str){set->entries[number].key, set->entries[number].len};
}

void deny_set_clear(struct deny_set *set)
{
    while (set->blocks) {
        struct deny_block *block = set->blocks;

        set->blocks = block->older;
        free(block);
    }
    free(set->entries);
    free(set->chains);
    *set = (struct deny_set){.max = set->max};
}
