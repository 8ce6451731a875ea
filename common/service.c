/* The life of a daemon: argv, configuration, listeners, signals, readiness, watchdog, drain. The
 * only code that knows systemd. Opens the configuration file and the listener; never a client's
 * bytes. */
#include "common/service.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

/* ---- argv and configuration ----------------------------------------------------------------- */

static void print_usage(const char *name, const char *default_file)
{
    printf("usage: %s [-c FILE] [-t | -p | -o | -m | -V | -h]\n"
           "  -c FILE  the configuration (default %s)\n"
           "  -t       check the configuration and exit\n"
           "  -p       print what is in force and exit\n"
           "  -o       print every option with its default, range and meaning, and exit\n"
           "  -m       print every metric with its type, labels and meaning, and exit\n"
           "  -V       print the version and exit\n"
           "  -h       print this and exit\n",
           name, default_file);
}

struct arguments {
    const char *file;
    bool check, print;
};

static struct arguments read_arguments(const struct service_program *program, int argc, char **argv)
{
    struct arguments arguments = {.file = program->default_file};
    int option;

    while ((option = getopt(argc, argv, "c:tpomVh")) != -1) {
        switch (option) {
        case 'c':
            arguments.file = optarg;
            break;
        case 't':
            arguments.check = true;
            break;
        case 'p':
            arguments.print = true;
            break;
        case 'o':
            config_print_table(program->options, stdout);
            exit(0);
        case 'm':
            metrics_print_table(stdout, program->metrics, program->name);
            exit(0);
        case 'V':
            printf("%s %s\n", program->name, CAF_VERSION);
            exit(0);
        case 'h':
            print_usage(program->name, program->default_file);
            exit(0);
        default:
            exit(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument %s\n", program->name, argv[optind]);
        exit(2);
    }
    return arguments;
}

/* log.level is an option of every daemon; its words are in another order than the levels. */
static enum log_level configured_level(const struct config_option *options, const void *values)
{
    static const enum log_level levels[] = {LOG_LEVEL_INFO, LOG_LEVEL_ERROR, LOG_LEVEL_WARN,
                                            LOG_LEVEL_DEBUG};

    for (const struct config_option *option = options; option->section; option++)
        if (strcmp(option->section, "log") == 0 && strcmp(option->key, "level") == 0)
            return levels[*(const int *)((const char *)values + option->offset)];
    return LOG_LEVEL_INFO;
}

void service_open_log(const char *name, const struct config_option *options, const void *values)
{
    log_open(name, configured_level(options, values));
}

const char *service_configure(const struct service_program *program, int argc, char **argv,
                              void *values)
{
    struct arguments arguments = read_arguments(program, argc, argv);
    char error[512];
    const char *problem;

    if (config_load(program->options, values, arguments.file, error, sizeof(error)) != 0) {
        fprintf(stderr, "%s: %s\n", program->name, error);
        exit(2);
    }
    problem = program->check ? program->check(values) : NULL;
    if (problem) {
        fprintf(stderr, "%s: %s:0: %s\n", program->name, arguments.file, problem);
        exit(2);
    }
    if (arguments.print)
        config_print(program->options, values, stdout);
    if (arguments.check || arguments.print) {
        config_free(program->options, values);
        exit(0);
    }
    service_open_log(program->name, program->options, values);
    return arguments.file;
}

uid_t *service_uids(const struct config_list *users)
{
    uid_t *uids = memory_new(users->count, sizeof(*uids));

    for (size_t i = 0; i < users->count; i++) {
        const struct passwd *entry = getpwnam(users->items[i]);
        long long number;

        if (entry)
            uids[i] = entry->pw_uid;
        else if (str_to_number(str_from(users->items[i]), UINT32_MAX - 1LL, &number))
            uids[i] = (uid_t)number;
        else
            log_fatal("no such user", LOG_TEXT("user", users->items[i]));
    }
    return uids;
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void force_stop(evutil_socket_t fd, short what, void *arg)
{
    struct service *service = arg;

    (void)fd;
    (void)what;
    log_warn("stopped waiting for what was in flight",
             LOG_NUMBER("seconds", service->stop_seconds));
    service_stop(service);
}

void service_drain(struct service *service)
{
    struct timeval limit = clock_timeval(service->stop_seconds * 1000);

    if (service->draining)
        return;
    service->draining = true;
    log_info("draining");
    service_notify("STOPPING=1");
    event_add(service->stop_timer, &limit);
    service->events->drain(service->daemon);
}

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
    (void)number;
    (void)what;
    service_drain(arg);
}

static void on_reload_signal(evutil_socket_t number, short what, void *arg)
{
    struct service *service = arg;

    (void)number;
    (void)what;
    if (service->events->reload && !service->draining)
        service->events->reload(service->daemon);
}

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    service_notify("WATCHDOG=1");
}

/* systemd wants a sign of life within WATCHDOG_USEC; half of that leaves room for a busy turn. */
static void start_watchdog(struct service *service)
{
    const char *text = getenv("WATCHDOG_USEC");
    long long microseconds;
    struct timeval half;

    if (!text || !str_to_number(str_from(text), INT64_MAX, &microseconds) || microseconds < 2000)
        return;
    half = clock_timeval(microseconds / 2000);
    service->watchdog = event_new(service->base, -1, EV_PERSIST, on_watchdog, service);
    event_add(service->watchdog, &half);
}

static void take_signal(struct service *service, size_t slot, int number, event_callback_fn handler)
{
    service->signals[slot] = evsignal_new(service->base, number, handler, service);
    event_add(service->signals[slot], NULL);
}

/* No process of caf gains rights by exec, and none leaves its memory in a core file. */
static void forbid_surprises(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        log_fatal("prctl", LOG_TEXT("error", strerror(errno)));
    signal(SIGPIPE, SIG_IGN);
}

void service_open(struct service *service, const char *name, const struct service_events *events,
                  void *daemon, int64_t stop_seconds)
{
    forbid_surprises();
    *service = (struct service){.name = name,
                                .events = events,
                                .daemon = daemon,
                                .stop_seconds = stop_seconds,
                                .started_ms = clock_monotonic_ms()};
    service->base = event_base_new();
    if (!service->base)
        log_fatal("cannot make an event loop");
    take_signal(service, 0, SIGTERM, on_stop_signal);
    take_signal(service, 1, SIGINT, on_stop_signal);
    take_signal(service, 2, SIGHUP, on_reload_signal);
    service->stop_timer = event_new(service->base, -1, 0, force_stop, service);
    start_watchdog(service);
}

int service_run(struct service *service)
{
    log_info("started", LOG_NUMBER("pid", getpid()), LOG_TEXT("version", CAF_VERSION));
    service_notify("READY=1");
    event_base_dispatch(service->base);
    log_info("stopped");
    return 0;
}

void service_stop(struct service *service)
{
    event_base_loopexit(service->base, NULL);
}

void service_close(struct service *service)
{
    for (size_t i = 0; i < sizeof(service->signals) / sizeof(service->signals[0]); i++)
        if (service->signals[i])
            event_free(service->signals[i]);
    if (service->watchdog)
        event_free(service->watchdog);
    event_free(service->stop_timer);
    event_base_free(service->base);
}

char *service_node_name(const char *configured)
{
    char name[256] = "";

    if (*configured)
        return str_dup(str_from(configured));
    if (gethostname(name, sizeof(name) - 1) != 0 || !*name)
        log_fatal("the host has no name: set node.name");
    return str_dup(str_from(name));
}
