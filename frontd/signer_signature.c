/* Role: the signature algorithm of the "caf-signer" provider: one-shot signing that hands over the
 * whole content. There is no way to sign a digest here.
 * Touches: what is to be signed, and the handshake's asynchronous job, which waits.
 * Never touches: private keys (there are none here), sockets, files.
 * Talks to: OpenSSL, and the submitter of the provider. */
#include "frontd/signer_algorithms.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <stdbool.h>
#include <string.h>

struct signature_context {
    const struct signer_key *key; /* OpenSSL keeps it alive */
    EVP_MD *digest;
    int padding;      /* as in struct tls_signature_scheme */
    bool salt_is_set; /* to the digest's length, as RFC 8446 4.2.3 asks */
};

static void error_raise(const char *why)
{
    ERR_raise_data(ERR_LIB_USER, ERR_R_OPERATION_FAIL, "%s: %s", SIGNER_PROVIDER_NAME, why);
}

static void *signature_new(void *context, const char *properties)
{
    (void)context;
    (void)properties;
    return OPENSSL_zalloc(sizeof(struct signature_context));
}

static void signature_free(void *data)
{
    struct signature_context *signature = data;
    if (signature != NULL)
        EVP_MD_free(signature->digest);
    OPENSSL_free(signature);
}

static bool padding_parse(const OSSL_PARAM *parameter, int *padding)
{
    if (parameter->data_type != OSSL_PARAM_UTF8_STRING)
        return OSSL_PARAM_get_int(parameter, padding);
    if (strcmp(parameter->data, OSSL_PKEY_RSA_PAD_MODE_PSS) == 0)
        *padding = RSA_PKCS1_PSS_PADDING;
    else if (strcmp(parameter->data, OSSL_PKEY_RSA_PAD_MODE_PKCSV15) == 0)
        *padding = RSA_PKCS1_PADDING;
    else
        return false;
    return true;
}

static bool salt_parse(const OSSL_PARAM *parameter)
{
    int length;
    if (parameter->data_type == OSSL_PARAM_UTF8_STRING)
        return strcmp(parameter->data, OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST) == 0;
    return OSSL_PARAM_get_int(parameter, &length) && length == RSA_PSS_SALTLEN_DIGEST;
}

/* Takes padding and salt length, which are all that TLS sets; anything else (another mask digest,
 * say) would be signed otherwise than asked, and is refused. */
static int signature_set_parameters(void *data, const OSSL_PARAM parameters[])
{
    struct signature_context *signature = data;
    for (const OSSL_PARAM *each = parameters; each != NULL && each->key != NULL; each++) {
        if (strcmp(each->key, OSSL_SIGNATURE_PARAM_PAD_MODE) == 0 &&
            padding_parse(each, &signature->padding))
            continue;
        if (strcmp(each->key, OSSL_SIGNATURE_PARAM_PSS_SALTLEN) == 0 && salt_parse(each)) {
            signature->salt_is_set = true;
            continue;
        }
        error_raise("a signature parameter that TLS does not use");
        return 0;
    }
    return 1;
}

static const OSSL_PARAM *signature_describe_parameters(void *data, void *context)
{
    static const OSSL_PARAM settable[] = {
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)data;
    (void)context;
    return settable;
}

static int signature_init(void *data, const char *digest, void *key_data,
                          const OSSL_PARAM parameters[])
{
    struct signature_context *signature = data;
    const struct signer_key *key = key_data;

    if (key == NULL || key->type == NULL || digest == NULL) {
        error_raise("a key and a digest are needed");
        return 0;
    }
    EVP_MD_free(signature->digest);
    signature->digest = EVP_MD_fetch(key->signer->library, digest, SIGNER_BASE_PROPERTY);
    signature->key = key;
    signature->padding = strcmp(key->type, "RSA") == 0 ? RSA_PKCS1_PADDING : 0;
    signature->salt_is_set = false;
    return signature->digest != NULL && signature_set_parameters(signature, parameters);
}

static const struct tls_signature_scheme *
signature_find_scheme(const struct signature_context *signature)
{
    if (signature->padding == RSA_PKCS1_PSS_PADDING && !signature->salt_is_set)
        return NULL;
    return tls_signature_find(signature->key->type, signature->digest, signature->padding);
}

static int signature_sign(void *data, unsigned char *out, size_t *out_length, size_t room,
                          const unsigned char *content, size_t content_length)
{
    struct signature_context *signature = data;
    const struct tls_signature_scheme *scheme = signature_find_scheme(signature);

    if (scheme == NULL) {
        error_raise("no TLS signature scheme has this key, digest and padding");
        return 0;
    }
    if (out == NULL) {
        *out_length = (size_t)EVP_PKEY_get_size(signature->key->public);
        return 1;
    }
    struct signer_request request = {
        .scheme = scheme->number, .content = content, .content_length = content_length};
    memcpy(request.key_id, signature->key->id, sizeof(request.key_id));
    if (!signer_request_run(&request, &signature->key->signer->submitter)) {
        error_raise(request.why);
        return 0;
    }
    if (request.signature.length > room) {
        error_raise("the signature is longer than the key's");
        return 0;
    }
    memcpy(out, request.signature.bytes, request.signature.length);
    *out_length = request.signature.length;
    return 1;
}

const OSSL_DISPATCH SIGNER_SIGNATURE_FUNCTIONS[] = {
    SIGNER_DISPATCH(OSSL_FUNC_SIGNATURE_NEWCTX, signature_new),
    SIGNER_DISPATCH(OSSL_FUNC_SIGNATURE_FREECTX, signature_free),
    SIGNER_DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, signature_init),
    SIGNER_DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, signature_sign),
    SIGNER_DISPATCH(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, signature_set_parameters),
    SIGNER_DISPATCH(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, signature_describe_parameters),
    {0, NULL},
};
