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

static const enum proto_peer peers[BACKEND_COUNT] = {
    [BACKEND_KEEPER] = PEER_KEEPER,
    [BACKEND_REGISTRYD] = PEER_REGISTRYD,
    [BACKEND_AUDITD] = PEER_AUDITD,
    [BACKEND_EVENTD] = PEER_EVENTD,
};

static const char *socket_path(const struct supervisor *supervisor, enum backend backend)
{
    const struct frontd_options *options = &supervisor->options;
    const char *const paths[BACKEND_COUNT] = {
        [BACKEND_KEEPER] = options->backends_keeper,
        [BACKEND_REGISTRYD] = options->backends_registryd,
        [BACKEND_AUDITD] = options->backends_auditd,
        [BACKEND_EVENTD] = options->backends_eventd,
    };

    return paths[backend];
}

/* The attempts have no end: the log gets the first and then each doubling. */
static void note_stranger(struct supervisor *supervisor, enum backend backend, uid_t uid)
{
    uint64_t count = ++supervisor->metrics->backend_refusals_total[backend][IPC_REFUSED_user];

    if ((count & (count - 1)) == 0)
        log_warn("connection refused: who listens there is none of backends.users",
                 LOG_TEXT("socket", socket_path(supervisor, backend)), LOG_NUMBER("uid", uid),
                 LOG_NUMBER("refusals", (long long)count));
}

int supervisor_connect(struct supervisor *supervisor, enum backend backend)
{
    const char *path = socket_path(supervisor, backend);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct ucred peer;

    memcpy(address.sun_path, path, strlen(path) + 1);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return -1;
    if (!ipc_peer_is_one_of(fd, supervisor->backend_users, supervisor->options.backends_users.count,
                            &peer)) {
        note_stranger(supervisor, backend, peer.uid);
        errno = EPERM;
        return -1;
    }
    return steal_descriptor(&fd);
}

void supervisor_find_backend_users(struct supervisor *supervisor)
{
    supervisor->backend_users = service_uids(&supervisor->options.backends_users);
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
    struct supervisor *supervisor = link->worker->supervisor;
    const struct msg_backend backend = {.peer = peers[link->backend]};
    int fd = supervisor_connect(supervisor, link->backend);

    if (!link->worker->control) {
        if (fd >= 0)
            close(fd);
        return;
    }
    if (fd < 0) {
        if (link->delay_ms == DELAY_FIRST_MS && errno != EPERM)
            log_warn("cannot connect, trying again",
                     LOG_TEXT("socket", socket_path(supervisor, link->backend)),
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
    for (size_t i = 0; i < BACKEND_COUNT; i++) {
        struct supervisor_link *link = &worker->links[i];

        if (peers[i] != peer || evtimer_pending(link->retry, NULL))
            continue;
        if (clock_monotonic_ms() - link->handed_over_ms > LIVED_MS)
            link->delay_ms = DELAY_FIRST_MS;
        try_later(link);
    }
}

void supervisor_init_links(struct supervisor_worker *worker)
{
    for (size_t i = 0; i < BACKEND_COUNT; i++) {
        struct supervisor_link *link = &worker->links[i];

        *link = (struct supervisor_link){
            .worker = worker, .backend = (enum backend)i, .delay_ms = DELAY_FIRST_MS};
        link->retry = evtimer_new(worker->supervisor->service.base, on_retry, link);
    }
}

void supervisor_stop_links(struct supervisor_worker *worker)
{
    for (size_t i = 0; i < BACKEND_COUNT; i++)
        event_del(worker->links[i].retry);
}
