/* SPIFFE ID syntax by the SPIFFE-ID standard, section 2, and path templates. Touches only the text
 * it is given. */
#include "frontd/spiffe.h"

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

static bool is_segment_byte(char c)
{
    return is_name_byte(c) || (c >= 'A' && c <= 'Z');
}

/* Takes the segment behind path's leading '/'; path moves on to the next '/'. */
static struct str next_segment(struct str *path)
{
    const char *start = path->ptr + 1;
    const char *slash = memchr(start, '/', path->len - 1);
    size_t len = slash ? (size_t)(slash - start) : path->len - 1;

    *path = (struct str){start + len, path->len - 1 - len};
    return (struct str){start, len};
}

static bool segment_valid(struct str segment, const char **why)
{
    *why = "a path segment of the SPIFFE ID is empty";
    if (segment.len == 0)
        return false;
    *why = "the SPIFFE ID has a dot segment";
    if (str_equal(segment, STR(".")) || str_equal(segment, STR("..")))
        return false;
    *why = "a path segment of the SPIFFE ID has a character that is not allowed";
    for (size_t i = 0; i < segment.len; i++)
        if (!is_segment_byte(segment.ptr[i]))
            return false;
    return true;
}

static bool trust_domain_valid(struct str domain)
{
    for (size_t i = 0; i < domain.len; i++)
        if (!is_name_byte(domain.ptr[i]))
            return false;
    return domain.len > 0 && domain.len <= SPIFFE_TRUST_DOMAIN_MAX;
}

bool spiffe_parse(struct str id, struct str *trust_domain, struct str *path, const char **why)
{
    const struct str scheme = STR("spiffe://");
    const char *rest, *slash;
    size_t len;

    *why = "the SPIFFE ID is longer than 2,048 bytes";
    if (id.len > SPIFFE_ID_MAX)
        return false;
    *why = "the URI is not a SPIFFE ID";
    if (!str_starts(id, scheme))
        return false;
    rest = id.ptr + scheme.len;
    len = id.len - scheme.len;
    slash = memchr(rest, '/', len);
    *trust_domain = (struct str){rest, slash ? (size_t)(slash - rest) : len};
    *path = (struct str){rest + trust_domain->len, len - trust_domain->len};
    *why = "the SPIFFE ID's trust domain is not valid";
    if (!trust_domain_valid(*trust_domain))
        return false;
    for (struct str left = *path; left.len > 0;)
        if (!segment_valid(next_segment(&left), why))
            return false;
    return true;
}

static bool is_placeholder(struct str segment, struct str name)
{
    return segment.len == name.len + 2 && segment.ptr[0] == '{' &&
           segment.ptr[segment.len - 1] == '}' && memcmp(segment.ptr + 1, name.ptr, name.len) == 0;
}

bool spiffe_template_valid(struct str template, struct str placeholder)
{
    int tenants = 0, names = 0;
    const char *why;

    if (template.len == 0 || template.ptr[0] != '/')
        return false;
    while (template.len > 0) {
        struct str segment = next_segment(&template);

        if (is_placeholder(segment, STR("tenant")))
            tenants++;
        else if (is_placeholder(segment, placeholder))
            names++;
        else if (!segment_valid(segment, &why))
            return false;
    }
    return tenants == 1 && names == 1;
}

bool spiffe_template_match(struct str template, struct str placeholder, struct str path,
                           struct str *tenant, struct str *name)
{
    while (template.len > 0 && path.len > 0) {
        struct str expected = next_segment(&template);
        struct str segment = next_segment(&path);

        if (is_placeholder(expected, STR("tenant")))
            *tenant = segment;
        else if (is_placeholder(expected, placeholder))
            *name = segment;
        else if (!str_equal(expected, segment))
            return false;
    }
    return template.len == 0 && path.len == 0;
}
