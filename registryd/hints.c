/* Tells other nodes that something changed, and hears them say so. Talks to Redis through two
 * links: one subscribes, the other publishes, as Redis lets no connection do both. A message says
 * only who sent it, so that nobody reads the feed for a change of his own; whoever can write to
 * Redis can make a node read the feed at its bounded rate, and nothing else. What is lost here, the
 * feed brings a moment later. */
#include "registryd/hints.h"

#include "registryd/feed.h"
#include "registryd/redis_link.h"
#include "registryd/registryd.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>

static const char channel_name[] = "caf:agents";

enum { RETRY_FIRST_MS = 100, RETRY_MAX_MS = 5000, INSTANCE_BYTES = 8 };

struct hints {
    struct registryd *daemon;
    const char *socket;
    struct redis_link *subscriber, *publisher;
    bool subscribed, refused;
    char instance[2 * INSTANCE_BYTES + 1];
    struct event *retry, *publish;
    int64_t retry_ms, published_ms, subscribed_ms;
};

/* ---- hints in ------------------------------------------------------------------------------- */

static void take_hint(struct hints *hints)
{
    hints->daemon->metrics.registry_hints_received_total++;
    feed_hint(hints->daemon->feed);
}

/* Reads for what was said while nobody listened. */
static void take_subscription(struct hints *hints)
{
    if (!hints->subscribed)
        log_info("Redis subscribed");
    hints->subscribed = true;
    hints->subscribed_ms = clock_monotonic_ms();
    feed_hint(hints->daemon->feed);
}

/* On a subscribed connection: ["subscribe", channel, number] once, then ["message", channel, text].
 * Whatever else it is may be a hint. */
static void on_heard(void *arg, struct redis_link *link, const struct redis_reply *reply)
{
    struct hints *hints = arg;
    const struct redis_word *first = &reply->words[0], *last = &reply->words[2];

    if (reply->count == 1 && first->type == REDIS_WORD_ERROR) {
        log_warn("Redis refuses the subscription", LOG_STR("reason", redis_word_excerpt(first)));
        redis_link_end(link, "no subscription");
    } else if (reply->count == 3 && last->type == REDIS_WORD_NUMBER) {
        take_subscription(hints);
    } else if (reply->count < 3 || !str_equal(redis_word_text(last), str_from(hints->instance))) {
        take_hint(hints);
    }
}

/* ---- hints out ------------------------------------------------------------------------------ */

/* Redis refuses by an error reply, on a connection that lives on. The first refusal of a row is
 * logged. */
static void on_published(void *arg, struct redis_link *link, const struct redis_reply *reply)
{
    struct hints *hints = arg;
    const struct redis_word *word = &reply->words[0];
    bool refused = reply->count == 1 && word->type == REDIS_WORD_ERROR;

    (void)link;
    if (refused && !hints->refused)
        log_warn("Redis refuses hints", LOG_STR("reason", redis_word_excerpt(word)));
    hints->refused = refused;
}

static void publish_now(struct hints *hints)
{
    const char *const words[] = {"PUBLISH", channel_name, hints->instance};

    hints->published_ms = clock_monotonic_ms();
    if (hints->publisher)
        redis_link_send(hints->publisher, 3, words);
}

static void on_publish_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    publish_now(arg);
}

void hints_publish(struct hints *hints)
{
    int64_t wait;
    struct timeval delay;

    if (!hints || evtimer_pending(hints->publish, NULL))
        return;
    wait = hints->published_ms + hints->daemon->options.feed_hint_gap_ms - clock_monotonic_ms();
    delay = clock_timeval(wait);
    if (wait <= 0)
        publish_now(hints);
    else
        event_add(hints->publish, &delay);
}

/* ---- connections ---------------------------------------------------------------------------- */

static void retry_later(struct hints *hints)
{
    struct timeval delay = clock_timeval(hints->retry_ms);

    if (evtimer_pending(hints->retry, NULL))
        return;
    event_add(hints->retry, &delay);
    hints->retry_ms = hints->retry_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : hints->retry_ms * 2;
}

static void forget_subscriber(struct hints *hints, const char *why)
{
    hints->subscriber = NULL;
    if (!hints->subscribed)
        return;
    log_warn("Redis lost: other nodes' changes are learned from the database alone",
             LOG_TEXT("reason", why));
    hints->subscribed = false;
    if (clock_monotonic_ms() - hints->subscribed_ms > RETRY_MAX_MS) /* it was not one that ends at
                                                                       once, again and again */
        hints->retry_ms = RETRY_FIRST_MS;
}

static void on_ended(void *arg, struct redis_link *link, const char *why)
{
    struct hints *hints = arg;

    if (link == hints->subscriber)
        forget_subscriber(hints, why);
    else
        hints->publisher = NULL;
    retry_later(hints);
}

static struct redis_link *open_link(struct hints *hints, const struct redis_link_events *events)
{
    return redis_link_open(hints->daemon->back.service.base, hints->socket,
                           hints->daemon->options.feed_hint_gap_ms, events, hints);
}

static void open_missing(struct hints *hints)
{
    static const struct redis_link_events hearing = {on_heard, on_ended};
    static const struct redis_link_events publishing = {on_published, on_ended};
    const char *const words[] = {"SUBSCRIBE", channel_name};

    if (!hints->publisher)
        hints->publisher = open_link(hints, &publishing);
    if (!hints->subscriber) {
        hints->subscriber = open_link(hints, &hearing);
        if (hints->subscriber)
            redis_link_send(hints->subscriber, 2, words);
    }
    if (!hints->publisher || !hints->subscriber)
        retry_later(hints);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    open_missing(arg);
}

/* ---- outside -------------------------------------------------------------------------------- */

struct hints *hints_open(struct registryd *daemon, const char *socket)
{
    struct hints *hints;
    uint8_t instance[INSTANCE_BYTES];

    if (!*socket)
        return NULL;
    hints = memory_new(1, sizeof(*hints));
    hints->daemon = daemon;
    hints->socket = socket;
    hints->retry_ms = RETRY_FIRST_MS;
    hints->retry = evtimer_new(daemon->back.service.base, on_retry, hints);
    hints->publish = evtimer_new(daemon->back.service.base, on_publish_timer, hints);
    if (!hints->retry || !hints->publish)
        log_fatal("out of memory");
    ids_random(instance, sizeof(instance));
    ids_hex(instance, sizeof(instance), hints->instance);
    open_missing(hints);
    return hints;
}

bool hints_connected(const struct hints *hints)
{
    return hints && hints->subscribed;
}

void hints_close(struct hints *hints)
{
    if (!hints)
        return;
    if (hints->publisher)
        redis_link_close(hints->publisher);
    if (hints->subscriber)
        redis_link_close(hints->subscriber);
    event_free(hints->retry);
    event_free(hints->publish);
    free(hints);
}
