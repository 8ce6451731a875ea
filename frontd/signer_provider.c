/* Role: loads the OpenSSL provider "caf-signer" into a worker, and makes keys of it: keys with
 * which OpenSSL runs TLS handshakes although the private key is in another process.
 * Touches: one OpenSSL library context; certificates' public keys.
 * Never touches: private keys (there are none here), sockets, files.
 * Talks to: OpenSSL, and the submitter that it was given. */
#include "frontd/signer_provider.h"

#include "frontd/signer_algorithms.h"

#include <openssl/core_dispatch.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <stdbool.h>

static const OSSL_ALGORITHM KEY_ALGORITHMS[] = {
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", SIGNER_PROPERTY, SIGNER_KEY_FUNCTIONS, NULL},
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", SIGNER_PROPERTY, SIGNER_KEY_FUNCTIONS, NULL},
    {NULL, NULL, NULL, NULL},
};

static const OSSL_ALGORITHM SIGNATURE_ALGORITHMS[] = {
    {SIGNER_SIGNATURE_NAME, SIGNER_PROPERTY, SIGNER_SIGNATURE_FUNCTIONS, NULL},
    {NULL, NULL, NULL, NULL},
};

static const OSSL_ALGORITHM *provider_query(void *context, int operation, int *no_cache)
{
    (void)context;
    *no_cache = 0;
    if (operation == OSSL_OP_KEYMGMT)
        return KEY_ALGORITHMS;
    return operation == OSSL_OP_SIGNATURE ? SIGNATURE_ALGORITHMS : NULL;
}

static void provider_teardown(void *context)
{
    OPENSSL_free(context);
}

static const OSSL_DISPATCH PROVIDER_FUNCTIONS[] = {
    SIGNER_DISPATCH(OSSL_FUNC_PROVIDER_QUERY_OPERATION, provider_query),
    SIGNER_DISPATCH(OSSL_FUNC_PROVIDER_TEARDOWN, provider_teardown),
    {0, NULL},
};

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *core,
                         const OSSL_DISPATCH **functions, void **context)
{
    (void)handle;
    (void)core;
    *functions = PROVIDER_FUNCTIONS;
    *context = OPENSSL_zalloc(sizeof(struct signer_context));
    return *context != NULL;
}

static bool provider_start(struct signer_provider *provider)
{
    provider->base = OSSL_PROVIDER_load(provider->library, "default");
    if (provider->base == NULL ||
        !EVP_set_default_properties(provider->library, "?" SIGNER_BASE_PROPERTY) ||
        !OSSL_PROVIDER_add_builtin(provider->library, SIGNER_PROVIDER_NAME, provider_init))
        return false;
    provider->own = OSSL_PROVIDER_load(provider->library, SIGNER_PROVIDER_NAME);
    if (provider->own == NULL)
        return false;
    struct signer_context *context = OSSL_PROVIDER_get0_provider_ctx(provider->own);
    context->signer = provider;
    return true;
}

struct signer_provider *signer_provider_load(OSSL_LIB_CTX *library,
                                             const struct signer_submitter *submitter)
{
    struct signer_provider *provider = OPENSSL_zalloc(sizeof(*provider));
    if (provider == NULL)
        return NULL;
    provider->library = library;
    provider->submitter = *submitter;
    if (!provider_start(provider)) {
        signer_provider_free(provider);
        return NULL;
    }
    return provider;
}

void signer_provider_free(struct signer_provider *provider)
{
    if (provider == NULL)
        return;
    if (provider->own != NULL)
        OSSL_PROVIDER_unload(provider->own);
    if (provider->base != NULL)
        OSSL_PROVIDER_unload(provider->base);
    OPENSSL_free(provider);
}

static EVP_PKEY *key_make(const struct signer_provider *provider, const char *type,
                          unsigned char *encoded, size_t length)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(SIGNER_KEY_PARAMETER, encoded, length),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(provider->library, type, SIGNER_PROPERTY);
    if (context != NULL && EVP_PKEY_fromdata_init(context) == 1)
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, parameters);
    EVP_PKEY_CTX_free(context);
    return key;
}

EVP_PKEY *signer_provider_make_key(const struct signer_provider *provider, const X509 *certificate,
                                   const char **why)
{
    const EVP_PKEY *public = X509_get0_pubkey(certificate);
    unsigned char *encoded = NULL;
    const char *type;

    *why = "the certificate's public key cannot be read";
    if (public == NULL || (type = tls_signature_key_type(public, why)) == NULL)
        return NULL;
    *why = "OpenSSL cannot make a key of the certificate's public key";
    int length = i2d_PUBKEY(public, &encoded);
    if (length <= 0)
        return NULL;
    EVP_PKEY *key = key_make(provider, type, encoded, (size_t)length);
    OPENSSL_free(encoded);
    return key;
}
