/* Reads the change feed and applies it to the cache and the deny list. Touches the database by the
 * statement `feed` alone; a hint only makes it read sooner, at a bounded rate. Says when it is time
 * to look at everything anew (deny_list.c, nodes.c).
 *
 * Why an entry of the cache may be believed as long as the feed is fresh. Let a look-up or a
 * registration be answered from snapshot L, and let C be a change of that row that L does not see.
 *   - C is brought by some sweep: the first whose snapshot sees it, as sweeps leave no gap (see
 *     watermark.c). Only changes from before the first sweep's snapshot are brought by none; the
 *     first read invalidates all that was sent before its answer.
 *   - C is applied when the entry is filled already: then it invalidates the entry, whose
 *     changed_xid differs. It is the same only where L saw C.
 *   - C is applied between the sending and the answer: it moves the entry's revision, or where
 * there is no entry the cache's own, from which a new entry begins: the answer fills nothing.
 *   - C was applied before the sending: then L was taken after C was seen, and sees it.
 * So a wrong entry lives at most from C's commit to the end of the sweep that brings it, and
 * without sweeps cache.authority_seconds, counted from the sending of the last one's first page. */
#include "registryd/feed.h"

#include "registryd/deny_list.h"
#include "registryd/nodes.h"
#include "registryd/registryd.h"
#include "registryd/watermark.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>

/* The statement's parameters, and the columns of its answer, in their order. */
enum feed_param {
    PARAM_NODE,
    PARAM_APPLIED,
    PARAM_SWEEP,
    PARAM_CHANGED_XID,
    PARAM_TENANT_ID,
    PARAM_SPIFFE_ID,
    PARAM_ROWS,
    PARAM_MAY_TELL,
    PARAM_COUNT,
};

enum feed_column {
    COLUMN_SNAPSHOT,
    COLUMN_HISTORY,
    COLUMN_CHANGED_XID,
    COLUMN_TENANT_ID,
    COLUMN_SPIFFE_ID,
    COLUMN_STATE,
};

struct feed {
    struct registryd *daemon;
    struct watermark watermark;
    struct event *timer;
    bool reading; /* a read is under way */
    bool again;   /* the next one follows as soon as feed.hint_gap_ms allows */
    bool stopped;
    int64_t opened_ms;
    int64_t sent_ms;  /* when the last read was sent… */
    int64_t heard_ms; /* …and when one was last answered */
    int64_t reload_ms;
};

static void read_page(struct feed *feed);

/* ---- when ----------------------------------------------------------------------------------- */

static void read_in(struct feed *feed, int64_t ms)
{
    struct timeval delay = clock_timeval(ms);

    if (!feed->stopped)
        event_add(feed->timer, &delay);
}

/* The next read begins one interval after the last one's beginning, or one gap when there is a
 * reason. */
static void read_later(struct feed *feed)
{
    const struct registryd_options *options = &feed->daemon->options;
    int64_t wait = feed->again ? options->feed_hint_gap_ms : options->feed_interval_ms;

    read_in(feed, feed->sent_ms + wait - clock_monotonic_ms());
}

void feed_hint(struct feed *feed)
{
    if (feed->again)
        return;
    feed->again = true;
    if (!feed->reading)
        read_later(feed);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct feed *feed = arg;

    (void)fd;
    (void)what;
    read_page(feed);
}

/* ---- what ----------------------------------------------------------------------------------- */

/* False: this node knew it already. */
static bool apply_row(struct feed *feed, const struct pg_answer *answer, int row)
{
    struct registryd *daemon = feed->daemon;
    struct str tenant_id = pg_value(answer, row, COLUMN_TENANT_ID);
    struct str spiffe_id = pg_value(answer, row, COLUMN_SPIFFE_ID);
    enum agent_state state = agent_state_from_name(pg_value(answer, row, COLUMN_STATE));
    bool is_news =
        cache_apply_change(&daemon->cache, tenant_id, spiffe_id,
                           cache_changed_from(pg_value(answer, row, COLUMN_CHANGED_XID)));

    if (state == AGENT_REVOKED)
        is_news |= deny_list_add(daemon->deny, tenant_id, spiffe_id);
    return is_news;
}

/* What was believed is another server's word, or there was nothing yet. */
static void begin_history(struct feed *feed, struct str history)
{
    if (feed->watermark.history)
        log_warn("the database has another history: everything is looked at anew",
                 LOG_TEXT("was", feed->watermark.history), LOG_STR("is", history));
    cache_invalidate_all(&feed->daemon->cache);
    deny_list_load(feed->daemon->deny);
    nodes_forget(feed->daemon);
    feed->reload_ms = clock_monotonic_ms();
    feed->daemon->metrics.registry_feed_reloads_total++;
}

/* Against what no feed can tell, such as a change by hand that forgot changed_xid. The cache needs
 * no such moment: each of its entries has a time of its own (heartbeat.c). */
static void reload_if_due(struct feed *feed, int64_t now)
{
    if (!feed->watermark.history ||
        now - feed->reload_ms < feed->daemon->options.feed_reload_seconds * 1000)
        return;
    deny_list_check(feed->daemon->deny);
    nodes_forget(feed->daemon);
    feed->reload_ms = now;
    feed->daemon->metrics.registry_feed_reloads_total++;
}

/* Without a change the one row of the answer has none. */
static int count_changes(const struct pg_answer *answer)
{
    return pg_value(answer, 0, COLUMN_CHANGED_XID).ptr ? answer->row_count : 0;
}

static struct watermark_page page_of(const struct feed *feed, const struct pg_answer *answer)
{
    int last = answer->row_count - 1;

    return (struct watermark_page){
        .snapshot = pg_value(answer, 0, COLUMN_SNAPSHOT),
        .history = pg_value(answer, 0, COLUMN_HISTORY),
        .sent_ms = feed->sent_ms,
        .is_full = count_changes(answer) == feed->daemon->options.feed_rows_per_read,
        .changed_xid = pg_value(answer, last, COLUMN_CHANGED_XID),
        .tenant_id = pg_value(answer, last, COLUMN_TENANT_ID),
        .spiffe_id = pg_value(answer, last, COLUMN_SPIFFE_ID),
    };
}

static void apply_rows(struct feed *feed, const struct pg_answer *answer)
{
    int changes = count_changes(answer);
    uint64_t news = 0;

    for (int row = 0; row < changes; row++)
        news += apply_row(feed, answer, row);
    feed->daemon->metrics.registry_feed_rows_total += (uint64_t)changes;
    feed->daemon->metrics.registry_feed_applied_total += news;
    if (news > 0) /* the next read tells in `nodes` that it is applied */
        feed->again = true;
}

static void take_page(struct feed *feed, const struct pg_answer *answer)
{
    struct watermark_page page = page_of(feed, answer);

    feed->heard_ms = clock_monotonic_ms();
    feed->daemon->metrics.registry_feed_reads_total++;
    if (watermark_is_new_history(&feed->watermark, &page))
        begin_history(feed, page.history);
    else
        apply_rows(feed, answer);
    if (watermark_advance(&feed->watermark, &page) == WATERMARK_MORE)
        read_in(feed, 0);
    else
        read_later(feed);
}

static void on_page(void *arg, const struct pg_answer *answer)
{
    struct feed *feed = arg;

    feed->reading = false;
    back_note_refusal(answer, "the change feed");
    if (answer->outcome == PG_OK && answer->row_count > 0)
        take_page(feed, answer);
    else
        read_later(feed);
}

static void read_page(struct feed *feed)
{
    struct registryd *daemon = feed->daemon;
    const struct watermark *watermark = &feed->watermark;
    char rows[STR_NUMBER_BYTES];
    struct str params[PARAM_COUNT] = {
        [PARAM_NODE] = str_from(daemon->back.node),
        [PARAM_APPLIED] = str_from(watermark->applied),
        [PARAM_SWEEP] = str_from(watermark->sweep),
        [PARAM_CHANGED_XID] = watermark->sweep ? str_from(watermark->changed_xid) : STR("0"),
        [PARAM_TENANT_ID] = watermark->sweep ? str_from(watermark->tenant_id) : STR(""),
        [PARAM_SPIFFE_ID] = watermark->sweep ? str_from(watermark->spiffe_id) : STR(""),
        [PARAM_ROWS] = str_from_number(daemon->options.feed_rows_per_read, rows),
        [PARAM_MAY_TELL] = deny_list_is_whole(daemon->deny) ? STR("true") : STR("false"),
    };
    int64_t now = clock_monotonic_ms();

    reload_if_due(feed, now);
    feed->again = false;
    feed->sent_ms = now;
    /* The key keeps a read that was given up, and runs still, from running beside the next. */
    feed->reading = back_submit(&daemon->back, &registryd_statements[STATEMENT_FEED], STR("feed"),
                                params, on_page, feed);
    if (!feed->reading)
        read_later(feed);
}

/* ---- outside -------------------------------------------------------------------------------- */

bool feed_is_fresh(const struct feed *feed)
{
    return watermark_is_fresh(&feed->watermark, clock_monotonic_ms(),
                              feed->daemon->options.cache_authority_seconds * 1000);
}

int64_t feed_lag_ms(const struct feed *feed)
{
    int64_t since = feed->watermark.applied ? feed->watermark.applied_sent_ms : feed->opened_ms;

    return clock_monotonic_ms() - since;
}

int64_t feed_read_age_ms(const struct feed *feed)
{
    return clock_monotonic_ms() - feed->heard_ms;
}

unsigned feed_pending(const struct feed *feed)
{
    return feed->reading ? 1 : 0;
}

struct feed *feed_open(struct registryd *daemon)
{
    struct feed *feed = memory_new(1, sizeof(*feed));

    feed->daemon = daemon;
    feed->opened_ms = feed->heard_ms = clock_monotonic_ms();
    feed->timer = evtimer_new(daemon->back.service.base, on_timer, feed);
    if (!feed->timer)
        log_fatal("out of memory");
    read_page(feed);
    return feed;
}

void feed_stop(struct feed *feed)
{
    feed->stopped = true;
    event_del(feed->timer);
}

void feed_close(struct feed *feed)
{
    event_free(feed->timer);
    watermark_clear(&feed->watermark);
    free(feed);
}
