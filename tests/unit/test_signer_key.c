/* A key of the "caf-signer" provider, apart from any handshake: what it is equal to, what can be
 * done with it, and that nothing gets out of it what is not in it. */
#define OPENSSL_SUPPRESS_DEPRECATED /* the old interfaces give out no key either */
#include "frontd/signer_provider.h"
#include "tests/unit/tls_pair.h"

#include <openssl/core_names.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EC, RSA_2048, SERVER_KEYS };

static struct identity server_identities[SERVER_KEYS];
static struct signer_provider *provider;
static int submitted;

static void submission_refuse(struct signer_request *request, void *context)
{
    (void)context;
    submitted++;
    signer_request_fail(request, "refused");
}

static void world_make(void)
{
    const struct signer_submitter submitter = {.submit = submission_refuse};
    server_identities[EC] = identity_make(EVP_EC_gen("P-256"));
    server_identities[RSA_2048] = identity_make(EVP_RSA_gen(2048));
    provider = signer_provider_load(NULL, &submitter);
    ck_assert_ptr_nonnull(provider);
}

static void world_free(void)
{
    for (int i = 0; i < SERVER_KEYS; i++)
        identity_free(&server_identities[i]);
    signer_provider_free(provider);
}

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
    ck_assert_int_eq(submitted, 0);
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
    submitted = 0;
    bool ready = EVP_DigestSignInit_ex(digest, &context, digest_name, NULL, NULL, key, NULL) == 1 &&
                 (padding == 0 || EVP_PKEY_CTX_set_rsa_padding(context, padding) == 1) &&
                 (salt_length == 0 || EVP_PKEY_CTX_set_rsa_pss_saltlen(context, salt_length) == 1);
    if (ready)
        EVP_DigestSign(digest, signature, &length, (const uint8_t *)"content", 7);
    EVP_MD_CTX_free(digest);
    return submitted == 1;
}

START_TEST(what_is_no_tls_scheme_is_not_even_asked_for)
{
    EVP_PKEY *ec = key_make(EC), *rsa = key_make(RSA_2048);
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

static Suite *suite_make(void)
{
    Suite *suite = suite_create("signer_key");
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
    suite_add_tcase(suite, keys);
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
