/* The asking side: requests in flight to one peer, kept with their encoded frames so that a new
 * channel gets them again under the same ids, in their order. Opens no socket: descriptors come
 * from the owner. A peer that stays away costs each request its deadline, nothing else. */
#include "common/ipc.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/ipc_internal.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <uthash.h>

struct ipc_call {
    struct request_id id;
    struct ipc_client *client;
    struct frame frame;
    struct event *deadline;
    bool sent; /* on some channel */
    ipc_answer_fn *answer;
    void *arg;
    UT_hash_handle hh; /* iterates in order of insertion: the order of sending */
};

struct ipc_client {
    struct event_base *base;
    struct ipc_client_options options;
    struct ipc_channel *channel;
    struct ipc_call *calls;
    uint8_t instance[8];
    uint64_t counter;
    int64_t attached_ms;                   /* when the channel was given */
    uint64_t failures;                     /* channels that ended at once, one after the other */
    enum ipc_refusal refusal;              /* by which the last ended */
    const char *refusal_detail;            /* a literal */
    uint64_t uncounted[IPC_REFUSAL_COUNT]; /* what nobody wants counted goes here */
};

enum { LIVED_MS = 2000 }; /* a channel that lasted as long did not end at once */

static void call_free(struct ipc_call *call)
{
    --*call->client->options.counters.in_flight;
    HASH_DEL(call->client->calls, call);
    event_free(call->deadline);
    free(call->frame.bytes);
    free(call);
}

/* ---- answers -------------------------------------------------------------------------------- */

/* Refuses what the peer said, by which the channel ends. */
static void refuse(struct ipc_client *client, const char *detail)
{
    ipc_channel_refuse(client->channel, IPC_REFUSED_unasked, detail);
}

/* Whether this client has made a request of that id, ever. */
static bool was_asked(const struct ipc_client *client, const struct request_id *id)
{
    uint64_t number = 0;

    for (int i = 8; i < 16; i++)
        number = number << 8 | id->bytes[i];
    return memcmp(id->bytes, client->instance, sizeof(client->instance)) == 0 && number > 0 &&
           number <= client->counter;
}

static bool answers_no_request(const struct message *message)
{
    static const struct request_id no_request;

    return memcmp(&message->id, &no_request, sizeof(no_request)) == 0;
}

static void on_message(struct ipc_channel *channel, const struct message *message, void *arg)
{
    struct ipc_client *client = arg;
    struct ipc_call *call;
    ipc_answer_fn *answer;
    void *answer_arg;

    (void)channel;
    if (answers_no_request(message)) {
        if (!client->options.pushed || !client->options.pushed(client->options.arg, message))
            refuse(client, "it is not this peer's to push");
        return;
    }
    if (!was_asked(client, &message->id)) {
        refuse(client, "no request has that id");
        return;
    }
    HASH_FIND(hh, client->calls, &message->id, sizeof(message->id), call);
    if (!call) /* cancelled, past its deadline, or answered by the channel before this one */
        return;
    answer = call->answer;
    answer_arg = call->arg;
    call_free(call);
    answer(answer_arg, message);
}

/* Whether the log shall hear of this end: a peer that fails again and again, each time at once, is
 * told of when it fails in another way, and else the first time and at each doubling. */
static bool is_news(struct ipc_client *client, enum ipc_refusal refusal, const char *detail)
{
    bool same = client->refusal == refusal && strcmp(client->refusal_detail, detail) == 0;

    if (clock_monotonic_ms() - client->attached_ms >= LIVED_MS)
        client->failures = 0;
    client->failures++;
    client->refusal = refusal;
    client->refusal_detail = detail;
    return !same || (client->failures & (client->failures - 1)) == 0;
}

static void on_closed(struct ipc_channel *channel, const char *why, void *arg)
{
    struct ipc_client *client = arg;
    const char *detail;
    enum ipc_refusal refusal = ipc_channel_refusal(channel, &detail);

    if (is_news(client, refusal, detail))
        log_warn("backend lost", LOG_TEXT("peer", proto_peer_name(client->options.peer)),
                 LOG_TEXT("reason", why), LOG_TEXT("detail", detail),
                 LOG_NUMBER("failures", (long long)client->failures),
                 LOG_NUMBER("in_flight", (long long)HASH_COUNT(client->calls)));
    if (refusal < IPC_REFUSAL_COUNT)
        client->options.counters.refusals[refusal]++;
    ++*client->options.counters.lost;
    client->channel = NULL;
    ipc_channel_close(channel);
    client->options.lost(client->options.arg, client->options.peer);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct ipc_call *call = arg;
    ipc_answer_fn *answer = call->answer;
    void *answer_arg = call->arg;

    (void)fd;
    (void)what;
    ++*call->client->options.counters.expired;
    call_free(call);
    answer(answer_arg, NULL);
}

/* ---- requests ------------------------------------------------------------------------------- */

static struct request_id next_id(struct ipc_client *client)
{
    struct request_id id;

    memcpy(id.bytes, client->instance, sizeof(client->instance));
    client->counter++;
    for (int i = 0; i < 8; i++)
        id.bytes[8 + i] = (uint8_t)(client->counter >> (8 * (7 - i)));
    return id;
}

struct ipc_call *ipc_client_call(struct ipc_client *client, enum message_type type,
                                 const void *body, int64_t deadline_ms, ipc_answer_fn *answer,
                                 void *arg)
{
    struct timeval limit = clock_timeval(deadline_ms);
    struct request_id id = next_id(client);
    struct ipc_call *call;
    struct frame frame;
    const char *why;

    if (HASH_COUNT(client->calls) >= client->options.max_in_flight)
        return NULL;
    if (!proto_encode(type, &id, body, &frame, &why)) {
        log_error("request not sent: a field is out of bounds",
                  LOG_TEXT("message", proto_name(type)), LOG_TEXT("field", why));
        return NULL;
    }
    call = memory_new(1, sizeof(*call));
    *call =
        (struct ipc_call){.id = id, .client = client, .frame = frame, .answer = answer, .arg = arg};
    call->deadline = evtimer_new(client->base, on_deadline, call);
    if (!call->deadline)
        log_fatal("out of memory");
    evtimer_add(call->deadline, &limit);
    HASH_ADD(hh, client->calls, id, sizeof(call->id), call);
    ++*client->options.counters.calls;
    ++*client->options.counters.in_flight;
    call->sent = client->channel != NULL;
    if (call->sent)
        ipc_channel_send_frame(client->channel, &frame);
    return call;
}

void ipc_client_flush(struct ipc_client *client)
{
    if (client->channel)
        ipc_channel_flush(client->channel);
}

void ipc_call_cancel(struct ipc_call *call)
{
    call_free(call);
}

/* ---- channels ------------------------------------------------------------------------------- */

void ipc_client_attach(struct ipc_client *client, int fd)
{
    static const struct ipc_channel_events events = {.message = on_message, .closed = on_closed};
    struct ipc_call *call, *next;

    if (client->channel)
        ipc_channel_close(client->channel);
    client->attached_ms = clock_monotonic_ms();
    client->channel = ipc_channel_new(client->base, fd, client->options.self, client->options.peer,
                                      &events, client);
    HASH_ITER(hh, client->calls, call, next)
    {
        ipc_channel_send_frame(client->channel, &call->frame);
        *client->options.counters.resent += call->sent;
        call->sent = true;
    }
}

bool ipc_client_connected(const struct ipc_client *client)
{
    return client->channel && ipc_channel_peer(client->channel);
}

size_t ipc_client_in_flight(const struct ipc_client *client)
{
    return HASH_COUNT(client->calls);
}

struct ipc_client *ipc_client_new(struct event_base *base, const struct ipc_client_options *options)
{
    struct ipc_client *client = memory_new(1, sizeof(*client));

    client->base = base;
    client->options = *options;
    if (!options->counters.calls)
        client->options.counters =
            (struct ipc_client_counters){client->uncounted, client->uncounted, client->uncounted,
                                         client->uncounted, client->uncounted, client->uncounted};
    client->refusal = IPC_REFUSAL_COUNT;
    client->refusal_detail = "";
    ids_random(client->instance, sizeof(client->instance));
    return client;
}

void ipc_client_free(struct ipc_client *client)
{
    struct ipc_call *call, *next;

    HASH_ITER(hh, client->calls, call, next)
    {
        call_free(call);
    }
    if (client->channel)
        ipc_channel_close(client->channel);
    free(client);
}
