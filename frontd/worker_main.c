/* frontd-worker: terminates mTLS and speaks HTTP. Gets everything over the descriptor that the
 * supervisor left it: configuration, certificates, the listener, connections to the keeper and the
 * back daemons. Opens no file and no socket; holds no private key. */
#include "frontd/worker.h"

#include "common/ids.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <unistd.h>

enum { TELL_SECONDS = 3600, SIGN_SECONDS = 10 };

static const enum proto_peer backend_peers[BACKEND_COUNT] = {
    [BACKEND_KEEPER] = PEER_KEEPER,
    [BACKEND_REGISTRYD] = PEER_REGISTRYD,
    [BACKEND_AUDITD] = PEER_AUDITD,
    [BACKEND_EVENTD] = PEER_EVENTD,
};

static const struct request_id no_request = {{0}};

/* ---- backends ------------------------------------------------------------------------------- */

struct ipc_client *worker_backend(struct worker *worker, enum proto_peer peer)
{
    for (size_t i = 0; i < BACKEND_COUNT; i++)
        if (backend_peers[i] == peer)
            return worker->backends[i];
    return NULL;
}

static void on_backend_lost(void *arg, enum proto_peer peer)
{
    struct worker *worker = arg;
    const struct msg_backend_lost lost = {.peer = peer};

    ipc_channel_send(worker->control, MSG_backend_lost, &no_request, &lost, -1);
}

static void accept_when_complete(struct worker *worker);

/* registryd alone pushes anything. */
static bool on_pushed(void *arg, const struct message *message)
{
    if (!deny_link_take(arg, message))
        return false;
    accept_when_complete(arg);
    return true;
}

static void open_backends(struct worker *worker)
{
    struct frontd_metrics *metrics = worker->metrics;

    for (size_t i = 0; i < BACKEND_COUNT; i++) {
        const struct ipc_client_options options = {
            .self = PEER_FRONTD,
            .peer = backend_peers[i],
            .max_in_flight = (size_t)worker->options.limits_in_flight,
            .counters = {&metrics->backend_requests_total[i],
                         &metrics->backend_requests_in_flight[i],
                         &metrics->backend_requests_resent_total[i],
                         &metrics->backend_requests_expired_total[i],
                         &metrics->backend_connections_lost_total[i],
                         metrics->backend_refusals_total[i]},
            .lost = on_backend_lost,
            .pushed = backend_peers[i] == PEER_REGISTRYD ? on_pushed : NULL,
            .arg = worker,
        };

        worker->backends[i] = ipc_client_new(worker->service.base, &options);
    }
}

static void on_told(void *arg, const struct message *answer)
{
    (void)arg;
    if (answer && answer->type == MSG_fail)
        log_warn("a backend refused what it was told",
                 LOG_STR("reason", answer->body.fail.message));
}

bool worker_may_call(struct worker *worker, enum proto_peer peer, bool is_operator)
{
    size_t room = is_operator ? (size_t)worker->options.limits_in_flight
                              : worker->admission.in_flight_open_to_all;

    if (ipc_client_in_flight(worker_backend(worker, peer)) < room)
        return true;
    admission_count(&worker->admission, REFUSAL_in_flight);
    return false;
}

bool worker_tell(struct worker *worker, enum proto_peer peer, enum message_type type,
                 const void *body)
{
    return worker_may_call(worker, peer, false) &&
           ipc_client_call(worker_backend(worker, peer), type, body, TELL_SECONDS * 1000LL, on_told,
                           worker) != NULL;
}

/* ---- accepting ------------------------------------------------------------------------------ */

/* With everything there the worker accepts. */
static void accept_when_complete(struct worker *worker)
{
    const struct msg_worker_ready nothing;

    if (worker->ready || worker->service.draining || !worker->tls || worker->listener < 0 ||
        !worker->deny.complete)
        return;
    if (worker->options.tls_resumption && !worker->has_ticket_keys)
        return;
    worker->ready = true;
    accept_start(worker);
    ipc_channel_send(worker->control, MSG_worker_ready, &no_request, &nothing, -1);
    log_info("accepting");
}

/* ---- draining ------------------------------------------------------------------------------- */

void worker_finish_when_done(struct worker *worker)
{
    if (worker->service.draining && !worker->connections && worker->lingering.count == 0 &&
        admin_is_done(worker->admin) && (!worker->notes || notes_settled(worker->notes)))
        service_stop(&worker->service);
}

static void on_lingering_gone(void *arg)
{
    worker_finish_when_done(arg);
}

static void drain(void *arg)
{
    struct worker *worker = arg;

    accept_stop(worker);
    admin_stop(worker->admin);
    connection_drain_all(worker);
    worker_finish_when_done(worker);
}

/* ---- what the supervisor says --------------------------------------------------------------- */

static void parse_configuration(struct str text, struct frontd_options *options)
{
    char error[512];

    if (config_parse(frontd_option_table, options, text, "frontd.conf", error, sizeof(error)) != 0)
        log_fatal("configuration refused", LOG_TEXT("reason", error));
}

/* A configuration that follows the first brings other roles; all else stays for the worker's life.
 */
static void take_roles(struct worker *worker, const struct msg_configure *body)
{
    struct frontd_options fresh = {0};
    struct config_map map;

    parse_configuration(body->text, &fresh);
    map = fresh.operators_map;
    fresh.operators_map = worker->options.operators_map;
    worker->options.operators_map = map;
    config_free(frontd_option_table, &fresh);
    connection_update_roles(worker);
}

static void take_configuration(struct worker *worker, const struct msg_configure *body)
{
    if (worker->configured) {
        take_roles(worker, body);
        return;
    }
    worker->configured = true;
    parse_configuration(body->text, &worker->options);
    service_open_log(worker->service.name, frontd_option_table, &worker->options);
    worker->service.stop_seconds = worker->options.service_stop_seconds;
    admission_open(&worker->admission, &worker->options, worker->metrics->refusals_total);
    lingering_open(&worker->lingering, (size_t)worker->options.limits_lingering_per_address);
    networks_read(&worker->options.listen_trusted_proxies, &worker->trusted_proxies);
    open_backends(worker);
    deny_link_open(worker);
    worker->notes = notes_new(worker, worker->backends[BACKEND_EVENTD]);
    worker->signer = signer_client_new(worker->backends[BACKEND_KEEPER], SIGN_SECONDS * 1000);
    struct signer_submitter submitter = signer_client_submitter(worker->signer);
    worker->provider = signer_provider_load(NULL, &submitter);
    if (!worker->provider)
        log_fatal("cannot load the signing provider", LOG_TEXT("reason", tls_error_text()));
}

/* New connections get the new set; a set that cannot be used changes nothing. */
static void take_material(struct worker *worker, const struct msg_material *body)
{
    const struct tls_material material = {body->certificates, body->client_ca, body->crls};
    char error[256];
    SSL_CTX *context = tls_context_new(&worker->options, worker->provider, &worker->ticket_keys,
                                       &material, error, sizeof(error));

    if (!context && !worker->tls)
        log_fatal("TLS material refused", LOG_TEXT("reason", error));
    if (!context) {
        log_error("TLS material refused: the old one stays", LOG_TEXT("reason", error));
        return;
    }
    SSL_CTX_free(worker->tls);
    worker->tls = context;
    if (body->trust_changed)
        connection_check_all(worker);
    accept_when_complete(worker);
}

/* Keys that cannot be read are replaced by some that nobody else has: the tickets so far end in any
 * case. */
static void take_ticket_keys(struct worker *worker)
{
    cleanup_close int fd = ipc_channel_take_descriptor(worker->control);
    ssize_t size = sizeof(worker->ticket_keys);

    if (fd < 0 || read(fd, &worker->ticket_keys, sizeof(worker->ticket_keys)) != size) {
        log_error("session ticket keys did not arrive: this worker's tickets are its own");
        ids_random(&worker->ticket_keys, sizeof(worker->ticket_keys));
    }
    worker->has_ticket_keys = true;
    accept_when_complete(worker);
}

static void take_listener(struct worker *worker)
{
    int fd = ipc_channel_take_descriptor(worker->control);

    if (worker->listener >= 0 || worker->service.draining)
        close(fd);
    else
        worker->listener = fd;
    accept_when_complete(worker);
}

static void take_admin_listener(struct worker *worker)
{
    int fd = ipc_channel_take_descriptor(worker->control);

    if (fd >= 0 && !worker->admin && !worker->service.draining)
        worker->admin = admin_open(worker, fd);
    else if (fd >= 0)
        close(fd);
}

static void take_backend(struct worker *worker, uint64_t peer)
{
    int fd = ipc_channel_take_descriptor(worker->control);
    struct ipc_client *client = worker_backend(worker, (enum proto_peer)peer);

    if (client && fd >= 0) {
        ipc_client_attach(client, fd);
        if (peer == PEER_REGISTRYD)
            deny_link_subscribe(worker);
    } else if (fd >= 0) {
        close(fd);
    }
}

static void on_control(struct ipc_channel *channel, const struct message *message, void *arg)
{
    struct worker *worker = arg;

    (void)channel;
    if (!worker->configured && message->type != MSG_configure &&
        message->type != MSG_metrics_memory)
        log_fatal("the supervisor speaks before it configures");
    switch (message->type) {
    case MSG_metrics_memory:
        worker_metrics_share(worker, &message->body.metrics_memory);
        break;
    case MSG_configure:
        take_configuration(worker, &message->body.configure);
        break;
    case MSG_material:
        take_material(worker, &message->body.material);
        break;
    case MSG_ticket_keys:
        take_ticket_keys(worker);
        break;
    case MSG_listener:
        take_listener(worker);
        break;
    case MSG_admin_listener:
        take_admin_listener(worker);
        break;
    case MSG_backend:
        take_backend(worker, message->body.backend.peer);
        break;
    case MSG_drain:
        service_drain(&worker->service);
        break;
    default:
        log_warn("not the supervisor's to say", LOG_TEXT("message", proto_name(message->type)));
    }
}

/* Without its supervisor a worker gets no backends and no certificates: it answers what it owes and
 * ends. A supervisor that is still there starts another. */
static void on_control_closed(struct ipc_channel *channel, const char *why, void *arg)
{
    struct worker *worker = arg;
    const char *detail;

    ipc_channel_refusal(channel, &detail);
    log_warn("the supervisor is lost: ending", LOG_TEXT("reason", why), LOG_TEXT("detail", detail));
    service_drain(&worker->service);
}

static void open_control(struct worker *worker)
{
    static const struct ipc_channel_events events = {.message = on_control,
                                                     .closed = on_control_closed};

    worker->control = ipc_channel_new(worker->service.base, WORKER_CONTROL_DESCRIPTOR, PEER_FRONTD,
                                      PEER_SUPERVISOR, &events, worker);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void close_all(struct worker *worker)
{
    connection_close_all(worker);
    lingering_close_all(&worker->lingering);
    connection_queue_close(worker);
    accept_stop(worker);
    deny_link_close(worker);
    admin_close(worker->admin);
    SSL_CTX_free(worker->tls);
    OPENSSL_cleanse(&worker->ticket_keys, sizeof(worker->ticket_keys));
    if (worker->check_trust)
        event_free(worker->check_trust);
    if (worker->configured) {
        signer_provider_free(worker->provider);
        signer_client_free(worker->signer);
        notes_free(worker->notes);
        for (size_t i = 0; i < BACKEND_COUNT; i++)
            ipc_client_free(worker->backends[i]);
    }
    free(worker->trusted_proxies.items);
    ipc_channel_close(worker->control);
    worker_metrics_close(worker);
    service_close(&worker->service);
    config_free(frontd_option_table, &worker->options);
}

int main(void)
{
    static const struct service_events events = {.drain = drain};
    struct frontd_metrics unshared = {0};
    struct worker worker = {.listener = -1, .metrics = &unshared};
    int status;

    log_open("frontd-worker", LOG_LEVEL_INFO);
    service_open(&worker.service, "frontd-worker", &events, &worker, 1);
    worker.lingering =
        (struct lingering){.base = worker.service.base, .gone = on_lingering_gone, .arg = &worker};
    connection_queue_open(&worker);
    open_control(&worker);
    status = service_run(&worker.service);
    close_all(&worker);
    return status;
}
