/* Whole TLS handshakes in memory, mutually authenticated, whose server has no private key: every
 * signature is asked of a stand-in for the channel that answers by the keeper's own keeper_sign().
 */
#include "frontd/keeper_sign.h"
#include "frontd/signer_provider.h"
#include "tests/unit/tls_pair.h"

#include <stdlib.h>
#include <string.h>

enum answer_mode { ANSWER_AT_ONCE, ANSWER_LATER, REFUSE_LATER };

enum { EC, RSA_2048, SERVER_KEYS, ROUNDS_MAX = 100 };

/* Stands where the channel to the keeper is: its context is the submitter's. */
struct channel {
    enum answer_mode mode;
    struct signer_request *pending;
    int submitted, withdrawn;
    uint16_t scheme;
};

static struct identity server_identities[SERVER_KEYS], client_identity;
static struct channel channel;
static struct signer_provider *provider;

static EVP_PKEY *channel_find_key(const uint8_t *id)
{
    for (int i = 0; i < SERVER_KEYS; i++) {
        uint8_t held[TLS_SIGNATURE_KEY_ID_SIZE];
        ck_assert_int_eq(tls_signature_key_id(server_identities[i].key, held), 0);
        if (memcmp(held, id, sizeof(held)) == 0)
            return server_identities[i].key;
    }
    return NULL;
}

static void request_answer(struct signer_request *request)
{
    struct tls_signature signature;
    const char *why = NULL;
    EVP_PKEY *key = channel_find_key(request->key_id);
    ck_assert_ptr_nonnull(key);
    int result = keeper_sign(key, request->scheme, request->content, request->content_length,
                             &signature, &why);
    ck_assert_msg(result == 0, "scheme %04x: %s", request->scheme, why);
    signer_request_complete(request, signature.bytes, signature.length);
}

static void channel_submit(struct signer_request *request, void *context)
{
    struct channel *to = context;
    to->submitted++;
    to->scheme = request->scheme;
    if (to->mode == ANSWER_AT_ONCE)
        request_answer(request);
    else
        to->pending = request;
}

static void channel_withdraw(struct signer_request *request, void *context)
{
    struct channel *from = context;
    ck_assert_ptr_eq(from->pending, request);
    from->pending = NULL;
    from->withdrawn++;
}

/* The event in which the keeper's answer arrives. */
static void channel_deliver(void)
{
    struct signer_request *request = channel.pending;
    if (request == NULL)
        return;
    channel.pending = NULL;
    if (channel.mode == REFUSE_LATER)
        signer_request_fail(request, "the keeper refused");
    else
        request_answer(request);
}

static void provider_open(OSSL_LIB_CTX *library)
{
    const struct signer_submitter submitter = {channel_submit, channel_withdraw, &channel};
    channel = (struct channel){.mode = ANSWER_LATER};
    provider = signer_provider_load(library, &submitter);
    ck_assert_ptr_nonnull(provider);
}

/* ---- handshakes ------------------------------------------------------------------------------ */

static void server_use(SSL_CTX *context, int identity)
{
    const char *why = NULL;
    X509 *certificate = server_identities[identity].certificate;
    EVP_PKEY *key = signer_provider_make_key(provider, certificate, &why);
    ck_assert_msg(key != NULL, "%s", why);
    ck_assert_int_eq(SSL_CTX_use_certificate(context, certificate), 1);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey(context, key), 1);
    ck_assert_int_eq(SSL_CTX_check_private_key(context), 1);
    EVP_PKEY_free(key);
}

static SSL_CTX *server_context_make(OSSL_LIB_CTX *library, bool with_ec, bool with_rsa)
{
    SSL_CTX *context = SSL_CTX_new_ex(library, NULL, TLS_server_method());
    if (with_ec)
        server_use(context, EC);
    if (with_rsa)
        server_use(context, RSA_2048);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), client_identity.certificate);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return context;
}

static SSL_CTX *client_context_make(int version, const char *signatures)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    for (int i = 0; i < SERVER_KEYS; i++)
        X509_STORE_add_cert(SSL_CTX_get_cert_store(context), server_identities[i].certificate);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    ck_assert_int_eq(SSL_CTX_use_certificate(context, client_identity.certificate), 1);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey(context, client_identity.key), 1);
    ck_assert_int_eq(SSL_CTX_set1_client_sigalgs_list(context, "rsa_pss_rsae_sha256"), 1);
    if (signatures != NULL)
        ck_assert_int_eq(SSL_CTX_set1_sigalgs_list(context, signatures), 1);
    return context;
}

static bool is_over(int error)
{
    return error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE &&
           error != SSL_ERROR_WANT_ASYNC;
}

/* Runs both sides until the server waits for its signature, or until one side is over. */
static bool pair_run_to_wait(struct pair *pair)
{
    for (int round = 0; round < ROUNDS_MAX; round++) {
        int client = handshake_step(pair->client, &pair->client_result);
        int server = handshake_step(pair->server, &pair->server_result);
        if (server == SSL_ERROR_WANT_ASYNC) {
            ck_assert_ptr_nonnull(channel.pending);
            pair->waits++;
            return true;
        }
        bool failed = (is_over(client) && pair->client_result != 1) ||
                      (is_over(server) && pair->server_result != 1);
        if (failed || (is_over(client) && is_over(server)))
            return false;
    }
    ck_abort_msg("the handshake does not end");
}

static bool pair_run(struct pair *pair)
{
    while (pair_run_to_wait(pair))
        channel_deliver();
    return pair->client_result == 1 && pair->server_result == 1;
}

static void check_data(struct pair *pair)
{
    char received[8] = "";
    SSL_clear_mode(pair->server, SSL_MODE_ASYNC);
    ck_assert_int_eq(SSL_write(pair->server, "pong", 4), 4);
    ck_assert_int_eq(SSL_read(pair->client, received, sizeof(received)), 4);
    ck_assert_str_eq(received, "pong");
    ck_assert_int_eq(SSL_write(pair->client, "ping", 4), 4);
    ck_assert_int_eq(SSL_read(pair->server, received, sizeof(received)), 4);
    ck_assert_str_eq(received, "ping");
}

/* A client that offers these signature algorithms, against a server with these keys. */
static const struct handshake_case {
    int version;
    bool with_ec, with_rsa;
    const char *signatures; /* NULL: OpenSSL's own list */
    uint16_t scheme;        /* 0: none fits, the handshake fails */
} HANDSHAKES[] = {
    {TLS1_3_VERSION, true, false, NULL, 0x0403},
    {TLS1_3_VERSION, false, true, NULL, 0x0804},
    {TLS1_3_VERSION, true, true, NULL, 0x0403},
    {TLS1_3_VERSION, true, true, "rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256", 0x0804},
    {TLS1_3_VERSION, true, true, "ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256", 0x0403},
    {TLS1_3_VERSION, false, true, "rsa_pss_rsae_sha384", 0x0805},
    {TLS1_3_VERSION, false, true, "rsa_pss_rsae_sha512", 0x0806},
    {TLS1_3_VERSION, true, false, "rsa_pss_rsae_sha256", 0},
    {TLS1_3_VERSION, false, true, "ecdsa_secp256r1_sha256", 0},
    {TLS1_2_VERSION, true, false, NULL, 0x0403},
    {TLS1_2_VERSION, false, true, NULL, 0x0804},
    {TLS1_2_VERSION, true, true, NULL, 0x0403},
    {TLS1_2_VERSION, true, true, "rsa_pss_rsae_sha256", 0x0804},
    {TLS1_2_VERSION, true, true, "ECDSA+SHA256", 0x0403},
    {TLS1_2_VERSION, true, true, "ECDSA+SHA384:ECDSA+SHA256", 0x0503},
    {TLS1_2_VERSION, true, true, "ECDSA+SHA512:ECDSA+SHA256", 0x0603},
    {TLS1_2_VERSION, false, true, "RSA+SHA256", 0x0401},
    {TLS1_2_VERSION, false, true, "RSA+SHA384", 0x0501},
    {TLS1_2_VERSION, false, true, "RSA+SHA512", 0x0601},
    {TLS1_2_VERSION, false, true, "rsa_pss_rsae_sha384:RSA+SHA256", 0x0805},
    {TLS1_2_VERSION, false, true, "rsa_pss_rsae_sha512:RSA+SHA256", 0x0806},
};
enum { HANDSHAKE_COUNT = sizeof(HANDSHAKES) / sizeof(HANDSHAKES[0]) };

static void check_handshake(const struct handshake_case *expected, OSSL_LIB_CTX *library)
{
    struct pair pair =
        pair_make(server_context_make(library, expected->with_ec, expected->with_rsa),
                  client_context_make(expected->version, expected->signatures));
    bool done = pair_run(&pair);
    bool wanted = expected->scheme != 0;

    ck_assert_int_eq(done, wanted);
    ck_assert_int_eq(channel.submitted, wanted ? 1 : 0);
    ck_assert_int_eq(pair.waits, wanted && channel.mode == ANSWER_LATER ? 1 : 0);
    ck_assert_uint_eq(channel.scheme, expected->scheme);
    if (done)
        check_data(&pair);
    pair_free(&pair);
}

/* Once for all tests. One handshake goes first: AddressSanitizer says once per process that a job's
 * stack is none that it knows, and so says it here and not in every test. */
static void world_make(void)
{
    server_identities[EC] = identity_make(EVP_EC_gen("P-256"));
    server_identities[RSA_2048] = identity_make(EVP_RSA_gen(2048));
    client_identity = identity_make(EVP_RSA_gen(2048));
    provider_open(NULL);
    check_handshake(&HANDSHAKES[0], NULL);
    channel = (struct channel){.mode = ANSWER_LATER};
}

static void world_free(void)
{
    for (int i = 0; i < SERVER_KEYS; i++)
        identity_free(&server_identities[i]);
    identity_free(&client_identity);
    signer_provider_free(provider);
}

START_TEST(a_handshake_waits_for_its_signature_and_completes)
{
    check_handshake(&HANDSHAKES[_i], NULL);
}
END_TEST

START_TEST(a_signature_that_is_there_at_once_needs_no_wait)
{
    channel.mode = ANSWER_AT_ONCE;
    check_handshake(&HANDSHAKES[_i], NULL);
}
END_TEST

START_TEST(every_group_that_openssl_offers_in_tls_1_2_is_signed)
{
    static const char *const groups[] = {"X25519", "P-256", "P-384", "P-521", "X448"};
    struct pair pair =
        pair_make(server_context_make(NULL, true, true), client_context_make(TLS1_2_VERSION, NULL));
    ck_assert_int_eq(SSL_set1_groups_list(pair.client, groups[_i]), 1);
    ck_assert_int_eq(SSL_set1_groups_list(pair.server, groups[_i]), 1);
    ck_assert(pair_run(&pair));
    pair_free(&pair);
}
END_TEST

START_TEST(a_library_context_of_ones_own_serves_as_well)
{
    OSSL_LIB_CTX *library = OSSL_LIB_CTX_new();
    signer_provider_free(provider);
    provider_open(library);
    check_handshake(&HANDSHAKES[_i], library);
    signer_provider_free(provider);
    OSSL_LIB_CTX_free(library);
    provider_open(NULL);
    check_handshake(&HANDSHAKES[_i], NULL);
}
END_TEST

START_TEST(many_handshakes_wait_at_once)
{
    enum { MANY = 20 };
    struct pair pairs[MANY];
    struct signer_request *requests[MANY];
    for (int i = 0; i < MANY; i++) {
        pairs[i] = pair_make(server_context_make(NULL, true, true),
                             client_context_make(i % 2 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL));
        ck_assert(pair_run_to_wait(&pairs[i]));
        requests[i] = channel.pending;
        channel.pending = NULL;
    }
    for (int i = MANY - 1; i >= 0; i--) {
        request_answer(requests[i]);
        ck_assert(pair_run(&pairs[i]));
        ck_assert_int_eq(pairs[i].waits, 1);
        pair_free(&pairs[i]);
    }
}
END_TEST

START_TEST(an_event_without_an_answer_leaves_the_handshake_waiting)
{
    struct pair pair = pair_make(server_context_make(NULL, true, true),
                                 client_context_make(_i ? TLS1_2_VERSION : TLS1_3_VERSION, NULL));
    for (int i = 0; i < 5; i++)
        ck_assert(pair_run_to_wait(&pair));
    ck_assert_int_eq(channel.submitted, 1);
    channel_deliver();
    ck_assert(pair_run(&pair));
    pair_free(&pair);
}
END_TEST

static bool error_queue_says(const char *text)
{
    const char *data;
    bool found = false;
    while (ERR_get_error_all(NULL, NULL, NULL, &data, NULL) != 0)
        found = found || strstr(data, text) != NULL;
    return found;
}

/* The connection's end while it waits: its request fails, and the job is resumed once. */
START_TEST(a_cancelled_handshake_fails_and_leaks_nothing)
{
    struct pair pair =
        pair_make(server_context_make(NULL, _i & 1, true),
                  client_context_make(_i & 2 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL));
    ck_assert(pair_run_to_wait(&pair));
    signer_request_fail(channel.pending, "the connection ended");
    channel.pending = NULL;
    ck_assert_int_eq(handshake_step(pair.server, &pair.server_result), SSL_ERROR_SSL);
    ck_assert(error_queue_says("caf-signer: the connection ended"));
    ck_assert_int_eq(channel.submitted, 1);
    ck_assert_int_eq(channel.withdrawn, 0);
    pair_free(&pair);
}
END_TEST

START_TEST(a_refused_signature_ends_the_handshake)
{
    struct pair pair = pair_make(server_context_make(NULL, true, true),
                                 client_context_make(_i ? TLS1_2_VERSION : TLS1_3_VERSION, NULL));
    channel.mode = REFUSE_LATER;
    ck_assert(!pair_run(&pair));
    ck_assert(error_queue_says("caf-signer: the keeper refused"));
    ck_assert_int_eq(channel.submitted, 1);
    pair_free(&pair);
}
END_TEST

START_TEST(a_wrong_signature_is_noticed_by_the_client)
{
    struct pair pair = pair_make(server_context_make(NULL, true, false),
                                 client_context_make(_i ? TLS1_2_VERSION : TLS1_3_VERSION, NULL));
    ck_assert(pair_run_to_wait(&pair));
    signer_request_complete(channel.pending, (const uint8_t *)"nonsense", 8);
    channel.pending = NULL;
    ck_assert(!pair_run(&pair));
    ck_assert_int_ne(pair.client_result, 1);
    pair_free(&pair);
}
END_TEST

/* 257 bytes for a key of 2,048 bits, 1,025 for any. */
START_TEST(a_signature_of_excessive_length_fails)
{
    static const uint8_t bytes[TLS_SIGNATURE_SIZE_MAX + 1];
    struct pair pair = pair_make(server_context_make(NULL, false, true),
                                 client_context_make(TLS1_3_VERSION, NULL));
    ck_assert(pair_run_to_wait(&pair));
    signer_request_complete(channel.pending, bytes, _i ? sizeof(bytes) : 257);
    channel.pending = NULL;
    ck_assert(!pair_run(&pair));
    ck_assert_int_ne(pair.server_result, 1);
    pair_free(&pair);
}
END_TEST

START_TEST(nobody_waits_outside_of_a_job)
{
    struct pair pair = pair_make(server_context_make(NULL, true, true),
                                 client_context_make(_i ? TLS1_2_VERSION : TLS1_3_VERSION, NULL));
    SSL_clear_mode(pair.server, SSL_MODE_ASYNC);
    ck_assert(!pair_run(&pair));
    ck_assert(error_queue_says("outside of a job"));
    ck_assert_int_eq(channel.withdrawn, 1);
    ck_assert_ptr_null(channel.pending);
    pair_free(&pair);
}
END_TEST

static Suite *suite_make(void)
{
    Suite *suite = suite_create("signer_provider");
    TCase *handshakes = tcase_create("handshakes");
    tcase_add_unchecked_fixture(handshakes, world_make, world_free);
    tcase_set_timeout(handshakes, 60);
    tcase_add_loop_test(handshakes, a_handshake_waits_for_its_signature_and_completes, 0,
                        HANDSHAKE_COUNT);
    tcase_add_loop_test(handshakes, a_signature_that_is_there_at_once_needs_no_wait, 0,
                        HANDSHAKE_COUNT);
    tcase_add_loop_test(handshakes, every_group_that_openssl_offers_in_tls_1_2_is_signed, 0, 5);
    tcase_add_loop_test(handshakes, a_library_context_of_ones_own_serves_as_well, 0, 2);
    tcase_add_test(handshakes, many_handshakes_wait_at_once);
    tcase_add_loop_test(handshakes, an_event_without_an_answer_leaves_the_handshake_waiting, 0, 2);
    tcase_add_loop_test(handshakes, a_cancelled_handshake_fails_and_leaks_nothing, 0, 4);
    tcase_add_loop_test(handshakes, a_refused_signature_ends_the_handshake, 0, 2);
    tcase_add_loop_test(handshakes, a_wrong_signature_is_noticed_by_the_client, 0, 2);
    tcase_add_loop_test(handshakes, a_signature_of_excessive_length_fails, 0, 2);
    tcase_add_loop_test(handshakes, nobody_waits_outside_of_a_job, 0, 2);
    suite_add_tcase(suite, handshakes);
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
