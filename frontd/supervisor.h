/* The supervisor's state: configuration, certificates, session ticket keys, the listener, and a
 * slot per worker. It never sees a client's byte. */
#ifndef CAF_FRONTD_SUPERVISOR_H
#define CAF_FRONTD_SUPERVISOR_H

#include "common/ipc.h"
#include "common/service.h"
#include "frontd/metrics.h"
#include "frontd/options.h"
#include "frontd/tls_signature.h"
#include "frontd/tls_tickets.h"

#include <sys/types.h>

struct supervisor;
struct supervisor_worker;

/* One worker's connection to one peer: made, handed over, made again when it is lost. */
struct supervisor_link {
    struct supervisor_worker *worker;
    enum backend backend;
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
    struct supervisor_link links[BACKEND_COUNT];
};

/* A file of server certificates, and the seconds since 1970 in which all of them are valid. */
struct supervisor_file {
    char *name; /* owned */
    int64_t starts, ends;
};

/* The name of a server key, as the keeper knows it, and the file of its certificate. */
struct supervisor_key {
    uint8_t id[TLS_SIGNATURE_KEY_ID_SIZE];
    const char *file; /* a supervisor_file's */
};

/* PEM texts, NUL-terminated, the files of the certificates and their keys; all owned. */
struct supervisor_material {
    char *certificates, *client_ca, *crls;
    struct supervisor_file *files;
    struct supervisor_key *keys;
    size_t file_count, key_count;
};

/* why: NULL when the keeper holds every key of the material; else it names the certificate, or says
 * that the keeper does not answer. */
typedef void supervisor_keeper_fn(struct supervisor *supervisor, const char *why);

/* The supervisor's own connection to the keeper. */
struct supervisor_keeper {
    struct supervisor *supervisor;
    struct ipc_client *client;
    struct event *connect_again;
    const struct supervisor_material *material; /* that is asked about */
    supervisor_keeper_fn *done;
};

/* A reload under way, and what the last one said. */
struct supervisor_reload {
    struct event *interval;
    bool running, by_signal; /* the start is one, too */
    bool again;              /* another signal came meanwhile */
    struct frontd_options options;
    struct supervisor_material material;
    bool roles, certificates, crls, trust; /* differ from what is in force; trust: CRLs or CAs */
    char refused[4608], needs_restart[1024];
};

struct supervisor {
    struct service service;
    struct frontd_options options;
    const char *program; /* of the workers */
    const char *configuration_file;
    service_check_fn *check_options;
    int listener, admin_listener; /* -1: none */
    uid_t *backend_users;         /* as many as options.backends_users */
    struct supervisor_material material;
    struct tls_ticket_keys ticket_keys;
    struct event *ticket_age;
    struct supervisor_keeper keeper;
    struct supervisor_reload reload;
    struct supervisor_worker *workers;
    struct event *child;
    struct metrics_memory metrics_memory;
    int metrics_descriptor;         /* of that memory */
    struct frontd_metrics *metrics; /* the supervisor's own */
    struct event *metrics_timer;
    uint64_t cpu_seen_us;
};

/* ---- supervisor_material.c ------------------------------------------------------------------ */

/* Reads certificates, CA bundle and CRLs into material (zeroed) and checks that a worker could
 * serve with each. Returns false with the file and the reason in error; material is then zeroed. */
bool supervisor_read_material(const struct frontd_options *options,
                              struct supervisor_material *material, char *error, size_t error_size);

/* Whether all its CRLs are within their dates. With one that is not, no client of its issuer is let
 * in (RFC 5280 6.3.3). */
bool supervisor_crls_in_date(const struct supervisor_material *material);

/* A file of its server certificates in which one is not within its dates now; NULL: there is none.
 */
const char *supervisor_out_of_date(const struct supervisor_material *material);

/* Logs such a file as an error: it is in force, and clients will refuse it. */
void supervisor_tell_out_of_date(const struct supervisor_material *material);

void supervisor_free_material(struct supervisor_material *material);

/* ---- supervisor_reload.c -------------------------------------------------------------------- */

/* Once the service runs: asks the keeper whether it holds the keys of the material that was read at
 * the start, and starts the workers, or ends the process with a log line. A reload asked for
 * meanwhile comes afterwards. */
void supervisor_start_serving(struct supervisor *supervisor);

/* Reads the configuration and the material again. What changed is put into force as a whole; a
 * broken set is refused as a whole with one log line, which names the file and the reason (again
 * only when the same is asked for by a signal). */
void supervisor_reload(struct supervisor *supervisor, bool by_signal);

void supervisor_free_reload(struct supervisor *supervisor);

/* ---- supervisor_keeper.c -------------------------------------------------------------------- */

void supervisor_open_keeper(struct supervisor *supervisor);

/* Whether the keeper holds the keys of material, which must stay until done is called: later, once,
 * after timeouts.read_deadline_seconds at most, in which a keeper that is not there yet may come.
 * One question at a time. */
void supervisor_ask_keeper(struct supervisor *supervisor,
                           const struct supervisor_material *material, supervisor_keeper_fn *done);

void supervisor_close_keeper(struct supervisor *supervisor);

/* ---- supervisor_tickets.c ------------------------------------------------------------------- */

/* Makes the first keys of session tickets; from then on they are replaced by age. */
void supervisor_make_ticket_keys(struct supervisor *supervisor);

/* Gives the keys in force to a worker. */
void supervisor_send_ticket_keys(struct supervisor_worker *worker);

/* Replaces the keys so that no ticket given out so far can be used. why: a TICKETS_END_…, to be
 * counted. */
void supervisor_end_tickets(struct supervisor *supervisor, int why);

void supervisor_free_ticket_keys(struct supervisor *supervisor);

/* ---- supervisor_worker.c -------------------------------------------------------------------- */

/* Notices ends of workers. */
void supervisor_watch_children(struct supervisor *supervisor);

/* Makes a slot per worker; none is started. */
void supervisor_open_workers(struct supervisor *supervisor);

/* Starts every worker, and from now on again whichever ends. */
void supervisor_start_workers(struct supervisor *supervisor);

/* Gives the material in force to every worker. trust_changed: the CA bundle or the CRLs are new. */
void supervisor_send_material(struct supervisor *supervisor, bool trust_changed);

/* Gives the configuration in force to every worker, which takes the roles from it. */
void supervisor_send_configuration(struct supervisor *supervisor);

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

/* A connected socket of that daemon, close-on-exec and non-blocking, or -1 with errno: EPERM,
 * counted and logged, when somebody listens there who is none of backends.users. */
int supervisor_connect(struct supervisor *supervisor, enum backend backend);

/* Learns who may listen at the daemons' sockets. Ends the process when a user does not exist. */
void supervisor_find_backend_users(struct supervisor *supervisor);

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
