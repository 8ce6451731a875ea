/* One TLS signature that a worker's handshake asks for, and who gets it: what OpenSSL's side (the
 * provider) and the keeper's side (the client) of a worker share. */
#ifndef CAF_FRONTD_SIGNER_REQUEST_H
#define CAF_FRONTD_SIGNER_REQUEST_H

#include "frontd/tls_signature.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum signer_state {
    SIGNER_PENDING,
    SIGNER_SIGNED,
    SIGNER_FAILED,
};

/* It lives on the stack of the handshake's asynchronous job, from submit() until it is no longer
 * pending and the job runs on. */
struct signer_request {
    uint8_t key_id[TLS_SIGNATURE_KEY_ID_SIZE];
    uint16_t scheme;        /* TLS SignatureScheme number */
    const uint8_t *content; /* what is to be signed, not a digest; valid as long as the request */
    size_t content_length;
    enum signer_state state;
    struct tls_signature signature; /* when state is SIGNER_SIGNED */
    const char *why;                /* when state is SIGNER_FAILED, static text */
};

struct signer_submitter {
    /* Takes the request: keeps it pending, or completes or fails it before returning. */
    void (*submit)(struct signer_request *request, void *context);
    /* Forgets a request that it keeps pending: the request's memory ends. */
    void (*withdraw)(struct signer_request *request, void *context);
    void *context;
};

/* Submits a request and, while it is pending, pauses the asynchronous job that it runs in (see
 * ASYNC_start_job(3)), whoever resumes it. Returns whether it was signed; if not, request->why says
 * why. Never blocks: a request that stays pending outside of a job is withdrawn and fails. */
bool signer_request_run(struct signer_request *request, const struct signer_submitter *submitter);

/* Ends a pending request with its signature; with one longer than TLS_SIGNATURE_SIZE_MAX it fails.
 */
void signer_request_complete(struct signer_request *request, const uint8_t *signature,
                             size_t length);

/* Ends a request without a signature. why is static text. */
void signer_request_fail(struct signer_request *request, const char *why);

#endif
