/* An OpenSSL 3 provider, "caf-signer", inside the worker: private keys that are not here. It gives
 * an EVP_PKEY which has a certificate's public key and which signs by asking a submitter for the
 * TLS signature, inside the handshake's asynchronous job. Whoever drives handshakes with such keys
 * uses frontd/signer_client.h. */
#ifndef CAF_FRONTD_SIGNER_PROVIDER_H
#define CAF_FRONTD_SIGNER_PROVIDER_H

#include "frontd/signer_request.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

struct signer_provider;

/* Loads the provider, and OpenSSL's "default", into a library context (NULL: OpenSSL's own), at
 * most once each, and makes "default" preferred there for whatever does not ask for this provider.
 * The submitter is copied. Returns NULL when OpenSSL refuses; its error queue says why. */
struct signer_provider *signer_provider_load(OSSL_LIB_CTX *library,
                                             const struct signer_submitter *submitter);

/* Unloads the provider. All its keys and their SSL_CTXs must have been freed. NULL is allowed. */
void signer_provider_free(struct signer_provider *provider);

/* A key for this certificate, to give to SSL_CTX_use_PrivateKey(); the caller frees it
 * (EVP_PKEY_free). NULL when the certificate's key is not an accepted one (tls_signature_key_type)
 * or OpenSSL fails; *why is then a static text. */
EVP_PKEY *signer_provider_make_key(const struct signer_provider *provider, const X509 *certificate,
                                   const char **why);

#endif
