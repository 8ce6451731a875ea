/* flood: clients whose certificate is refused, again and again, for
 * tests/integration/test_fairness.py.
 *
 * usage: flood PORT CERTIFICATE KEY CONNECTIONS. Each of the connections to 127.0.0.1, from one of
 * 16 addresses, shakes hands until the server ends it, and begins anew at once. Runs behind
 * everybody else until SIGTERM; says "ready", and at the end how many handshakes were refused.
 * Talks to 127.0.0.1 only. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EVENTS_MAX = 64, ADDRESSES = 16, CONNECTIONS_MAX = 4096 };

struct flood {
    SSL_CTX *context;
    int epoll;
    in_port_t port;
    unsigned long refused;
};

struct connection {
    int fd;
    SSL *ssl;
    in_addr_t source;
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
    begin(flood, connection);
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

static void open_all(struct flood *flood, struct connection *connections, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        connections[i].source = htonl(INADDR_LOOPBACK + 1 + (in_addr_t)(i % ADDRESSES));
        begin(flood, &connections[i]);
    }
}

int main(int argc, char **argv)
{
    static struct connection connections[CONNECTIONS_MAX];
    struct epoll_event events[EVENTS_MAX];
    struct flood flood = {.epoll = epoll_create1(0)};
    size_t count = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
    int ready;

    if (count == 0 || count > CONNECTIONS_MAX)
        errx(2, "usage: flood PORT CERTIFICATE KEY CONNECTIONS");
    flood.port = htons((in_port_t)atoi(argv[1]));
    flood.context = make_context(argv[2], argv[3]);
    raise_limit();
    signal(SIGTERM, on_signal);
    if (nice(15) == -1 || puts("ready") == EOF || fflush(stdout) != 0)
        err(1, "cannot begin");
    open_all(&flood, connections, count);
    while (!is_over) {
        ready = epoll_wait(flood.epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < ready; i++)
            go_on(&flood, events[i].data.ptr);
    }
    printf("%lu\n", flood.refused);
    return 0;
}
