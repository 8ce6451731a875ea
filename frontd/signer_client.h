/* TLS handshakes whose signatures come from the keeper: the keeper's side of a worker, and the way
 * to run SSL_do_handshake() so that a handshake waits and the event loop does not.
 *
 *     ipc_client_new(… peer PEER_KEEPER …), signer_client_new()       once
 *     signer_provider_load() with signer_client_submitter()           once
 *     SSL_new(), signer_handshake_start()                             per connection, then
 *     signer_handshake_run() at each of its events and wake-ups, until SSL_ERROR_NONE or a failure
 *     signer_handshake_cancel(), SSL_free()                           at any time
 *
 * Until the signature is there the handshake runs in a job with a stack of 32 KiB
 * (ASYNC_start_job(3)), and a client may send ahead what belongs after it: no callback of a
 * handshake (client certificate verification, say) may hold large buffers on the stack. */
#ifndef CAF_FRONTD_SIGNER_CLIENT_H
#define CAF_FRONTD_SIGNER_CLIENT_H

#include "common/ipc.h"
#include "frontd/signer_request.h"

#include <openssl/ssl.h>

struct signer_client;

/* keeper: stays the caller's and must outlive the signer; when its channel ends and a new one is
 * attached, it asks again by itself for what is outstanding. A signature is waited for deadline_ms,
 * counted from its request; the connection's own time-out may cancel it sooner. */
struct signer_client *signer_client_new(struct ipc_client *keeper, int64_t deadline_ms);

/* Every handshake must have been cancelled or have ended. */
void signer_client_free(struct signer_client *client);

/* For signer_provider_load(): requests go to the keeper. */
struct signer_submitter signer_client_submitter(struct signer_client *client);

/* A part of a connection. Its members are the signer's own. */
struct signer_handshake {
    struct signer_client *client;
    SSL *ssl;
    void (*wake)(void *arg);
    void *arg;
    struct signer_request *request; /* the job is paused, with this on its stack; else NULL */
    struct ipc_call *call;          /* the keeper has not answered yet; else NULL */
};

/* Prepares a handshake on ssl, which stays the caller's. wake(arg) is called from the event loop,
 * never from within the functions here, when a handshake that waits for its signature can go on (or
 * fail, when there is none): it calls signer_handshake_run() or _cancel(). */
void signer_handshake_start(struct signer_handshake *handshake, struct signer_client *client,
                            SSL *ssl, void (*wake)(void *arg), void *arg);

/* Runs SSL_do_handshake() as far as it gets. Returns what SSL_get_error(3) names: SSL_ERROR_NONE
 * when the handshake is complete (the signer is not needed any more), _WANT_READ, _WANT_WRITE,
 * _WANT_ASYNC when it waits for the keeper, else it has failed and OpenSSL's error queue says why.
 */
int signer_handshake_run(struct signer_handshake *handshake);

/* Must come before SSL_free(), whatever state the handshake is in. A handshake that waits for its
 * signature fails here and now (the peer may get an alert); a late answer goes nowhere. Harmless on
 * a zeroed struct and a second time. */
void signer_handshake_cancel(struct signer_handshake *handshake);

#endif
