/* Closes sockets gently, within bounds of time, bytes and number. Touches the sockets it was given;
 * what it reads it throws away. */
#include "frontd/lingering.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

struct lingering_socket {
    struct lingering *lingering;
    int fd;
    size_t bytes;
    int64_t until_ms;
    struct event *readable;
    struct lingering_socket *prev, *next;
};

static void release(struct lingering_socket *socket)
{
    struct lingering *lingering = socket->lingering;

    DL_DELETE(lingering->sockets, socket);
    lingering->count--;
    event_free(socket->readable);
    close(socket->fd);
    free(socket);
    lingering->gone(lingering->arg);
}

static void wait_for_more(struct lingering_socket *socket)
{
    struct timeval left = clock_timeval(socket->until_ms - clock_monotonic_ms());

    event_add(socket->readable, &left);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct lingering_socket *socket = arg;
    char unwanted[16384];
    ssize_t got = recv(fd, unwanted, sizeof(unwanted), MSG_DONTWAIT);
    bool silent = got < 0 && (errno == EAGAIN || errno == EINTR);

    socket->bytes += got > 0 ? (size_t)got : 0;
    if ((what & EV_TIMEOUT) || clock_monotonic_ms() >= socket->until_ms || (got <= 0 && !silent) ||
        socket->bytes > LINGERING_BYTES_MAX)
        release(socket);
    else
        wait_for_more(socket);
}

void lingering_take(struct lingering *lingering, int fd)
{
    struct lingering_socket *socket = memory_new(1, sizeof(*socket));

    if (lingering->count >= LINGERING_MAX)
        release(lingering->sockets);
    shutdown(fd, SHUT_WR);
    socket->lingering = lingering;
    socket->fd = fd;
    socket->until_ms = clock_monotonic_ms() + LINGERING_SECONDS * 1000;
    socket->readable = event_new(lingering->base, fd, EV_READ, on_readable, socket);
    if (!socket->readable)
        log_fatal("out of memory");
    DL_APPEND(lingering->sockets, socket);
    lingering->count++;
    wait_for_more(socket);
}

void lingering_refuse(struct lingering *lingering, int fd)
{
    /* a record of type alert and of version 3.3, two bytes: fatal, internal_error */
    static const unsigned char alert[] = {21, 3, 3, 0, 2, 2, 80};

    send(fd, alert, sizeof(alert), MSG_NOSIGNAL | MSG_DONTWAIT);
    lingering_take(lingering, fd);
}

void lingering_close_all(struct lingering *lingering)
{
    while (lingering->sockets)
        release(lingering->sockets);
}
