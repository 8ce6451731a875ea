/* The bytes of a client connection: read into its buffer, written from its output. Touches the one
 * socket and its TLS session; knows nothing of what the bytes say. */
#include "frontd/connection_internal.h"

#include "common/memory.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    RECORD_BYTES = 16384, /* a TLS record's most */
    FIRST_BYTES = 1024,   /* a small request's buffer */
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

/* ---- input ---------------------------------------------------------------------------------- */

static void append(struct connection *connection, const char *bytes, size_t len)
{
    size_t needed = connection->in_len + len;
    size_t size = connection->in_size ? connection->in_size : FIRST_BYTES;

    while (size < needed)
        size *= 2;
    if (size != connection->in_size)
        connection->in = memory_resize(connection->in, size);
    connection->in_size = size;
    memcpy(connection->in + connection->in_len, bytes, len);
    connection->in_len = needed;
}

void connection_drop_input(struct connection *connection)
{
    free(connection->in);
    connection->in = NULL;
    connection->in_len = connection->in_size = 0;
}

/* By way of the stack: who waits for bytes holds no buffer for them. */
enum progress connection_fill(struct connection *connection)
{
    char bytes[RECORD_BYTES];
    size_t got;
    int error;

    if (connection->end_of_input)
        return connection_end(connection);
    ERR_clear_error();
    if (SSL_read_ex(connection->ssl, bytes, sizeof(bytes), &got) == 1) {
        append(connection, bytes, got);
        return GO_ON;
    }
    error = SSL_get_error(connection->ssl, 0);
    if (error != SSL_ERROR_ZERO_RETURN)
        return connection_wait(connection, error);
    connection->end_of_input = true;
    return GO_ON;
}

enum progress connection_fill_plain(struct connection *connection, size_t len)
{
    char bytes[RECORD_BYTES];
    ssize_t got =
        recv(connection->fd, bytes, len < sizeof(bytes) ? len : sizeof(bytes), MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return connection_wait(connection, SSL_ERROR_WANT_READ);
    if (got <= 0)
        return connection_end(connection);
    append(connection, bytes, (size_t)got);
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
    source_clear(&connection->source);
    if (connection->in_len == 0)
        connection_drop_input(connection);
}

/* ---- output --------------------------------------------------------------------------------- */

/* A head and its body go out in one record when they fit in one. */
enum progress connection_flush(struct connection *connection)
{
    size_t left, size, written;

    while ((left = evbuffer_get_length(connection->out)) > 0) {
        size = left < RECORD_BYTES ? left : RECORD_BYTES;
        ERR_clear_error();
        if (SSL_write_ex(connection->ssl, evbuffer_pullup(connection->out, (ssize_t)size), size,
                         &written) != 1)
            return connection_wait(connection, SSL_get_error(connection->ssl, 0));
        evbuffer_drain(connection->out, written);
    }
    return GO_ON;
}
