/* Sockets on which all has been said. To close one while the client still sends would reset the
 * connection, and the last answer or alert could be lost: each is read empty for a short while
 * first. */
#ifndef CAF_FRONTD_LINGERING_H
#define CAF_FRONTD_LINGERING_H

#include <event2/event.h>
#include <stddef.h>

#include "frontd/address.h"

enum {
    LINGERING_MAX = 1024,              /* at once: one more, and the oldest is closed */
    LINGERING_SECONDS = 2,             /* each */
    LINGERING_BYTES_MAX = 1024 * 1024, /* read away from each */
};

struct lingering_socket;
struct lingering_address;

/* A part of the worker. */
struct lingering {
    struct event_base *base;
    struct lingering_socket *sockets; /* oldest first */
    size_t count;
    size_t per_address_max;               /* one more, and the address' oldest is closed */
    struct lingering_address *by_address; /* a row an address with a socket here */
    unsigned char secret[ADDRESS_SECRET_BYTES];
    void (*gone)(void *arg); /* one has been closed */
    void *arg;
};

/* Prepares a lingering whose base, gone and arg are set. */
void lingering_open(struct lingering *lingering, size_t per_address_max);

/* Takes the socket: sends no more, and closes it when the client has, or at a bound. address NULL:
 * it is a trusted proxy's own, which has no limit. */
void lingering_take(struct lingering *lingering, int fd, const struct address *address);

/* The same for a client that has not been heard: it gets a fatal TLS alert, internal_error (RFC
 * 8446 6.2), so that it sees a refusal and not a broken network. */
void lingering_refuse(struct lingering *lingering, int fd, const struct address *address);

/* Closes all of them now. */
void lingering_close_all(struct lingering *lingering);

#endif
