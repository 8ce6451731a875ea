/* What the channel, the server and the client of common/ipc.h share; nobody else includes it. */
#ifndef CAF_COMMON_IPC_INTERNAL_H
#define CAF_COMMON_IPC_INTERNAL_H

#include "common/ipc.h"

/* One more reference to the channel; it is freed when the last is released. */
void ipc_channel_hold(struct ipc_channel *channel);
void ipc_channel_release(struct ipc_channel *channel);

/* Reads no more while more than max bytes wait to be sent: what a peer that asks and does not
 * listen may cost. For the end that answers alone: were both to wait so, neither would move. */
void ipc_channel_limit_unsent(struct ipc_channel *channel, size_t max);

/* Sends what is queued now, and not at the end of the turn. */
void ipc_channel_flush(struct ipc_channel *channel);

/* Ends the channel because of what the peer said; detail: a literal. The owner is told as by any
 * end, and finds both by ipc_channel_refusal. */
void ipc_channel_refuse(struct ipc_channel *channel, enum ipc_refusal refusal, const char *detail);

/* Whether ipc_channel_close was called. */
bool ipc_channel_is_closed(const struct ipc_channel *channel);

/* The arg given to ipc_channel_new. */
void *ipc_channel_arg(const struct ipc_channel *channel);

#endif
