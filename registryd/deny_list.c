/* The deny list. Reads it by the statement `revoked`, learns changes from the feed, and pushes both
 * to the workers that subscribed. Must never take an identity off the list but by a whole load.
 *
 * The list is in the order in which identities came to it, and a subscriber is a place in it: what
 * is behind that place has been pushed. So the first list, a change, a thousand changes at once and
 * a worker that reads slowly are one thing; what a worker does not take costs no memory here. */
#include "registryd/deny_list.h"

#include "registryd/registryd.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

enum {
    UNSENT_MAX = 1 << 20, /* bytes on their way to one worker, beyond which the next frame waits */
    PUSH_AGAIN_MS = 5,
    LOAD_AGAIN_MS = 1000,
    NUMBER_TEXT_BYTES = 24,
};

struct deny_entry {
    UT_hash_handle hh; /* iterates in the order of coming */
    uint64_t load;     /* the last load that found it, or during which it came */
    uint64_t serial;
    size_t len;
    char key[]; /* as it is pushed: tenant_id, NUL, spiffe_id, NUL */
};

struct deny_subscriber {
    struct ipc_channel *channel;
    struct deny_entry *place; /* the first that has not been pushed; NULL: all have */
    bool begins;              /* the next frame begins the list anew */
    struct deny_subscriber *prev, *next;
};

struct deny_list {
    struct registryd *daemon;
    struct deny_entry *entries;
    uint64_t serial; /* of the list: moves with each change */
    struct deny_subscriber *subscribers;
    struct event *push_timer, *load_timer;

    uint64_t load; /* counts the loads begun */
    bool loading, full;
    bool loaded;                 /* once, so that it may be pushed */
    bool whole;                  /* since the database's history began */
    char *tenant_id, *spiffe_id; /* the last that the load under way has found */
    unsigned pages_pending;
};

/* ---- pushing -------------------------------------------------------------------------------- */

static void subscriber_end(struct deny_list *deny, struct deny_subscriber *subscriber)
{
    DL_DELETE(deny->subscribers, subscriber);
    ipc_push_end(subscriber->channel);
    free(subscriber);
}

/* The next frame: as many identities as fit. False: the worker is gone. */
static bool push_frame(const struct deny_list *deny, struct deny_subscriber *subscriber)
{
    char ids[PROTO_DENY_IDS_MAX];
    struct msg_deny_list frame = {.first = subscriber->begins, .ids = {ids, 0}};
    const struct deny_entry *entry;

    while ((entry = subscriber->place) && frame.ids.len + entry->len <= sizeof(ids)) {
        memcpy(ids + frame.ids.len, entry->key, entry->len);
        frame.ids.len += entry->len;
        subscriber->place = entry->hh.next;
    }
    subscriber->begins = false;
    frame.last = !subscriber->place;
    frame.serial = frame.last ? deny->serial : subscriber->place->serial - 1;
    return ipc_push(subscriber->channel, MSG_deny_list, &frame);
}

/* Pushes as much as the worker takes. False: it is gone. */
static bool push_some(const struct deny_list *deny, struct deny_subscriber *subscriber)
{
    if (!ipc_push_is_open(subscriber->channel)) /* with nothing to push, nothing else would tell */
        return false;
    while (subscriber->begins || subscriber->place) {
        if (ipc_channel_unsent(subscriber->channel) > UNSENT_MAX)
            return true;
        if (!push_frame(deny, subscriber))
            return false;
    }
    return true;
}

static void on_push_timer(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval again = {.tv_usec = PUSH_AGAIN_MS * 1000};
    struct deny_list *deny = arg;
    struct deny_subscriber *subscriber, *next;

    (void)fd;
    (void)what;
    DL_FOREACH_SAFE(deny->subscribers, subscriber, next)
    {
        if (!push_some(deny, subscriber))
            subscriber_end(deny, subscriber);
        else if (subscriber->place)
            event_add(deny->push_timer, &again);
    }
}

/* Not at once: what one turn of the loop learns goes out together. */
static void push_soon(struct deny_list *deny)
{
    event_active(deny->push_timer, EV_TIMEOUT, 0);
}

static void begin_anew(struct deny_list *deny, struct deny_subscriber *subscriber)
{
    subscriber->begins = true;
    subscriber->place = deny->entries;
    push_soon(deny);
}

static void push_all_anew(struct deny_list *deny)
{
    struct deny_subscriber *subscriber;

    DL_FOREACH(deny->subscribers, subscriber)
    {
        begin_anew(deny, subscriber);
    }
}

static struct deny_subscriber *find_subscriber(const struct deny_list *deny,
                                               const struct ipc_channel *channel)
{
    struct deny_subscriber *subscriber;

    DL_FOREACH(deny->subscribers, subscriber)
    {
        if (subscriber->channel == channel)
            return subscriber;
    }
    return NULL;
}

void deny_list_subscribe(struct deny_list *deny, struct ipc_reply_to to)
{
    static const struct msg_deny_subscribed nothing;
    struct deny_subscriber *subscriber = find_subscriber(deny, to.channel);

    if (!subscriber) {
        subscriber = memory_new(1, sizeof(*subscriber));
        subscriber->channel = ipc_push_begin(to);
        DL_APPEND(deny->subscribers, subscriber);
    }
    if (deny->loaded)
        begin_anew(deny, subscriber);
    ipc_reply(to, MSG_deny_subscribed, &nothing);
}

/* ---- the list ------------------------------------------------------------------------------- */

static struct deny_entry *entry_new(struct str tenant_id, struct str spiffe_id)
{
    size_t len = tenant_id.len + spiffe_id.len + 2;
    struct deny_entry *entry = memory_new(1, sizeof(*entry) + len);

    entry->len = len;
    memcpy(entry->key, tenant_id.ptr, tenant_id.len);
    memcpy(entry->key + tenant_id.len + 1, spiffe_id.ptr, spiffe_id.len);
    return entry;
}

static bool has_room(const struct deny_list *deny)
{
    return deny_list_count(deny) < (size_t)deny->daemon->options.deny_identities_max;
}

/* What does not fit is refused by each request still, as its state says; only its handshake is not.
 */
static void note_full(struct deny_list *deny)
{
    if (!deny->full)
        log_error("the deny list is full: identities beyond it are refused by request, not in the "
                  "handshake; raise deny.identities_max here and limits.denied in frontd",
                  LOG_NUMBER("identities_max", deny->daemon->options.deny_identities_max));
    deny->full = true;
}

static void entry_append(struct deny_list *deny, struct deny_entry *entry)
{
    struct deny_subscriber *subscriber;

    entry->serial = ++deny->serial;
    HASH_ADD(hh, deny->entries, key, entry->len, entry);
    if (!deny->loaded)
        return;
    DL_FOREACH(deny->subscribers, subscriber)
    {
        if (!subscriber->place)
            subscriber->place = entry;
    }
    push_soon(deny);
}

bool deny_list_add(struct deny_list *deny, struct str tenant_id, struct str spiffe_id)
{
    struct deny_entry *entry = entry_new(tenant_id, spiffe_id), *known;

    HASH_FIND(hh, deny->entries, entry->key, entry->len, known);
    if (!known && has_room(deny)) {
        entry->load = deny->load;
        entry_append(deny, entry);
        return true;
    }
    if (known)
        known->load = deny->load;
    else
        note_full(deny);
    free(entry);
    return false;
}

/* ---- loading -------------------------------------------------------------------------------- */

static void ask_page(struct deny_list *deny);

/* A page on its way. */
struct page {
    struct deny_list *deny;
    uint64_t load;
};

/* Takes off what this load has not found, and nobody has told since it began. */
static size_t remove_unfound(struct deny_list *deny)
{
    struct deny_entry *entry, *next;
    size_t removed = 0;

    HASH_ITER(hh, deny->entries, entry, next)
    {
        if (entry->load == deny->load)
            continue;
        HASH_DEL(deny->entries, entry);
        free(entry);
        removed++;
    }
    return removed;
}

static void finish_load(struct deny_list *deny)
{
    size_t removed = remove_unfound(deny);

    deny->loading = false;
    if (removed > 0) {
        deny->serial++;
        log_warn("identities left the deny list: the database says no more that they are revoked",
                 LOG_NUMBER("identities", (long long)removed));
    }
    if (has_room(deny))
        deny->full = false;
    if (!deny->whole)
        log_info("the deny list is loaded",
                 LOG_NUMBER("identities", (long long)deny_list_count(deny)));
    deny->whole = true;
    if (!deny->loaded || removed > 0) {
        deny->loaded = true;
        push_all_anew(deny);
    }
}

static void note_place(struct deny_list *deny, struct str tenant_id, struct str spiffe_id)
{
    free(deny->tenant_id);
    free(deny->spiffe_id);
    deny->tenant_id = str_dup(tenant_id);
    deny->spiffe_id = str_dup(spiffe_id);
}

static void take_page(struct deny_list *deny, const struct pg_answer *answer)
{
    int last = answer->row_count - 1;

    for (int row = 0; row <= last; row++)
        deny_list_add(deny, pg_value(answer, row, 0), pg_value(answer, row, 1));
    if (answer->row_count < deny->daemon->options.feed_rows_per_read) {
        finish_load(deny);
        return;
    }
    note_place(deny, pg_value(answer, last, 0), pg_value(answer, last, 1));
    ask_page(deny);
}

static void ask_again_later(struct deny_list *deny)
{
    struct timeval delay = clock_timeval(LOAD_AGAIN_MS);

    event_add(deny->load_timer, &delay);
}

static void on_page(void *arg, const struct pg_answer *answer)
{
    struct page page = *(struct page *)arg;

    free(arg);
    page.deny->pages_pending--;
    back_note_refusal(answer, "the deny list");
    if (page.load != page.deny->load || !page.deny->loading)
        return; /* a load began after it */
    if (answer->outcome == PG_OK)
        take_page(page.deny, answer);
    else
        ask_again_later(page.deny);
}

static void ask_page(struct deny_list *deny)
{
    struct registryd *daemon = deny->daemon;
    char rows[NUMBER_TEXT_BYTES];
    struct str params[] = {str_from(deny->tenant_id), str_from(deny->spiffe_id), {rows, 0}};
    struct page *page = memory_new(1, sizeof(*page));

    params[2].len =
        (size_t)snprintf(rows, sizeof(rows), "%lld", (long long)daemon->options.feed_rows_per_read);
    *page = (struct page){deny, deny->load};
    if (back_submit(&daemon->back, &registryd_statements[STATEMENT_REVOKED], STR_ABSENT, params,
                    on_page, page)) {
        deny->pages_pending++;
        return;
    }
    free(page);
    ask_again_later(deny);
}

static void on_load_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ask_page(arg);
}

static void begin_load(struct deny_list *deny)
{
    deny->load++;
    deny->loading = true;
    event_del(deny->load_timer);
    note_place(deny, STR(""), STR(""));
    ask_page(deny);
}

void deny_list_load(struct deny_list *deny)
{
    deny->whole = false;
    begin_load(deny);
}

void deny_list_check(struct deny_list *deny)
{
    if (!deny->loading)
        begin_load(deny);
}

/* ---- outside -------------------------------------------------------------------------------- */

bool deny_list_is_whole(const struct deny_list *deny)
{
    return deny->whole;
}

size_t deny_list_count(const struct deny_list *deny)
{
    return HASH_COUNT(deny->entries);
}

size_t deny_list_subscribers(const struct deny_list *deny)
{
    const struct deny_subscriber *subscriber;
    size_t count;

    DL_COUNT(deny->subscribers, subscriber, count);
    return count;
}

bool deny_list_is_full(const struct deny_list *deny)
{
    return deny->full;
}

unsigned deny_list_pending(const struct deny_list *deny)
{
    return deny->pages_pending;
}

struct deny_list *deny_list_open(struct registryd *daemon)
{
    struct deny_list *deny = memory_new(1, sizeof(*deny));

    deny->daemon = daemon;
    deny->push_timer = evtimer_new(daemon->back.service.base, on_push_timer, deny);
    deny->load_timer = evtimer_new(daemon->back.service.base, on_load_timer, deny);
    if (!deny->push_timer || !deny->load_timer)
        log_fatal("out of memory");
    return deny;
}

void deny_list_stop(struct deny_list *deny)
{
    deny->loading = false;
    event_del(deny->load_timer);
    event_del(deny->push_timer);
    while (deny->subscribers)
        subscriber_end(deny, deny->subscribers);
}

void deny_list_close(struct deny_list *deny)
{
    struct deny_entry *entry, *next;

    deny_list_stop(deny);
    HASH_ITER(hh, deny->entries, entry, next)
    {
        HASH_DEL(deny->entries, entry);
        free(entry);
    }
    event_free(deny->push_timer);
    event_free(deny->load_timer);
    free(deny->tenant_id);
    free(deny->spiffe_id);
    free(deny);
}
