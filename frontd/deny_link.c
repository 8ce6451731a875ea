/* Between registryd and the worker's deny list: asks for it on each new channel, takes what is
 * pushed, and has the connections cut of whoever is on it. */
#include "frontd/worker.h"

#include "common/clock.h"
#include "common/log.h"

#include <stdlib.h>

enum { ASK_SECONDS = 10, ASK_AGAIN_MS = 1000 };

static void ask_again_later(struct worker *worker)
{
    struct timeval delay = clock_timeval(ASK_AGAIN_MS);

    event_add(worker->deny_timer, &delay);
}

static void on_subscribed(void *arg, const struct message *answer)
{
    struct worker *worker = arg;

    worker->deny_call = NULL;
    if (!answer || answer->type != MSG_deny_subscribed)
        ask_again_later(worker);
}

static void ask(struct worker *worker)
{
    static const struct msg_deny_subscribe nothing;

    worker->deny_call = ipc_client_call(worker_backend(worker, PEER_REGISTRYD), MSG_deny_subscribe,
                                        &nothing, ASK_SECONDS * 1000LL, on_subscribed, worker);
    if (!worker->deny_call)
        ask_again_later(worker);
}

static void on_deny_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ask(arg);
}

void deny_link_open(struct worker *worker)
{
    deny_open(&worker->deny, (size_t)worker->options.limits_denied);
    worker->deny_timer = evtimer_new(worker->service.base, on_deny_timer, worker);
    if (!worker->deny_timer)
        log_fatal("out of memory");
}

void deny_link_subscribe(struct worker *worker)
{
    event_del(worker->deny_timer);
    if (!worker->deny_call) /* else it has been sent again */
        ask(worker);
}

bool deny_link_take(struct worker *worker, const struct message *message)
{
    if (message->type != MSG_deny_list)
        return false;
    if (deny_take(&worker->deny, &message->body.deny_list))
        connection_cut_denied(worker);
    return true;
}

void deny_link_close(struct worker *worker)
{
    if (worker->deny_timer)
        event_free(worker->deny_timer);
    deny_clear(&worker->deny);
}
