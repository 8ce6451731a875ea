/* Client certificates (DER) to identities: nobody comes out of what is refused, and all of somebody
 * out of the rest. */
#include "frontd/identity.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct frontd_options options;
    X509 *certificate = d2i_X509(NULL, &data, (long)size);
    struct identity identity = {0};
    char *claimed = NULL, error[128];

    if (!options.identity_trust_domain)
        MUST_HOLD(config_parse(frontd_option_table, &options, STR(""), "", error, sizeof(error)) ==
                  0);
    if (!certificate)
        return 0;
    if (!identity_from_certificate(&options, certificate, &identity, &claimed))
        MUST_HOLD(identity.spiffe_id && identity.tenant.len > 0 && identity.name.len > 0);
    identity_clear(&identity);
    free(claimed);
    X509_free(certificate);
    return 0;
}
