/* Gathers the metrics of all daemons: asks those behind frontd over the worker's channels, and adds
 * up what frontd's own processes have counted. Holds no number back from one scrape to the next. */
#include "frontd/scrape.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"
#include "frontd/metrics_merge.h"

#include <stdlib.h>

enum { PATIENCE_MS = 2000, OWN = BACKEND_COUNT, TEXTS };

struct scrape {
    struct worker *worker;
    scrape_done_fn *done;
    void *arg;
    struct event *all_heard;
    size_t waiting;
    struct question {
        struct scrape *scrape;
        struct ipc_call *call; /* NULL: answered, or never made */
        char *text;            /* NULL: none came */
    } questions[BACKEND_COUNT];
};

static void scrape_free(struct scrape *scrape)
{
    for (size_t i = 0; i < BACKEND_COUNT; i++) {
        if (scrape->questions[i].call)
            ipc_call_cancel(scrape->questions[i].call);
        free(scrape->questions[i].text);
    }
    event_free(scrape->all_heard);
    free(scrape);
}

void scrape_cancel(struct scrape *scrape)
{
    scrape_free(scrape);
}

/* ---- telling -------------------------------------------------------------------------------- */

/* Frontd's own metrics as text that the caller frees. */
static char *write_own(const struct scrape *scrape)
{
    struct worker *worker = scrape->worker;
    struct frontd_metrics *sum = memory_new(1, sizeof(*sum));
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        log_fatal("out of memory");
    metrics_memory_sum(&worker->metrics_memory, sum);
    for (size_t i = 0; i < BACKEND_COUNT; i++)
        sum->up[i] = scrape->questions[i].text != NULL;
    sum->up[BACKEND_COUNT] = 1;
    metrics_write(out, frontd_metrics_table, sum, "frontd");
    if (fclose(out) != 0)
        log_fatal("out of memory");
    free(sum);
    return text;
}

static void tell(evutil_socket_t fd, short what, void *arg)
{
    struct scrape *scrape = arg;
    struct evbuffer *text = evbuffer_new();
    cleanup_free char *own = write_own(scrape);
    struct str texts[TEXTS] = {str_from(own)};

    (void)fd;
    (void)what;
    if (!text)
        log_fatal("out of memory");
    for (size_t i = 0; i < BACKEND_COUNT; i++)
        texts[1 + i] = str_from(scrape->questions[i].text);
    metrics_merge(text, texts, TEXTS);
    scrape->done(scrape->arg, text);
    evbuffer_free(text);
    scrape_free(scrape);
}

/* ---- asking --------------------------------------------------------------------------------- */

static void on_answer(void *arg, const struct message *answer)
{
    struct question *question = arg;
    struct scrape *scrape = question->scrape;

    question->call = NULL;
    if (answer && answer->type == MSG_metrics)
        question->text = str_dup(answer->body.metrics.text);
    if (--scrape->waiting == 0)
        event_active(scrape->all_heard, EV_TIMEOUT, 0);
}

static void ask(struct question *question, struct ipc_client *backend)
{
    static const struct msg_metrics_get nothing;

    question->call =
        ipc_client_call(backend, MSG_metrics_get, &nothing, PATIENCE_MS, on_answer, question);
    question->scrape->waiting += question->call != NULL;
}

struct scrape *scrape_start(struct worker *worker, scrape_done_fn *done, void *arg)
{
    struct scrape *scrape = memory_new(1, sizeof(*scrape));

    *scrape = (struct scrape){.worker = worker, .done = done, .arg = arg};
    scrape->all_heard = evtimer_new(worker->service.base, tell, scrape);
    if (!scrape->all_heard)
        log_fatal("out of memory");
    for (size_t i = 0; i < BACKEND_COUNT; i++) {
        scrape->questions[i].scrape = scrape;
        ask(&scrape->questions[i], worker->backends[i]);
    }
    if (scrape->waiting == 0)
        event_active(scrape->all_heard, EV_TIMEOUT, 0);
    return scrape;
}
