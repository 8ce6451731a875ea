/* Starts workers by fork and exec, so that none inherits another's memory, hands each all that it
 * needs over its control socket, and starts again whichever ends. */
#include "frontd/supervisor.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CONTROL_DESCRIPTOR = 3, /* in the worker */
    RESTART_FIRST_MS = 50,
    RESTART_MAX_MS = 5000,
    LIVED_MS = 10000,
};

static const struct request_id no_request = {{0}};

/* ---- what a worker is told ------------------------------------------------------------------ */

static void send_configuration(struct supervisor_worker *worker)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    struct msg_configure body;

    if (!out)
        log_fatal("out of memory");
    config_print(frontd_option_table, &worker->supervisor->options, out);
    fclose(out);
    body = (struct msg_configure){.text = {text, len}, .worker = worker->number};
    ipc_channel_send(worker->control, MSG_configure, &no_request, &body, -1);
    free(text);
}

static void send_material(struct supervisor_worker *worker, bool trust_changed)
{
    const struct supervisor_material *material = &worker->supervisor->material;
    const struct msg_material body = {.certificates = str_from(material->certificates),
                                      .client_ca = str_from(material->client_ca),
                                      .crls = str_from(material->crls),
                                      .trust_changed = trust_changed};

    ipc_channel_send(worker->control, MSG_material, &no_request, &body, -1);
}

/* Sends a message with a copy of the descriptor. */
static void send_descriptor(struct supervisor_worker *worker, enum message_type type,
                            const void *body, int descriptor)
{
    int fd = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);

    if (fd < 0)
        log_fatal("cannot hand a descriptor over", LOG_TEXT("message", proto_name(type)),
                  LOG_TEXT("error", strerror(errno)));
    ipc_channel_send(worker->control, type, &no_request, body, fd);
}

static void send_metrics_memory(struct supervisor_worker *worker)
{
    const struct supervisor *supervisor = worker->supervisor;
    const uint64_t layout = metrics_layout(frontd_metrics_table);
    const struct msg_metrics_memory body = {.slot = worker->number + 1,
                                            .slots = supervisor->metrics_memory.count,
                                            .layout = {(const char *)&layout, sizeof(layout)}};

    send_descriptor(worker, MSG_metrics_memory, &body, supervisor->metrics_descriptor);
}

static void send_listeners(struct supervisor_worker *worker)
{
    const struct supervisor *supervisor = worker->supervisor;

    send_descriptor(worker, MSG_listener, &(struct msg_listener){}, supervisor->listener);
    if (supervisor->admin_listener >= 0)
        send_descriptor(worker, MSG_admin_listener, &(struct msg_admin_listener){},
                        supervisor->admin_listener);
}

void supervisor_send_material(struct supervisor *supervisor, bool trust_changed)
{
    for (int64_t i = 0; i < supervisor->options.workers_count; i++)
        if (supervisor->workers[i].control)
            send_material(&supervisor->workers[i], trust_changed);
}

void supervisor_send_configuration(struct supervisor *supervisor)
{
    for (int64_t i = 0; i < supervisor->options.workers_count; i++)
        if (supervisor->workers[i].control)
            send_configuration(&supervisor->workers[i]);
}

/* ---- what a worker says --------------------------------------------------------------------- */

static void on_control(struct ipc_channel *channel, const struct message *message, void *arg)
{
    struct supervisor_worker *worker = arg;

    (void)channel;
    if (message->type == MSG_backend_lost)
        supervisor_lost_link(worker, (enum proto_peer)message->body.backend_lost.peer);
    else if (message->type == MSG_worker_ready)
        log_info("worker accepts", LOG_NUMBER("worker", worker->number));
    else
        log_warn("not a worker's to say", LOG_TEXT("message", proto_name(message->type)));
}

/* A worker without its control socket is of no use; its end is told by SIGCHLD. */
static void on_control_closed(struct ipc_channel *channel, const char *why, void *arg)
{
    struct supervisor_worker *worker = arg;
    const char *detail;

    if (ipc_channel_refusal(channel, &detail) < IPC_REFUSAL_COUNT)
        log_warn("worker refused", LOG_NUMBER("worker", worker->number), LOG_TEXT("reason", why),
                 LOG_TEXT("detail", detail));
    supervisor_stop_links(worker);
    ipc_channel_close(channel);
    worker->control = NULL;
}

/* ---- starting ------------------------------------------------------------------------------- */

/* What the service manager told this process alone. */
static bool is_service_managers(const char *variable)
{
    static const char *const names[] = {
        "LISTEN_FDS=",    "LISTEN_PID=",   "LISTEN_FDNAMES=",       "NOTIFY_SOCKET=",
        "WATCHDOG_USEC=", "WATCHDOG_PID=", "CREDENTIALS_DIRECTORY="};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* The environment without it. The caller frees the array, not what it points to. */
static char **worker_environment(void)
{
    size_t count = 0, kept = 0;
    char **variables;

    while (environ[count])
        count++;
    variables = memory_new(count + 1, sizeof(*variables));
    for (size_t i = 0; i < count; i++)
        if (!is_service_managers(environ[i]))
            variables[kept++] = environ[i];
    return variables;
}

/* Runs the worker's program with the descriptor as its 3; returns its pid. Ends this process when
 * it cannot. */
static pid_t spawn(const struct supervisor *supervisor, int control)
{
    char *const argv[] = {(char *)"frontd-worker", NULL};
    char **variables = worker_environment();
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int error;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, control, CONTROL_DESCRIPTOR);
    error = posix_spawn(&pid, supervisor->program, &actions, NULL, argv, variables);
    posix_spawn_file_actions_destroy(&actions);
    free(variables);
    if (error)
        log_fatal("cannot start a worker", LOG_TEXT("program", supervisor->program),
                  LOG_TEXT("error", strerror(error)));
    return pid;
}

static void start_worker(struct supervisor_worker *worker)
{
    static const struct ipc_channel_events events = {.message = on_control,
                                                     .closed = on_control_closed};
    struct supervisor *supervisor = worker->supervisor;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        log_fatal("cannot make a control socket", LOG_TEXT("error", strerror(errno)));
    worker->pid = spawn(supervisor, ends[1]);
    close(ends[1]);
    worker->started_ms = clock_monotonic_ms();
    supervisor->metrics->worker_starts_total++;
    supervisor->metrics->workers++;
    worker->control = ipc_channel_new(supervisor->service.base, ends[0], PEER_SUPERVISOR,
                                      PEER_FRONTD, &events, worker);
    log_info("worker started", LOG_NUMBER("worker", worker->number),
             LOG_NUMBER("pid", worker->pid));
    send_metrics_memory(worker);
    send_configuration(worker);
    for (size_t i = 0; i < BACKEND_COUNT; i++)
        supervisor_make_link(&worker->links[i]);
    send_material(worker, false);
    supervisor_send_ticket_keys(worker);
    send_listeners(worker);
}

static void on_restart(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    start_worker(arg);
}

void supervisor_open_workers(struct supervisor *supervisor)
{
    supervisor->workers =
        memory_new((size_t)supervisor->options.workers_count, sizeof(*supervisor->workers));
    for (int64_t i = 0; i < supervisor->options.workers_count; i++) {
        struct supervisor_worker *worker = &supervisor->workers[i];

        worker->supervisor = supervisor;
        worker->number = (unsigned)i;
        worker->restart_delay_ms = RESTART_FIRST_MS;
        worker->restart = evtimer_new(supervisor->service.base, on_restart, worker);
        supervisor_init_links(worker);
    }
}

void supervisor_start_workers(struct supervisor *supervisor)
{
    for (int64_t i = 0; i < supervisor->options.workers_count; i++)
        start_worker(&supervisor->workers[i]);
}

/* ---- ending --------------------------------------------------------------------------------- */

static bool any_running(const struct supervisor *supervisor)
{
    for (int64_t i = 0; i < supervisor->options.workers_count; i++)
        if (supervisor->workers[i].pid)
            return true;
    return false;
}

static void start_again(struct supervisor_worker *worker)
{
    struct timeval delay;

    if (clock_monotonic_ms() - worker->started_ms > LIVED_MS)
        worker->restart_delay_ms = RESTART_FIRST_MS;
    delay = clock_timeval(worker->restart_delay_ms);
    worker->restart_delay_ms = worker->restart_delay_ms * 2 > RESTART_MAX_MS
                                   ? RESTART_MAX_MS
                                   : worker->restart_delay_ms * 2;
    event_add(worker->restart, &delay);
}

/* A worker that was told to end, and did, is nothing to warn of. */
static void log_end(const struct supervisor_worker *worker, int status)
{
    if (worker->supervisor->service.draining && status == 0)
        log_info("worker ended", LOG_NUMBER("worker", worker->number),
                 LOG_NUMBER("pid", worker->pid));
    else
        log_warn("worker ended", LOG_NUMBER("worker", worker->number),
                 LOG_NUMBER("pid", worker->pid),
                 LOG_NUMBER("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0),
                 LOG_NUMBER("status", WIFEXITED(status) ? WEXITSTATUS(status) : 0));
}

static void worker_ended(struct supervisor_worker *worker, int status)
{
    bool draining = worker->supervisor->service.draining;

    log_end(worker, status);
    worker->pid = 0;
    supervisor_metrics_worker_ended(worker, WIFSIGNALED(status));
    if (worker->control)
        on_control_closed(worker->control, "the worker ended", worker);
    if (!draining) {
        supervisor_end_tickets(worker->supervisor, TICKETS_END_WORKER);
        start_again(worker);
    } else if (!any_running(worker->supervisor)) {
        service_stop(&worker->supervisor->service);
    }
}

static void on_child(evutil_socket_t number, short what, void *arg)
{
    struct supervisor *supervisor = arg;
    int status;
    pid_t pid;

    (void)number;
    (void)what;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int64_t i = 0; i < supervisor->options.workers_count; i++)
            if (supervisor->workers[i].pid == pid)
                worker_ended(&supervisor->workers[i], status);
}

void supervisor_watch_children(struct supervisor *supervisor)
{
    supervisor->child = evsignal_new(supervisor->service.base, SIGCHLD, on_child, supervisor);
    event_add(supervisor->child, NULL);
}

void supervisor_drain_workers(struct supervisor *supervisor)
{
    static const struct msg_drain nothing;

    for (int64_t i = 0; i < supervisor->options.workers_count; i++) {
        struct supervisor_worker *worker = &supervisor->workers[i];

        event_del(worker->restart);
        if (worker->control)
            ipc_channel_send(worker->control, MSG_drain, &no_request, &nothing, -1);
    }
    if (!any_running(supervisor))
        service_stop(&supervisor->service);
}

void supervisor_free_workers(struct supervisor *supervisor)
{
    for (int64_t i = 0; i < supervisor->options.workers_count; i++) {
        struct supervisor_worker *worker = &supervisor->workers[i];

        if (worker->pid)
            kill(worker->pid, SIGKILL); /* it did not end within the stop time */
        if (worker->control)
            ipc_channel_close(worker->control);
        event_free(worker->restart);
        for (size_t k = 0; k < BACKEND_COUNT; k++)
            event_free(worker->links[k].retry);
    }
    free(supervisor->workers);
    event_free(supervisor->child);
}
