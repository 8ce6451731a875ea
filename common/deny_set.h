/* Identities, each once and in the order in which they came, in a few large pieces of memory: a
 * million of them go with some hundred frees, and adding one never moves the others. */
#ifndef CAF_COMMON_DENY_SET_H
#define CAF_COMMON_DENY_SET_H

#include "common/str.h"

#include <stdint.h>

struct deny_entry;
struct deny_block;

/* Zeroed but for max, at most 100,000,000: empty. A set moves by assignment. */
struct deny_set {
    size_t max;                 /* identities */
    size_t count;               /* they have the numbers from 0, in the order of coming */
    struct deny_entry *entries; /* by number, room for max; NULL while empty */
    uint32_t *chains;           /* by hash: the newest entry's number + 1 */
    uint32_t chain_mask;
    struct deny_block *blocks; /* the keys' bytes, the newest block first */
};

enum deny_outcome { DENY_ADDED, DENY_KNOWN, DENY_FULL };

/* What an identity is in a set, and on the wire (proto/messages.def, deny_list): tenant_id, NUL,
 * spiffe_id, NUL, in memory that the caller frees. */
struct str deny_key_new(struct str tenant_id, struct str spiffe_id);

/* Copies the key, unless it is known or max are. */
enum deny_outcome deny_set_add(struct deny_set *set, struct str key);

bool deny_set_has(const struct deny_set *set, struct str key);

/* The key of that number; the view lives as long as the set. */
struct str deny_set_key(const struct deny_set *set, size_t number);

/* Empties and frees. */
void deny_set_clear(struct deny_set *set);

#endif
