/* /livez, /readyz and /health: the loop turns; each backend answers and the database takes writes;
 * both in words. Every question goes to the back daemons each time: nothing here remembers that all
 * was well. */
#include "frontd/handlers.h"
#include "frontd/worker.h"

#include "common/clock.h"
#include "common/memory.h"

#include <stdio.h>

enum { DETAIL_BYTES = 512 };

static const struct {
    const char *name;
    enum proto_peer peer;
} asked[] = {
    {"keeper", PEER_KEEPER},
    {"registryd", PEER_REGISTRYD},
    {"auditd", PEER_AUDITD},
    {"eventd", PEER_EVENTD},
};

enum { ASKED_COUNT = sizeof(asked) / sizeof(asked[0]) };
_Static_assert((int)ASKED_COUNT <= (int)EXCHANGE_CALLS_MAX, "one call each");

/* What has been heard so far. */
struct checks {
    size_t waiting;
    bool ready, degraded;
    char details[ASKED_COUNT][DETAIL_BYTES];
    void (*report)(struct exchange *exchange, const struct checks *checks);
};

void health_live(struct exchange *exchange)
{
    exchange_answer(exchange, 200, "{\"status\":\"live\"}");
}

static void take_status(struct checks *checks, size_t slot, const struct message *answer)
{
    const struct msg_status *status;

    if (!answer || answer->type != MSG_status) {
        snprintf(checks->details[slot], DETAIL_BYTES, "{\"status\":\"unreachable\"}");
        checks->ready = false;
        return;
    }
    status = &answer->body.status;
    checks->ready = checks->ready && status->ready;
    checks->degraded = checks->degraded || status->degraded;
    snprintf(checks->details[slot], DETAIL_BYTES, "{\"status\":\"%s\",\"detail\":%.*s}",
             !status->ready     ? "unavailable"
             : status->degraded ? "degraded"
                                : "ok",
             status->detail.len < DETAIL_BYTES - 64 ? (int)status->detail.len : 2,
             status->detail.len < DETAIL_BYTES - 64 ? status->detail.ptr : "{}");
}

/* As many requests as may wait for it do so: it is not asked. */
static void take_busy(struct checks *checks, size_t slot)
{
    snprintf(
        checks->details[slot], DETAIL_BYTES,
        "{\"status\":\"unavailable\",\"detail\":{\"reason\":\"too many requests wait for it\"}}");
    checks->ready = false;
    checks->waiting--;
}

static void on_status(struct exchange *exchange, size_t slot, const struct message *answer)
{
    struct checks *checks = exchange->state;

    take_status(checks, slot, answer);
    if (--checks->waiting == 0)
        checks->report(exchange, checks);
}

static void ask_all(struct exchange *exchange,
                    void (*report)(struct exchange *exchange, const struct checks *checks))
{
    static const struct msg_status_get nothing;
    struct checks *checks = memory_new(1, sizeof(*checks));

    checks->report = report;
    checks->ready = true;
    checks->waiting = ASKED_COUNT;
    exchange->state = checks;
    for (size_t i = 0; i < ASKED_COUNT; i++)
        if (exchange_try_call(exchange, i, asked[i].peer, MSG_status_get, &nothing, PATIENCE_CHECK,
                              on_status) != ERROR_NONE)
            take_busy(checks, i);
    if (checks->waiting == 0)
        report(exchange, checks);
}

/* ---- GET /readyz ---------------------------------------------------------------------------- */

static void report_ready(struct exchange *exchange, const struct checks *checks)
{
    if (checks->ready)
        exchange_answer(exchange, 200, "{\"status\":\"ready\"}");
    else
        exchange_fail(exchange, ERROR_UNAVAILABLE, "a backend does not answer or takes no writes",
                      NULL);
}

void health_ready(struct exchange *exchange)
{
    ask_all(exchange, report_ready);
}

/* ---- GET /health ---------------------------------------------------------------------------- */

static void report_health(struct exchange *exchange, const struct checks *checks)
{
    const struct worker *worker = exchange->worker;
    long long uptime = (clock_monotonic_ms() - worker->service.started_ms) / 1000;

    exchange_answer(
        exchange, checks->ready ? 200 : 503,
        "{\"status\":\"%s\",\"version\":\"%s\",\"product\":\"caf\",\"uptime_seconds\":%lld,"
        "\"checks\":{\"%s\":%s,\"%s\":%s,\"%s\":%s,\"%s\":%s}}",
        !checks->ready     ? "unhealthy"
        : checks->degraded ? "degraded"
                           : "healthy",
        CAF_VERSION, uptime, asked[0].name, checks->details[0], asked[1].name, checks->details[1],
        asked[2].name, checks->details[2], asked[3].name, checks->details[3]);
}

void health_report(struct exchange *exchange)
{
    ask_all(exchange, report_health);
}
