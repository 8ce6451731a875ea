/* The admin listener, admin.listen: GET /metrics, and nothing else. Who may connect is the socket's
 * file mode's to say. One request a connection, read by the parser that reads clients' requests,
 * within a few seconds in all. Touches the admin listener and its connections only. */
#include "frontd/worker.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"
#include "frontd/http_request.h"
#include "frontd/scrape.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

enum { CLIENTS_MAX = 16, LIFE_MS = 10000, LAST_CALL_MS = 1000, PAUSE_MS = 500 };

struct admin_client {
    struct admin *admin;
    struct bufferevent *io;
    struct event *deadline;
    struct http_request request;
    struct scrape *scrape; /* under way */
    bool answered, ended;  /* the answer is on its way; the client has said all that it will */
    struct admin_client *prev, *next;
};

struct admin {
    struct worker *worker;
    struct evconnlistener *listener; /* NULL: accepts no more */
    struct event *accept_again;
    struct admin_client *clients;
    size_t client_count;
};

static void client_close(struct admin_client *client)
{
    struct admin *admin = client->admin;

    DL_DELETE(admin->clients, client);
    admin->client_count--;
    if (client->scrape)
        scrape_cancel(client->scrape);
    bufferevent_free(client->io); /* the socket with it */
    event_free(client->deadline);
    free(client);
    worker_finish_when_done(admin->worker);
}

/* ---- answering ------------------------------------------------------------------------------ */

/* body is emptied. allow: the methods for a 405, NULL for none. */
static void answer(struct admin_client *client, const char *status, const char *allow,
                   struct evbuffer *body)
{
    struct evbuffer *out = bufferevent_get_output(client->io);

    client->answered = true;
    evbuffer_add_printf(out,
                        "HTTP/1.1 %s\r\n"
                        "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                        "Content-Length: %zu\r\n"
                        "Connection: close\r\n",
                        status, evbuffer_get_length(body));
    if (allow)
        evbuffer_add_printf(out, "Allow: %s\r\n", allow);
    evbuffer_add(out, "\r\n", 2);
    evbuffer_add_buffer(out, body);
}

static void refuse(struct admin_client *client, const char *status, const char *allow)
{
    struct evbuffer *body = evbuffer_new();

    if (!body)
        log_fatal("out of memory");
    evbuffer_add_printf(body, "%s\n", status);
    answer(client, status, allow, body);
    evbuffer_free(body);
}

static void on_scraped(void *arg, struct evbuffer *text)
{
    struct admin_client *client = arg;

    client->scrape = NULL;
    answer(client, "200 OK", NULL, text);
}

static void dispatch(struct admin_client *client, const char *bytes)
{
    const struct http_request *request = &client->request;

    if (!str_equal(http_span_view(bytes, request->path), STR("/metrics")))
        refuse(client, "404 Not Found", NULL);
    else if (!str_equal(http_span_view(bytes, request->method), STR("GET")))
        refuse(client, "405 Method Not Allowed", "GET");
    else
        client->scrape = scrape_start(client->admin->worker, on_scraped, client);
}

/* ---- a connection --------------------------------------------------------------------------- */

static void on_bytes(struct bufferevent *io, void *arg)
{
    struct admin_client *client = arg;
    struct evbuffer *in = bufferevent_get_input(io);
    const char *bytes, *why;

    if (client->answered || client->scrape) { /* nobody reads more than one request */
        evbuffer_drain(in, evbuffer_get_length(in));
        return;
    }
    bytes = (const char *)evbuffer_pullup(in, -1);
    if (http_request_feed(&client->request, bytes, evbuffer_get_length(in), &why) != ERROR_NONE)
        refuse(client, "400 Bad Request", NULL);
    else if (client->request.complete)
        dispatch(client, bytes);
}

/* All is sent: the end is the client's to see and to answer by its own. libevent says so too when
 * there is nothing yet, or something more by now. */
static void on_sent(struct bufferevent *io, void *arg)
{
    struct admin_client *client = arg;

    if (evbuffer_get_length(bufferevent_get_output(io)) > 0)
        return;
    if (client->answered && client->ended) {
        client_close(client);
    } else if (client->answered) {
        shutdown(bufferevent_getfd(io), SHUT_WR);
        worker_finish_when_done(client->admin->worker);
    }
}

/* Whoever says no more may wait for its answer still. */
static void on_end(struct bufferevent *io, short what, void *arg)
{
    struct admin_client *client = arg;
    bool owed = client->scrape || evbuffer_get_length(bufferevent_get_output(io)) > 0;

    client->ended = true;
    if ((what & BEV_EVENT_ERROR) || !owed)
        client_close(client);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    client_close(arg);
}

static void client_open(struct admin *admin, int fd)
{
    struct event_base *base = admin->worker->service.base;
    struct admin_client *client = memory_new(1, sizeof(*client));
    struct timeval life = clock_timeval(LIFE_MS);

    client->admin = admin;
    client->io = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    client->deadline = evtimer_new(base, on_deadline, client);
    if (!client->io || !client->deadline)
        log_fatal("out of memory");
    DL_APPEND(admin->clients, client);
    admin->client_count++;
    event_add(client->deadline, &life);
    bufferevent_setcb(client->io, on_bytes, on_sent, on_end, client);
    bufferevent_enable(client->io, EV_READ | EV_WRITE);
}

/* ---- the listener --------------------------------------------------------------------------- */

static void on_accepted(struct evconnlistener *listener, evutil_socket_t fd,
                        struct sockaddr *address, int len, void *arg)
{
    struct admin *admin = arg;

    (void)listener;
    (void)address;
    (void)len;
    if (admin->client_count >= CLIENTS_MAX)
        close(fd);
    else
        client_open(admin, fd);
}

/* Out of descriptors, as a rule: asking again at once would ask, and log, without end. */
static void on_accept_failed(struct evconnlistener *listener, void *arg)
{
    struct admin *admin = arg;
    struct timeval pause = clock_timeval(PAUSE_MS);

    log_error("cannot accept", LOG_TEXT("error", strerror(errno)));
    evconnlistener_disable(listener);
    event_add(admin->accept_again, &pause);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
    struct admin *admin = arg;

    (void)fd;
    (void)what;
    evconnlistener_enable(admin->listener);
}

struct admin *admin_open(struct worker *worker, int listener)
{
    struct event_base *base = worker->service.base;
    struct admin *admin = memory_new(1, sizeof(*admin));

    admin->worker = worker;
    admin->listener = evconnlistener_new(
        base, on_accepted, admin, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, listener);
    admin->accept_again = evtimer_new(base, on_accept_again, admin);
    if (!admin->listener || !admin->accept_again)
        log_fatal("out of memory");
    evconnlistener_set_error_cb(admin->listener, on_accept_failed);
    return admin;
}

static bool is_owed(const struct admin_client *client)
{
    return !client->answered || evbuffer_get_length(bufferevent_get_output(client->io)) > 0;
}

bool admin_is_done(const struct admin *admin)
{
    const struct admin_client *client;

    if (!admin)
        return true;
    DL_FOREACH(admin->clients, client)
    {
        if (is_owed(client))
            return false;
    }
    return true;
}

/* Who has just connected has a question to ask, and gets a moment for it. */
void admin_stop(struct admin *admin)
{
    const struct timeval last_call = clock_timeval(LAST_CALL_MS);
    struct admin_client *client;

    if (!admin || !admin->listener)
        return;
    event_free(admin->accept_again);
    evconnlistener_free(admin->listener);
    admin->listener = NULL;
    DL_FOREACH(admin->clients, client)
    {
        if (!client->scrape && !client->answered)
            event_add(client->deadline, &last_call);
    }
}

void admin_close(struct admin *admin)
{
    if (!admin)
        return;
    admin_stop(admin);
    while (admin->clients)
        client_close(admin->clients);
    free(admin);
}
