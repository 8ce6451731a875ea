/* load: a closed loop of clients with certificates against one HTTPS port, for tests/bench/run.
 *
 * Each of N connections asks, waits for the whole answer, and asks again; in the handshake modes it
 * connects anew each time, asks once and closes. What is told counts from the moment at which every
 * connection has had its first answer. Talks to 127.0.0.1 only and reads the agents' certificates.
 * It does not judge the server's certificate: what it measures is the server, on a core that is not
 * to be spent on the client. */
#include "tests/bench/load_samples.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    ANSWER_MAX = 65536,
    REQUEST_MAX = 1024,
    EVENTS_MAX = 256,
    ERRORS_MAX = 100,
    STALL_MS = 15000
};

struct mode {
    const char *name;
    const char *method;
    const char *path;
    const char *members; /* of the body, beside the hostname; NULL: no body */
    bool reconnects;
    bool resumes;
};

static const struct mode modes[] = {
    {"register", "POST", "/v1/mesh/register",
     "\"machine_id_fingerprint\":\"bench\",\"version\":\"1.0\"", false, false},
    {"heartbeat", "POST", "/v1/mesh/heartbeat", "\"status\":\"ok\"", false, false},
    {"get", "GET", "/v1/mesh/self", NULL, false, false},
    {"full", "GET", "/livez", NULL, true, false},
    {"resumed", "GET", "/livez", NULL, true, true},
};

enum step { STEP_HANDSHAKE, STEP_WRITE, STEP_READ };

struct connection {
    struct load *load;
    SSL_CTX *context; /* with its agent's certificate */
    SSL_SESSION *session;
    SSL *ssl;
    enum step step;
    bool is_warm; /* has had an answer */
    uint64_t began_ns;
    char request[REQUEST_MAX];
    int request_size;
    char answer[ANSWER_MAX + 1];
    size_t answer_size;
};

struct load {
    const struct mode *mode;
    uint16_t port;
    unsigned count;
    uint64_t duration_ns;
    int epoll;
    struct connection *connections;
    unsigned warm;
    uint64_t began_ns; /* when all were warm; 0: not yet */
    double cpu_began, server_cpu_began;
    char **server_pids; /* ends with NULL */
    struct samples samples;
    uint64_t resumed;
    unsigned errors;
};

/* ---- One connection ------------------------------------------------------------------------- */

static int connect_socket(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) != 0)
        err(2, "socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 && errno != EINPROGRESS)
        err(2, "connect");
    return fd;
}

static void connection_open(struct connection *connection)
{
    int fd = connect_socket(connection->load->port);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
    connection->began_ns = samples_now_ns();
    connection->ssl = SSL_new(connection->context);
    if (!connection->ssl || !SSL_set_fd(connection->ssl, fd))
        errx(2, "no TLS connection");
    if (connection->session)
        SSL_set_session(connection->ssl, connection->session);
    SSL_set_connect_state(connection->ssl);
    connection->step = STEP_HANDSHAKE;
    if (epoll_ctl(connection->load->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        err(2, "epoll_ctl");
}

static void connection_close(struct connection *connection)
{
    int fd = SSL_get_fd(connection->ssl);
    SSL_shutdown(connection->ssl);
    SSL_free(connection->ssl);
    close(fd);
}

/* Keeps what the server gave to resume with; nothing when it gave nothing. */
static void keep_session(struct connection *connection)
{
    SSL_SESSION *session = SSL_get1_session(connection->ssl);
    SSL_SESSION_free(connection->session);
    connection->session = NULL;
    if (session && SSL_SESSION_is_resumable(session))
        connection->session = session;
    else
        SSL_SESSION_free(session);
}

static void begin_request(struct connection *connection)
{
    connection->answer_size = 0;
    connection->step = STEP_WRITE;
}

/* Says what went wrong the first time, and starts again with a new connection. */
static void connection_fail(struct connection *connection, const char *what)
{
    struct load *load = connection->load;
    unsigned long reason = ERR_get_error();
    if (load->errors++ == 0)
        warnx("%s: %s: %.200s", load->mode->name, what,
              reason ? ERR_reason_error_string(reason) : connection->answer);
    if (load->errors >= ERRORS_MAX)
        errx(1, "%u errors: given up", load->errors);
    connection_close(connection);
    connection_open(connection);
}

static double server_cpu_seconds(const struct load *load)
{
    double seconds = 0;
    for (char **pid = load->server_pids; *pid; pid++)
        seconds += samples_cpu_seconds_of(*pid);
    return seconds;
}

/* Counts one answered request, once every connection is warm. */
static void count_answer(struct connection *connection)
{
    struct load *load = connection->load;
    uint64_t now = samples_now_ns();
    if (load->began_ns) {
        samples_add(&load->samples, now - connection->began_ns);
        load->resumed += load->mode->resumes && SSL_session_reused(connection->ssl);
    }
    if (!connection->is_warm && ++load->warm == load->count) {
        load->began_ns = now;
        load->cpu_began = samples_cpu_seconds();
        load->server_cpu_began = server_cpu_seconds(load);
    }
    connection->is_warm = true;
}

static void finish_request(struct connection *connection)
{
    count_answer(connection);
    if (connection->load->mode->reconnects) {
        if (connection->load->mode->resumes)
            keep_session(connection);
        connection_close(connection);
        connection_open(connection);
        return;
    }
    connection->began_ns = samples_now_ns();
    begin_request(connection);
}

/* Whether the answer is whole. Only what a 2xx with a Content-Length says is one. */
static bool is_whole(struct connection *connection, bool *is_good)
{
    connection->answer[connection->answer_size] = '\0';
    const char *end = strstr(connection->answer, "\r\n\r\n");
    if (!end)
        return false;
    const char *length = strcasestr(connection->answer, "\r\ncontent-length:");
    *is_good = strncmp(connection->answer, "HTTP/1.1 2", 10) == 0 && length && length < end;
    return !*is_good || connection->answer + connection->answer_size >=
                            end + 4 + strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
}

/* One call of OpenSSL for the step that the connection is at; what that call returned. */
static int try_step(struct connection *connection)
{
    ERR_clear_error();
    switch (connection->step) {
    case STEP_HANDSHAKE:
        return SSL_do_handshake(connection->ssl);
    case STEP_WRITE:
        return SSL_write(connection->ssl, connection->request, connection->request_size);
    case STEP_READ:
        break;
    }
    return SSL_read(connection->ssl, connection->answer + connection->answer_size,
                    (int)(ANSWER_MAX - connection->answer_size));
}

static void take_bytes(struct connection *connection, int size)
{
    bool is_good = false;
    connection->answer_size += (size_t)size;
    if (!is_whole(connection, &is_good))
        return;
    if (is_good)
        finish_request(connection);
    else
        connection_fail(connection, "answer");
}

/* Goes on until the connection has to wait: its events are told once only (EPOLLET). */
static void connection_run(struct connection *connection)
{
    for (;;) {
        int result = try_step(connection);
        if (result <= 0) {
            int reason = SSL_get_error(connection->ssl, result);
            if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE)
                return;
            connection_fail(connection, "connection");
            return;
        }
        if (connection->step == STEP_HANDSHAKE)
            begin_request(connection);
        else if (connection->step == STEP_WRITE)
            connection->step = STEP_READ;
        else
            take_bytes(connection, result);
    }
}

/* ---- All of them ---------------------------------------------------------------------------- */

static SSL_CTX *make_context(const char *folder, unsigned agent)
{
    char certificate[4096], key[4096];
    snprintf(certificate, sizeof(certificate), "%s/agent-%u.crt", folder, agent);
    snprintf(key, sizeof(key), "%s/agent-%u.key", folder, agent);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        errx(2, "%s: no certificate and key to use", certificate);
    return context;
}

/* Each agent has a hostname of its own, as one that two share is an event. */
static void make_request(struct connection *connection, unsigned agent)
{
    const struct mode *mode = connection->load->mode;
    char body[REQUEST_MAX / 2] = "", length[64] = "";
    if (mode->members) {
        int size =
            snprintf(body, sizeof(body), "{\"hostname\":\"bench-%u\",%s}", agent, mode->members);
        snprintf(length, sizeof(length), "Content-Length: %d\r\n", size);
    }
    connection->request_size = snprintf(connection->request, sizeof(connection->request),
                                        "%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n%s",
                                        mode->method, mode->path, length, body);
}

static void open_all(struct load *load, const char *folder, unsigned agents)
{
    load->connections = calloc(load->count, sizeof(*load->connections));
    if (!load->connections)
        err(2, "calloc");
    for (unsigned i = 0; i < load->count; i++) {
        struct connection *connection = &load->connections[i];
        connection->load = load;
        connection->context = make_context(folder, i % agents + 1);
        make_request(connection, i % agents + 1);
        connection_open(connection);
    }
}

/* The time is up, and there is something to tell. */
static bool is_over(const struct load *load)
{
    return load->samples.count > 0 && samples_now_ns() >= load->began_ns + load->duration_ns;
}

static void run(struct load *load)
{
    struct epoll_event events[EVENTS_MAX];
    while (!is_over(load)) {
        int count = epoll_wait(load->epoll, events, EVENTS_MAX, STALL_MS);
        if (count < 0 && errno != EINTR)
            err(2, "epoll_wait");
        if (count == 0)
            errx(1, "no answer within %d s", STALL_MS / 1000);
        for (int i = 0; i < count; i++)
            connection_run(events[i].data.ptr);
    }
}

static void print_result(struct load *load)
{
    double seconds = (double)(samples_now_ns() - load->began_ns) / 1e9;
    double cpu = samples_cpu_seconds() - load->cpu_began;
    double server_cpu = server_cpu_seconds(load) - load->server_cpu_began;
    size_t count = load->samples.count;
    printf("{\"count\": %zu, \"rate\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"errors\": %u, "
           "\"resumed\": %" PRIu64 ", \"busy\": %.2f, \"server_cpu_us\": %.1f}\n",
           count, (double)count / seconds, samples_percentile_us(&load->samples, 0.50),
           samples_percentile_us(&load->samples, 0.99), load->errors, load->resumed, cpu / seconds,
           server_cpu * 1e6 / (double)count);
}

static void close_all(struct load *load)
{
    for (unsigned i = 0; i < load->count; i++) {
        connection_close(&load->connections[i]);
        SSL_SESSION_free(load->connections[i].session);
        SSL_CTX_free(load->connections[i].context);
    }
    free(load->connections);
    samples_free(&load->samples);
    close(load->epoll);
}

static const struct mode *find_mode(const char *name)
{
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(modes[i].name, name) == 0)
            return &modes[i];
    errx(2, "there is no mode %s", name);
}

int main(int argc, char **argv)
{
    if (argc < 7)
        errx(2, "usage: load register|heartbeat|get|full|resumed PORT CONNECTIONS SECONDS FOLDER "
                "AGENTS [PID...]\n"
                "FOLDER holds agent-1.crt and .key to agent-AGENTS; the processor time of the PIDs "
                "is told. Prints JSON");
    struct load load = {.mode = find_mode(argv[1]),
                        .port = (uint16_t)atoi(argv[2]),
                        .count = (unsigned)atoi(argv[3]),
                        .duration_ns = (uint64_t)(atof(argv[4]) * 1e9),
                        .epoll = epoll_create1(EPOLL_CLOEXEC),
                        .server_pids = argv + 7};
    unsigned agents = (unsigned)atoi(argv[6]);
    if (!load.port || !load.count || !load.duration_ns || !agents)
        errx(2, "PORT, CONNECTIONS, SECONDS and AGENTS are numbers above 0");
    open_all(&load, argv[5], agents);
    run(&load);
    print_result(&load);
    close_all(&load);
    return load.errors ? 1 : 0;
}
