/* Puts certificates, CAs and CRLs into OpenSSL's contexts, in the workers and, for a trial, in the
 * supervisor: what one refuses the other refuses. Holds public material only; opens no file. Talks
 * to nobody. */
#include "frontd/tls_material.h"

#include "common/log.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <time.h>

static const char cipher_list[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
static const char groups[] = "X25519:P-256:P-384";
/* SHA-256 or better. Some are of keys that no client may have (Ed448, P-521): whoever has one is to
 * show its certificate and be told, and not to be taken for somebody without. */
static const char client_signatures[] =
    "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:ed448:RSA-PSS+SHA256:RSA-PSS+SHA384:"
    "RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512";

enum { SECURITY_LEVEL = 2 };

const char *tls_error_text(void)
{
    const char *reason = ERR_reason_error_string(ERR_get_error());

    ERR_clear_error();
    return reason ? reason : "no reason given";
}

int64_t tls_time_seconds(const ASN1_TIME *time)
{
    struct tm utc;

    return ASN1_TIME_to_tm(time, &utc) == 1 ? (int64_t)timegm(&utc) : 0;
}

SSL_CTX *tls_material_context(char *error, size_t error_size)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (!context || SSL_CTX_set_cipher_list(context, cipher_list) != 1 ||
        SSL_CTX_set1_groups_list(context, groups) != 1 ||
        SSL_CTX_set1_client_sigalgs_list(context, client_signatures) != 1) {
        snprintf(error, error_size, "OpenSSL: %s", tls_error_text());
        SSL_CTX_free(context);
        return NULL;
    }
    SSL_CTX_set_security_level(context, SECURITY_LEVEL);
    return context;
}

/* PEM objects one after the other. */
static BIO *open_text(struct str text)
{
    BIO *bio = BIO_new_mem_buf(text.ptr, (int)text.len);

    if (!bio)
        log_fatal("out of memory");
    return bio;
}

static bool use_leaf(SSL_CTX *context, const struct tls_key_maker *maker, X509 *leaf, char *error,
                     size_t error_size)
{
    const char *why;
    EVP_PKEY *key = maker->make(maker, leaf, &why);
    bool used;

    if (!key) {
        snprintf(error, error_size, "server certificate: %s", why);
        return false;
    }
    used = SSL_CTX_use_certificate(context, leaf) == 1 && SSL_CTX_use_PrivateKey(context, key) == 1;
    if (!used)
        snprintf(error, error_size, "server certificate: %s", tls_error_text());
    EVP_PKEY_free(key);
    return used;
}

/* Leaf, its chain, the next leaf, its chain…: a certificate that is no CA's begins a new chain. */
bool tls_material_use_certificates(SSL_CTX *context, const struct tls_key_maker *maker,
                                   struct str text, char *error, size_t error_size)
{
    BIO *bio = open_text(text);
    bool good = true;
    int leaves = 0;
    X509 *certificate;

    while (good && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        if (X509_check_ca(certificate) == 0) {
            leaves++;
            good = use_leaf(context, maker, certificate, error, error_size);
        } else {
            good = leaves > 0 && SSL_CTX_add1_chain_cert(context, certificate) == 1;
            if (!good)
                snprintf(error, error_size,
                         "server certificates: a chain does not begin with a leaf");
        }
        X509_free(certificate);
    }
    BIO_free(bio);
    ERR_clear_error(); /* the end of the text is an error to PEM_read_bio */
    if (good && leaves == 0)
        snprintf(error, error_size, "server certificates: none found");
    return good && leaves > 0;
}

/* A certificate in the store is believed by itself (X509_V_FLAG_PARTIAL_CHAIN): a leaf there would
 * let its holder in whatever its issuer says. */
static bool use_one_ca(SSL_CTX *context, X509 *ca, char *error, size_t error_size)
{
    if (X509_check_ca(ca) == 0) {
        snprintf(error, error_size, "client CA bundle: holds a certificate that is no CA's");
        return false;
    }
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca) == 1 &&
        SSL_CTX_add_client_CA(context, ca) == 1)
        return true;
    snprintf(error, error_size, "client CA bundle: %s", tls_error_text());
    return false;
}

bool tls_material_use_client_ca(SSL_CTX *context, struct str text, char *error, size_t error_size)
{
    BIO *bio = open_text(text);
    bool good = true;
    int count = 0;
    X509 *ca;

    /* Whom the bundle names is believed, a root or not. */
    X509_STORE_set_flags(SSL_CTX_get_cert_store(context), X509_V_FLAG_PARTIAL_CHAIN);
    while (good && (ca = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        good = use_one_ca(context, ca, error, error_size);
        count++;
        X509_free(ca);
    }
    BIO_free(bio);
    ERR_clear_error();
    if (count == 0)
        snprintf(error, error_size, "client CA bundle: no certificate found");
    return good && count > 0;
}

bool tls_material_use_crls(SSL_CTX *context, struct str text, char *error, size_t error_size)
{
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    BIO *bio;
    int count = 0;
    X509_CRL *crl;

    if (text.len == 0)
        return true;
    bio = open_text(text);
    while ((crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
        count += X509_STORE_add_crl(store, crl) == 1;
        X509_CRL_free(crl);
    }
    BIO_free(bio);
    ERR_clear_error();
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    if (count == 0)
        snprintf(error, error_size, "CRL file: no CRL found");
    return count > 0;
}
