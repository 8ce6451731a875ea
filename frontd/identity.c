/* From a verified certificate to an identity: the leaf's rules of X509-SVID and of the contract,
 * then the SPIFFE ID, then the role. Reads the certificate in memory and the configuration; decides
 * nothing about chains. */
#include "frontd/identity.h"

#include "common/memory.h"
#include "frontd/spiffe.h"

#include <fnmatch.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

enum { RSA_BITS_MIN = 2048, TENANT_MAX = 255, GROUP_NAME_BYTES = 32 };

static const struct {
    const char *name;
    unsigned permissions;
} roles[] = {
#define ROLE(name, permissions) [ROLE_##name] = {#name, permissions},
#include "frontd/roles.def"
#undef ROLE
};

unsigned role_permissions(enum role role)
{
    return roles[role].permissions;
}

const char *role_name(enum role role)
{
    return roles[role].name;
}

static enum role role_from_name(const char *name)
{
    for (size_t i = ROLE_auditor; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(roles[i].name, name) == 0)
            return (enum role)i;
    return ROLE_none;
}

void identity_clear(struct identity *identity)
{
    free(identity->spiffe_id);
    *identity = (struct identity){0};
}

/* ---- the leaf ------------------------------------------------------------------------------- */

static bool key_accepted(EVP_PKEY *key)
{
    char group[GROUP_NAME_BYTES];

    if (!key)
        return false;
    if (EVP_PKEY_is_a(key, "RSA"))
        return EVP_PKEY_get_bits(key) >= RSA_BITS_MIN;
    if (EVP_PKEY_is_a(key, "ED25519"))
        return true;
    return EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) &&
           (strcmp(group, "prime256v1") == 0 || strcmp(group, "secp384r1") == 0);
}

static bool signature_accepted(X509 *certificate)
{
    int digest, key;

    if (!X509_get_signature_info(certificate, &digest, &key, NULL, NULL))
        return false;
    return key == NID_ED25519 || digest == NID_sha256 || digest == NID_sha384 ||
           digest == NID_sha512;
}

static const char *check_leaf(X509 *certificate)
{
    uint32_t flags = X509_get_extension_flags(certificate);
    uint32_t usage = X509_get_key_usage(certificate);

    if (flags & EXFLAG_INVALID)
        return "the certificate has a malformed extension";
    if (!key_accepted(X509_get0_pubkey(certificate)))
        return "the certificate's key is not RSA of 2,048 bits or more, P-256, P-384 or Ed25519";
    if (!signature_accepted(certificate))
        return "the certificate's signature is weaker than SHA-256";
    if (flags & EXFLAG_CA)
        return "the certificate is a CA's";
    if ((flags & EXFLAG_KUSAGE) && !(usage & KU_DIGITAL_SIGNATURE))
        return "the certificate's key usage lacks digitalSignature";
    if ((flags & EXFLAG_KUSAGE) && (usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)))
        return "the certificate's key usage has keyCertSign or cRLSign";
    return NULL;
}

/* The one URI among the subject alternative names, as a copy. */
static const char *take_uri(X509 *certificate, char **uri, size_t *len)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    const char *why = "the certificate has no URI SAN";

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        const ASN1_IA5STRING *text = name->d.uniformResourceIdentifier;

        if (name->type != GEN_URI)
            continue;
        if (*uri) {
            why = "the certificate has more than one URI SAN";
            break;
        }
        *len = (size_t)ASN1_STRING_length(text);
        *uri = memory_copy(ASN1_STRING_get0_data(text), *len);
        why = NULL;
    }
    GENERAL_NAMES_free(names);
    return why;
}

/* ---- the SPIFFE ID -------------------------------------------------------------------------- */

static enum role operator_role(const struct frontd_options *options,
                               const struct identity *identity)
{
    const struct config_map *map = &options->operators_map;
    /* tenant and name lie in one string, apart by other segments: fnmatch wants "tenant/name". */
    cleanup_free char *who = memory_new(1, identity->tenant.len + identity->name.len + 2);

    memcpy(who, identity->tenant.ptr, identity->tenant.len);
    who[identity->tenant.len] = '/';
    memcpy(who + identity->tenant.len + 1, identity->name.ptr, identity->name.len);
    for (size_t i = 0; i < map->count; i++)
        if (fnmatch(map->items[i].key, who, FNM_PATHNAME | FNM_NOESCAPE) == 0)
            return role_from_name(map->items[i].value);
    return ROLE_none;
}

void identity_update_role(const struct frontd_options *options, struct identity *identity)
{
    if (identity->kind == IDENTITY_OPERATOR)
        identity->role = operator_role(options, identity);
}

static const char *check_tenant(const struct identity *identity)
{
    bool reserved = identity->tenant.ptr[0] == '_';

    if (identity->tenant.len > TENANT_MAX || identity->name.len > TENANT_MAX)
        return "the tenant or the name in the SPIFFE ID is longer than 255 bytes";
    if (reserved && identity->kind == IDENTITY_AGENT)
        return "no agent's tenant begins with an underscore";
    if (reserved && !str_equal(identity->tenant, STR("_system")))
        return "this tenant's name is reserved";
    return NULL;
}

static const char *take_path(const struct frontd_options *options, struct str path,
                             struct identity *identity)
{
    if (spiffe_template_match(str_from(options->identity_agent_path), STR("agent"), path,
                              &identity->tenant, &identity->name)) {
        identity->kind = IDENTITY_AGENT;
        identity->role = ROLE_agent;
    } else if (spiffe_template_match(str_from(options->identity_operator_path), STR("name"), path,
                                     &identity->tenant, &identity->name)) {
        identity->kind = IDENTITY_OPERATOR;
        identity_update_role(options, identity);
    } else {
        return "the SPIFFE ID fits no path template";
    }
    return check_tenant(identity);
}

static const char *take_spiffe_id(const struct frontd_options *options, struct str uri,
                                  struct identity *identity)
{
    struct str trust_domain, path;
    const char *why;

    if (!spiffe_parse(uri, &trust_domain, &path, &why))
        return why;
    if (!str_equal(trust_domain, str_from(options->identity_trust_domain)))
        return "the SPIFFE ID is of another trust domain";
    return take_path(options, path, identity);
}

const char *identity_from_certificate(const struct frontd_options *options, X509 *certificate,
                                      struct identity *identity, char **claimed)
{
    char *uri = NULL;
    size_t len = 0;
    const char *why = take_uri(certificate, &uri, &len);

    *identity = (struct identity){0};
    *claimed = NULL;
    if (!why)
        why = check_leaf(certificate);
    if (!why)
        why = take_spiffe_id(options, (struct str){uri, len}, identity);
    if (why) {
        *identity = (struct identity){0};
        *claimed = uri;
    } else {
        identity->spiffe_id = uri;
    }
    return why;
}

const char *identity_check_options(const void *values)
{
    const struct frontd_options *options = values;
    const struct config_map *map = &options->operators_map;
    const char *domain = options->identity_trust_domain;
    struct str parsed_domain, path;
    char id[SPIFFE_ID_MAX];
    const char *why;

    snprintf(id, sizeof(id), "spiffe://%s", domain);
    if (!spiffe_parse(str_from(id), &parsed_domain, &path, &why) || path.len != 0)
        return "identity.trust_domain is not a SPIFFE trust domain";
    if (!spiffe_template_valid(str_from(options->identity_agent_path), STR("agent")))
        return "identity.agent_path needs {tenant} and {agent} once each";
    if (!spiffe_template_valid(str_from(options->identity_operator_path), STR("name")))
        return "identity.operator_path needs {tenant} and {name} once each";
    for (size_t i = 0; i < map->count; i++)
        if (role_from_name(map->items[i].value) == ROLE_none)
            return "operators: a role is none of auditor, developer, operator, admin";
    return NULL;
}
