/* The life of a back daemon, from argv to the last answer. Opens the database's connections and the
 * one listener; knows nothing of what is asked there. */
#include "common/back.h"

#include "common/log.h"

#include <stdlib.h>

/* ---- stopping ------------------------------------------------------------------------------- */

static void on_drained(void *arg)
{
    struct back *back = arg;

    if (back->spec->after_drain)
        back->spec->after_drain(back);
    else
        service_stop(&back->service);
}

static void drain(void *arg)
{
    struct back *back = arg;

    if (back->spec->before_drain)
        back->spec->before_drain(back);
    ipc_server_drain(back->server, on_drained);
}

/* ---- starting ------------------------------------------------------------------------------- */

static void open_database(struct back *back)
{
    const struct back_options *options = back->options;
    const struct pg_options database = {
        .conninfo = options->database_conninfo,
        .application_name = back->spec->name,
        .connections = (int)options->database_connections,
        .batch_max = (int)options->database_batch_max,
        .queue_max = (int)options->database_queue_max,
        .statement_ms = options->database_statement_seconds * 1000,
        .statements = back->spec->statements,
        .allowed = back->spec->allowed,
    };

    back->pg = pg_new(back->service.base, &database);
}

void back_open(struct back *back, const struct back_spec *spec, struct back_options *options,
               struct back_metrics *metrics, int argc, char **argv)
{
    static const struct service_events events = {.drain = drain};
    const struct service_program program = {.name = spec->name,
                                            .default_file = spec->default_file,
                                            .options = spec->options,
                                            .metrics = spec->metrics};

    service_configure(&program, argc, argv, options);
    back->spec = spec;
    back->options = options;
    back->metrics = metrics;
    process_metrics_open(&metrics->process);
    back->node = service_node_name(options->node_name);
    back->peers = service_uids(&options->ipc_peer_users);
    service_open(&back->service, spec->name, &events, back, options->service_stop_seconds);
    open_database(back);
}

int back_serve(struct back *back)
{
    const struct back_options *options = back->options;
    const struct ipc_server_options server = {
        .self = back->spec->self,
        .peers = PEER_FRONTD,
        .handlers = back->spec->handlers,
        .daemon = back,
        .uids = back->peers,
        .uid_count = options->ipc_peer_users.count,
        .max_channels = (size_t)options->ipc_max_channels,
    };

    back->server = ipc_server_new(back->service.base,
                                  service_unix_listener(options->ipc_socket, 0600), &server);
    return service_run(&back->service);
}

void back_close(struct back *back)
{
    ipc_server_free(back->server);
    if (back->spec->close)
        back->spec->close(back);
    pg_free(back->pg);
    service_close(&back->service);
    free(back->node);
    free(back->peers);
    config_free(back->spec->options, back->options);
}

/* ---- asking the database -------------------------------------------------------------------- */

bool back_submit(struct back *back, const struct pg_statement *statement, struct str key,
                 const struct str *params, pg_answer_fn *fn, void *arg)
{
    return pg_submit(back->pg, statement, key, params,
                     back->options->database_request_seconds * 1000, fn, arg);
}

void back_fail(struct ipc_reply_to to, const struct pg_answer *answer)
{
    if (answer->outcome == PG_UNAVAILABLE) {
        ipc_fail(to, ERROR_UNAVAILABLE, "the database does not answer");
        return;
    }
    log_error("the database refused a request", LOG_TEXT("sqlstate", answer->sqlstate),
              LOG_TEXT("reason", answer->message));
    ipc_fail(to, ERROR_INTERNAL, "the database refused the request");
}

void back_note_refusal(const struct pg_answer *answer, const char *what)
{
    if (answer->outcome == PG_REFUSED)
        log_error("the database refuses", LOG_TEXT("what", what),
                  LOG_TEXT("sqlstate", answer->sqlstate), LOG_TEXT("reason", answer->message));
}

void back_fail_full(struct ipc_reply_to to)
{
    ipc_fail(to, ERROR_UNAVAILABLE, "too many requests wait for the database");
}
