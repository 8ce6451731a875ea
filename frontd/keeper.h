/* The keeper: the one process that holds the TLS private keys, and signs handshakes with them. */
#ifndef CAF_FRONTD_KEEPER_H
#define CAF_FRONTD_KEEPER_H

#include "common/ipc.h"
#include "common/service.h"
#include "frontd/keeper_keys.h"

struct keeper_options {
#define OPTION CONFIG_MEMBER
#include "frontd/keeper_options.def"
#undef OPTION
};

struct keeper {
    struct service service;
    struct keeper_options options;
    struct keeper_keys keys;
    struct ipc_server *server;
    uid_t *peers;
    uint64_t signed_count, refused_count;
};

/* Serves workers on a listening Unix socket, which stays the caller's, from the service's loop.
 * keeper->service, ->options and ->keys are set. */
void keeper_serve(struct keeper *keeper, int listener);

/* Answers what was asked, then stops the service: for service_events.drain. */
void keeper_drain(void *keeper);

#endif
