/* The deny list. Reads it by the statement `revoked`, learns changes from the feed, and pushes both
 * to the workers that subscribed. Must never take an identity off the list but by a whole load.
 *
 * The list is in the order in which identities came to it, and a subscriber is a place in it: what
 * is before that place has been pushed. So the first list, a change, a thousand changes at once and
 * a worker that reads slowly are one thing; what a worker does not take costs no memory here. */
#include "registryd/deny_list.h"

#include "registryd/registryd.h"

#include "common/clock.h"
#include "common/deny_set.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <utlist.h>

enum {
    UNSENT_MAX = 1 << 20, /* bytes on their way to one worker, beyond which the next frame waits */
    PUSH_AGAIN_MS = 5,
    LOAD_AGAIN_MS = 1000,
};

struct deny_subscriber {
    struct ipc_channel *channel;
    size_t place; /* the number of the first identity that has not been pushed */
    bool begins;  /* the next frame begins the list anew */
    struct deny_subscriber *prev, *next;
};

struct deny_list {
    struct registryd *daemon;
    struct deny_set known;
    uint64_t base; /* serial of known before its first identity: each that comes adds one */
    struct deny_subscriber *subscribers;
    struct event *push_timer, *load_timer;

    uint64_t load;         /* counts the loads begun */
    struct deny_set found; /* what the load under way has found, or somebody told meanwhile */
    bool loading;
    bool full;                   /* identities are missing… */
    bool missed;                 /* …that this load or somebody meanwhile has named */
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

static bool has_more(const struct deny_list *deny, const struct deny_subscriber *subscriber)
{
    return subscriber->place < deny->known.count;
}

/* The next frame: as many identities as fit. False: the worker is gone. */
static bool push_frame(const struct deny_list *deny, struct deny_subscriber *subscriber)
{
    char ids[PROTO_DENY_IDS_MAX];
    struct msg_deny_list frame = {.first = subscriber->begins, .ids = {ids, 0}};

    while (has_more(deny, subscriber)) {
        struct str key = deny_set_key(&deny->known, subscriber->place);

        if (frame.ids.len + key.len > sizeof(ids))
            break;
        memcpy(ids + frame.ids.len, key.ptr, key.len);
        frame.ids.len += key.len;
        subscriber->place++;
    }
    subscriber->begins = false;
    frame.last = !has_more(deny, subscriber);
    frame.serial = deny->base + subscriber->place;
    return ipc_push(subscriber->channel, MSG_deny_list, &frame);
}

/* Pushes as much as the worker takes. False: it is gone. */
static bool push_some(const struct deny_list *deny, struct deny_subscriber *subscriber)
{
    if (!ipc_push_is_open(subscriber->channel)) /* with nothing to push, nothing else would tell */
        return false;
    while (subscriber->begins || has_more(deny, subscriber)) {
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
        else if (has_more(deny, subscriber))
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
    subscriber->place = 0;
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

/* What does not fit is refused by each request still, as its state says; only its handshake is not.
 */
static void note_full(struct deny_list *deny)
{
    if (!deny->full)
        log_error("the deny list is full: identities beyond it are refused by request, not in the "
                  "handshake; raise deny.identities_max here and limits.denied in frontd",
                  LOG_NUMBER("identities_max", deny->daemon->options.deny_identities_max));
    deny->full = deny->missed = true;
}

bool deny_list_add(struct deny_list *deny, struct str tenant_id, struct str spiffe_id)
{
    struct str key = deny_key_new(tenant_id, spiffe_id);
    enum deny_outcome outcome = deny_set_add(&deny->known, key);

    if (outcome == DENY_FULL)
        note_full(deny);
    else if (deny->loading)
        deny_set_add(&deny->found, key);
    if (outcome == DENY_ADDED && deny->loaded)
        push_soon(deny);
    free((char *)key.ptr);
    return outcome == DENY_ADDED;
}

/* ---- loading -------------------------------------------------------------------------------- */

static void ask_page(struct deny_list *deny);

/* A page on its way. */
struct page {
    struct deny_list *deny;
    uint64_t load;
};

/* Takes off what this load has not found, and nobody has told since it began: all that it has is
 * known, so that the two are the same where they are as many. The serial goes on by one. */
static size_t remove_unfound(struct deny_list *deny)
{
    size_t removed = deny->known.count - deny->found.count;

    if (removed > 0) {
        deny->base += removed + 1;
        deny_set_clear(&deny->known);
        deny->known = deny->found;
        deny->found = (struct deny_set){.max = deny->known.max};
    }
    deny_set_clear(&deny->found);
    return removed;
}

static void finish_load(struct deny_list *deny)
{
    size_t removed = remove_unfound(deny);

    deny->loading = false;
    deny->full = deny->missed;
    if (removed > 0)
        log_warn("identities left the deny list: the database says no more that they are revoked",
                 LOG_NUMBER("identities", (long long)removed));
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
    char rows[STR_NUMBER_BYTES];
    struct str params[] = {str_from(deny->tenant_id), str_from(deny->spiffe_id),
                           str_from_number(daemon->options.feed_rows_per_read, rows)};
    struct page *page = memory_new(1, sizeof(*page));

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
    deny->missed = false;
    deny_set_clear(&deny->found);
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
    return deny->known.count;
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
    deny->known.max = deny->found.max = (size_t)daemon->options.deny_identities_max;
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
    deny_list_stop(deny);
    deny_set_clear(&deny->known);
    deny_set_clear(&deny->found);
    event_free(deny->push_timer);
    event_free(deny->load_timer);
    free(deny->tenant_id);
    free(deny->spiffe_id);
    free(deny);
}
