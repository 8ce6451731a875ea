/* Redis as a messenger between nodes: "this agent changed, look again". It carries hints, never
 * authority: whoever writes to it can make a cache look again and nothing else. Opens Redis' Unix
 * socket; holds no secret. */
#include "registryd/registryd.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/memory.h"

#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>
#include <stdio.h>
#include <stdlib.h>

static const char channel_name[] = "caf:agents";

enum { RETRY_FIRST_MS = 100, RETRY_MAX_MS = 5000, INSTANCE_BYTES = 8, UNANSWERED_MAX = 10000 };

/* One connection subscribes, the other publishes: Redis lets no connection do both. */
struct hints {
    struct registryd *daemon;
    char *socket;
    redisAsyncContext *subscriber, *publisher;
    bool subscribed, refused, closing;
    size_t unanswered; /* hints that Redis has not confirmed: what a Redis that hangs may cost */
    char instance[2 * INSTANCE_BYTES + 1];
    struct event *retry;
    int64_t retry_ms;
};

/* ---- connections ---------------------------------------------------------------------------- */

static void retry_later(struct hints *hints)
{
    struct timeval delay = clock_timeval(hints->retry_ms);

    if (hints->closing || evtimer_pending(hints->retry, NULL))
        return;
    evtimer_add(hints->retry, &delay);
    hints->retry_ms = hints->retry_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : hints->retry_ms * 2;
}

static void forget(struct hints *hints, const redisAsyncContext *context)
{
    if (context == hints->subscriber) {
        if (hints->subscribed)
            log_warn("Redis lost: other nodes' changes are learned from the database");
        hints->subscriber = NULL;
        hints->subscribed = false;
    } else if (context == hints->publisher) {
        hints->publisher = NULL;
    }
    retry_later(hints);
}

static void on_connected(const redisAsyncContext *context, int status)
{
    if (status != REDIS_OK) /* hiredis frees the context after this */
        forget(context->data, context);
}

static void on_disconnected(const redisAsyncContext *context, int status)
{
    (void)status;
    forget(context->data, context);
}

static redisAsyncContext *connect_to(struct hints *hints)
{
    redisAsyncContext *context = redisAsyncConnectUnix(hints->socket);

    if (!context || context->err ||
        redisLibeventAttach(context, hints->daemon->back.service.base) != REDIS_OK) {
        if (context)
            redisAsyncFree(context);
        return NULL;
    }
    context->data = hints;
    redisAsyncSetConnectCallback(context, on_connected);
    redisAsyncSetDisconnectCallback(context, on_disconnected);
    return context;
}

/* ---- hints in ------------------------------------------------------------------------------- */

/* The next word of text, up to a space; text moves behind it. */
static struct str next_word(struct str *text)
{
    const char *space = memchr(text->ptr, ' ', text->len);
    struct str word = {text->ptr, space ? (size_t)(space - text->ptr) : text->len};
    size_t taken = word.len + (space ? 1 : 0);

    *text = (struct str){text->ptr + taken, text->len - taken};
    return word;
}

/* "INSTANCE TENANT SPIFFE_ID"; anything else is nobody's business. */
static void take_hint(struct hints *hints, struct str text)
{
    struct str instance = next_word(&text), tenant_id = next_word(&text), spiffe_id = text;
    struct cache_agent *agent;

    if (str_equal(instance, str_from(hints->instance)) || !tenant_id.len || !spiffe_id.len)
        return;
    agent = cache_find(&hints->daemon->cache, tenant_id, spiffe_id);
    if (agent)
        cache_invalidate(&hints->daemon->cache, agent);
    else
        hints->daemon->cache.revision++; /* what is on its way for it does not count */
}

static void on_message(redisAsyncContext *context, void *reply_, void *arg)
{
    struct hints *hints = arg;
    const redisReply *reply = reply_;

    (void)context;
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
        return;
    if (reply->element[2]->type == REDIS_REPLY_STRING) {
        take_hint(hints, (struct str){reply->element[2]->str, reply->element[2]->len});
    } else if (reply->element[2]->type == REDIS_REPLY_INTEGER) {
        log_info("Redis subscribed");
        hints->subscribed = true;
        hints->retry_ms = RETRY_FIRST_MS;
        /* What was said while nobody listened is lost: look at everything again. */
        cache_invalidate_all(&hints->daemon->cache);
    }
}

static void connect_missing(struct hints *hints)
{
    if (!hints->publisher)
        hints->publisher = connect_to(hints);
    if (!hints->subscriber) {
        hints->subscriber = connect_to(hints);
        if (hints->subscriber)
            redisAsyncCommand(hints->subscriber, on_message, hints, "SUBSCRIBE %s", channel_name);
    }
    if (!hints->publisher || !hints->subscriber)
        retry_later(hints);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    connect_missing(arg);
}

/* ---- hints out ------------------------------------------------------------------------------ */

/* Redis refuses by an error reply, on a connection that lives on. The first refusal of a row is
 * logged. */
static void on_published(redisAsyncContext *context, void *reply_, void *arg)
{
    struct hints *hints = arg;
    const redisReply *reply = reply_;
    bool refused = reply && reply->type == REDIS_REPLY_ERROR;

    (void)context;
    hints->unanswered--;
    if (refused && !hints->refused)
        log_warn("Redis refuses hints", LOG_STR("reason", ((struct str){reply->str, reply->len})));
    hints->refused = refused;
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
    hints->socket = str_dup(str_from(socket));
    hints->retry_ms = RETRY_FIRST_MS;
    hints->retry = evtimer_new(daemon->back.service.base, on_retry, hints);
    ids_random(instance, sizeof(instance));
    ids_hex(instance, sizeof(instance), hints->instance);
    connect_missing(hints);
    return hints;
}

void hints_publish(struct hints *hints, struct str tenant_id, struct str spiffe_id)
{
    cleanup_free char *text = NULL;

    if (!hints || !hints->publisher || hints->unanswered >= UNANSWERED_MAX)
        return;
    if (asprintf(&text, "%s %.*s %.*s", hints->instance, STR_ARGS(tenant_id), STR_ARGS(spiffe_id)) <
        0)
        log_fatal("out of memory");
    if (redisAsyncCommand(hints->publisher, on_published, hints, "PUBLISH %s %s", channel_name,
                          text) == REDIS_OK)
        hints->unanswered++;
}

bool hints_connected(const struct hints *hints)
{
    return hints && hints->subscribed;
}

void hints_close(struct hints *hints)
{
    if (!hints)
        return;
    hints->closing = true;
    if (hints->publisher)
        redisAsyncFree(hints->publisher);
    if (hints->subscriber)
        redisAsyncFree(hints->subscriber);
    event_free(hints->retry);
    free(hints->socket);
    free(hints);
}
