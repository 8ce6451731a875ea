/* What the keeper and a worker must agree on: which TLS signatures exist, which server keys are
 * accepted, and how a key is named between them. */
#ifndef CAF_FRONTD_TLS_SIGNATURE_H
#define CAF_FRONTD_TLS_SIGNATURE_H

#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a key's name: SHA-256 of its DER SubjectPublicKeyInfo (RFC 5280 4.1). */
#define TLS_SIGNATURE_KEY_ID_SIZE 32

/* Room for any signature: that of the longest RSA key accepted. */
#define TLS_SIGNATURE_SIZE_MAX 1024

/* A signature: DER for ECDSA and a plain octet string for RSA, as TLS carries them. */
struct tls_signature {
    uint8_t bytes[TLS_SIGNATURE_SIZE_MAX];
    size_t length;
};

/* Protocol versions, as bits. */
enum tls_signature_version {
    TLS_SIGNATURE_IN_1_2 = 1,
    TLS_SIGNATURE_IN_1_3 = 2,
};

/* One SignatureScheme (RFC 8446 4.2.3). In TLS 1.2 an ECDSA number names the digest only, whatever
 * the curve (RFC 8446 4.2.3, end), and rsa_pkcs1 is allowed; in TLS 1.3 neither is so. */
struct tls_signature_scheme {
    uint16_t number;
    const char *name;
    const char *key_type; /* "EC" or "RSA", as EVP_PKEY_is_a() takes it */
    const char *digest;   /* as EVP_MD_is_a() takes it */
    int padding;          /* RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING; 0 for ECDSA */
    unsigned versions;    /* bits of enum tls_signature_version */
};

/* The entry with this SignatureScheme number, or NULL when it is not supported. Static storage. */
const struct tls_signature_scheme *tls_signature_find_scheme(uint16_t number);

/* The entry that signs with this key type ("EC", "RSA"), digest and padding (as in the struct), or
 * NULL when there is none. Static storage. */
const struct tls_signature_scheme *tls_signature_find(const char *key_type, const EVP_MD *digest,
                                                      int padding);

/* The key type of an accepted server key, "EC" (P-256 only) or "RSA" (2,048 to 8,192 bits), static
 * storage; or NULL, and then *why says what is wrong with the key, static text. */
const char *tls_signature_key_type(const EVP_PKEY *key, const char **why);

/* Writes the name of the key that this public or private key belongs to. Returns 0, or -1 when
 * OpenSSL cannot encode it. */
int tls_signature_key_id(const EVP_PKEY *key, uint8_t id[TLS_SIGNATURE_KEY_ID_SIZE]);

#endif
