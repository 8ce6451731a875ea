/* The accepting side: takes connections from the configured uids only, hands each request to its
 * row of the daemon's dispatch table, and counts what is unanswered so that a drain knows its end.
 */
#include "common/ipc.h"

#include "common/ipc_internal.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

enum {
    ACCEPTS_PER_TURN = 64,
    ACCEPT_PAUSE_MS = 500,
    DRAIN_POLL_MS = 10,
    UNSENT_MAX = 8 << 20,
};

/* One accepted channel. */
struct session {
    struct ipc_server *server;
    struct ipc_channel *channel;
    size_t unanswered;
    struct session *prev, *next;
};

struct ipc_server {
    struct event_base *base;
    struct ipc_server_options options;
    struct event *acceptable, *accept_again, *drain_timer;
    struct session *sessions;
    struct ipc_server_counters counters;
    size_t unanswered;
    void (*drained)(void *daemon);
};

static void session_end(struct session *session)
{
    struct ipc_server *server = session->server;

    server->unanswered -= session->unanswered;
    DL_DELETE(server->sessions, session);
    server->counters.channels--;
    ipc_channel_close(session->channel);
    free(session);
}

static void on_closed(struct ipc_channel *channel, const char *why, void *arg)
{
    struct session *session = arg;
    struct ipc_server_counters *counters = &session->server->counters;
    const char *peer = proto_peer_name(ipc_channel_peer(channel)), *detail;
    enum ipc_refusal refusal = ipc_channel_refusal(channel, &detail);

    counters->broken += strcmp(why, "end of file") != 0;
    if (refusal < IPC_REFUSAL_COUNT) {
        counters->refusals[refusal]++;
        log_warn("peer refused", LOG_TEXT("peer", peer), LOG_TEXT("reason", why),
                 LOG_TEXT("detail", detail));
    } else {
        log_info("peer left", LOG_TEXT("peer", peer), LOG_TEXT("reason", why));
    }
    session_end(session);
}

static const struct ipc_handler *find_handler(const struct ipc_server *server,
                                              enum message_type type)
{
    for (const struct ipc_handler *row = server->options.handlers; row->handle; row++)
        if (row->type == type)
            return row;
    return NULL;
}

/* A peer may send such messages without end: the log gets the first and then each doubling. */
static void refuse_unserved(struct ipc_server *server, struct ipc_reply_to to,
                            enum message_type type)
{
    uint64_t count = ++server->counters.refusals[IPC_REFUSED_unserved];

    if ((count & (count - 1)) == 0)
        log_warn("a message that is not served here", LOG_TEXT("message", proto_name(type)),
                 LOG_NUMBER("refusals", (long long)count));
    ipc_fail(to, ERROR_INTERNAL, "this daemon does not serve that message");
}

static void on_message(struct ipc_channel *channel, const struct message *message, void *arg)
{
    struct session *session = arg;
    struct ipc_server *server = session->server;
    const struct ipc_handler *row = find_handler(server, message->type);
    struct ipc_reply_to to = {channel, message->id};

    ipc_channel_hold(channel); /* released by the answer */
    session->unanswered++;
    server->unanswered++;
    if (row) {
        server->counters.requests[row - server->options.handlers]++;
        row->handle(server->options.daemon, to, message);
    } else {
        refuse_unserved(server, to, message->type);
    }
}

/* ---- accepting ------------------------------------------------------------------------------ */

bool ipc_peer_is_one_of(int fd, const uid_t *uids, size_t count, struct ucred *peer)
{
    socklen_t len = sizeof(*peer);

    *peer = (struct ucred){.uid = (uid_t)-1};
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &len) != 0)
        return false;
    for (size_t i = 0; i < count; i++)
        if (uids[i] == peer->uid)
            return true;
    return false;
}

static bool uid_allowed(const struct ipc_server *server, int fd)
{
    struct ucred peer;

    if (ipc_peer_is_one_of(fd, server->options.uids, server->options.uid_count, &peer))
        return true;
    log_warn("connection refused: the peer's user is not configured", LOG_NUMBER("uid", peer.uid),
             LOG_NUMBER("pid", peer.pid));
    return false;
}

static void session_begin(struct ipc_server *server, int fd)
{
    static const struct ipc_channel_events events = {.message = on_message, .closed = on_closed};
    struct session *session = memory_new(1, sizeof(*session));

    session->server = server;
    session->channel = ipc_channel_new(server->base, fd, server->options.self,
                                       server->options.peers, &events, session);
    ipc_channel_limit_unsent(session->channel, UNSENT_MAX);
    DL_APPEND(server->sessions, session);
    server->counters.channels++;
}

/* Out of descriptors, as a rule: asking again at once would ask, and log, without end. */
static void pause_accepting(struct ipc_server *server, int error)
{
    struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};

    server->counters.accept_failed++;
    log_error("cannot accept", LOG_TEXT("error", strerror(error)),
              LOG_NUMBER("channels", (long long)server->counters.channels));
    event_del(server->acceptable);
    event_add(server->accept_again, &pause);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
    struct ipc_server *server = arg;

    (void)fd;
    (void)what;
    event_add(server->acceptable, NULL);
}

/* Serves the connection, or closes it and counts why. */
static void take_connection(struct ipc_server *server, int fd)
{
    if (!uid_allowed(server, fd)) {
        server->counters.refusals[IPC_REFUSED_user]++;
        close(fd);
    } else if (server->counters.channels >= server->options.max_channels) {
        server->counters.refusals[IPC_REFUSED_channels]++;
        log_warn("connection refused: ipc.max_channels reached");
        close(fd);
    } else {
        session_begin(server, fd);
    }
}

static void on_acceptable(evutil_socket_t listener, short what, void *arg)
{
    struct ipc_server *server = arg;

    (void)what;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                pause_accepting(server, errno);
            return;
        }
        take_connection(server, fd);
    }
}

struct ipc_server *ipc_server_new(struct event_base *base, int listener,
                                  const struct ipc_server_options *options)
{
    struct ipc_server *server = memory_new(1, sizeof(*server));

    server->base = base;
    server->options = *options;
    server->acceptable = event_new(base, listener, EV_READ | EV_PERSIST, on_acceptable, server);
    server->accept_again = evtimer_new(base, on_accept_again, server);
    if (!server->acceptable || !server->accept_again)
        log_fatal("out of memory");
    event_add(server->acceptable, NULL);
    return server;
}

/* ---- answering ------------------------------------------------------------------------------ */

static void count_answered(struct ipc_reply_to to)
{
    struct session *session;

    if (!ipc_channel_is_closed(to.channel)) {
        session = ipc_channel_arg(to.channel);
        session->unanswered--;
        session->server->unanswered--;
    }
    ipc_channel_release(to.channel);
}

void ipc_reply(struct ipc_reply_to to, enum message_type type, const void *body)
{
    static const struct msg_fail too_large = {.code = STR("INTERNAL"),
                                              .message = STR("the answer is out of bounds")};

    if (!ipc_channel_send(to.channel, type, &to.id, body, -1))
        ipc_channel_send(to.channel, MSG_fail, &to.id, &too_large, -1);
    count_answered(to);
}

void ipc_fail(struct ipc_reply_to to, enum error_code code, const char *message)
{
    struct msg_fail fail = {.code = str_from(error_name(code)), .message = str_from(message)};

    if (fail.message.len > 511)
        fail.message.len = 511;
    if (!str_is_utf8(fail.message)) /* cut within a character, or not text at all */
        fail.message = STR("no readable reason");
    ipc_reply(to, MSG_fail, &fail);
}

/* ---- pushing -------------------------------------------------------------------------------- */

struct ipc_channel *ipc_push_begin(struct ipc_reply_to to)
{
    ipc_channel_hold(to.channel);
    return to.channel;
}

bool ipc_push(struct ipc_channel *channel, enum message_type type, const void *body)
{
    static const struct request_id no_request;

    if (ipc_channel_is_closed(channel))
        return false;
    ipc_channel_send(channel, type, &no_request, body, -1);
    return true;
}

bool ipc_push_is_open(const struct ipc_channel *channel)
{
    return !ipc_channel_is_closed(channel);
}

void ipc_push_end(struct ipc_channel *channel)
{
    ipc_channel_release(channel);
}

/* ---- draining ------------------------------------------------------------------------------- */

size_t ipc_server_unanswered(const struct ipc_server *server)
{
    return server->unanswered;
}

const struct ipc_server_counters *ipc_server_counters(const struct ipc_server *server)
{
    return &server->counters;
}

static bool all_sent(const struct ipc_server *server)
{
    struct session *session;

    DL_FOREACH(server->sessions, session)
    {
        if (ipc_channel_unsent(session->channel) > 0)
            return false;
    }
    return server->unanswered == 0;
}

static void on_drain_timer(evutil_socket_t fd, short what, void *arg)
{
    struct ipc_server *server = arg;

    (void)fd;
    (void)what;
    if (!all_sent(server))
        return;
    event_del(server->drain_timer);
    server->drained(server->options.daemon);
}

void ipc_server_drain(struct ipc_server *server, void (*done)(void *daemon))
{
    struct timeval poll = {.tv_usec = DRAIN_POLL_MS * 1000};
    struct session *session;

    event_del(server->acceptable);
    event_del(server->accept_again);
    DL_FOREACH(server->sessions, session)
    {
        ipc_channel_stop_reading(session->channel);
    }
    server->drained = done;
    server->drain_timer = event_new(server->base, -1, EV_PERSIST, on_drain_timer, server);
    event_add(server->drain_timer, &poll);
}

void ipc_server_free(struct ipc_server *server)
{
    struct session *session, *next;

    DL_FOREACH_SAFE(server->sessions, session, next)
    {
        session_end(session);
    }
    event_free(server->acceptable);
    event_free(server->accept_again);
    if (server->drain_timer)
        event_free(server->drain_timer);
    free(server);
}
