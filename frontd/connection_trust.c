/* Live connections when what they were accepted by changes. Dates: a client whose certificate has
 * ended is nobody from its next request on. CA bundle or CRLs: each client's
 * certificate is verified again, some at a time, and before its next request in any case; who would
 * be refused now is cut. Roles: each operator gets its role anew. Touches nothing else of a
 * connection. */
#include "frontd/connection_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <utlist.h>

enum { CHECKS_PER_TURN = 32, TURN_MS = 1 };

bool connection_is_trusted(struct connection *connection)
{
    struct worker *worker = connection->worker;

    if (connection->trust == worker->trust)
        return true;
    connection->trust = worker->trust;
    if (tls_connection_holds(connection->ssl, worker->tls))
        return true;
    worker->metrics->connections_cut_total++;
    worker->cut++;
    return false;
}

bool connection_drop_expired(struct connection *connection)
{
    struct tls_peer *peer = &connection->peer;

    if (peer->identity.kind == IDENTITY_NONE || clock_wall_ms() / 1000 <= peer->good_until)
        return false;
    tls_peer_clear(peer);
    admission_count(&connection->worker->admission, REFUSAL_expired);
    return true;
}

/* True: there may be more to check. */
static bool check_some(struct worker *worker)
{
    struct connection *connection, *next;
    int checked = 0;

    DL_FOREACH_SAFE(worker->connections, connection, next)
    {
        if (connection->trust == worker->trust || connection->state <= STATE_HANDSHAKE)
            continue; /* one whose handshake is under way is checked at its end */
        if (checked++ == CHECKS_PER_TURN)
            return true;
        if (!connection_is_trusted(connection))
            connection_close(connection);
    }
    return false;
}

static void on_check(evutil_socket_t fd, short what, void *arg)
{
    struct timeval turn = clock_timeval(TURN_MS);
    struct worker *worker = arg;

    (void)fd;
    (void)what;
    if (check_some(worker)) {
        event_add(worker->check_trust, &turn);
        return;
    }
    log_info("connections checked against the new CA bundle and CRLs",
             LOG_NUMBER("cut", (long long)worker->cut));
    worker->cut = 0;
}

void connection_check_all(struct worker *worker)
{
    struct timeval turn = clock_timeval(TURN_MS);

    worker->trust++;
    if (!worker->check_trust)
        worker->check_trust = evtimer_new(worker->service.base, on_check, worker);
    if (!worker->check_trust)
        log_fatal("out of memory");
    event_add(worker->check_trust, &turn);
}

void connection_update_roles(struct worker *worker)
{
    struct connection *connection;

    DL_FOREACH(worker->connections, connection)
    identity_update_role(&worker->options, &connection->peer.identity);
}
