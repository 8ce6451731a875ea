/* What the back daemons (registryd, auditd, eventd) have in common: frontd at one Unix socket, one
 * role in PostgreSQL, a dispatch table, and an orderly end. A daemon's struct begins with a struct
 * back, its options with a struct back_options. */
#ifndef CAF_COMMON_BACK_H
#define CAF_COMMON_BACK_H

#include "common/ipc.h"
#include "common/metrics_process.h"
#include "common/metrics_server.h"
#include "common/pg.h"
#include "common/service.h"

struct back_options {
#define OPTION CONFIG_MEMBER
#include "common/options_back.def"
#undef OPTION
};

/* A row of options_back.def in the table of a daemon whose options begin with `struct back_options
 * back`. */
#define BACK_ROW(section, key, type, fallback, min, max, help)                                     \
    {#section, #key, CONFIG_##type, offsetof(CONFIG_STRUCT, back.section##_##key),                 \
     fallback, min,  max,           help},

enum {
    PG_STATEMENT_COUNT = PG_STATEMENTS_MAX
}; /* PG_STATEMENT: the set of a daemon's statements */

struct database_metrics {
#define METRIC METRIC_MEMBER
#include "common/metrics_database.def"
#undef METRIC
};

/* What every back daemon counts: common/metrics_back.def. */
struct back_metrics {
    struct process_metrics process;
    struct server_metrics server;
    struct database_metrics database;
};

struct back;

/* What one back daemon is; constant tables. */
struct back_spec {
    const char *name, *default_file;
    enum proto_peer self;
    const struct config_option *options;
    const struct ipc_handler *handlers; /* their daemon is the struct back */
    const struct pg_statement *statements;
    const struct metric *metrics;              /* the table of the daemon's metrics */
    void (*update_metrics)(struct back *back); /* sets what is not counted as it happens, before
                                                  they are told; NULL: nothing */
    const char *const *allowed;                /* as pg_options.allowed */
    void (*before_drain)(struct back *back);   /* SIGTERM has come; NULL: nothing to do */
    void (*after_drain)(
        struct back *back);           /* all is answered: finish, then service_stop; NULL: stop */
    void (*close)(struct back *back); /* the channels are closed, the database and the loop are
                                         not yet: free what the daemon made; NULL: nothing */
};

struct back {
    struct service service;
    const struct back_spec *spec;
    struct back_options *options;
    struct pg *pg;
    struct ipc_server *server;
    char *node; /* this node's name */
    uid_t *peers;
    struct back_metrics *metrics;
    uint64_t cpu_seen_us;
};

/* Reads argv and the configuration into options, a zeroed struct that begins with a struct
 * back_options; opens the loop and the database. metrics begins the zeroed struct of spec->metrics.
 * Ends the process when it cannot. All four must outlive the service. */
void back_open(struct back *back, const struct back_spec *spec, struct back_options *options,
               struct back_metrics *metrics, int argc, char **argv);

/* Serves until the end and returns the exit status. The daemon then frees what it opened itself,
 * and calls back_close. */
int back_serve(struct back *back);

/* Closes the channels; requests that the database has not answered are dropped, to be sent again to
 * the next life. Frees what back_open made, and what the options hold. */
void back_close(struct back *back);

/* Submits one request that waits as long as the configuration says. params as pg_submit takes them.
 * False: the queue is full, fn is not called. */
bool back_submit(struct back *back, const struct pg_statement *statement, struct str key,
                 const struct str *params, pg_answer_fn *fn, void *arg);

/* Answers a request whose statement did not succeed: 503 when the database did not answer, else 500
 * and a log line. */
void back_fail(struct ipc_reply_to to, const struct pg_answer *answer);

/* Logs what the database refused of what the daemon asks by itself (what: a literal, "the …");
 * nothing where it refused nothing. */
void back_note_refusal(const struct pg_answer *answer, const char *what);

/* Answers a request for which the database's queue has no room: 503. */
void back_fail_full(struct ipc_reply_to to);

/* For PG_STATEMENT_SET: the name of the n-th row of a table of statements, NULL behind the last. */
const char *back_statement_name(const void *statements, size_t n);

/* The handler of MSG_metrics_get in every back daemon's dispatch table. */
void back_metrics(void *daemon, struct ipc_reply_to to, const struct message *message);

#endif
