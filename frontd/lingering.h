/* Sockets on which all has been said. To close one while the client still sends would reset the
 * connection, and the last answer or alert could be lost: each is read empty for a short while
 * first. */
#ifndef CAF_FRONTD_LINGERING_H
#define CAF_FRONTD_LINGERING_H

#include <event2/event.h>
#include <stddef.h>

enum {
    LINGERING_MAX = 1024,              /* at once: one more, and the oldest is closed */
    LINGERING_SECONDS = 2,             /* each */
    LINGERING_BYTES_MAX = 1024 * 1024, /* read away from each */
};

struct lingering_socket;

/* A part of the worker. */
struct lingering {
    struct event_base *base;
    struct lingering_socket *sockets; /* oldest first */
    size_t count;
    void (*gone)(void *arg); /* one has been closed */
    void *arg;
};

/* Takes the socket: sends no more, and closes it when the client has, or at a bound. */
void lingering_take(struct lingering *lingering, int fd);

/* The same for a client that has not been heard: it gets a fatal TLS alert, internal_error (RFC
 * 8446 6.2), so that it sees a refusal and not a broken network. */
void lingering_refuse(struct lingering *lingering, int fd);

/* Closes all of them now. */
void lingering_close_all(struct lingering *lingering);

#endif
