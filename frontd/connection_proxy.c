/* The first bytes of a connection from a trusted proxy: a PROXY protocol header, or the beginning
 * of TLS when it sends none. Reads no byte beyond the header. What it says counts as the client's
 * address from then on. */
#include "frontd/connection_internal.h"

#include "common/memory.h"
#include "frontd/proxy_header.h"

#include <errno.h>
#include <sys/socket.h>

enum { TLS_HANDSHAKE_RECORD = 0x16 };

/* Looks at the first byte without taking it. */
static enum progress look_at_first(struct connection *connection)
{
    unsigned char first;
    ssize_t got = recv(connection->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return connection_wait(connection, SSL_ERROR_WANT_READ);
    if (got <= 0)
        return connection_end(connection);
    if (first == TLS_HANDSHAKE_RECORD)
        connection->state = STATE_HANDSHAKE;
    return GO_ON;
}

static enum progress take_address(struct connection *connection, const struct address *source)
{
    struct worker *worker = connection->worker;
    enum refusal refusal = REFUSAL_NONE;

    connection->address = *source;
    address_format(source, connection->source_ip);
    if (!networks_have(&worker->trusted_proxies, source))
        refusal = admission_name(&worker->admission, source, &connection->place);
    if (refusal == REFUSAL_NONE)
        return GO_ON;
    admission_count(&worker->admission, refusal);
    lingering_refuse(&worker->lingering, steal_descriptor(&connection->fd), source);
    return connection_end(connection);
}

/* From here on the bytes are TLS; the handshake's time runs on. */
static enum progress begin_handshake(struct connection *connection)
{
    connection_drop_input(connection);
    connection->state = STATE_HANDSHAKE;
    return GO_ON;
}

enum progress connection_step_proxy(struct connection *connection)
{
    struct proxy_header header;
    enum progress progress = connection->in_len > 0 ? GO_ON : look_at_first(connection);

    if (progress != GO_ON || connection->state != STATE_PROXY)
        return progress;
    switch (
        proxy_header_parse((const unsigned char *)connection->in, connection->in_len, &header)) {
    case PROXY_HEADER_PARTIAL:
        return connection_fill_plain(connection, header.len - connection->in_len);
    case PROXY_HEADER_LOCAL:
        return begin_handshake(connection);
    case PROXY_HEADER_ADDRESS:
        progress = take_address(connection, &header.source);
        return progress == GO_ON ? begin_handshake(connection) : progress;
    default:
        admission_count(&connection->worker->admission, REFUSAL_proxy_header);
        return connection_end(connection);
    }
}
