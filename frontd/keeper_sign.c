/* Role: turns the content of a TLS server's handshake signature into that signature. It checks the
 * content's whole shape, and hashes and pads itself: whoever may ask gets no signature over bytes
 * of their choice, so that the keeper is no oracle for certificates, tokens or other protocols.
 * Touches: the private key that it is given, for the length of one call.
 * Never touches: sockets, files, any other key.
 * Talks to: OpenSSL only. */
#include "frontd/keeper_sign.h"

#include <openssl/rsa.h>
#include <stdbool.h>
#include <string.h>

/* RFC 8446 4.4.3: 64 spaces, the context string, and one zero byte: the literal's terminator. */
#define SPACES_16 "                "
static const char CERTIFICATE_VERIFY[] =
    SPACES_16 SPACES_16 SPACES_16 SPACES_16 "TLS 1.3, server CertificateVerify";

/* Offsets in client_random, server_random, ServerECDHParams (RFC 5246 7.4.3, RFC 8422 5.4). */
enum {
    CURVE_TYPE_AT = 64,
    GROUP_AT = 65,
    POINT_LENGTH_AT = 67,
    POINT_AT = 68,
    CURVE_TYPE_NAMED = 3,
    POINT_UNCOMPRESSED = 4,
};

struct group {
    unsigned number; /* NamedGroup, RFC 8446 4.2.7 */
    size_t point_length;
    bool uncompressed; /* the point begins with the byte POINT_UNCOMPRESSED */
};

static const struct group GROUPS[] = {
    {29, 32, false}, /* x25519 */
    {23, 65, true},  /* secp256r1 */
    {24, 97, true},  /* secp384r1 */
    {25, 133, true}, /* secp521r1 */
    {30, 56, false}, /* x448 */
};

static const struct group *group_find(unsigned number)
{
    for (size_t i = 0; i < sizeof(GROUPS) / sizeof(GROUPS[0]); i++)
        if (GROUPS[i].number == number)
            return &GROUPS[i];
    return NULL;
}

static bool content_is_certificate_verify(const uint8_t *content, size_t length)
{
    size_t prefix = sizeof(CERTIFICATE_VERIFY);
    bool length_fits = length == prefix + 32 || length == prefix + 48; /* SHA-256, SHA-384 */
    return length_fits && memcmp(content, CERTIFICATE_VERIFY, prefix) == 0;
}

static bool content_is_key_exchange(const uint8_t *content, size_t length)
{
    if (length <= POINT_AT || content[CURVE_TYPE_AT] != CURVE_TYPE_NAMED)
        return false;
    unsigned number = (unsigned)content[GROUP_AT] << 8 | content[GROUP_AT + 1];
    const struct group *group = group_find(number);
    if (group == NULL || content[POINT_LENGTH_AT] != group->point_length ||
        length != POINT_AT + group->point_length)
        return false;
    return !group->uncompressed || content[POINT_AT] == POINT_UNCOMPRESSED;
}

/* The version whose handshake signs such content, or 0. The shapes exclude one another: where the
 * curve type stands in 1.2, 1.3 has the first letter of its context string. */
static unsigned content_find_version(const uint8_t *content, size_t length)
{
    if (content_is_certificate_verify(content, length))
        return TLS_SIGNATURE_IN_1_3;
    if (content_is_key_exchange(content, length))
        return TLS_SIGNATURE_IN_1_2;
    return 0;
}

static bool context_set_padding(EVP_PKEY_CTX *context, int padding)
{
    if (padding == 0)
        return true;
    if (EVP_PKEY_CTX_set_rsa_padding(context, padding) <= 0)
        return false;
    return padding != RSA_PKCS1_PSS_PADDING ||
           EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST) > 0;
}

static bool content_sign(EVP_PKEY *key, const struct tls_signature_scheme *scheme,
                         const uint8_t *content, size_t content_length,
                         struct tls_signature *signature)
{
    EVP_PKEY_CTX *context = NULL; /* belongs to digest */
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    size_t length = sizeof(signature->bytes);
    bool done =
        digest != NULL &&
        EVP_DigestSignInit_ex(digest, &context, scheme->digest, NULL, NULL, key, NULL) == 1 &&
        context_set_padding(context, scheme->padding) &&
        EVP_DigestSign(digest, signature->bytes, &length, content, content_length) == 1;
    EVP_MD_CTX_free(digest);
    signature->length = done ? length : 0;
    return done;
}

int keeper_sign(EVP_PKEY *key, uint16_t number, const uint8_t *content, size_t content_length,
                struct tls_signature *signature, const char **why)
{
    const struct tls_signature_scheme *scheme = tls_signature_find_scheme(number);
    unsigned version = content_find_version(content, content_length);

    signature->length = 0;
    if (scheme == NULL)
        *why = "unknown signature scheme";
    else if (version == 0)
        *why = "content is not what a TLS server signs";
    else if ((scheme->versions & version) == 0)
        *why = "signature scheme is not allowed in this TLS version";
    else if (!EVP_PKEY_is_a(key, scheme->key_type))
        *why = "signature scheme does not belong to this key";
    else if (!content_sign(key, scheme, content, content_length, signature))
        *why = "signing failed";
    else
        return 0;
    return -1;
}
