/* A worker's TLS handshakes against a real keeper over a real socket: waiting, going on, resending
 * after the keeper was away, cancelling in every state. */
#include "common/log.h"
#include "frontd/keeper.h"
#include "frontd/signer_client.h"
#include "frontd/signer_provider.h"
#include "tests/unit/tls_pair.h"

#include <fcntl.h>
#include <openssl/async.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { EC, RSA_2048, SERVER_KEYS, MAX_IN_FLIGHT = 4, TURNS_MAX = 2000, DEADLINE_MS = 200 };

static struct identity identities[SERVER_KEYS];
static char folder[32];
static char socket_path[64], key_paths[SERVER_KEYS][64];

static struct event_base *base;
static struct keeper keeper;
static int listener, lost_count;
static struct ipc_client *channel;
static struct signer_client *client;
static struct signer_provider *provider;

/* ---- the keeper ------------------------------------------------------------------------------ */

static void key_write(int identity, const char *name)
{
    snprintf(key_paths[identity], sizeof(key_paths[identity]), "%s/%s", folder, name);
    int file = open(key_paths[identity], O_WRONLY | O_CREAT | O_EXCL, 0600);
    FILE *out = fdopen(file, "w");
    ck_assert_int_eq(PEM_write_PrivateKey(out, identities[identity].key, NULL, NULL, 0, NULL, NULL),
                     1);
    fclose(out);
}

static void keeper_begin(int key_count)
{
    char error[512] = "", uid[16];
    char *files[SERVER_KEYS] = {key_paths[EC], key_paths[RSA_2048]}, *users[] = {uid};
    const struct config_list list = {files, (size_t)key_count};

    snprintf(uid, sizeof(uid), "%u", geteuid());
    keeper = (struct keeper){.service = {.base = base},
                             .options = {.ipc_peer_users = {users, 1}, .ipc_max_channels = 8}};
    ck_assert_msg(keeper_keys_load(&keeper.keys, &list, NULL, error, sizeof(error)) == 0, "%s",
                  error);
    listener = service_unix_listener(socket_path, 0600);
    keeper_serve(&keeper, listener);
}

static void keeper_end(void)
{
    ipc_server_free(keeper.server);
    close(listener);
    keeper_keys_free(&keeper.keys);
    free(keeper.peers);
}

static void channel_attach(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
    ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    ipc_client_attach(channel, fd);
}

static void channel_note_loss(void *arg, enum proto_peer peer)
{
    (void)arg;
    ck_assert_int_eq(peer, PEER_KEEPER);
    lost_count++;
}

/* ---- the worker ------------------------------------------------------------------------------ */

static void worker_begin(int64_t deadline_ms)
{
    const struct ipc_client_options options = {.self = PEER_FRONTD,
                                               .peer = PEER_KEEPER,
                                               .max_in_flight = MAX_IN_FLIGHT,
                                               .lost = channel_note_loss};
    base = event_base_new();
    lost_count = 0;
    channel = ipc_client_new(base, &options);
    client = signer_client_new(channel, deadline_ms);
    const struct signer_submitter submitter = signer_client_submitter(client);
    provider = signer_provider_load(NULL, &submitter);
    ck_assert_ptr_nonnull(provider);
}

static void worker_end(void)
{
    ck_assert_uint_eq(ipc_client_in_flight(channel), 0);
    signer_provider_free(provider);
    signer_client_free(client);
    ipc_client_free(channel);
    event_base_free(base);
}

struct connection {
    struct pair pair;
    struct signer_handshake handshake;
    int server_status, client_status; /* as SSL_get_error names them */
    int wakes;
    enum { RUN, NOTE, CLOSE } on_wake;
};

static bool is_going_on(int status)
{
    return status == SSL_ERROR_NONE || status == SSL_ERROR_WANT_READ ||
           status == SSL_ERROR_WANT_ASYNC;
}

/* Runs both sides as far as they get. */
static void connection_step(struct connection *connection)
{
    for (int i = 0; i < 10 && is_going_on(connection->server_status); i++) {
        connection->client_status =
            handshake_step(connection->pair.client, &connection->pair.client_result);
        connection->server_status = signer_handshake_run(&connection->handshake);
    }
}

static void connection_close(struct connection *connection)
{
    signer_handshake_cancel(&connection->handshake);
    pair_free(&connection->pair);
    connection->pair.server = NULL;
}

static void connection_wake(void *arg)
{
    struct connection *connection = arg;
    connection->wakes++;
    if (connection->on_wake == RUN)
        connection_step(connection);
    else if (connection->on_wake == CLOSE)
        connection_close(connection);
}

static SSL_CTX *server_context_make(int identity)
{
    const char *why = NULL;
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = signer_provider_make_key(provider, identities[identity].certificate, &why);
    ck_assert_msg(key != NULL, "%s", why);
    ck_assert_int_eq(SSL_CTX_use_certificate(context, identities[identity].certificate), 1);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey(context, key), 1);
    EVP_PKEY_free(key);
    return context;
}

static SSL_CTX *client_context_make(int identity, int version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), identities[identity].certificate);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    return context;
}

static void connection_open(struct connection *connection, int identity, int version)
{
    *connection = (struct connection){.on_wake = RUN};
    connection->pair =
        pair_make(server_context_make(identity), client_context_make(identity, version));
    signer_handshake_start(&connection->handshake, client, connection->pair.server, connection_wake,
                           connection);
}

/* As far as a connection gets before the keeper can have answered. */
static void connection_open_waiting(struct connection *connection, int variant)
{
    connection_open(connection, variant & 1, variant & 2 ? TLS1_2_VERSION : TLS1_3_VERSION);
    connection_step(connection);
    ck_assert_int_eq(connection->server_status, SSL_ERROR_WANT_ASYNC);
    ck_assert_int_eq(connection->wakes, 0);
}

static void loop_until_woken(const struct connection *connection)
{
    for (int turn = 0; turn < TURNS_MAX && connection->wakes == 0; turn++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        usleep(500);
    }
    ck_assert_int_eq(connection->wakes, 1);
}

static void loop_some_turns(void)
{
    for (int turn = 0; turn < 50; turn++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        usleep(500);
    }
}

static void check_completed(const struct connection *connection)
{
    ck_assert_int_eq(connection->server_status, SSL_ERROR_NONE);
    ck_assert_int_eq(connection->client_status, SSL_ERROR_NONE);
    ck_assert_int_eq(SSL_get_mode(connection->pair.server) & SSL_MODE_ASYNC, 0);
    ck_assert_ptr_null(connection->handshake.request);
}

/* ---- fixtures -------------------------------------------------------------------------------- */

static void parts_begin(void)
{
    worker_begin(30000);
    keeper_begin(SERVER_KEYS);
    channel_attach();
}

static void parts_end(void)
{
    keeper_end();
    worker_end();
}

/* AddressSanitizer says once per process that a job's stack is none that it knows: here, and so not
 * in every test. */
static void warm_up(void)
{
    struct connection connection;
    parts_begin();
    connection_open_waiting(&connection, 0);
    loop_until_woken(&connection);
    connection_close(&connection);
    parts_end();
}

static void world_make(void)
{
    log_open("test", LOG_LEVEL_ERROR);
    snprintf(folder, sizeof(folder), "/tmp/caf-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(socket_path, sizeof(socket_path), "%s/keeper.sock", folder);
    identities[EC] = identity_make(EVP_EC_gen("P-256"));
    identities[RSA_2048] = identity_make(EVP_RSA_gen(2048));
    key_write(EC, "ec.key");
    key_write(RSA_2048, "rsa.key");
    warm_up();
}

static void world_free(void)
{
    for (int i = 0; i < SERVER_KEYS; i++) {
        identity_free(&identities[i]);
        unlink(key_paths[i]);
    }
    unlink(socket_path);
    rmdir(folder);
}

/* ---- handshakes ------------------------------------------------------------------------------ */

START_TEST(a_handshake_goes_on_when_the_keeper_has_answered)
{
    struct connection connection;
    connection_open_waiting(&connection, _i);
    loop_until_woken(&connection);
    check_completed(&connection);
    ck_assert_uint_eq(keeper.metrics.keeper_signatures_total, 1);
    connection_close(&connection);
}
END_TEST

START_TEST(an_event_while_it_waits_changes_nothing)
{
    struct connection connection;
    connection_open_waiting(&connection, _i);
    for (int i = 0; i < 5; i++)
        connection_step(&connection);
    ck_assert_int_eq(connection.server_status, SSL_ERROR_WANT_ASYNC);
    ck_assert_uint_eq(ipc_client_in_flight(channel), 1);
    loop_until_woken(&connection);
    check_completed(&connection);
    connection_close(&connection);
}
END_TEST

/* The error queue belongs to the thread, not to the connection. An info callback leaves an error in
 * it; OpenSSL keeps that callback for the whole of a job, so that the flag has to end it. */
static bool error_is_left;

static void error_leave(const SSL *ssl, int where, int result)
{
    (void)ssl;
    (void)where;
    (void)result;
    if (error_is_left)
        ERR_raise(ERR_LIB_USER, ERR_R_INTERNAL_ERROR);
}

START_TEST(an_error_left_in_the_queue_is_not_taken_for_this_handshakes)
{
    struct connection connection;
    connection_open(&connection, EC, TLS1_3_VERSION);
    error_is_left = true;
    error_leave(NULL, 0, 0);
    ck_assert_int_eq(signer_handshake_run(&connection.handshake), SSL_ERROR_WANT_READ);
    handshake_step(connection.pair.client, &connection.pair.client_result);
    SSL_set_info_callback(connection.pair.server, error_leave);
    ck_assert_int_eq(signer_handshake_run(&connection.handshake), SSL_ERROR_WANT_ASYNC);
    error_is_left = false;
    ERR_raise(ERR_LIB_USER, ERR_R_INTERNAL_ERROR);
    ck_assert_int_eq(signer_handshake_run(&connection.handshake), SSL_ERROR_WANT_ASYNC);
    connection.on_wake = NOTE;
    loop_until_woken(&connection);
    ERR_raise(ERR_LIB_USER, ERR_R_INTERNAL_ERROR);
    ck_assert_int_eq(signer_handshake_run(&connection.handshake), SSL_ERROR_WANT_READ);
    connection_step(&connection);
    check_completed(&connection);
    connection_close(&connection);
}
END_TEST

static int steps_outside_of_a_job;

static void step_note(const SSL *ssl, int where, int result)
{
    (void)ssl;
    (void)where;
    (void)result;
    ck_assert_ptr_null(ASYNC_get_current_job());
    steps_outside_of_a_job++;
}

/* What the client sends after the signature is read on the process's own, large stack. */
START_TEST(after_the_signature_no_job_is_needed)
{
    struct connection connection;
    connection_open_waiting(&connection, _i);
    connection.on_wake = NOTE;
    loop_until_woken(&connection);
    ck_assert_int_eq(signer_handshake_run(&connection.handshake), SSL_ERROR_WANT_READ);
    SSL_set_info_callback(connection.pair.server, step_note);
    connection_step(&connection);
    check_completed(&connection);
    ck_assert_int_gt(steps_outside_of_a_job, 0);
    connection_close(&connection);
}
END_TEST

START_TEST(handshakes_beyond_the_bound_fail_and_the_others_do_not)
{
    struct connection waiting[MAX_IN_FLIGHT], next;
    for (int i = 0; i < MAX_IN_FLIGHT; i++)
        connection_open_waiting(&waiting[i], i);
    connection_open(&next, EC, TLS1_3_VERSION);
    connection_step(&next);
    ck_assert_int_eq(next.server_status, SSL_ERROR_SSL);
    connection_close(&next);
    for (int i = 0; i < MAX_IN_FLIGHT; i++) {
        loop_until_woken(&waiting[i]);
        check_completed(&waiting[i]);
        connection_close(&waiting[i]);
    }
}
END_TEST

START_TEST(a_signature_outside_of_a_handshakes_run_is_refused)
{
    struct connection connection, other;
    int result;
    connection_open_waiting(&other, EC);
    connection_open(&connection, EC, TLS1_3_VERSION);
    handshake_step(connection.pair.client, &connection.pair.client_result);
    ck_assert_int_eq(handshake_step(connection.pair.server, &result), SSL_ERROR_SSL);
    ck_assert_uint_eq(ipc_client_in_flight(channel), 1);
    connection_close(&connection);
    connection_close(&other);
}
END_TEST

/* ---- the end of a connection ----------------------------------------------------------------- */

START_TEST(a_cancelled_handshake_drops_the_late_answer)
{
    struct connection connection;
    connection_open_waiting(&connection, _i);
    connection_close(&connection);
    ck_assert_uint_eq(ipc_client_in_flight(channel), 0);
    loop_some_turns();
    ck_assert_uint_eq(keeper.metrics.keeper_signatures_total, 1);
    ck_assert_int_eq(connection.wakes, 0);
}
END_TEST

START_TEST(a_handshake_can_be_cancelled_between_answer_and_resumption)
{
    struct connection connection;
    connection_open_waiting(&connection, _i);
    connection.on_wake = NOTE;
    loop_until_woken(&connection);
    connection_close(&connection);
}
END_TEST

START_TEST(a_handshake_can_be_cancelled_from_its_own_wake_up)
{
    struct connection connection;
    connection_open_waiting(&connection, _i);
    connection.on_wake = CLOSE;
    loop_until_woken(&connection);
    ck_assert_ptr_null(connection.pair.server);
}
END_TEST

START_TEST(cancelling_is_harmless_in_every_other_state)
{
    struct signer_handshake nothing = {0};
    struct connection connection;
    int result;
    signer_handshake_cancel(&nothing);
    connection_open(&connection, EC, TLS1_3_VERSION);
    connection_close(&connection); /* before its first byte */
    connection_open(&connection, EC, TLS1_3_VERSION);
    ck_assert_int_eq(signer_handshake_run(&connection.handshake), SSL_ERROR_WANT_READ);
    connection_close(&connection);
    connection_open_waiting(&connection, _i);
    loop_until_woken(&connection);
    signer_handshake_cancel(&connection.handshake); /* after its end */
    signer_handshake_cancel(&connection.handshake);
    ck_assert_int_eq(handshake_step(connection.pair.server, &result), SSL_ERROR_NONE);
    connection_close(&connection);
}
END_TEST

/* ---- the keeper's absence -------------------------------------------------------------------- */

static void keeper_absent_begin(void)
{
    worker_begin(30000);
}

START_TEST(handshakes_wait_for_a_keeper_that_comes_later)
{
    struct connection connection;
    connection_open_waiting(&connection, _i);
    loop_some_turns();
    ck_assert_int_eq(connection.wakes, 0);
    keeper_begin(SERVER_KEYS);
    channel_attach();
    loop_until_woken(&connection);
    check_completed(&connection);
    connection_close(&connection);
    keeper_end();
}
END_TEST

/* A keeper that dies with the request unanswered: the next one gets it again. */
START_TEST(a_new_keeper_gets_what_the_old_one_did_not_answer)
{
    struct connection connection;
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    ipc_client_attach(channel, ends[0]);
    connection_open_waiting(&connection, _i);
    loop_some_turns();
    close(ends[1]);
    loop_some_turns();
    ck_assert_int_eq(lost_count, 1);
    ck_assert_int_eq(connection.wakes, 0);
    keeper_begin(SERVER_KEYS);
    channel_attach();
    loop_until_woken(&connection);
    check_completed(&connection);
    connection_close(&connection);
    keeper_end();
}
END_TEST

START_TEST(a_keeper_without_the_key_refuses)
{
    struct connection connection;
    keeper_begin(1); /* the EC key only */
    channel_attach();
    connection_open(&connection, RSA_2048, _i ? TLS1_2_VERSION : TLS1_3_VERSION);
    connection_step(&connection);
    loop_until_woken(&connection);
    ck_assert_int_eq(connection.server_status, SSL_ERROR_SSL);
    ck_assert_uint_eq(keeper.metrics.keeper_refusals_total, 1);
    ck_assert_uint_eq(keeper.metrics.keeper_signatures_total, 0);
    connection_close(&connection);
    keeper_end();
}
END_TEST

static void impatient_begin(void)
{
    worker_begin(DEADLINE_MS);
}

START_TEST(a_signature_that_does_not_come_in_time_ends_the_handshake)
{
    struct connection connection;
    connection_open_waiting(&connection, _i);
    loop_until_woken(&connection);
    ck_assert_int_eq(connection.server_status, SSL_ERROR_SSL);
    connection_close(&connection);
}
END_TEST

static void case_add(Suite *suite, TCase *tests, void (*begin)(void), void (*end)(void))
{
    tcase_add_unchecked_fixture(tests, world_make, world_free);
    tcase_add_checked_fixture(tests, begin, end);
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
}

static Suite *suite_make(void)
{
    Suite *suite = suite_create("signer_client");
    TCase *present = tcase_create("keeper present"), *absent = tcase_create("keeper absent");
    TCase *impatient = tcase_create("deadline");
    case_add(suite, present, parts_begin, parts_end);
    case_add(suite, absent, keeper_absent_begin, worker_end);
    case_add(suite, impatient, impatient_begin, worker_end);
    tcase_add_loop_test(present, a_handshake_goes_on_when_the_keeper_has_answered, 0, 4);
    tcase_add_loop_test(present, an_event_while_it_waits_changes_nothing, 0, 4);
    tcase_add_test(present, an_error_left_in_the_queue_is_not_taken_for_this_handshakes);
    tcase_add_loop_test(present, after_the_signature_no_job_is_needed, 0, 4);
    tcase_add_test(present, handshakes_beyond_the_bound_fail_and_the_others_do_not);
    tcase_add_test(present, a_signature_outside_of_a_handshakes_run_is_refused);
    tcase_add_loop_test(present, a_cancelled_handshake_drops_the_late_answer, 0, 4);
    tcase_add_loop_test(present, a_handshake_can_be_cancelled_between_answer_and_resumption, 0, 4);
    tcase_add_loop_test(present, a_handshake_can_be_cancelled_from_its_own_wake_up, 0, 4);
    tcase_add_loop_test(present, cancelling_is_harmless_in_every_other_state, 0, 4);
    tcase_add_loop_test(absent, handshakes_wait_for_a_keeper_that_comes_later, 0, 4);
    tcase_add_loop_test(absent, a_new_keeper_gets_what_the_old_one_did_not_answer, 0, 4);
    tcase_add_loop_test(absent, a_keeper_without_the_key_refuses, 0, 2);
    tcase_add_loop_test(impatient, a_signature_that_does_not_come_in_time_ends_the_handshake, 0, 4);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(suite_make());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
