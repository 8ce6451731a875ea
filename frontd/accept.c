/* Takes new connections from the listener, as many a turn as leaves the loop to the others. Touches
 * the listener, and a new socket until it is a connection; reads no byte from it. */
#include "frontd/worker.h"

#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_PER_TURN = 4, PAUSE_MS = 500, UNSENT_BYTES = 131072 };

/* Out of descriptors, as a rule: asking again at once would ask, and log, without end. */
static void pause_accepting(struct worker *worker, int error)
{
    struct timeval pause = clock_timeval(PAUSE_MS);

    log_error("cannot accept", LOG_TEXT("error", strerror(error)),
              LOG_NUMBER("connections", (long long)worker->admission.connections));
    event_del(worker->acceptable);
    event_add(worker->accept_again, &pause);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;

    (void)fd;
    (void)what;
    event_add(worker->acceptable, NULL);
}

/* A client that takes nothing holds nothing of ours for long: what is queued for it in the kernel
 * is little, and the kernel gives it up when twice the time of an answer has brought no
 * acknowledgement, so that the worker's own time-out comes first. TLS records go out at once, or
 * they wait for an ACK. */
static void set_options(const struct worker *worker, int fd)
{
    const int on = 1, unsent_bytes = UNSENT_BYTES;
    const unsigned silence_ms = (unsigned)worker->options.timeouts_write_seconds * 2000;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes, sizeof(unsent_bytes));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof(silence_ms));
}

/* A connection, if there is room for one from there. A trusted proxy's own address has no limits:
 * those of the clients behind it have. */
static void take(struct worker *worker, int fd, const struct address *address)
{
    bool proxied = networks_have(&worker->trusted_proxies, address);
    enum refusal refusal = admission_check(&worker->admission, proxied ? NULL : address);

    if (refusal == REFUSAL_NONE) {
        set_options(worker, fd);
        connection_open(worker, fd, address);
    } else {
        admission_count(&worker->admission, refusal);
        lingering_refuse(&worker->lingering, fd, proxied ? NULL : address);
    }
}

/* False: there is none left to accept. */
static bool accept_one(struct worker *worker)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof(peer);
    struct address address;
    int fd =
        accept4(worker->listener, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            pause_accepting(worker, errno);
        return false;
    }
    address = address_from_socket(&peer);
    take(worker, fd, &address);
    return true;
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    for (int i = 0; i < ACCEPTS_PER_TURN && accept_one(arg); i++)
        ;
}

void accept_start(struct worker *worker)
{
    worker->acceptable = event_new(worker->service.base, worker->listener, EV_READ | EV_PERSIST,
                                   on_acceptable, worker);
    worker->accept_again = evtimer_new(worker->service.base, on_accept_again, worker);
    if (!worker->acceptable || !worker->accept_again)
        log_fatal("out of memory");
    event_add(worker->acceptable, NULL);
}

void accept_stop(struct worker *worker)
{
    if (worker->acceptable)
        event_free(worker->acceptable);
    if (worker->accept_again)
        event_free(worker->accept_again);
    worker->acceptable = worker->accept_again = NULL;
    if (worker->listener >= 0)
        close(worker->listener);
    worker->listener = -1;
}
