/* What every daemon's life has in common: options, configuration, signals, readiness, drain. The
 * only code that knows systemd: LISTEN_FDS (sd_listen_fds(3)), NOTIFY_SOCKET (sd_notify(3)),
 * WATCHDOG_USEC, and the priority prefix of log lines. Without systemd the same binary opens its
 * own socket. */
#ifndef CAF_COMMON_SERVICE_H
#define CAF_COMMON_SERVICE_H

#include "common/config.h"
#include "common/metrics.h"

#include <event2/event.h>

struct service;

struct service_events {
    void (*drain)(void *daemon);  /* SIGTERM or SIGINT: finish, then call service_stop */
    void (*reload)(void *daemon); /* SIGHUP; NULL: nothing to reload */
};

struct service {
    const char *name;
    struct event_base *base;
    const struct service_events *events;
    void *daemon;
    int64_t stop_seconds; /* after this long a drain is cut short */
    bool draining;
    int64_t started_ms; /* monotonic */
    struct event *signals[4], *watchdog, *stop_timer;
};

/* What the option table cannot check: NULL, or a literal that says what is wrong. */
typedef const char *service_check_fn(const void *values);

/* What a program is, by its tables. */
struct service_program {
    const char *name, *default_file; /* of the configuration */
    const struct config_option *options;
    service_check_fn *check; /* NULL: nothing more to check */
    const struct metric *metrics;
};

/* Returns the path of the configuration file. Reads argv: -c FILE (the configuration), -t (check
 * and exit), -p (print what is in force and exit), -o (print the option table), -m (print the table
 * of metrics), -V, -h; then loads the configuration into values, has it checked, and opens the log.
 * Ends the process where an option says so, and with status 2 and "FILE:LINE: reason" where the
 * configuration is wrong. */
const char *service_configure(const struct service_program *program, int argc, char **argv,
                              void *values);

/* Opens the log under that name, at the level that log.level has in values. */
void service_open_log(const char *name, const struct config_option *options, const void *values);

/* Makes the loop, takes SIGTERM, SIGINT, SIGHUP, ignores SIGPIPE, sets no-new-privileges and
 * non-dumpable. service is the caller's. events.drain and .reload get daemon. */
void service_open(struct service *service, const char *name, const struct service_events *events,
                  void *daemon, int64_t stop_seconds);

/* The listening Unix socket for path: the one that systemd passed for it (matched by its address),
 * else a new one of that mode that replaces a stale file. Ends the process when neither can be had.
 */
int service_unix_listener(const char *path, mode_t mode);

/* The listening TCP socket for address and port, inherited or new, in the same way. */
int service_tcp_listener(const char *address, int64_t port, int64_t backlog);

/* Resolves user names and numbers to uids; ends the process with the name that is none. The caller
 * frees. */
uid_t *service_uids(const struct config_list *users);

/* Tells the service manager (sd_notify(3)), when there is one: "READY=1", "STATUS=…". */
void service_notify(const char *state);

/* The name of this node in records: what was configured, or the host's name. The caller frees. */
char *service_node_name(const char *configured);

/* Runs until service_stop; says READY=1 at its start and STOPPING=1 at drain. Returns the exit
 * status. */
int service_run(struct service *service);

/* Begins the drain as SIGTERM does; a second time it does nothing. */
void service_drain(struct service *service);

/* Ends the loop after what is ready has run. */
void service_stop(struct service *service);

/* Frees the loop and its events. */
void service_close(struct service *service);

#endif
