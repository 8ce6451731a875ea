/* SPIFFE IDs: syntax, and the path templates that say whose they are. */
#ifndef CAF_FRONTD_SPIFFE_H
#define CAF_FRONTD_SPIFFE_H

#include "common/str.h"

enum { SPIFFE_ID_MAX = 2048, SPIFFE_TRUST_DOMAIN_MAX = 255 };

/* Splits a SPIFFE ID into views of its trust domain and its path (with the leading '/'; empty when
 * there is none), or returns false with a literal in *why. Rules: SPIFFE-ID standard, section 2:
 * scheme and trust domain in lower case, [a-z0-9._-] there and [A-Za-z0-9._-] in segments, no
 * empty, "." or ".." segment, no port, user, query, fragment or percent-encoding, at most 2,048
 * bytes. */
bool spiffe_parse(struct str id, struct str *trust_domain, struct str *path, const char **why);

/* Whether template can be used: it begins with '/', each segment is a literal or a {placeholder},
 * and {tenant} and the other given placeholder stand in it exactly once each. */
bool spiffe_template_valid(struct str template, struct str placeholder);

/* Matches a path against a template: literals equal, placeholders take one whole segment. Sets the
 * views of {tenant} and of the other placeholder. */
bool spiffe_template_match(struct str template, struct str placeholder, struct str path,
                           struct str *tenant, struct str *name);

#endif
