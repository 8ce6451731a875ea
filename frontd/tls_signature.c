/* Role: the table of TLS signature schemes, the rule which server keys are accepted, and a key's
 * name. Linked into the keeper and into the workers, so that both mean the same.
 * Touches: public properties of the keys that it is given.
 * Never touches: private key material, sockets, files.
 * Talks to: nobody. */
#include "frontd/tls_signature.h"

#include <openssl/core_names.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <string.h>

#define IN_BOTH (TLS_SIGNATURE_IN_1_2 | TLS_SIGNATURE_IN_1_3)

static const struct tls_signature_scheme SCHEMES[] = {
    {0x0403, "ecdsa_secp256r1_sha256", "EC", "SHA256", 0, IN_BOTH},
    {0x0503, "ecdsa_sha384", "EC", "SHA384", 0, TLS_SIGNATURE_IN_1_2},
    {0x0603, "ecdsa_sha512", "EC", "SHA512", 0, TLS_SIGNATURE_IN_1_2},
    {0x0804, "rsa_pss_rsae_sha256", "RSA", "SHA256", RSA_PKCS1_PSS_PADDING, IN_BOTH},
    {0x0805, "rsa_pss_rsae_sha384", "RSA", "SHA384", RSA_PKCS1_PSS_PADDING, IN_BOTH},
    {0x0806, "rsa_pss_rsae_sha512", "RSA", "SHA512", RSA_PKCS1_PSS_PADDING, IN_BOTH},
    {0x0401, "rsa_pkcs1_sha256", "RSA", "SHA256", RSA_PKCS1_PADDING, TLS_SIGNATURE_IN_1_2},
    {0x0501, "rsa_pkcs1_sha384", "RSA", "SHA384", RSA_PKCS1_PADDING, TLS_SIGNATURE_IN_1_2},
    {0x0601, "rsa_pkcs1_sha512", "RSA", "SHA512", RSA_PKCS1_PADDING, TLS_SIGNATURE_IN_1_2},
};
#define SCHEME_COUNT (sizeof(SCHEMES) / sizeof(SCHEMES[0]))

const struct tls_signature_scheme *tls_signature_find_scheme(uint16_t number)
{
    for (size_t i = 0; i < SCHEME_COUNT; i++)
        if (SCHEMES[i].number == number)
            return &SCHEMES[i];
    return NULL;
}

const struct tls_signature_scheme *tls_signature_find(const char *key_type, const EVP_MD *digest,
                                                      int padding)
{
    for (size_t i = 0; i < SCHEME_COUNT; i++) {
        const struct tls_signature_scheme *entry = &SCHEMES[i];
        if (strcmp(entry->key_type, key_type) == 0 && entry->padding == padding &&
            EVP_MD_is_a(digest, entry->digest))
            return entry;
    }
    return NULL;
}

static bool key_is_p256(const EVP_PKEY *key)
{
    char group[32];
    return EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof(group),
                                          NULL) &&
           strcmp(group, SN_X9_62_prime256v1) == 0;
}

const char *tls_signature_key_type(const EVP_PKEY *key, const char **why)
{
    if (EVP_PKEY_is_a(key, "EC")) {
        *why = "an EC server key must be on P-256";
        return key_is_p256(key) ? "EC" : NULL;
    }
    if (EVP_PKEY_is_a(key, "RSA")) {
        *why = "an RSA server key must have 2048 to 8192 bits";
        int bits = EVP_PKEY_get_bits(key);
        return bits >= 2048 && bits <= 8 * TLS_SIGNATURE_SIZE_MAX ? "RSA" : NULL;
    }
    *why = "a server key must be ECDSA P-256 or RSA";
    return NULL;
}

int tls_signature_key_id(const EVP_PKEY *key, uint8_t id[TLS_SIGNATURE_KEY_ID_SIZE])
{
    unsigned char *encoded = NULL;
    int length = i2d_PUBKEY(key, &encoded);
    if (length <= 0)
        return -1;
    SHA256(encoded, (size_t)length, id);
    OPENSSL_free(encoded);
    return 0;
}
