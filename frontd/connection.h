/* What frontd/exchange.c needs of a connection; nobody else includes it. */
#ifndef CAF_FRONTD_CONNECTION_H
#define CAF_FRONTD_CONNECTION_H

#include "frontd/exchange.h"
#include "frontd/http_request.h"
#include "frontd/worker.h"

#include <event2/buffer.h>

/* The connection that an exchange is part of. */
struct connection *connection_of(const struct exchange *exchange);

/* Whether the connection ends after this answer, which then says so. */
bool connection_will_close(const struct exchange *exchange);

/* How many bytes an answer may have: what the request leaves of limits.connection_bytes. */
size_t connection_room(const struct connection *connection);

/* Where the answer's bytes go… */
struct evbuffer *connection_output(struct connection *connection);

/* …and the word that they are all there. The exchange is over; the connection may be freed when
 * this returns. */
void connection_answered(struct connection *connection);

/* Cancels the calls under way and frees the handler's state. Harmless on a zeroed exchange and a
 * second time. */
void exchange_abandon(struct exchange *exchange);

#endif
