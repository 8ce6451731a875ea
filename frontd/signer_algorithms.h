/* What the parts of the "caf-signer" provider share among themselves; nobody else includes this. */
#ifndef CAF_FRONTD_SIGNER_ALGORITHMS_H
#define CAF_FRONTD_SIGNER_ALGORITHMS_H

#include "frontd/signer_request.h"
#include "frontd/tls_signature.h"

#include <openssl/core.h>
#include <openssl/evp.h>
#include <stdint.h>

#define SIGNER_PROVIDER_NAME "caf-signer"
#define SIGNER_PROPERTY      "provider=caf-signer"
#define SIGNER_BASE_PROPERTY "provider=default" /* where all but the private operation is done */

/* The one signature algorithm. No other provider has this name, so that OpenSSL never tries to move
 * a key to another provider in order to sign, and never takes this one for another's key. */
#define SIGNER_SIGNATURE_NAME "CAF-SIGNER"

/* The only parameter from which a key is made: a DER SubjectPublicKeyInfo. */
#define SIGNER_KEY_PARAMETER "caf-public-key"

struct signer_provider {
    OSSL_LIB_CTX *library;
    OSSL_PROVIDER *base;
    OSSL_PROVIDER *own;
    struct signer_submitter submitter;
};

/* What OpenSSL passes to the algorithms. signer is set as soon as the provider is loaded. */
struct signer_context {
    const struct signer_provider *signer;
};

/* A key of this provider: the public half and its name. */
struct signer_key {
    const struct signer_provider *signer;
    EVP_PKEY *public; /* of the default provider */
    const char *type; /* static, as tls_signature_key_type() says it */
    uint8_t id[TLS_SIGNATURE_KEY_ID_SIZE];
};

/* A row of a dispatch table (provider-keymgmt(7), provider-signature(7)). */
#define SIGNER_DISPATCH(number, function)                                                          \
    {                                                                                              \
        number, (void (*)(void))(function)                                                         \
    }

/* Key management, and the signature algorithm. */
extern const OSSL_DISPATCH SIGNER_KEY_FUNCTIONS[];
extern const OSSL_DISPATCH SIGNER_SIGNATURE_FUNCTIONS[];

#endif
