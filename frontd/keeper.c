/* Role: the keeper's messages: KEEPER_SIGN, which it answers with a signature or a refusal, and
 * KEEPER_LIST and STATUS_GET. A request comes with the name of a key and with what is to be signed.
 * Touches: its private keys, through keeper_sign() only.
 * Never touches: a client's bytes, files, any socket but its own listener's.
 * Talks to: frontd's workers; its supervisor, which may ask for the names of the keys. */
#include "frontd/keeper.h"

#include "common/log.h"
#include "frontd/keeper_sign.h"

#include <inttypes.h>
#include <openssl/err.h>
#include <stdio.h>

enum { KEYS_MAX = 4 }; /* keys.files in keeper_options.def */

/* A worker that asks for what is refused may ask without end: the log gets the first refusal and
 * then each time that their number has doubled. */
static void refusal_log(struct keeper *keeper, const char *why)
{
    keeper->metrics.keeper_refusals_total++;
    if ((keeper->metrics.keeper_refusals_total & (keeper->metrics.keeper_refusals_total - 1)) == 0)
        log_warn("refused to sign", LOG_TEXT("why", why),
                 LOG_NUMBER("refusals", (long long)keeper->metrics.keeper_refusals_total));
}

static void sign_handle(void *daemon, struct ipc_reply_to to, const struct message *message)
{
    struct keeper *keeper = daemon;
    const struct msg_keeper_sign *asked = &message->body.keeper_sign;
    const struct keeper_key *key = keeper_keys_find(&keeper->keys, asked->key_id);
    struct tls_signature signature;
    const char *why = "no such key";

    if (!key || keeper_sign(key->key, (uint16_t)asked->scheme, (const uint8_t *)asked->content.ptr,
                            asked->content.len, &signature, &why) != 0) {
        ERR_clear_error();
        refusal_log(keeper, why);
        ipc_fail(to, key ? ERROR_VALIDATION : ERROR_NOT_FOUND, why);
        return;
    }
    keeper->metrics.keeper_signatures_total++;
    ipc_reply(to, MSG_keeper_signed,
              &(struct msg_keeper_signed){
                  .signature = {(const char *)signature.bytes, signature.length}});
}

static void list_handle(void *daemon, struct ipc_reply_to to, const struct message *message)
{
    const struct keeper *keeper = daemon;
    uint8_t ids[KEYS_MAX * TLS_SIGNATURE_KEY_ID_SIZE];
    size_t count = keeper->keys.count < KEYS_MAX ? keeper->keys.count : KEYS_MAX;

    (void)message;
    for (size_t i = 0; i < count; i++)
        memcpy(ids + i * TLS_SIGNATURE_KEY_ID_SIZE, keeper->keys.items[i].id,
               TLS_SIGNATURE_KEY_ID_SIZE);
    ipc_reply(
        to, MSG_keeper_keys,
        &(struct msg_keeper_keys){.ids = {(const char *)ids, count * TLS_SIGNATURE_KEY_ID_SIZE}});
}

static void status_handle(void *daemon, struct ipc_reply_to to, const struct message *message)
{
    const struct keeper *keeper = daemon;
    char detail[128];

    (void)message;
    snprintf(detail, sizeof(detail),
             "{\"keys\":%zu,\"signed\":%" PRIu64 ",\"refused\":%" PRIu64 "}", keeper->keys.count,
             keeper->metrics.keeper_signatures_total, keeper->metrics.keeper_refusals_total);
    ipc_reply(to, MSG_status, &(struct msg_status){.ready = true, .detail = str_from(detail)});
}

static void metrics_handle(void *daemon, struct ipc_reply_to to, const struct message *message)
{
    struct keeper *keeper = daemon;

    (void)message;
    process_metrics_update(&keeper->metrics.process, &keeper->cpu_seen_us);
    server_metrics_update(&keeper->metrics.server, keeper->server);
    keeper->metrics.keeper_keys = keeper->keys.count;
    server_metrics_reply(to, keeper_metrics_table, &keeper->metrics, "keeper");
}

static const struct ipc_handler HANDLERS[] = {
    {MSG_keeper_sign, sign_handle},
    {MSG_keeper_list, list_handle},
    {MSG_status_get, status_handle},
    {MSG_metrics_get, metrics_handle},
    {0, NULL},
};

static const struct metric_set IPC_HANDLER_SET = {"message", server_handler_name, HANDLERS};

const struct metric keeper_metrics_table[] = {
#define METRIC_STRUCT struct keeper_metrics
#define METRIC        METRIC_SHARED_ROW
#define METRIC_PART   process
#include "common/metrics_process.def"
#undef METRIC_PART
#define METRIC_PART server
#include "common/metrics_server.def"
#undef METRIC_PART
#undef METRIC
#define METRIC METRIC_ROW
#include "frontd/keeper_metrics.def"
#undef METRIC
    METRIC_END,
};

void keeper_serve(struct keeper *keeper, int listener)
{
    const struct keeper_options *options = &keeper->options;
    const struct ipc_server_options server = {
        .self = PEER_KEEPER,
        .peers = PEER_FRONTD | PEER_SUPERVISOR,
        .handlers = HANDLERS,
        .daemon = keeper,
        .uids = keeper->peers = service_uids(&options->ipc_peer_users),
        .uid_count = options->ipc_peer_users.count,
        .max_channels = (size_t)options->ipc_max_channels,
    };

    process_metrics_open(&keeper->metrics.process);
    keeper->server = ipc_server_new(keeper->service.base, listener, &server);
}

static void stop_when_drained(void *daemon)
{
    struct keeper *keeper = daemon;
    service_stop(&keeper->service);
}

void keeper_drain(void *daemon)
{
    struct keeper *keeper = daemon;
    ipc_server_drain(keeper->server, stop_when_drained);
}
