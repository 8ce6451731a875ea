/* Role: runs TLS handshakes that wait for the keeper's signatures, and asks the keeper for them.
 * Touches: the SSL of a handshake, while that handshake is run or cancelled.
 * Never touches: private keys (there are none here), sockets, files; it never blocks.
 * Talks to: the keeper, over the worker's channel to it, in KEEPER_SIGN messages. */
#include "frontd/signer_client.h"

#include "common/log.h"
#include "common/memory.h"

#include <openssl/err.h>
#include <stdbool.h>
#include <stdlib.h>

struct signer_client {
    struct ipc_client *keeper;
    int64_t deadline_ms;
    struct signer_handshake *running; /* the one whose SSL_do_handshake() is on the stack now */
};

static void answer_apply(struct signer_request *request, const struct message *answer)
{
    if (answer == NULL) {
        log_warn("the keeper gave no signature in time");
        signer_request_fail(request, "the keeper gave no signature in time");
    } else if (answer->type == MSG_keeper_signed) {
        proto_bin signature = answer->body.keeper_signed.signature;
        signer_request_complete(request, (const uint8_t *)signature.ptr, signature.len);
    } else {
        if (answer->type == MSG_fail)
            log_warn("the keeper refused to sign", LOG_STR("why", answer->body.fail.message));
        signer_request_fail(request, "the keeper refused to sign");
    }
}

static void handshake_take_answer(void *arg, const struct message *answer)
{
    struct signer_handshake *handshake = arg;
    handshake->call = NULL;
    answer_apply(handshake->request, answer);
    handshake->wake(handshake->arg); /* may end the connection, and the handshake with it */
}

static void request_submit(struct signer_request *request, void *context)
{
    struct signer_client *client = context;
    struct signer_handshake *handshake = client->running;
    const struct msg_keeper_sign body = {
        .key_id = {(const char *)request->key_id, sizeof(request->key_id)},
        .scheme = request->scheme,
        .content = {(const char *)request->content, request->content_length},
    };

    if (handshake == NULL) {
        signer_request_fail(request, "no handshake asks for this signature");
        return;
    }
    handshake->call = ipc_client_call(client->keeper, MSG_keeper_sign, &body, client->deadline_ms,
                                      handshake_take_answer, handshake);
    if (handshake->call == NULL)
        signer_request_fail(request, "too many signatures are outstanding");
    else
        handshake->request = request;
}

static void request_forget(struct signer_handshake *handshake)
{
    if (handshake->call != NULL)
        ipc_call_cancel(handshake->call);
    handshake->call = NULL;
    handshake->request = NULL;
}

static void request_withdraw(struct signer_request *request, void *context)
{
    struct signer_client *client = context;
    (void)request;
    request_forget(client->running);
}

struct signer_client *signer_client_new(struct ipc_client *keeper, int64_t deadline_ms)
{
    struct signer_client *client = memory_new(1, sizeof(*client));
    client->keeper = keeper;
    client->deadline_ms = deadline_ms;
    return client;
}

void signer_client_free(struct signer_client *client)
{
    free(client);
}

struct signer_submitter signer_client_submitter(struct signer_client *client)
{
    return (struct signer_submitter){request_submit, request_withdraw, client};
}

void signer_handshake_start(struct signer_handshake *handshake, struct signer_client *client,
                            SSL *ssl, void (*wake)(void *arg), void *arg)
{
    *handshake = (struct signer_handshake){.client = client, .ssl = ssl, .wake = wake, .arg = arg};
    SSL_set_mode(ssl, SSL_MODE_ASYNC);
}

/* Starts the handshake's job or lets it go on. The error queue is the thread's: what another
 * connection left there would be taken for this one's failure. */
static int handshake_step(struct signer_handshake *handshake)
{
    ERR_clear_error();
    handshake->client->running = handshake;
    int result = SSL_do_handshake(handshake->ssl);
    handshake->client->running = NULL;
    return result;
}

int signer_handshake_run(struct signer_handshake *handshake)
{
    if (handshake->call != NULL)
        return SSL_ERROR_WANT_ASYNC;
    bool answered = handshake->request != NULL;
    handshake->request = NULL; /* it ends with the next step */
    int result = handshake_step(handshake);
    if (handshake->call != NULL)
        return SSL_ERROR_WANT_ASYNC;
    if (answered || result == 1) /* a server signs once: what follows needs no job */
        SSL_clear_mode(handshake->ssl, SSL_MODE_ASYNC);
    return SSL_get_error(handshake->ssl, result);
}

void signer_handshake_cancel(struct signer_handshake *handshake)
{
    struct signer_request *request = handshake->request;
    if (request == NULL)
        return;
    request_forget(handshake);
    signer_request_fail(request, "the connection ended");
    handshake_step(handshake); /* the paused job runs to its end, and frees what it holds */
    ERR_clear_error();
}
