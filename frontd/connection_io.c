/* The bytes of a client connection: read into its buffer, written from its output, thrown away at
 * its end. Touches the one socket and its TLS session; knows nothing of what the bytes say. */
#include "frontd/connection_internal.h"

#include "common/memory.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    READ_BYTES = 16384,
    DISCARD_BYTES_MAX = 1048576, /* of a body that nobody wants, read so that the answer arrives */
};

enum progress connection_wait(struct connection *connection, int ssl_error)
{
    if (ssl_error == SSL_ERROR_WANT_READ)
        event_add(connection->readable, NULL);
    else if (ssl_error == SSL_ERROR_WANT_WRITE)
        event_add(connection->writable, NULL);
    else
        return connection_end(connection);
    return WAIT;
}

static void make_room(struct connection *connection)
{
    if (connection->in_size - connection->in_len >= READ_BYTES)
        return;
    connection->in_size = connection->in_len + READ_BYTES;
    connection->in = memory_resize(connection->in, connection->in_size);
}

enum progress connection_fill(struct connection *connection)
{
    size_t got;
    int error;

    if (connection->end_of_input)
        return connection_end(connection);
    make_room(connection);
    ERR_clear_error();
    if (SSL_read_ex(connection->ssl, connection->in + connection->in_len,
                    connection->in_size - connection->in_len, &got) == 1) {
        connection->in_len += got;
        return GO_ON;
    }
    error = SSL_get_error(connection->ssl, 0);
    if (error != SSL_ERROR_ZERO_RETURN)
        return connection_wait(connection, error);
    connection->end_of_input = true;
    return GO_ON;
}

void connection_consume_request(struct connection *connection)
{
    size_t used = connection->request.scanned + (size_t)connection->request.content_length;

    connection->in_len -= used;
    memmove(connection->in, connection->in + used, connection->in_len);
    connection->request = (struct http_request){0};
    connection->had_bytes = connection->in_len > 0;
    connection->continue_said = false;
    if (connection->in_len == 0) { /* an idle connection keeps no buffer */
        free(connection->in);
        connection->in = NULL;
        connection->in_size = 0;
    }
}

enum progress connection_flush(struct connection *connection)
{
    struct evbuffer_iovec chunk;
    size_t written;

    while (evbuffer_get_length(connection->out) > 0) {
        evbuffer_peek(connection->out, -1, NULL, &chunk, 1);
        ERR_clear_error();
        if (SSL_write_ex(connection->ssl, chunk.iov_base, chunk.iov_len, &written) != 1)
            return connection_wait(connection, SSL_get_error(connection->ssl, 0));
        evbuffer_drain(connection->out, written);
    }
    return GO_ON;
}

void connection_say_goodbye(struct connection *connection)
{
    shutdown(connection->fd, SHUT_WR);
    connection_enter(connection, STATE_DISCARD);
}

enum progress connection_discard(struct connection *connection)
{
    char unwanted[4096];
    ssize_t got = recv(connection->fd, unwanted, sizeof(unwanted), MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        event_add(connection->readable, NULL);
        return WAIT;
    }
    connection->discarded += got > 0 ? (size_t)got : 0;
    if (got <= 0 || connection->discarded > DISCARD_BYTES_MAX)
        return connection_end(connection);
    return GO_ON;
}
