/* Role: the life of one signature request inside a handshake: submit, pause, end.
 * Touches: the asynchronous job that it is called in.
 * Never touches: keys, sockets; it never blocks the event loop.
 * Talks to: the submitter that it is given. */
#include "frontd/signer_request.h"

#include <openssl/async.h>
#include <string.h>

bool signer_request_run(struct signer_request *request, const struct signer_submitter *submitter)
{
    request->state = SIGNER_PENDING;
    submitter->submit(request, submitter->context);
    while (request->state == SIGNER_PENDING) {
        if (ASYNC_get_current_job() != NULL && ASYNC_pause_job())
            continue;
        submitter->withdraw(request, submitter->context);
        signer_request_fail(request, "a signature must be waited for, outside of a job");
    }
    return request->state == SIGNER_SIGNED;
}

void signer_request_complete(struct signer_request *request, const uint8_t *signature,
                             size_t length)
{
    if (length > sizeof(request->signature.bytes)) {
        signer_request_fail(request, "the signature is too long");
        return;
    }
    memcpy(request->signature.bytes, signature, length);
    request->signature.length = length;
    request->state = SIGNER_SIGNED;
}

void signer_request_fail(struct signer_request *request, const char *why)
{
    request->why = why;
    request->state = SIGNER_FAILED;
}
