/* SPIFFE IDs and path templates: what is accepted is the sum of its parts and holds no step
 * upwards. */
#include "frontd/spiffe.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct str template = STR("/agent/{tenant}/{agent}"), agent = STR("{agent}");
    struct str id = {(const char *)data, size}, trust_domain, path, tenant, name;
    const char *why = NULL;

    (void)spiffe_template_valid(id, agent);
    if (!spiffe_parse(id, &trust_domain, &path, &why)) {
        MUST_HOLD(why);
        return 0;
    }
    MUST_HOLD(size == sizeof("spiffe://") - 1 + trust_domain.len + path.len);
    MUST_HOLD(trust_domain.len > 0 && size <= SPIFFE_ID_MAX && str_is_printable(id));
    MUST_HOLD(!memmem(path.ptr, path.len, "/../", 4) && !memmem(path.ptr, path.len, "//", 2));
    if (spiffe_template_match(template, agent, path, &tenant, &name))
        MUST_HOLD(path.len == sizeof("/agent//") - 1 + tenant.len + name.len);
    return 0;
}
