/* The supervisor's state: configuration, certificates, the listener, and a slot per worker. It
 * never sees a client's byte. */
#ifndef CAF_FRONTD_SUPERVISOR_H
#define CAF_FRONTD_SUPERVISOR_H

#include "common/ipc.h"
#include "common/service.h"
#include "frontd/metrics.h"
#include "frontd/options.h"

#include <sys/types.h>

enum { SUPERVISOR_PEERS = 4 };

struct supervisor;
struct supervisor_worker;

/* One worker's connection to one peer: made, handed over, made again when it is lost. */
struct supervisor_link {
    struct supervisor_worker *worker;
    enum proto_peer peer;
    const char *path;
    struct event *retry;
    int64_t delay_ms;
    int64_t handed_over_ms; /* monotonic: a link that lived is made again at once */
};

struct supervisor_worker {
    struct supervisor *supervisor;
    unsigned number;
    pid_t pid; /* 0: not running */
    struct ipc_channel *control;
    struct event *restart;
    int64_t started_ms, restart_delay_ms;
    struct supervisor_link links[SUPERVISOR_PEERS];
};

/* PEM texts, NUL-terminated, owned. */
struct supervisor_material {
    char *certificates, *client_ca, *crls;
};

struct supervisor {
    struct service service;
    struct frontd_options options;
    const char *program;          /* of the workers */
    int listener, admin_listener; /* -1: none */
    struct supervisor_material material;
    struct supervisor_worker *workers;
    struct event *child;
    struct metrics_memory metrics_memory;
    int metrics_descriptor;         /* of that memory */
    struct frontd_metrics *metrics; /* the supervisor's own */
    struct event *metrics_timer;
    uint64_t cpu_seen_us;
};

/* ---- supervisor_material.c ------------------------------------------------------------------ */

/* Reads certificates, CA bundle and CRLs and checks that each holds what it should. Returns false
 * with the file and the reason in error; material is then untouched. */
bool supervisor_read_material(const struct frontd_options *options,
                              struct supervisor_material *material, char *error, size_t error_size);

void supervisor_free_material(struct supervisor_material *material);

/* ---- supervisor_worker.c -------------------------------------------------------------------- */

/* Notices ends of workers. */
void supervisor_watch_children(struct supervisor *supervisor);

/* Starts every worker, and from now on again whichever ends. */
void supervisor_start_workers(struct supervisor *supervisor);

/* Gives the material in force to every worker. */
void supervisor_send_material(struct supervisor *supervisor);

/* Asks every worker to drain; the service stops when the last has ended. */
void supervisor_drain_workers(struct supervisor *supervisor);

void supervisor_free_workers(struct supervisor *supervisor);

/* ---- supervisor_metrics.c ------------------------------------------------------------------- */

/* Makes the memory that supervisor and workers count in, and begins to count. */
void supervisor_open_metrics(struct supervisor *supervisor);

/* Counts a worker's end; what it had counted stays, how it stood does not. */
void supervisor_metrics_worker_ended(struct supervisor_worker *worker, bool killed);

void supervisor_close_metrics(struct supervisor *supervisor);

/* Opens the listener that admin.listen asks for; -1 for none. Ends the process when it cannot. */
int supervisor_open_admin_listener(const struct frontd_options *options);

/* What is wrong with admin.listen, as service_check_fn says it. */
const char *supervisor_check_admin_listen(const struct frontd_options *options);

/* ---- supervisor_link.c ---------------------------------------------------------------------- */

/* Prepares the worker's links; none is made yet. */
void supervisor_init_links(struct supervisor_worker *worker);

/* Makes a link now, or with backoff and jitter as soon as the peer accepts, and hands it to the
 * worker. */
void supervisor_make_link(struct supervisor_link *link);

/* The worker's end of that link was lost. */
void supervisor_lost_link(struct supervisor_worker *worker, enum proto_peer peer);

/* No more attempts. */
void supervisor_stop_links(struct supervisor_worker *worker);

#endif
