/* Who a client is: from its certificate to tenant, name and role. */
#ifndef CAF_FRONTD_IDENTITY_H
#define CAF_FRONTD_IDENTITY_H

#include "common/str.h"
#include "frontd/options.h"

#include <openssl/x509.h>

enum permission {
    MAY_MESH = 1, /* use the mesh routes as the agent that it is */
    MAY_READ = 2, /* read agents, events and executions of its tenant */
};

enum role {
#define ROLE(name, permissions) ROLE_##name,
#include "frontd/roles.def"
#undef ROLE
};

enum identity_kind { IDENTITY_NONE, IDENTITY_AGENT, IDENTITY_OPERATOR };

/* spiffe_id is owned; tenant and name are views into it. Zeroed: nobody. */
struct identity {
    enum identity_kind kind;
    char *spiffe_id;
    struct str tenant, name;
    enum role role;
};

/* The identity that an accepted certificate proves, by the rules of the contract (listening and
 * identity): key, signature, key usage, not a CA, exactly one URI SAN, a SPIFFE ID of the trust
 * domain that fits a template. The chain, the dates and the extended key usage are OpenSSL's to
 * check. Returns NULL and fills identity (identity_clear frees), or a literal that says why not;
 * *claimed (caller frees, may be NULL) is then the one URI that it claimed. */
const char *identity_from_certificate(const struct frontd_options *options, X509 *certificate,
                                      struct identity *identity, char **claimed);

/* Looks an operator's role up anew; any other identity stays as it is. */
void identity_update_role(const struct frontd_options *options, struct identity *identity);

/* The permissions of a role, MAY_ bits. */
unsigned role_permissions(enum role role);

const char *role_name(enum role role);

/* Checks what the option table cannot, for service_configure: trust domain, templates, role names.
 * NULL, or a literal that says what is wrong. */
const char *identity_check_options(const void *options);

void identity_clear(struct identity *identity);

#endif
