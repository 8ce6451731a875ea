/* Whole TLS handshakes in memory, mutually authenticated, whose server has no private key: every
 * signature is asked of a stand-in for the channel that answers by the keeper's own keeper_sign().
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* the old interfaces give out no key either */
#include "frontd/keeper_sign.h"
#include "frontd/signer_provider.h"
#include "tests/unit/tls_pair.h"

#include <openssl/core_names.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <stdio.h>
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

/* ---- the key itself -------------------------------------------------------------------------- */

static EVP_PKEY *key_make(int identity)
{
    const char *why = NULL;
    EVP_PKEY *key =
        signer_provider_make_key(provider, server_identities[identity].certificate, &why);
    ck_assert_msg(key != NULL, "%s", why);
    return key;
}

START_TEST(the_key_is_its_certificates_and_no_other)
{
    EVP_PKEY *key = key_make(_i);
    X509 *own = server_identities[_i].certificate;
    X509 *foreign = server_identities[1 - _i].certificate;
    ck_assert_int_eq(X509_check_private_key(own, key), 1);
    ck_assert_int_eq(X509_check_private_key(foreign, key), 0);
    ck_assert_int_eq(EVP_PKEY_eq(key, server_identities[_i].key), 1);
    ck_assert_int_eq(EVP_PKEY_eq(server_identities[_i].key, key), 1);

    EVP_PKEY_free(key);
}
END_TEST

static const char *const PRIVATE_PARAMETERS[] = {
    OSSL_PKEY_PARAM_PRIV_KEY,         OSSL_PKEY_PARAM_RSA_D,         OSSL_PKEY_PARAM_RSA_FACTOR1,
    OSSL_PKEY_PARAM_RSA_FACTOR2,      OSSL_PKEY_PARAM_RSA_EXPONENT1, OSSL_PKEY_PARAM_RSA_EXPONENT2,
    OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
};

START_TEST(two_keys_are_equal_when_their_public_halves_are)
{
    EVP_PKEY *key = key_make(_i), *same = key_make(_i);
    EVP_PKEY *generated = _i == EC ? EVP_EC_gen("P-256") : EVP_RSA_gen(2048);
    X509 *certificate = certificate_make(generated, generated);
    const char *why = NULL;
    EVP_PKEY *other = signer_provider_make_key(provider, certificate, &why);
    ck_assert_int_eq(EVP_PKEY_eq(key, same), 1);
    ck_assert_int_eq(EVP_PKEY_eq(key, other), 0);
    EVP_PKEY_free(key);
    EVP_PKEY_free(same);
    EVP_PKEY_free(other);
    EVP_PKEY_free(generated);
    X509_free(certificate);
}
END_TEST

START_TEST(a_certificate_of_the_same_kind_but_of_another_key_is_refused)
{
    EVP_PKEY *key = key_make(_i);
    EVP_PKEY *other = _i == EC ? EVP_EC_gen("P-256") : EVP_RSA_gen(2048);
    X509 *certificate = certificate_make(other, other);
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    ck_assert_int_eq(SSL_CTX_use_certificate(context, certificate), 1);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey(context, key), 0);
    SSL_CTX_free(context);
    X509_free(certificate);
    EVP_PKEY_free(other);
    EVP_PKEY_free(key);
}
END_TEST

START_TEST(nothing_gives_out_a_private_key)
{
    EVP_PKEY *key = key_make(_i);
    OSSL_PARAM *parameters = NULL;
    unsigned char *encoded = NULL, raw[512];
    size_t raw_length = sizeof(raw);
    BIO *out = BIO_new(BIO_s_mem());

    ck_assert_int_eq(EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &parameters), 0);
    ck_assert_int_eq(EVP_PKEY_todata(key, OSSL_KEYMGMT_SELECT_PRIVATE_KEY, &parameters), 0);
    ck_assert_int_le(i2d_PrivateKey(key, &encoded), 0);
    ck_assert_int_eq(PEM_write_bio_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL), 0);
    ck_assert_int_eq(PEM_write_bio_PrivateKey_traditional(out, key, NULL, NULL, 0, NULL, NULL), 0);
    ck_assert_ptr_null(EVP_PKEY2PKCS8(key));
    ck_assert_int_ne(EVP_PKEY_get_raw_private_key(key, raw, &raw_length), 1);
    ck_assert_ptr_null(EVP_PKEY_get1_EC_KEY(key));
    ck_assert_ptr_null(EVP_PKEY_get1_RSA(key));
    for (size_t i = 0; i < sizeof(PRIVATE_PARAMETERS) / sizeof(PRIVATE_PARAMETERS[0]); i++) {
        BIGNUM *number = NULL;
        ck_assert_int_eq(EVP_PKEY_get_bn_param(key, PRIVATE_PARAMETERS[i], &number), 0);
    }
    ck_assert_int_gt(i2d_PUBKEY(key, &encoded), 0);
    ck_assert_int_eq(EVP_PKEY_todata(key, EVP_PKEY_PUBLIC_KEY, &parameters), 1);
    OSSL_PARAM_free(parameters);
    OPENSSL_free(encoded);
    BIO_free(out);
    EVP_PKEY_free(key);
}
END_TEST

/* The interfaces by which a digest or a padded block could be handed over. */
START_TEST(nothing_but_whole_content_can_be_signed)
{
    EVP_PKEY *key = key_make(_i);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    EVP_MD_CTX *digest = EVP_MD_CTX_new();

    ck_assert_int_ne(EVP_PKEY_sign_init(context), 1);
    ck_assert_int_ne(EVP_PKEY_decrypt_init(context), 1);
    ck_assert_int_ne(EVP_PKEY_derive_init(context), 1);
    ck_assert_int_eq(EVP_DigestSignInit_ex(digest, NULL, "SHA256", NULL, NULL, key, NULL), 1);
    ck_assert_int_ne(EVP_DigestSignUpdate(digest, "a", 1), 1);
    ck_assert_int_eq(channel.submitted, 0);
    EVP_MD_CTX_free(digest);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(key);
}
END_TEST

static bool is_submitted(EVP_PKEY *key, const char *digest_name, int padding, int salt_length)
{
    unsigned char signature[TLS_SIGNATURE_SIZE_MAX];
    size_t length = sizeof(signature);
    EVP_PKEY_CTX *context = NULL;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    channel.submitted = 0;
    bool ready = EVP_DigestSignInit_ex(digest, &context, digest_name, NULL, NULL, key, NULL) == 1 &&
                 (padding == 0 || EVP_PKEY_CTX_set_rsa_padding(context, padding) == 1) &&
                 (salt_length == 0 || EVP_PKEY_CTX_set_rsa_pss_saltlen(context, salt_length) == 1);
    if (ready)
        EVP_DigestSign(digest, signature, &length, (const uint8_t *)"content", 7);
    EVP_MD_CTX_free(digest);
    return channel.submitted == 1;
}

START_TEST(what_is_no_tls_scheme_is_not_even_asked_for)
{
    EVP_PKEY *ec = key_make(EC), *rsa = key_make(RSA_2048);
    channel.mode = REFUSE_LATER;
    ck_assert(is_submitted(ec, "SHA256", 0, 0));
    ck_assert(is_submitted(rsa, "SHA256", 0, 0));
    ck_assert(is_submitted(rsa, "SHA256", RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST));
    ck_assert(!is_submitted(ec, "SHA1", 0, 0));
    ck_assert(!is_submitted(ec, "SHA224", 0, 0));
    ck_assert(!is_submitted(rsa, "SHA1", 0, 0));
    ck_assert(!is_submitted(rsa, "SHA256", RSA_NO_PADDING, 0));
    ck_assert(!is_submitted(rsa, "SHA256", RSA_X931_PADDING, 0));
    ck_assert(!is_submitted(rsa, "SHA256", RSA_PKCS1_PSS_PADDING, 0));
    ck_assert(!is_submitted(rsa, "SHA256", RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_MAX));
    ck_assert(!is_submitted(rsa, "SHA256", RSA_PKCS1_PSS_PADDING, 20));
    EVP_PKEY_free(ec);
    EVP_PKEY_free(rsa);
}
END_TEST

/* Both parameters may come as numbers too (provider-signature(7)). */
static int parameters_set(int padding, int salt_length, const char *mask_digest)
{
    EVP_PKEY *key = key_make(RSA_2048);
    EVP_PKEY_CTX *context = NULL;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    char mask[16];
    snprintf(mask, sizeof(mask), "%s", mask_digest ? mask_digest : "");
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PAD_MODE, &padding),
        OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, &salt_length),
        mask_digest ? OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, mask, 0)
                    : OSSL_PARAM_construct_end(),
        OSSL_PARAM_construct_end(),
    };
    ck_assert_int_eq(EVP_DigestSignInit_ex(digest, &context, "SHA256", NULL, NULL, key, NULL), 1);
    int result = EVP_PKEY_CTX_set_params(context, parameters);
    EVP_MD_CTX_free(digest);
    EVP_PKEY_free(key);
    return result;
}

START_TEST(only_what_tls_sets_can_be_set)
{
    ck_assert_int_eq(parameters_set(RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST, NULL), 1);
    ck_assert_int_eq(parameters_set(RSA_PKCS1_PSS_PADDING, 20, NULL), 0);
    ck_assert_int_eq(parameters_set(RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_MAX, NULL), 0);
    ck_assert_int_eq(parameters_set(RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST, "SHA1"), 0);
}
END_TEST

START_TEST(ordinary_keys_stay_with_the_default_provider)
{
    const EVP_PKEY *peer = X509_get0_pubkey(server_identities[_i].certificate);
    EVP_PKEY *made = _i == EC ? EVP_EC_gen("P-256") : EVP_RSA_gen(2048);
    ck_assert_str_eq(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(peer)), "default");
    ck_assert_str_eq(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(made)), "default");
    X509 *certificate = certificate_make(made, made);
    ck_assert_int_eq(X509_verify(certificate, made), 1);
    X509_free(certificate);
    EVP_PKEY_free(made);
}
END_TEST

START_TEST(a_certificate_with_another_kind_of_key_gets_none)
{
    EVP_PKEY *subject = _i == 0   ? EVP_EC_gen("P-384")
                        : _i == 1 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
                                  : EVP_RSA_gen(1024);
    X509 *certificate = certificate_make(server_identities[EC].key, subject);
    const char *why = NULL;
    ck_assert_ptr_null(signer_provider_make_key(provider, certificate, &why));
    ck_assert_ptr_nonnull(why);
    X509_free(certificate);
    EVP_PKEY_free(subject);
}
END_TEST

static TCase *handshakes_make(void)
{
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
    return handshakes;
}

static TCase *keys_make(void)
{
    TCase *keys = tcase_create("keys");
    tcase_add_unchecked_fixture(keys, world_make, world_free);
    tcase_set_timeout(keys, 60);
    tcase_add_loop_test(keys, the_key_is_its_certificates_and_no_other, 0, SERVER_KEYS);
    tcase_add_loop_test(keys, two_keys_are_equal_when_their_public_halves_are, 0, SERVER_KEYS);
    tcase_add_loop_test(keys, a_certificate_of_the_same_kind_but_of_another_key_is_refused, 0,
                        SERVER_KEYS);
    tcase_add_loop_test(keys, nothing_gives_out_a_private_key, 0, SERVER_KEYS);
    tcase_add_loop_test(keys, nothing_but_whole_content_can_be_signed, 0, SERVER_KEYS);
    tcase_add_test(keys, what_is_no_tls_scheme_is_not_even_asked_for);
    tcase_add_test(keys, only_what_tls_sets_can_be_set);
    tcase_add_loop_test(keys, ordinary_keys_stay_with_the_default_provider, 0, SERVER_KEYS);
    tcase_add_loop_test(keys, a_certificate_with_another_kind_of_key_gets_none, 0, 3);
    return keys;
}

int main(void)
{
    Suite *suite = suite_create("signer_provider");
    suite_add_tcase(suite, handshakes_make());
    suite_add_tcase(suite, keys_make());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
