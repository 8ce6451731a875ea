/* Connects to the keeper and the back daemons on the workers' behalf, and hands each connected
 * descriptor over. Says no message on it: what is spoken there is the worker's. */
#include "frontd/supervisor.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { DELAY_FIRST_MS = 20, DELAY_MAX_MS = 1000, LIVED_MS = 2000 };

int supervisor_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(address.sun_path, path, strlen(path) + 1);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return -1;
    return steal_descriptor(&fd);
}

/* Between half the delay and all of it, so that workers do not come back in step. */
static int64_t jitter(int64_t delay_ms)
{
    uint32_t random;

    ids_random(&random, sizeof(random));
    return delay_ms / 2 + random % (delay_ms / 2 + 1);
}

static void try_later(struct supervisor_link *link)
{
    struct timeval delay = clock_timeval(jitter(link->delay_ms));

    event_add(link->retry, &delay);
    link->delay_ms = link->delay_ms * 2 > DELAY_MAX_MS ? DELAY_MAX_MS : link->delay_ms * 2;
}

void supervisor_make_link(struct supervisor_link *link)
{
    const struct request_id nobody = {{0}};
    const struct msg_backend backend = {.peer = link->peer};
    int fd = supervisor_connect(link->path);

    if (!link->worker->control) {
        if (fd >= 0)
            close(fd);
        return;
    }
    if (fd < 0) {
        if (link->delay_ms == DELAY_FIRST_MS)
            log_warn("cannot connect, trying again", LOG_TEXT("socket", link->path),
                     LOG_TEXT("error", strerror(errno)));
        try_later(link);
        return;
    }
    link->handed_over_ms = clock_monotonic_ms();
    ipc_channel_send(link->worker->control, MSG_backend, &nobody, &backend, fd);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    supervisor_make_link(arg);
}

void supervisor_lost_link(struct supervisor_worker *worker, enum proto_peer peer)
{
    for (size_t i = 0; i < SUPERVISOR_PEERS; i++) {
        struct supervisor_link *link = &worker->links[i];

        if (link->peer != peer || evtimer_pending(link->retry, NULL))
            continue;
        if (clock_monotonic_ms() - link->handed_over_ms > LIVED_MS)
            link->delay_ms = DELAY_FIRST_MS;
        try_later(link);
    }
}

void supervisor_init_links(struct supervisor_worker *worker)
{
    const struct frontd_options *options = &worker->supervisor->options;
    const struct supervisor_link links[SUPERVISOR_PEERS] = {
        {.peer = PEER_KEEPER, .path = options->backends_keeper},
        {.peer = PEER_REGISTRYD, .path = options->backends_registryd},
        {.peer = PEER_AUDITD, .path = options->backends_auditd},
        {.peer = PEER_EVENTD, .path = options->backends_eventd},
    };

    for (size_t i = 0; i < SUPERVISOR_PEERS; i++) {
        struct supervisor_link *link = &worker->links[i];

        *link = links[i];
        link->worker = worker;
        link->delay_ms = DELAY_FIRST_MS;
        link->retry = evtimer_new(worker->supervisor->service.base, on_retry, link);
    }
}

void supervisor_stop_links(struct supervisor_worker *worker)
{
    for (size_t i = 0; i < SUPERVISOR_PEERS; i++)
        event_del(worker->links[i].retry);
}
