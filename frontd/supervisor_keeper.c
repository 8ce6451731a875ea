/* Asks the keeper which keys it holds, so that no certificate is served that it cannot sign for.
 * Says nothing else to it: as the supervisor it may not ask for a signature (proto/messages.def).
 */
#include "frontd/supervisor.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>

enum { CONNECT_AGAIN_MS = 100 };

static void try_connect(struct supervisor_keeper *keeper)
{
    struct timeval pause = clock_timeval(CONNECT_AGAIN_MS);
    int fd;

    if (ipc_client_connected(keeper->client))
        return;
    fd = supervisor_connect(keeper->supervisor, BACKEND_KEEPER);
    if (fd >= 0)
        ipc_client_attach(keeper->client, fd);
    else
        event_add(keeper->connect_again, &pause);
}

static void on_connect_again(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor_keeper *keeper = arg;

    (void)fd;
    (void)what;
    if (ipc_client_in_flight(keeper->client) > 0)
        try_connect(keeper);
}

static void on_lost(void *arg, enum proto_peer peer)
{
    struct supervisor_keeper *keeper = arg;
    struct timeval pause = clock_timeval(CONNECT_AGAIN_MS);

    (void)peer;
    event_add(keeper->connect_again, &pause);
}

static bool holds(struct str held, const uint8_t *id)
{
    for (size_t at = 0; at + TLS_SIGNATURE_KEY_ID_SIZE <= held.len; at += TLS_SIGNATURE_KEY_ID_SIZE)
        if (memcmp(held.ptr + at, id, TLS_SIGNATURE_KEY_ID_SIZE) == 0)
            return true;
    return false;
}

static void on_answer(void *arg, const struct message *answer)
{
    struct supervisor_keeper *keeper = arg;
    const struct supervisor_material *material = keeper->material;
    char why[4352];

    if (!answer || answer->type != MSG_keeper_keys) {
        keeper->done(keeper->supervisor,
                     "tls.certificates: the keeper does not say which keys it holds");
        return;
    }
    for (size_t i = 0; i < material->key_count; i++) {
        char name[2 * TLS_SIGNATURE_KEY_ID_SIZE + 1];

        if (holds(answer->body.keeper_keys.ids, material->keys[i].id))
            continue;
        ids_hex(material->keys[i].id, TLS_SIGNATURE_KEY_ID_SIZE, name);
        snprintf(why, sizeof(why), "%s: the keeper does not hold the key (key_id %s)",
                 material->keys[i].file, name);
        keeper->done(keeper->supervisor, why);
        return;
    }
    keeper->done(keeper->supervisor, NULL);
}

void supervisor_open_keeper(struct supervisor *supervisor)
{
    struct supervisor_keeper *keeper = &supervisor->keeper;
    struct frontd_metrics *metrics = supervisor->metrics;
    const struct ipc_client_options options = {
        .self = PEER_SUPERVISOR,
        .peer = PEER_KEEPER,
        .max_in_flight = 2,
        .counters = {&metrics->backend_requests_total[BACKEND_KEEPER],
                     &metrics->backend_requests_in_flight[BACKEND_KEEPER],
                     &metrics->backend_requests_resent_total[BACKEND_KEEPER],
                     &metrics->backend_requests_expired_total[BACKEND_KEEPER],
                     &metrics->backend_connections_lost_total[BACKEND_KEEPER],
                     metrics->backend_refusals_total[BACKEND_KEEPER]},
        .lost = on_lost,
        .arg = keeper};

    keeper->supervisor = supervisor;
    keeper->client = ipc_client_new(supervisor->service.base, &options);
    keeper->connect_again = evtimer_new(supervisor->service.base, on_connect_again, keeper);
    if (!keeper->connect_again)
        log_fatal("out of memory");
}

void supervisor_ask_keeper(struct supervisor *supervisor,
                           const struct supervisor_material *material, supervisor_keeper_fn *done)
{
    static const struct msg_keeper_list nothing;
    struct supervisor_keeper *keeper = &supervisor->keeper;
    const int64_t patience_ms = supervisor->options.timeouts_read_deadline_seconds * 1000;

    keeper->material = material;
    keeper->done = done;
    if (!ipc_client_call(keeper->client, MSG_keeper_list, &nothing, patience_ms, on_answer, keeper))
        log_fatal("the keeper is asked twice at once");
    try_connect(keeper);
}

void supervisor_close_keeper(struct supervisor *supervisor)
{
    ipc_client_free(supervisor->keeper.client);
    event_free(supervisor->keeper.connect_again);
}
