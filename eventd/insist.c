/* Requests to the database that are never given up: what frontd saw is known to nobody else. They
 * wait here while pg's queue is full, and start again when pg has lost patience. Every statement is
 * idempotent, so that once more does no harm. */
#include "eventd/insist.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <utlist.h>

enum { PATIENCE_MS = 3600 * 1000, AGAIN_MS = 100 };

struct demand {
    struct insist *insist;
    const struct pg_statement *statement;
    pg_answer_fn *fn;
    void *arg;
    struct demand *prev, *next;
    struct str params[]; /* and their bytes behind them */
};

struct insist {
    struct pg *pg;
    struct event *again;
    struct demand *running; /* pg has them */
    struct demand *waiting; /* pg had no room */
    size_t count;
    void (*done)(void *arg); /* NULL: nobody asked */
    void *done_arg;
};

static struct demand *demand_new(const struct pg_statement *statement, const struct str *params)
{
    size_t bytes = 0, count = (size_t)statement->params;
    struct demand *demand;
    char *at;

    for (size_t i = 0; i < count; i++)
        bytes += params[i].len;
    demand = memory_new(1, sizeof(*demand) + count * sizeof(*params) + bytes);
    at = (char *)(demand->params + count);
    for (size_t i = 0; i < count; i++) {
        if (!params[i].ptr)
            continue;
        memcpy(at, params[i].ptr, params[i].len);
        demand->params[i] = (struct str){at, params[i].len};
        at += params[i].len;
    }
    demand->statement = statement;
    return demand;
}

/* ---- from waiting to running, and back ------------------------------------------------------ */

static void run_waiting(struct insist *insist);

static void tell_when_done(struct insist *insist)
{
    if (insist->count == 0 && insist->done)
        event_active(insist->again, EV_TIMEOUT, 0);
}

static void on_answer(void *arg, const struct pg_answer *answer)
{
    struct demand *demand = arg;
    struct insist *insist = demand->insist;

    DL_DELETE(insist->running, demand);
    if (answer->outcome == PG_UNAVAILABLE) {
        DL_APPEND(insist->waiting, demand);
    } else {
        insist->count--;
        demand->fn(demand->arg, answer);
        free(demand);
        tell_when_done(insist);
    }
    run_waiting(insist);
}

static void run_waiting(struct insist *insist)
{
    struct timeval later = clock_timeval(AGAIN_MS);
    struct demand *demand;

    while ((demand = insist->waiting)) {
        if (!pg_submit(insist->pg, demand->statement, STR_ABSENT, demand->params, PATIENCE_MS,
                       on_answer, demand)) {
            event_add(insist->again, &later);
            return;
        }
        DL_DELETE(insist->waiting, demand);
        DL_APPEND(insist->running, demand);
    }
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    struct insist *insist = arg;
    void (*done)(void *arg) = insist->count == 0 ? steal_pointer(insist->done) : NULL;

    (void)fd;
    (void)what;
    run_waiting(insist);
    if (done)
        done(insist->done_arg);
}

/* ---- for all -------------------------------------------------------------------------------- */

void insist_submit(struct insist *insist, const struct pg_statement *statement,
                   const struct str *params, pg_answer_fn *fn, void *arg)
{
    struct demand *demand = demand_new(statement, params);

    demand->insist = insist;
    demand->fn = fn;
    demand->arg = arg;
    insist->count++;
    DL_APPEND(insist->waiting, demand);
    if (insist->waiting == demand)
        run_waiting(insist);
}

size_t insist_pending(const struct insist *insist)
{
    return insist->count;
}

void insist_when_done(struct insist *insist, void (*done)(void *arg), void *arg)
{
    insist->done = done;
    insist->done_arg = arg;
    tell_when_done(insist);
}

struct insist *insist_new(struct event_base *base, struct pg *pg)
{
    struct insist *insist = memory_new(1, sizeof(*insist));

    insist->pg = pg;
    insist->again = evtimer_new(base, on_again, insist);
    if (!insist->again)
        log_fatal("out of memory");
    return insist;
}

static void give_up(struct demand *list)
{
    static const struct pg_answer unavailable = {
        .outcome = PG_UNAVAILABLE, .message = "", .constraint = ""};
    struct demand *demand, *next;

    DL_FOREACH_SAFE(list, demand, next)
    {
        demand->fn(demand->arg, &unavailable);
        free(demand);
    }
}

void insist_free(struct insist *insist)
{
    give_up(insist->running);
    give_up(insist->waiting);
    event_free(insist->again);
    free(insist);
}
