/* What is counted together: its key, its sums, its words. Knows nothing of windows, rows and the
 * database. */
#include "eventd/bucket.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

enum { PREFIX_BYTES = INET6_ADDRSTRLEN + 4, IP6_PREFIX_BYTES = 8 };

/* ---- addresses ------------------------------------------------------------------------------ */

/* The address that the text spells, IPv4 as IPv4-mapped IPv6. */
static bool parse_address(struct str text, struct in6_addr *address)
{
    char spelled[INET6_ADDRSTRLEN] = "";

    if (!text.ptr || text.len >= sizeof(spelled))
        return false;
    memcpy(spelled, text.ptr, text.len);
    memset(address, 0, sizeof(*address));
    if (inet_pton(AF_INET, spelled, &address->s6_addr[12]) == 1) {
        address->s6_addr[10] = address->s6_addr[11] = 0xff;
        return true;
    }
    return inet_pton(AF_INET6, spelled, address) == 1;
}

static void format_address(const struct in6_addr *address, char text[INET6_ADDRSTRLEN])
{
    if (IN6_IS_ADDR_V4MAPPED(address))
        inet_ntop(AF_INET, &address->s6_addr[12], text, INET6_ADDRSTRLEN);
    else
        inet_ntop(AF_INET6, address, text, INET6_ADDRSTRLEN);
}

/* The prefix that is counted together; "" when the text is no address. */
static void format_prefix(struct str source_ip, char text[PREFIX_BYTES])
{
    char network[INET6_ADDRSTRLEN];
    struct in6_addr address;

    *text = '\0';
    if (!parse_address(source_ip, &address))
        return;
    if (IN6_IS_ADDR_V4MAPPED(&address)) {
        format_address(&address, text);
        return;
    }
    memset(&address.s6_addr[IP6_PREFIX_BYTES], 0, sizeof(address) - IP6_PREFIX_BYTES);
    format_address(&address, network);
    snprintf(text, PREFIX_BYTES, "%s/64", network);
}

/* ---- keys ----------------------------------------------------------------------------------- */

static void key_begin(struct bucket_key *key, enum bucket_kind kind)
{
    key->kind = kind;
    key->bytes[0] = (char)('0' + (int)kind);
    key->len = 1;
}

static void key_add(struct bucket_key *key, struct str name)
{
    if (key->len + name.len + 1 > sizeof(key->bytes))
        log_fatal("a note is longer than its message allows");
    if (name.ptr)
        memcpy(key->bytes + key->len, name.ptr, name.len);
    key->len += name.len;
    key->bytes[key->len++] = '\0';
}

void bucket_key_of(struct bucket_key *key, const struct msg_event_note *note)
{
    char prefix[PREFIX_BYTES];

    key_begin(key, note->spiffe_id.ptr ? BUCKET_IDENTITY : BUCKET_ADDRESS);
    key_add(key, note->event_type);
    key_add(key, note->tenant_id);
    key_add(key, note->details);
    if (note->spiffe_id.ptr) {
        key_add(key, note->spiffe_id);
        return;
    }
    format_prefix(note->source_ip, prefix);
    key_add(key, str_from(prefix));
}

void bucket_key_overflow(struct bucket_key *key, const struct msg_event_note *note)
{
    key_begin(key, BUCKET_OVERFLOW);
    key_add(key, note->event_type);
    key_add(key, STR("_system"));
    key_add(key, STR("{\"overflow\":true}"));
    key_add(key, STR(""));
}

/* ---- a bucket ------------------------------------------------------------------------------- */

static struct str next_name(const char **at)
{
    struct str name = str_from(*at);

    *at += name.len + 1;
    return name;
}

struct bucket *bucket_new(const struct bucket_key *key, const char *severity)
{
    struct bucket *bucket = memory_new(1, sizeof(*bucket) + key->len);
    const char *at = bucket->key + 1;
    struct str whom;

    memcpy(bucket->key, key->bytes, key->len);
    bucket->key_len = key->len;
    bucket->kind = key->kind;
    bucket->severity = severity;
    bucket->type = next_name(&at);
    bucket->tenant = next_name(&at);
    bucket->details = next_name(&at);
    whom = next_name(&at);
    bucket->spiffe_id = key->kind == BUCKET_IDENTITY ? whom : STR_ABSENT;
    bucket->prefix = key->kind == BUCKET_ADDRESS && whom.len > 0 ? whom : STR_ABSENT;
    return bucket;
}

static void add_address(struct bucket_repeats *repeats, struct str source_ip)
{
    struct in6_addr address;

    if (!parse_address(source_ip, &address))
        return;
    for (size_t i = 0; i < repeats->address_count; i++)
        if (IN6_ARE_ADDR_EQUAL(&repeats->addresses[i], &address))
            return;
    if (repeats->address_count < BUCKET_ADDRESSES)
        repeats->addresses[repeats->address_count++] = address;
    else
        repeats->more_addresses = true;
}

static void add_sample(struct bucket_repeats *repeats, struct str sample)
{
    if (repeats->count == 0)
        repeats->sample = str_dup(sample);
    else if (!repeats->samples_differ && !str_equal(str_from(repeats->sample), sample))
        repeats->samples_differ = true;
}

void bucket_add(struct bucket *bucket, const struct request_id *id,
                const struct msg_event_note *note)
{
    struct bucket_repeats *repeats = &bucket->repeats;

    add_sample(repeats, note->sample);
    if (repeats->count == 0) {
        repeats->id = *id;
        repeats->occurred_at = repeats->first_at = repeats->last_at = note->occurred_at;
    }
    repeats->count += note->count;
    if (note->occurred_at < repeats->first_at)
        repeats->first_at = note->occurred_at;
    if (note->occurred_at > repeats->last_at)
        repeats->last_at = note->occurred_at;
    add_address(repeats, note->source_ip);
}

void bucket_restart(struct bucket *bucket)
{
    free(bucket->repeats.sample);
    bucket->repeats = (struct bucket_repeats){.count = 0};
}

void bucket_address_text(const struct bucket *bucket, char text[INET6_ADDRSTRLEN])
{
    *text = '\0';
    if (bucket->repeats.address_count > 0)
        format_address(&bucket->repeats.addresses[0], text);
}

static void print_addresses(const struct bucket_repeats *repeats, FILE *out)
{
    char spelled[INET6_ADDRSTRLEN];

    fprintf(out, ",\"addresses\":[");
    for (size_t i = 0; i < repeats->address_count; i++) {
        format_address(&repeats->addresses[i], spelled);
        fprintf(out, "%s\"%s\"", i > 0 ? "," : "", spelled);
    }
    fprintf(out, "]%s", repeats->more_addresses ? ",\"more_addresses\":true" : "");
}

char *bucket_repeats_text(const struct bucket *bucket)
{
    const struct bucket_repeats *repeats = &bucket->repeats;
    char first[CLOCK_TEXT_BYTES], last[CLOCK_TEXT_BYTES], *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        log_fatal("out of memory");
    clock_format(repeats->first_at, first);
    clock_format(repeats->last_at, last);
    fprintf(out, "{\"first_seen\":\"%s\",\"last_seen\":\"%s\"", first, last);
    if (repeats->address_count > 1)
        print_addresses(repeats, out);
    fprintf(out, "}");
    if (fclose(out) != 0)
        log_fatal("out of memory");
    return text;
}

void bucket_free(struct bucket *bucket)
{
    free(bucket->repeats.sample);
    free(bucket);
}
