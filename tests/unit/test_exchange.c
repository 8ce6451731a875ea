/* Calls on behalf of a request that cannot be made: whose fault it is decides the status. The
 * connection and the worker's main file have stand-ins. */
#include "common/memory.h"
#include "frontd/connection.h"
#include "frontd/exchange.h"
#include "frontd/worker.h"
#include "tests/unit/suite.h"

static struct {
    struct event_base *base;
    struct ipc_client *client;
    struct worker worker;
    struct frontd_metrics metrics;
    struct identity identity;
    struct exchange exchange;
    struct evbuffer *out;
    bool has_room;
    int answers;
} world;

struct connection *connection_of(const struct exchange *exchange)
{
    return (struct connection *)exchange;
}

bool connection_will_close(const struct exchange *exchange)
{
    (void)exchange;
    return false;
}

size_t connection_room(const struct connection *connection)
{
    (void)connection;
    return SIZE_MAX;
}

struct evbuffer *connection_output(struct connection *connection)
{
    (void)connection;
    return world.out;
}

void connection_answered(struct connection *connection)
{
    (void)connection;
    world.answers++;
}

struct ipc_client *worker_backend(struct worker *worker, enum proto_peer peer)
{
    (void)worker, (void)peer;
    return world.client;
}

bool worker_may_call(struct worker *worker, enum proto_peer peer, bool is_operator)
{
    (void)worker, (void)peer, (void)is_operator;
    return world.has_room;
}

static void no_loss(void *arg, enum proto_peer peer)
{
    (void)arg, (void)peer;
}

static void no_answer(struct exchange *exchange, size_t slot, const struct message *answer)
{
    (void)exchange, (void)slot, (void)answer;
}

static void open_exchange(void)
{
    const struct ipc_client_options options = {
        .self = PEER_FRONTD, .peer = PEER_REGISTRYD, .max_in_flight = 1, .lost = no_loss};

    memset(&world, 0, sizeof(world));
    world.base = event_base_new();
    world.client = ipc_client_new(world.base, &options);
    world.out = evbuffer_new();
    world.has_room = true;
    world.worker.metrics = &world.metrics;
    world.worker.options.timeouts_read_deadline_seconds = 10;
    world.exchange.worker = &world.worker;
    world.exchange.identity = &world.identity;
    world.exchange.method = STR("GET");
    ids_trace(world.exchange.trace_id);
}

static void close_exchange(void)
{
    exchange_abandon(&world.exchange);
    ipc_client_free(world.client);
    evbuffer_free(world.out);
    event_base_free(world.base);
}

/* Asks for a tenant's agent; whether that went out. */
static bool call_for(struct str tenant)
{
    const struct msg_mesh_self body = {tenant, STR("spiffe://td/agent/acme/a")};

    return exchange_call(&world.exchange, 0, PEER_REGISTRYD, MSG_mesh_self, &body, PATIENCE_READ,
                         no_answer);
}

/* The exchange was answered once, with this status line and this text in what follows. */
static void assert_answer(const char *status_line, const char *text)
{
    cleanup_free char *answer = memory_new(1, evbuffer_get_length(world.out) + 1);

    evbuffer_copyout(world.out, answer, evbuffer_get_length(world.out));
    ck_assert_int_eq(world.answers, 1);
    ck_assert_msg(strncmp(answer, status_line, strlen(status_line)) == 0, "%s", answer);
    ck_assert_msg(strstr(answer, text) != NULL, "%s", answer);
}

START_TEST(a_call_that_can_be_made_answers_nothing_yet)
{
    ck_assert(call_for(STR("acme")));
    ck_assert_uint_eq(ipc_client_in_flight(world.client), 1);
    ck_assert_int_eq(world.answers, 0);
}
END_TEST

START_TEST(a_body_out_of_bounds_is_our_own_fault)
{
    ck_assert(!call_for(STR("")));
    ck_assert_uint_eq(ipc_client_in_flight(world.client), 0);
    assert_answer("HTTP/1.1 500 Internal Server Error\r\n", "\"code\":\"INTERNAL\"");
}
END_TEST

START_TEST(too_many_that_wait_are_nobodys)
{
    world.has_room = false;
    ck_assert(!call_for(STR("acme")));
    assert_answer("HTTP/1.1 503 Service Unavailable\r\n", "\"code\":\"UNAVAILABLE\"");
    ck_assert_int_ge(evbuffer_search(world.out, "Retry-After: ", 13, NULL).pos, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exchange");
    TCase *calls = suite_case(suite, "calls");

    tcase_add_checked_fixture(calls, open_exchange, close_exchange);
    tcase_add_test(calls, a_call_that_can_be_made_answers_nothing_yet);
    tcase_add_test(calls, a_body_out_of_bounds_is_our_own_fault);
    tcase_add_test(calls, too_many_that_wait_are_nobodys);
    return suite_run(suite);
}
