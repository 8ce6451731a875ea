/* The supervisor's part in metrics: the memory that all count in, its own numbers, and the listener
 * where metrics are asked for, which the workers serve. Reads nothing that a worker wrote. */
#include "frontd/supervisor.h"

#include "common/clock.h"
#include "common/log.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

enum { UPDATE_MS = 1000, BACKLOG = 64, ADDRESS_BYTES = 64 };

static void on_update(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *supervisor = arg;

    (void)fd;
    (void)what;
    process_metrics_update(&supervisor->metrics->process, &supervisor->cpu_seen_us);
}

void supervisor_open_metrics(struct supervisor *supervisor)
{
    const struct timeval interval = clock_timeval(UPDATE_MS);

    supervisor->metrics_descriptor = metrics_memory_create(
        &supervisor->metrics_memory, (size_t)supervisor->options.workers_count + 1);
    supervisor->metrics = metrics_memory_slot(&supervisor->metrics_memory, 0);
    process_metrics_open(&supervisor->metrics->process);
    supervisor->metrics_timer =
        event_new(supervisor->service.base, -1, EV_PERSIST, on_update, supervisor);
    if (!supervisor->metrics_timer)
        log_fatal("out of memory");
    event_add(supervisor->metrics_timer, &interval);
}

void supervisor_metrics_worker_ended(struct supervisor_worker *worker, bool killed)
{
    struct supervisor *supervisor = worker->supervisor;

    supervisor->metrics->workers--;
    supervisor->metrics->worker_ends_total[killed ? WORKER_END_KILLED : WORKER_END_EXITED]++;
    metrics_clear_gauges(frontd_metrics_table,
                         metrics_memory_slot(&supervisor->metrics_memory, worker->number + 1));
}

void supervisor_close_metrics(struct supervisor *supervisor)
{
    event_free(supervisor->metrics_timer);
    metrics_memory_unmap(&supervisor->metrics_memory);
    close(supervisor->metrics_descriptor);
}

/* ---- admin.listen --------------------------------------------------------------------------- */

/* ADDRESS:PORT, with an address of this host's own loopback, [ADDRESS]:PORT for IPv6. */
static bool parse_loopback(const char *text, char address[ADDRESS_BYTES], long long *port)
{
    const char *colon = strrchr(text, ':');
    bool bracketed = text[0] == '[';
    size_t len = colon ? (size_t)(colon - text) : 0;
    struct in_addr ip4;
    struct in6_addr ip6;

    if (!colon || len < 2 || len >= ADDRESS_BYTES || (bracketed && text[len - 1] != ']'))
        return false;
    snprintf(address, ADDRESS_BYTES, "%.*s", (int)(bracketed ? len - 2 : len), text + bracketed);
    if (!str_to_number(str_from(colon + 1), 65535, port) || *port == 0)
        return false;
    if (bracketed)
        return inet_pton(AF_INET6, address, &ip6) == 1 && IN6_IS_ADDR_LOOPBACK(&ip6);
    return inet_pton(AF_INET, address, &ip4) == 1 && ntohl(ip4.s_addr) >> 24 == IN_LOOPBACKNET;
}

const char *supervisor_check_admin_listen(const struct frontd_options *options)
{
    const char *listen = options->admin_listen;
    char address[ADDRESS_BYTES];
    long long port;

    if (!*listen || *listen == '/')
        return NULL;
    if (!parse_loopback(listen, address, &port))
        return "admin.listen: neither a path nor ADDRESS:PORT with a loopback address";
    return port == options->listen_port ? "admin.listen: its port is listen.port" : NULL;
}

int supervisor_open_admin_listener(const struct frontd_options *options)
{
    const char *listen = options->admin_listen;
    char address[ADDRESS_BYTES];
    long long port;

    if (!*listen)
        return -1;
    if (*listen == '/')
        return service_unix_listener(listen, 0660);
    if (!parse_loopback(listen, address, &port))
        log_fatal("admin.listen is no loopback address", LOG_TEXT("address", listen));
    return service_tcp_listener(address, port, BACKLOG);
}
