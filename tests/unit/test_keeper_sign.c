/* The keeper's one operation: what it signs is right, and it signs nothing else. */
#include "frontd/keeper_sign.h"

#include <check.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTENT_MAX = 512, PREFIX_1_3 = 98, POINT_AT = 68 };

enum { V12 = 1, V13 = 2 };

struct content {
    uint8_t bytes[CONTENT_MAX];
    size_t length;
};

static EVP_PKEY *ec_key, *rsa_key;

static void keys_make(void)
{
    ec_key = EVP_EC_gen("P-256");
    rsa_key = EVP_RSA_gen(2048);
    ck_assert_ptr_nonnull(ec_key);
    ck_assert_ptr_nonnull(rsa_key);
}

static void keys_free(void)
{
    EVP_PKEY_free(ec_key);
    EVP_PKEY_free(rsa_key);
}

/* RFC 8446 4.4.3, written out apart from the code under test. */
static struct content certificate_verify(const char *who, size_t hash_length)
{
    struct content content = {.length = 0};
    memset(content.bytes, 0x20, 64);
    content.length = 64;
    int written = snprintf((char *)content.bytes + 64, CONTENT_MAX - 64,
                           "TLS 1.3, %s CertificateVerify", who);
    content.length += (size_t)written + 1;
    for (size_t i = 0; i < hash_length; i++)
        content.bytes[content.length++] = (uint8_t)(0xa0 + i);
    return content;
}

/* RFC 8422 5.4 after the two randoms of RFC 5246 7.4.3. */
static struct content key_exchange(uint16_t group, size_t point_length, uint8_t first)
{
    struct content content = {.length = POINT_AT + point_length};
    for (size_t i = 0; i < content.length; i++)
        content.bytes[i] = (uint8_t)(i * 7 + 1);
    content.bytes[64] = 3;
    content.bytes[65] = (uint8_t)(group >> 8);
    content.bytes[66] = (uint8_t)group;
    content.bytes[67] = (uint8_t)point_length;
    content.bytes[POINT_AT] = first;
    return content;
}

static bool is_signed(EVP_PKEY *key, uint16_t scheme, const struct content *content)
{
    struct tls_signature signature;
    const char *why = NULL;
    int result = keeper_sign(key, scheme, content->bytes, content->length, &signature, &why);
    ck_assert_int_eq(result == 0, signature.length > 0);
    ck_assert_int_eq(result == 0, why == NULL);
    return result == 0;
}

static bool is_refused_by_all(const struct content *content)
{
    static const uint16_t ec[] = {0x0403, 0x0503, 0x0603};
    static const uint16_t rsa[] = {0x0401, 0x0501, 0x0601, 0x0804, 0x0805, 0x0806};
    for (size_t i = 0; i < 3; i++)
        if (is_signed(ec_key, ec[i], content))
            return false;
    for (size_t i = 0; i < 6; i++)
        if (is_signed(rsa_key, rsa[i], content))
            return false;
    return true;
}

/* What each number means, from RFC 8446 4.2.3. */
static const struct expectation {
    uint16_t scheme;
    bool rsa;
    const char *digest;
    int padding, salt;
    unsigned versions;
} EXPECTATIONS[] = {
    {0x0403, false, "SHA256", 0, 0, V12 | V13},
    {0x0503, false, "SHA384", 0, 0, V12},
    {0x0603, false, "SHA512", 0, 0, V12},
    {0x0401, true, "SHA256", RSA_PKCS1_PADDING, 0, V12},
    {0x0501, true, "SHA384", RSA_PKCS1_PADDING, 0, V12},
    {0x0601, true, "SHA512", RSA_PKCS1_PADDING, 0, V12},
    {0x0804, true, "SHA256", RSA_PKCS1_PSS_PADDING, 32, V12 | V13},
    {0x0805, true, "SHA384", RSA_PKCS1_PSS_PADDING, 48, V12 | V13},
    {0x0806, true, "SHA512", RSA_PKCS1_PSS_PADDING, 64, V12 | V13},
};
enum { EXPECTATION_COUNT = sizeof(EXPECTATIONS) / sizeof(EXPECTATIONS[0]) };

static bool is_verified(const struct expectation *expected, EVP_PKEY *key,
                        const struct content *content, const struct tls_signature *signature)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    EVP_PKEY_CTX *context = NULL;
    ck_assert_int_eq(
        EVP_DigestVerifyInit_ex(digest, &context, expected->digest, NULL, NULL, key, NULL), 1);
    if (expected->padding != 0)
        ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_padding(context, expected->padding), 1);
    if (expected->salt != 0) {
        ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_pss_saltlen(context, expected->salt), 1);
        ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_mgf1_md_name(context, expected->digest, NULL), 1);
    }
    int result = EVP_DigestVerify(digest, signature->bytes, signature->length, content->bytes,
                                  content->length);
    EVP_MD_CTX_free(digest);
    return result == 1;
}

static void check_scheme(const struct expectation *expected, unsigned version,
                         struct content content)
{
    EVP_PKEY *key = expected->rsa ? rsa_key : ec_key;
    struct tls_signature signature;
    const char *why = NULL;
    int result =
        keeper_sign(key, expected->scheme, content.bytes, content.length, &signature, &why);

    if ((expected->versions & version) == 0) {
        ck_assert_int_eq(result, -1);
        ck_assert_str_eq(why, "signature scheme is not allowed in this TLS version");
        return;
    }
    ck_assert_msg(result == 0, "scheme %04x version %u: %s", expected->scheme, version, why);
    ck_assert(is_verified(expected, key, &content, &signature));
    content.bytes[content.length - 1] ^= 1;
    ck_assert(!is_verified(expected, key, &content, &signature));
}

START_TEST(every_scheme_verifies_where_allowed_and_is_refused_elsewhere)
{
    check_scheme(&EXPECTATIONS[_i], V13, certificate_verify("server", 32));
    check_scheme(&EXPECTATIONS[_i], V13, certificate_verify("server", 48));
    check_scheme(&EXPECTATIONS[_i], V12, key_exchange(29, 32, 0x99));
    check_scheme(&EXPECTATIONS[_i], V12, key_exchange(23, 65, 4));
    check_scheme(&EXPECTATIONS[_i], V12, key_exchange(24, 97, 4));
    check_scheme(&EXPECTATIONS[_i], V12, key_exchange(25, 133, 4));
    check_scheme(&EXPECTATIONS[_i], V12, key_exchange(30, 56, 0x99));
}
END_TEST

START_TEST(no_other_scheme_number_signs)
{
    struct content old = key_exchange(29, 32, 1), now = certificate_verify("server", 32);
    int accepted = 0;
    for (unsigned number = 0; number <= 0xffff; number++) {
        bool expected = false;
        for (int i = 0; i < EXPECTATION_COUNT; i++)
            expected = expected || EXPECTATIONS[i].scheme == number;
        if (expected) {
            accepted++;
            continue;
        }
        ck_assert(!is_signed(ec_key, (uint16_t)number, &old));
        ck_assert(!is_signed(rsa_key, (uint16_t)number, &old));
        ck_assert(!is_signed(ec_key, (uint16_t)number, &now));
        ck_assert(!is_signed(rsa_key, (uint16_t)number, &now));
    }
    ck_assert_int_eq(accepted, EXPECTATION_COUNT);
}
END_TEST

START_TEST(a_scheme_of_the_other_key_type_is_refused)
{
    const struct expectation *expected = &EXPECTATIONS[_i];
    struct content content = key_exchange(29, 32, 1);
    ck_assert(!is_signed(expected->rsa ? ec_key : rsa_key, expected->scheme, &content));
}
END_TEST

START_TEST(a_flipped_bit_of_the_tls_1_3_prefix_is_refused)
{
    struct content content = certificate_verify("server", 32);
    for (size_t bit = 0; bit < PREFIX_1_3 * 8; bit++) {
        content.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert(!is_signed(ec_key, 0x0403, &content));
        content.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert(is_signed(ec_key, 0x0403, &content));
}
END_TEST

/* Curve type, group and point length; the point's format byte where the group has one. */
START_TEST(a_flipped_bit_of_the_tls_1_2_frame_is_refused)
{
    static const struct {
        uint16_t group;
        size_t point_length, frame_end;
    } cases[] = {{29, 32, 68}, {23, 65, 69}, {24, 97, 69}, {25, 133, 69}, {30, 56, 68}};
    struct content content = key_exchange(cases[_i].group, cases[_i].point_length, 4);
    for (size_t bit = 64 * 8; bit < cases[_i].frame_end * 8; bit++) {
        content.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert(!is_signed(ec_key, 0x0403, &content));
        content.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert(is_signed(ec_key, 0x0403, &content));
}
END_TEST

/* Every length from nothing to the longest; the bytes beyond are arbitrary. */
static void check_lengths(struct content content, size_t good, size_t also_good)
{
    for (size_t length = 0; length <= CONTENT_MAX; length++) {
        content.length = length;
        ck_assert_msg(is_signed(ec_key, 0x0403, &content) ==
                          (length == good || length == also_good),
                      "length %zu", length);
    }
}

START_TEST(each_byte_too_few_or_too_many_is_refused)
{
    check_lengths(certificate_verify("server", 48), PREFIX_1_3 + 32, PREFIX_1_3 + 48);
    check_lengths(key_exchange(29, 32, 1), 100, 100);
    check_lengths(key_exchange(23, 65, 4), 133, 133);
    check_lengths(key_exchange(24, 97, 4), 165, 165);
    check_lengths(key_exchange(25, 133, 4), 201, 201);
    check_lengths(key_exchange(30, 56, 1), 124, 124);
}
END_TEST

START_TEST(another_side_or_protocol_is_refused)
{
    struct content client = certificate_verify("client", 32);
    struct content lower = certificate_verify("Server", 32);
    struct content resumption = certificate_verify("server, resumed", 32);
    ck_assert(is_refused_by_all(&client));
    ck_assert(is_refused_by_all(&lower));
    ck_assert(is_refused_by_all(&resumption));
}
END_TEST

START_TEST(a_digest_or_padded_block_is_refused)
{
    static const uint8_t digest_info_sha256[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60,
                                                 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
                                                 0x01, 0x05, 0x00, 0x04, 0x20};
    struct content content = {.length = 0};
    for (content.length = 0; content.length <= 64; content.length++)
        ck_assert(is_refused_by_all(&content));
    memcpy(content.bytes, digest_info_sha256, sizeof(digest_info_sha256));
    content.length = sizeof(digest_info_sha256) + 32;
    ck_assert(is_refused_by_all(&content));

    memset(content.bytes, 0xff, CONTENT_MAX); /* PKCS #1 v1.5: 00 01 ff… 00 DigestInfo */
    content.bytes[0] = 0;
    content.bytes[1] = 1;
    content.bytes[256 - 52] = 0;
    memcpy(content.bytes + 256 - 51, digest_info_sha256, sizeof(digest_info_sha256));
    content.length = 256;
    ck_assert(is_refused_by_all(&content));
}
END_TEST

START_TEST(other_key_exchanges_are_refused)
{
    static const struct {
        uint16_t group;
        uint8_t point_length, first, curve_type;
    } cases[] = {
        {23, 65, 4, 1},   /* explicit_prime */
        {23, 65, 4, 2},   /* explicit_char2 */
        {23, 33, 2, 3},   /* compressed */
        {23, 65, 6, 3},   /* hybrid */
        {23, 64, 4, 3},   /* another length */
        {29, 65, 4, 3},   /* P-256's point as x25519's */
        {22, 65, 4, 3},   /* secp256k1 */
        {21, 57, 4, 3},   /* secp224r1 */
        {256, 128, 4, 3}, /* ffdhe2048 */
        {0, 32, 4, 3},    {23 + 256, 65, 4, 3},
    };
    struct content content = key_exchange(cases[_i].group, cases[_i].point_length, cases[_i].first);
    content.bytes[64] = cases[_i].curve_type;
    ck_assert(is_refused_by_all(&content));
}
END_TEST

START_TEST(nothing_at_all_is_refused)
{
    struct tls_signature signature;
    const char *why = NULL;
    ck_assert_int_eq(keeper_sign(ec_key, 0x0403, NULL, 0, &signature, &why), -1);
    ck_assert_str_eq(why, "content is not what a TLS server signs");
}
END_TEST

static void check_key(EVP_PKEY *key, const char *expected)
{
    const char *why = NULL;
    const char *type = tls_signature_key_type(key, &why);
    ck_assert_ptr_nonnull(key);
    if (expected != NULL)
        ck_assert_str_eq(type, expected);
    else
        ck_assert_ptr_null(type);
    ck_assert_ptr_nonnull(why);
    EVP_PKEY_free(key);
}

START_TEST(only_p256_and_rsa_of_2048_bits_are_server_keys)
{
    check_key(EVP_EC_gen("P-256"), "EC");
    check_key(EVP_RSA_gen(2048), "RSA");
    check_key(EVP_RSA_gen(1024), NULL);
    check_key(EVP_EC_gen("P-384"), NULL);
    check_key(EVP_EC_gen("secp256k1"), NULL);
    check_key(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), NULL);
    check_key(EVP_PKEY_Q_keygen(NULL, NULL, "X25519"), NULL);
}
END_TEST

START_TEST(a_key_is_named_by_its_public_half)
{
    uint8_t of_private[TLS_SIGNATURE_KEY_ID_SIZE], of_public[TLS_SIGNATURE_KEY_ID_SIZE];
    uint8_t expected[SHA256_DIGEST_LENGTH], *encoded = NULL;
    int length = i2d_PUBKEY(ec_key, &encoded);
    SHA256(encoded, (size_t)length, expected);
    const uint8_t *cursor = encoded;
    EVP_PKEY *public = d2i_PUBKEY(NULL, &cursor, length);

    ck_assert_int_eq(tls_signature_key_id(ec_key, of_private), 0);
    ck_assert_int_eq(tls_signature_key_id(public, of_public), 0);
    ck_assert_mem_eq(of_private, expected, sizeof(expected));
    ck_assert_mem_eq(of_public, expected, sizeof(expected));
    EVP_PKEY_free(public);
    OPENSSL_free(encoded);
}
END_TEST

static Suite *suite_make(void)
{
    Suite *suite = suite_create("keeper_sign");
    TCase *signing = tcase_create("signing");
    tcase_add_unchecked_fixture(signing, keys_make, keys_free);
    tcase_set_timeout(signing, 60);
    tcase_add_loop_test(signing, every_scheme_verifies_where_allowed_and_is_refused_elsewhere, 0,
                        EXPECTATION_COUNT);
    tcase_add_test(signing, no_other_scheme_number_signs);
    tcase_add_loop_test(signing, a_scheme_of_the_other_key_type_is_refused, 0, EXPECTATION_COUNT);
    tcase_add_test(signing, a_flipped_bit_of_the_tls_1_3_prefix_is_refused);
    tcase_add_loop_test(signing, a_flipped_bit_of_the_tls_1_2_frame_is_refused, 0, 5);
    tcase_add_test(signing, each_byte_too_few_or_too_many_is_refused);
    tcase_add_test(signing, another_side_or_protocol_is_refused);
    tcase_add_test(signing, a_digest_or_padded_block_is_refused);
    tcase_add_loop_test(signing, other_key_exchanges_are_refused, 0, 11);
    tcase_add_test(signing, nothing_at_all_is_refused);
    tcase_add_test(signing, only_p256_and_rsa_of_2048_bits_are_server_keys);
    tcase_add_test(signing, a_key_is_named_by_its_public_half);
    suite_add_tcase(suite, signing);
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
