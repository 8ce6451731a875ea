/* Security events that the worker sees itself (auth.*), told to eventd. */
#ifndef CAF_FRONTD_NOTES_H
#define CAF_FRONTD_NOTES_H

#include "common/ipc.h"
#include "frontd/tls.h"

struct worker;
struct notes;

/* Once eventd's client is there; freed before it. Notes go to eventd as long as its client has
 * room. What has none is counted by type and told later, in one note. */
struct notes *notes_new(struct worker *worker, struct ipc_client *eventd);

/* Tells eventd how a handshake ended: auth.mtls_success for an identity, auth.mtls_failure with a
 * reason; nothing for a client that was accepted without a certificate. A failure belongs to the
 * peer's tenant when its certificate proved an identity and was denied all the same
 * (peer->is_denied), else to nobody. */
void notes_handshake(struct worker *worker, const struct tls_peer *peer, const char *source_ip,
                     const char *protocol, const char *failure);

/* Whether eventd has answered all. */
bool notes_settled(const struct notes *notes);

/* Says how many are untold. */
void notes_free(struct notes *notes);

#endif
