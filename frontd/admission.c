/* Counts what is under way against the limits, and what was refused. Touches its own numbers, and
 * at the start the process' bound on descriptors; decides, and leaves it to others to say no. */
#include "frontd/admission.h"

#include "common/log.h"
#include "common/memory.h"
#include "frontd/lingering.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <uthash.h>

enum { DESCRIPTORS_OF_ITS_OWN = 64 }; /* the loop, the listener, the backends, the supervisor */

struct address_use {
    struct address_key key;
    size_t connections, handshakes;
    UT_hash_handle hh;
};

static const char *const refusal_texts[REFUSAL_COUNT] = {
#define REFUSAL(name, help) [REFUSAL_##name] = help,
#include "frontd/refusals.def"
#undef REFUSAL
};

/* ---- limits --------------------------------------------------------------------------------- */

/* Connections that the process' bound on descriptors has room for, after raising it where it may.
 */
static size_t descriptors_for(size_t connections)
{
    const rlim_t others = LINGERING_MAX + DESCRIPTORS_OF_ITS_OWN;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return connections;
    if (limit.rlim_cur < connections + others) {
        limit.rlim_cur =
            limit.rlim_max < connections + others ? limit.rlim_max : connections + others;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur > others ? limit.rlim_cur - others : 1;
}

static size_t without_share(size_t all, int64_t percent)
{
    return all - all * (size_t)percent / 100;
}

void admission_open(struct admission *admission, const struct frontd_options *options,
                    uint64_t *refused)
{
    size_t wanted = (size_t)options->limits_connections;
    size_t possible = descriptors_for(wanted);

    if (possible < wanted)
        log_warn("limits.connections is more than RLIMIT_NOFILE has room for",
                 LOG_NUMBER("configured", (long long)wanted),
                 LOG_NUMBER("in_force", (long long)possible));
    *admission = (struct admission){
        .refused = refused,
        .connections_max = possible < wanted ? possible : wanted,
        .connections_per_address_max = (size_t)options->limits_connections_per_address,
        .handshakes_max = (size_t)options->limits_handshakes,
        .handshakes_per_address_max = (size_t)options->limits_handshakes_per_address,
        .in_flight_open_to_all =
            without_share((size_t)options->limits_in_flight, options->limits_operators_percent),
    };
    admission->connections_open_to_all =
        without_share(admission->connections_max, options->limits_operators_percent);
    if (RAND_bytes(admission->secret, sizeof(admission->secret)) != 1)
        log_fatal("no random bytes");
}

/* ---- addresses ------------------------------------------------------------------------------ */

static struct address_use *find_use(const struct admission *admission,
                                    const struct address *address)
{
    struct address_key key = address_make_key(admission->secret, address);
    struct address_use *use;

    HASH_FIND(hh, admission->by_address, &key, sizeof(key), use);
    return use;
}

static struct address_use *need_use(struct admission *admission, const struct address *address)
{
    struct address_use *use = find_use(admission, address);

    if (use)
        return use;
    use = memory_new(1, sizeof(*use));
    use->key = address_make_key(admission->secret, address);
    HASH_ADD(hh, admission->by_address, key, sizeof(use->key), use);
    return use;
}

static enum refusal check_address(const struct admission *admission, const struct address *address)
{
    const struct address_use *use = find_use(admission, address);

    if (use && use->connections >= admission->connections_per_address_max)
        return REFUSAL_connections_per_address;
    if (use && use->handshakes >= admission->handshakes_per_address_max)
        return REFUSAL_handshakes_per_address;
    return REFUSAL_NONE;
}

static void enter_address(struct admission *admission, const struct address *address,
                          struct admission_place *place)
{
    place->use = need_use(admission, address);
    place->use->connections++;
    place->use->handshakes += place->in_handshake;
}

/* ---- connections ---------------------------------------------------------------------------- */

enum refusal admission_check(const struct admission *admission, const struct address *address)
{
    if (admission->connections >= admission->connections_max)
        return REFUSAL_connections;
    if (admission->handshakes >= admission->handshakes_max)
        return REFUSAL_handshakes;
    return address ? check_address(admission, address) : REFUSAL_NONE;
}

void admission_enter(struct admission *admission, const struct address *address,
                     struct admission_place *place)
{
    place->entered = place->in_handshake = true;
    admission->connections++;
    admission->handshakes++;
    if (address)
        enter_address(admission, address, place);
}

enum refusal admission_name(struct admission *admission, const struct address *address,
                            struct admission_place *place)
{
    enum refusal refusal = check_address(admission, address);

    if (refusal == REFUSAL_NONE)
        enter_address(admission, address, place);
    return refusal;
}

void admission_handshake_over(struct admission *admission, struct admission_place *place)
{
    if (!place->in_handshake)
        return;
    place->in_handshake = false;
    admission->handshakes--;
    if (place->use)
        place->use->handshakes--;
}

void admission_leave(struct admission *admission, struct admission_place *place)
{
    if (!place->entered)
        return;
    admission_handshake_over(admission, place);
    place->entered = false;
    admission->connections--;
    if (place->use && --place->use->connections == 0) {
        HASH_DEL(admission->by_address, place->use);
        free(place->use);
    }
    place->use = NULL;
}

bool admission_in_reserve(const struct admission *admission)
{
    return admission->connections > admission->connections_open_to_all;
}

void admission_count(struct admission *admission, enum refusal refusal)
{
    uint64_t count = ++admission->refused[refusal];

    if ((count & (count - 1)) == 0)
        log_warn("refused", LOG_TEXT("reason", refusal_texts[refusal]),
                 LOG_NUMBER("refused", (long long)count));
}
