/* Decides whether a client's certificate is accepted, and whose it is: the chain, dates, revocation
 * and extended key usage by OpenSSL, the leaf's own rules and the SPIFFE ID by frontd/identity.
 * Reads hostile certificates in memory; opens nothing, talks to nobody. May run on the small stack
 * of a handshake's job (frontd/signer_client.h): no large buffers here. */
#include "frontd/tls_verify.h"

#include "common/memory.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

/* Whether now is at most `skew` seconds outside of the certificate's dates. */
static bool within_skew(const X509 *certificate, int64_t skew)
{
    int days, seconds;
    int64_t early, late;

    if (!ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notBefore(certificate)))
        return false;
    early = (int64_t)days * 86400 + seconds;
    if (!ASN1_TIME_diff(&days, &seconds, X509_get0_notAfter(certificate), NULL))
        return false;
    late = (int64_t)days * 86400 + seconds;
    return early <= skew && late <= skew;
}

static struct tls_peer *peer_of(X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());

    return SSL_get_app_data(ssl);
}

/* OpenSSL asks here at each fault it finds in the chain: two of them can be forgiven. */
static int forgive(int ok, X509_STORE_CTX *store)
{
    int64_t skew = peer_of(store)->options->identity_clock_skew_seconds;

    switch (X509_STORE_CTX_get_error(store)) {
    case X509_V_ERR_CERT_NOT_YET_VALID:
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return ok || within_skew(X509_STORE_CTX_get_current_cert(store), skew);
    case X509_V_ERR_UNABLE_TO_GET_CRL: /* an upper CA without a list; the leaf's issuer must have
                                          one */
        return ok || X509_STORE_CTX_get_error_depth(store) > 0;
    default:
        return ok;
    }
}

/* The URI of a certificate whose chain nobody vouches for; the caller frees, NULL for none. */
static char *claim_of(const struct frontd_options *options, X509 *leaf)
{
    struct identity claimed;
    char *claim;

    if (!identity_from_certificate(options, leaf, &claimed, &claim))
        claim = steal_pointer(claimed.spiffe_id);
    identity_clear(&claimed);
    return claim;
}

/* When the first of the chain's certificates ends, the CA's in the bundle too. */
static int64_t chain_end(X509_STORE_CTX *store)
{
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(store);
    int64_t first = INT64_MAX;

    for (int i = 0; i < sk_X509_num(chain); i++) {
        int64_t end = tls_time_seconds(X509_get0_notAfter(sk_X509_value(chain, i)));

        first = end < first ? end : first;
    }
    return first;
}

/* The one place where a client is accepted or refused. Fills found; returns NULL, or why not. */
static const char *verify(X509_STORE_CTX *store, struct tls_peer *found)
{
    X509 *leaf = X509_STORE_CTX_get0_cert(store);
    const char *why = NULL;

    tls_peer_clear(found);
    X509_STORE_CTX_set_verify_cb(store, forgive);
    if (X509_verify_cert(store) <= 0) {
        why = X509_verify_cert_error_string(X509_STORE_CTX_get_error(store));
        found->claimed = claim_of(found->options, leaf);
    } else {
        why = identity_from_certificate(found->options, leaf, &found->identity, &found->claimed);
        found->good_until = chain_end(store) + found->options->identity_clock_skew_seconds;
    }
    if (!why) {
        why = deny_refusal(found->deny, &found->identity);
        found->is_denied = why != NULL;
    }
    if (why)
        snprintf(found->reason, sizeof(found->reason), "%s", why);
    return why;
}

int tls_verify_shown(X509_STORE_CTX *store, void *arg)
{
    bool accepted = !verify(store, peer_of(store));

    (void)arg;
    if (accepted)
        X509_STORE_CTX_set_error(store, X509_V_OK);
    else if (X509_STORE_CTX_get_error(store) == X509_V_OK)
        X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return accepted;
}

/* What OpenSSL prepares for a full handshake's verification. */
static bool prepare(X509_STORE_CTX *store, SSL *ssl, SSL_CTX *context, X509 *leaf,
                    STACK_OF(X509) * intermediates)
{
    X509_VERIFY_PARAM *rules;

    if (!X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(context), leaf, intermediates) ||
        !X509_STORE_CTX_set_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx(), ssl) ||
        !X509_STORE_CTX_set_default(store, "ssl_client"))
        return false;
    rules = X509_STORE_CTX_get0_param(store);
    X509_VERIFY_PARAM_set_auth_level(rules, SSL_CTX_get_security_level(context));
    return X509_VERIFY_PARAM_set1(rules, SSL_CTX_get0_param(context)) == 1;
}

bool tls_verify_again(SSL *ssl, SSL_CTX *context, X509 *leaf, STACK_OF(X509) * intermediates,
                      struct tls_peer *found)
{
    X509_STORE_CTX *store = X509_STORE_CTX_new();
    bool accepted =
        store && prepare(store, ssl, context, leaf, intermediates) && !verify(store, found);

    X509_STORE_CTX_free(store);
    ERR_clear_error();
    return accepted;
}
