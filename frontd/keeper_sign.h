/* The one thing that the keeper does with a private key: a server's TLS handshake signature. */
#ifndef CAF_FRONTD_KEEPER_SIGN_H
#define CAF_FRONTD_KEEPER_SIGN_H

#include "frontd/tls_signature.h"

#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

/* Signs what a TLS server signs in a handshake, and nothing else.
 *
 * key: a key that tls_signature_key_type() accepts; stays the caller's. scheme: a SignatureScheme
 * number. content: what is to be signed, not a digest of it; one of
 *   - the content of a TLS 1.3 server's CertificateVerify (RFC 8446 4.4.3),
 *   - a TLS 1.2 server's client_random, server_random and ECDHE parameters (RFC 8422 5.4).
 *
 * Returns 0 with the signature written. Returns -1 when the content's shape is neither, when the
 * scheme is unknown, not allowed in that version or not one of the key's, or when OpenSSL fails;
 * *why is then a static text and the signature's length 0. */
int keeper_sign(EVP_PKEY *key, uint16_t scheme, const uint8_t *content, size_t content_length,
                struct tls_signature *signature, const char **why);

#endif
