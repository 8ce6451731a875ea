/* Takes new connections from the listener, as many a turn as leaves the loop to the others. Touches
 * the listener, and a new socket until it is a connection; reads no byte from it. */
#include "frontd/worker.h"

#include "common/clock.h"
#include "common/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_PER_TURN = 32, PAUSE_MS = 500 };

/* The kernel's word on who connected. */
static void format_address(const struct sockaddr_storage *address, char *text, socklen_t size)
{
    const struct sockaddr_in *ip4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *ip6 = (const struct sockaddr_in6 *)address;

    if (address->ss_family == AF_INET)
        inet_ntop(AF_INET, &ip4->sin_addr, text, size);
    else if (address->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&ip6->sin6_addr))
        inet_ntop(AF_INET, &ip6->sin6_addr.s6_addr[12], text, size);
    else
        inet_ntop(AF_INET6, &ip6->sin6_addr, text, size);
}

/* Out of descriptors, as a rule: asking again at once would ask, and log, without end. */
static void pause_accepting(struct worker *worker, int error)
{
    struct timeval pause = clock_timeval(PAUSE_MS);

    log_error("cannot accept", LOG_TEXT("error", strerror(error)),
              LOG_NUMBER("connections", (long long)worker->connection_count));
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

/* Whoever is refused may come again without end: the log gets the first and then each time that
 * their number has doubled. */
static void log_refusal(struct worker *worker)
{
    worker->refused++;
    if ((worker->refused & (worker->refused - 1)) == 0)
        log_warn("connection refused: limits.connections reached",
                 LOG_NUMBER("refused", (long long)worker->refused));
}

/* False: there is none left to accept. */
static bool accept_one(struct worker *worker)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    char source_ip[INET6_ADDRSTRLEN] = "";
    int on = 1;
    int fd =
        accept4(worker->listener, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            pause_accepting(worker, errno);
        return false;
    }
    if (worker->connection_count >= (size_t)worker->options.limits_connections) {
        log_refusal(worker);
        close(fd);
        return true;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* or TLS records wait for an ACK */
    format_address(&address, source_ip, sizeof(source_ip));
    connection_open(worker, fd, source_ip);
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
