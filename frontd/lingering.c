/* Closes sockets gently, within bounds of time, bytes and number, in all and of one address.
 * Touches the sockets it was given; what it reads it throws away. */
#include "frontd/lingering.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

struct lingering_address {
    struct address_key key;
    struct lingering_socket *sockets; /* its own, oldest first */
    size_t count;
    UT_hash_handle hh;
};

struct lingering_socket {
    struct lingering *lingering;
    int fd;
    size_t bytes;
    int64_t until_ms;
    struct event *readable;
    struct lingering_socket *prev, *next;
    struct lingering_address *address; /* NULL: it counts for none */
    struct lingering_socket *address_prev, *address_next;
};

/* ---- addresses ------------------------------------------------------------------------------ */

static struct lingering_address *need_address(struct lingering *lingering,
                                              const struct address *address)
{
    struct address_key key = address_make_key(lingering->secret, address);
    struct lingering_address *row;

    HASH_FIND(hh, lingering->by_address, &key, sizeof(key), row);
    if (row)
        return row;
    row = memory_new(1, sizeof(*row));
    row->key = key;
    HASH_ADD(hh, lingering->by_address, key, sizeof(row->key), row);
    return row;
}

static void enter_address(struct lingering_socket *socket, const struct address *address)
{
    socket->address = need_address(socket->lingering, address);
    DL_APPEND2(socket->address->sockets, socket, address_prev, address_next);
    socket->address->count++;
}

static void leave_address(struct lingering_socket *socket)
{
    struct lingering_address *row = socket->address;

    if (!row)
        return;
    DL_DELETE2(row->sockets, socket, address_prev, address_next);
    if (--row->count > 0)
        return;
    HASH_DEL(socket->lingering->by_address, row);
    free(row);
}

/* ---- sockets -------------------------------------------------------------------------------- */

static void release(struct lingering_socket *socket)
{
    struct lingering *lingering = socket->lingering;

    DL_DELETE(lingering->sockets, socket);
    leave_address(socket);
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

void lingering_take(struct lingering *lingering, int fd, const struct address *address)
{
    struct lingering_socket *socket = memory_new(1, sizeof(*socket));

    shutdown(fd, SHUT_WR);
    socket->lingering = lingering;
    socket->fd = fd;
    socket->until_ms = clock_monotonic_ms() + LINGERING_SECONDS * 1000;
    socket->readable = event_new(lingering->base, fd, EV_READ, on_readable, socket);
    if (!socket->readable)
        log_fatal("out of memory");
    DL_APPEND(lingering->sockets, socket);
    lingering->count++;
    if (address)
        enter_address(socket, address);
    wait_for_more(socket);
    if (address && socket->address->count > lingering->per_address_max)
        release(socket->address->sockets);
    else if (lingering->count > LINGERING_MAX)
        release(lingering->sockets);
}

void lingering_refuse(struct lingering *lingering, int fd, const struct address *address)
{
    /* a record of type alert and of version 3.3, two bytes: fatal, internal_error */
    static const unsigned char alert[] = {21, 3, 3, 0, 2, 2, 80};

    send(fd, alert, sizeof(alert), MSG_NOSIGNAL | MSG_DONTWAIT);
    lingering_take(lingering, fd, address);
}

void lingering_open(struct lingering *lingering, size_t per_address_max)
{
    lingering->per_address_max = per_address_max;
    if (RAND_bytes(lingering->secret, sizeof(lingering->secret)) != 1)
        log_fatal("no random bytes");
}

void lingering_close_all(struct lingering *lingering)
{
    while (lingering->sockets)
        release(lingering->sockets);
}
