/* Role: key management of the "caf-signer" provider: keys that have a public half only.
 * Touches: public keys, which OpenSSL's default provider holds and describes.
 * Never touches: private keys (there are none here), sockets, files.
 * Talks to: OpenSSL only. */
#include "frontd/signer_algorithms.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/x509.h>

static void *key_new(void *context)
{
    const struct signer_context *provider = context;
    struct signer_key *key = OPENSSL_zalloc(sizeof(*key));
    if (key != NULL)
        key->signer = provider->signer;
    return key;
}

static void key_free(void *data)
{
    struct signer_key *key = data;
    if (key != NULL)
        EVP_PKEY_free(key->public);
    OPENSSL_free(key);
}

static int key_has(const void *data, int selection)
{
    const struct signer_key *key = data;
    return key->public != NULL && (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0;
}

static int key_match(const void *one, const void *other, int selection)
{
    const struct signer_key *left = one, *right = other;
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 &&
           EVP_PKEY_eq(left->public, right->public) == 1;
}

static int key_import(void *data, int selection, const OSSL_PARAM parameters[])
{
    struct signer_key *key = data;
    const OSSL_PARAM *encoded = OSSL_PARAM_locate_const(parameters, SIGNER_KEY_PARAMETER);
    const char *why;
    const void *bytes;
    size_t length;

    if (key->public != NULL || (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 ||
        encoded == NULL || !OSSL_PARAM_get_octet_string_ptr(encoded, &bytes, &length))
        return 0;
    const unsigned char *cursor = bytes;
    key->public =
        d2i_PUBKEY_ex(NULL, &cursor, (long)length, key->signer->library, SIGNER_BASE_PROPERTY);
    if (key->public == NULL)
        return 0;
    key->type = tls_signature_key_type(key->public, &why);
    return key->type != NULL && tls_signature_key_id(key->public, key->id) == 0;
}

/* Refuses every selection that holds the private key: told that this key can be moved whole,
 * OpenSSL would move it to its own signer and sign with nothing. */
static int key_export(void *data, int selection, OSSL_CALLBACK *receive, void *argument)
{
    const struct signer_key *key = data;
    OSSL_PARAM *parameters = NULL;

    if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 || key->public == NULL ||
        !EVP_PKEY_todata(key->public, selection, &parameters))
        return 0;
    int received = receive(parameters, argument);
    OSSL_PARAM_free(parameters);
    return received;
}

static const OSSL_PARAM *key_describe_import(int selection)
{
    static const OSSL_PARAM accepted[] = {OSSL_PARAM_octet_string(SIGNER_KEY_PARAMETER, NULL, 0),
                                          OSSL_PARAM_END};
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 ? accepted : NULL;
}

/* What is exported depends on the key's type and is said by the key itself. */
static const OSSL_PARAM *key_describe_export(int selection)
{
    static const OSSL_PARAM none[] = {OSSL_PARAM_END};
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 ? none : NULL;
}

static int key_get_parameters(void *data, OSSL_PARAM parameters[])
{
    const struct signer_key *key = data;
    return EVP_PKEY_get_params(key->public, parameters);
}

static const OSSL_PARAM *key_describe_parameters(void *context)
{
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_END,
    };
    (void)context;
    return known;
}

static const char *key_name_operation(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? SIGNER_SIGNATURE_NAME : NULL;
}

const OSSL_DISPATCH SIGNER_KEY_FUNCTIONS[] = {
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_NEW, key_new),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_FREE, key_free),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_HAS, key_has),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_MATCH, key_match),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT, key_import),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, key_describe_import),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_EXPORT, key_export),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, key_describe_export),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get_parameters),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, key_describe_parameters),
    SIGNER_DISPATCH(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, key_name_operation),
    {0, NULL},
};
