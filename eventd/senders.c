/* The last note of each sender (a worker's connection to us in one life: the first half of a
 * request_id), so that what is sent again counts once. Of more senders than it remembers, those
 * that were silent for longest are forgotten. Memory only. */
#include "eventd/senders.h"

#include "common/memory.h"

#include <stdlib.h>
#include <uthash.h>

enum { SENDERS_MAX = 4096, INSTANCE_BYTES = 8 };

struct sender {
    uint8_t instance[INSTANCE_BYTES];
    uint64_t last;
    UT_hash_handle hh; /* iterates in order of insertion: the longest silent first */
};

struct senders {
    struct sender *table;
};

static uint64_t counter_of(const struct request_id *id)
{
    uint64_t counter = 0;

    for (size_t i = INSTANCE_BYTES; i < sizeof(id->bytes); i++)
        counter = counter << 8 | id->bytes[i];
    return counter;
}

static void forget(struct senders *senders, struct sender *sender)
{
    HASH_DEL(senders->table, sender);
    free(sender);
}

/* The sender, as the one heard last; NULL for a new one. */
static struct sender *find(struct senders *senders, const struct request_id *id)
{
    struct sender *sender;

    HASH_FIND(hh, senders->table, id->bytes, INSTANCE_BYTES, sender);
    if (!sender)
        return NULL;
    HASH_DEL(senders->table, sender);
    HASH_ADD(hh, senders->table, instance, INSTANCE_BYTES, sender);
    return sender;
}

static struct sender *add(struct senders *senders, const struct request_id *id)
{
    struct sender *sender = memory_new(1, sizeof(*sender));

    if (HASH_COUNT(senders->table) >= SENDERS_MAX)
        forget(senders, senders->table);
    memcpy(sender->instance, id->bytes, INSTANCE_BYTES);
    HASH_ADD(hh, senders->table, instance, INSTANCE_BYTES, sender);
    return sender;
}

bool senders_have_seen(struct senders *senders, const struct request_id *id)
{
    struct sender *sender = find(senders, id);
    uint64_t counter = counter_of(id);

    if (sender && counter <= sender->last)
        return true;
    if (!sender)
        sender = add(senders, id);
    sender->last = counter;
    return false;
}

struct senders *senders_new(void)
{
    return memory_new(1, sizeof(struct senders));
}

void senders_free(struct senders *senders)
{
    while (senders->table)
        forget(senders, senders->table);
    free(senders);
}
