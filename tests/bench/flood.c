/* flood: clients whose certificate is refused, again and again, for
 * tests/integration/test_fairness.py.
 *
 * usage: flood PORT CERTIFICATE KEY CONNECTIONS RATE. So many times a second a connection to
 * 127.0.0.1, from one of 16 addresses, begins to shake hands, until the server ends it; no more of
 * them than CONNECTIONS at once. Runs until SIGTERM; says "ready", and at the end how many were
 * refused. It sleeps between two beginnings: who never slept would keep its processor for a slice
 * of the scheduler's, milliseconds in which the server cannot run there. Talks to 127.0.0.1 only.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 64, ADDRESSES = 16, CONNECTIONS_MAX = 4096, BEHIND_US = 20000 };

struct connection {
    int fd;
    SSL *ssl;
    in_addr_t source;
    struct connection *next; /* that is idle too */
};

struct flood {
    SSL_CTX *context;
    int epoll;
    in_port_t port;
    struct connection *idle;
    int64_t every_us, next_us;
    unsigned long refused;
};

static volatile sig_atomic_t is_over;

static void on_signal(int number)
{
    (void)number;
    is_over = 1;
}

static SSL_CTX *make_context(const char *certificate, const char *key)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    if (!context || SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        errx(1, "%s, %s: %s", certificate, key, ERR_reason_error_string(ERR_get_error()));
    return context;
}

static void begin(struct flood *flood, struct connection *connection)
{
    const int on = 1;
    const struct sockaddr_in source = {.sin_family = AF_INET,
                                       .sin_addr.s_addr = connection->source};
    const struct sockaddr_in server = {
        .sin_family = AF_INET, .sin_port = flood->port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};

    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connection->fd < 0 || bind(connection->fd, (const void *)&source, sizeof(source)) != 0 ||
        (connect(connection->fd, (const void *)&server, sizeof(server)) != 0 &&
         errno != EINPROGRESS))
        err(1, "connect");
    connection->ssl = SSL_new(flood->context);
    SSL_set_fd(connection->ssl, connection->fd);
    SSL_set_connect_state(connection->ssl);
    epoll_ctl(flood->epoll, EPOLL_CTL_ADD, connection->fd, &event);
}

/* Goes on until the server has ended the connection: nobody here is let in. */
static void go_on(struct flood *flood, struct connection *connection)
{
    char byte;
    int error;

    ERR_clear_error();
    error = SSL_get_error(connection->ssl, SSL_read(connection->ssl, &byte, 1));
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return;
    flood->refused += error == SSL_ERROR_SSL;
    SSL_free(connection->ssl);
    close(connection->fd);
    connection->next = flood->idle;
    flood->idle = connection;
}

static int64_t monotonic_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

/* Begins what is due; nothing is made up for that a pause of this process left out. Returns for how
 * long nothing is due, in milliseconds. */
static int begin_due(struct flood *flood)
{
    int64_t now_us = monotonic_us();

    if (flood->next_us < now_us - BEHIND_US)
        flood->next_us = now_us - BEHIND_US;
    for (; flood->idle && flood->next_us <= now_us; flood->next_us += flood->every_us) {
        struct connection *connection = flood->idle;

        flood->idle = connection->next;
        begin(flood, connection);
    }
    return flood->idle ? (int)((flood->next_us - now_us) / 1000) + 1 : -1;
}

/* As many descriptors as this process may have. */
static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        err(1, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        err(1, "setrlimit");
}

/* Stands in for clients on other machines: the server's processes, which would not feel those, go
 * first. Where the scheduler groups processes by session, niceness is for those of one session, so
 * that this one needs a session, and a niceness of its group, of its own. */
static void run_behind(void)
{
    FILE *group;

    setsid();
    group = fopen("/proc/self/autogroup", "we");
    if (nice(19) == -1 || (group && (fputs("19", group) == EOF || fclose(group) != 0)))
        err(1, "nice");
}

int main(int argc, char **argv)
{
    static struct connection connections[CONNECTIONS_MAX];
    struct epoll_event events[EVENTS_MAX];
    struct flood flood = {.epoll = epoll_create1(0)};
    size_t count = argc == 6 ? strtoul(argv[4], NULL, 10) : 0;
    long rate = argc == 6 ? strtol(argv[5], NULL, 10) : 0;
    int ready;

    if (count == 0 || count > CONNECTIONS_MAX || rate <= 0)
        errx(2, "usage: flood PORT CERTIFICATE KEY CONNECTIONS RATE");
    flood.port = htons((in_port_t)atoi(argv[1]));
    flood.context = make_context(argv[2], argv[3]);
    flood.every_us = 1000000 / rate;
    for (size_t i = 0; i < count; i++) {
        connections[i].source = htonl(INADDR_LOOPBACK + 1 + (in_addr_t)(i % ADDRESSES));
        connections[i].next = flood.idle;
        flood.idle = &connections[i];
    }
    raise_limit();
    run_behind();
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN); /* the server may end a connection at any moment */
    if (puts("ready") == EOF || fflush(stdout) != 0)
        err(1, "stdout");
    while (!is_over) {
        ready = epoll_wait(flood.epoll, events, EVENTS_MAX, begin_due(&flood));
        for (int i = 0; i < ready; i++)
            go_on(&flood, events[i].data.ptr);
    }
    printf("%lu\n", flood.refused);
    return 0;
}
