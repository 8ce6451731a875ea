/* Makes the keys of session tickets and hands them to every worker, each over a pipe of its own: no
 * buffer keeps a copy. Keys are random, replaced by age, and all at once when a worker dies (it may
 * have lost them) or when what a client is verified by changes. Never logs or stores one. */
#include "frontd/supervisor.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* The reading end of a pipe that holds the keys; the caller owns it. */
static int fill_pipe(const struct tls_ticket_keys *keys)
{
    int ends[2];
    cleanup_close int in = -1;

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        log_fatal("cannot make a pipe", LOG_TEXT("error", strerror(errno)));
    in = ends[1];
    if (write(in, keys, sizeof(*keys)) != (ssize_t)sizeof(*keys))
        log_fatal("cannot fill a pipe", LOG_TEXT("error", strerror(errno)));
    return ends[0];
}

void supervisor_send_ticket_keys(struct supervisor_worker *worker)
{
    static const struct request_id no_request;
    static const struct msg_ticket_keys nothing;

    if (worker->control && worker->supervisor->options.tls_resumption)
        ipc_channel_send(worker->control, MSG_ticket_keys, &no_request, &nothing,
                         fill_pipe(&worker->supervisor->ticket_keys));
}

static void send_to_all(struct supervisor *supervisor)
{
    for (int64_t i = 0; i < supervisor->options.workers_count; i++)
        supervisor_send_ticket_keys(&supervisor->workers[i]);
}

static void wait_for_age(struct supervisor *supervisor)
{
    struct timeval age = clock_timeval(tls_tickets_seconds(&supervisor->options) * 1000);

    event_add(supervisor->ticket_age, &age);
}

static void on_age(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *supervisor = arg;

    (void)fd;
    (void)what;
    supervisor->ticket_keys.previous = supervisor->ticket_keys.current;
    supervisor->ticket_keys.current = supervisor->ticket_keys.next;
    ids_random(&supervisor->ticket_keys.next, sizeof(supervisor->ticket_keys.next));
    supervisor->metrics->tls_ticket_key_changes_total[TICKETS_END_AGE]++;
    send_to_all(supervisor);
    wait_for_age(supervisor);
}

void supervisor_make_ticket_keys(struct supervisor *supervisor)
{
    ids_random(&supervisor->ticket_keys, sizeof(supervisor->ticket_keys));
    supervisor->ticket_age = evtimer_new(supervisor->service.base, on_age, supervisor);
    if (!supervisor->ticket_age)
        log_fatal("out of memory");
    wait_for_age(supervisor);
}

void supervisor_end_tickets(struct supervisor *supervisor, int why)
{
    if (!supervisor->options.tls_resumption)
        return;
    supervisor->metrics->tls_ticket_key_changes_total[why]++;
    ids_random(&supervisor->ticket_keys, sizeof(supervisor->ticket_keys));
    send_to_all(supervisor);
    wait_for_age(supervisor);
}

void supervisor_free_ticket_keys(struct supervisor *supervisor)
{
    OPENSSL_cleanse(&supervisor->ticket_keys, sizeof(supervisor->ticket_keys));
    event_free(supervisor->ticket_age);
}
