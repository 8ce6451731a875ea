/* SPIFFE IDs by the standard's section 2, each rule from both of its sides, and path templates. */
#include "frontd/spiffe.h"

#include "tests/unit/suite.h"

static bool parse(struct str id, struct str *trust_domain, struct str *path, const char **why)
{
    char *copy = malloc(id.len ? id.len : 1); /* a sanitizer sees a look beyond it */
    bool good;

    if (id.len)
        memcpy(copy, id.ptr, id.len);
    good = spiffe_parse((struct str){copy, id.len}, trust_domain, path, why);
    if (good) { /* as views of the caller's text */
        trust_domain->ptr = id.ptr + (trust_domain->ptr - copy);
        path->ptr = id.ptr + (path->ptr - copy);
    }
    free(copy);
    return good;
}

static const struct {
    struct str id, trust_domain, path;
} good[] = {
    {STR("spiffe://td/a"), STR("td"), STR("/a")},
    {STR("spiffe://td"), STR("td"), STR("")},
    {STR("spiffe://brainstorm.internal/agent/acme/a-1"), STR("brainstorm.internal"),
     STR("/agent/acme/a-1")},
    {STR("spiffe://a-b_c.0/x"), STR("a-b_c.0"), STR("/x")},
    {STR("spiffe://..-_/x"), STR("..-_"), STR("/x")}, /* the standard asks for no host name */
    {STR("spiffe://127.0.0.1/x"), STR("127.0.0.1"), STR("/x")},
    {STR("spiffe://td/A-Z_a.z0"), STR("td"), STR("/A-Z_a.z0")},
    {STR("spiffe://td/..."), STR("td"), STR("/...")},
    {STR("spiffe://td/.a/a./a..b"), STR("td"), STR("/.a/a./a..b")},
    {STR("spiffe://td/-/_"), STR("td"), STR("/-/_")},
};

START_TEST(a_good_id_is_split)
{
    struct str trust_domain, path;
    const char *why;

    ck_assert_msg(parse(good[_i].id, &trust_domain, &path, &why), "%s", why);
    ck_assert(str_equal(trust_domain, good[_i].trust_domain));
    ck_assert_uint_eq(path.len, good[_i].path.len);
    ck_assert(memcmp(path.ptr, good[_i].path.ptr, path.len) == 0);
}
END_TEST

static const struct str bad[] = {
    STR(""),
    STR("spiffe"),
    STR("spiffe:"),
    STR("spiffe:/"),
    STR("spiffe://"),
    STR("spiffe:///a"),
    STR("spiffe:td/a"),
    STR("spiffe:/td/a"),
    STR("SPIFFE://td/a"),
    STR("Spiffe://td/a"),
    STR(" spiffe://td/a"),
    STR("spiffe://td/a "),
    STR("spiffe//td/a"),
    STR("https://td/a"),
    STR("spiffes://td/a"),
    STR("spiffe://Td/a"),
    STR("spiffe://td:443/a"),
    STR("spiffe://td:/a"),
    STR("spiffe://u@td/a"),
    STR("spiffe://u:p@td/a"),
    STR("spiffe://@td/a"),
    STR("spiffe://[::1]/a"),
    STR("spiffe://t%64/a"),
    STR("spiffe://t\xc3\xa9/a"),
    STR("spiffe://td\0/a"),
    STR("spiffe://td?x=1"),
    STR("spiffe://td#x"),
    STR("spiffe://td\\a"),
    STR("spiffe://td/"),
    STR("spiffe://td//"),
    STR("spiffe://td//a"),
    STR("spiffe://td/a//b"),
    STR("spiffe://td/a/"),
    STR("spiffe://td/."),
    STR("spiffe://td/.."),
    STR("spiffe://td/a/./b"),
    STR("spiffe://td/a/../b"),
    STR("spiffe://td/a/.."),
    STR("spiffe://td/a?x=1"),
    STR("spiffe://td/a#x"),
    STR("spiffe://td/a%41"),
    STR("spiffe://td/%2e%2e"),
    STR("spiffe://td/a~b"),
    STR("spiffe://td/a\0"),
    STR("spiffe://td/a\0b"),
    STR("spiffe://td/a\n"),
    STR("spiffe://td/h\xc3\xa9"),
};

START_TEST(a_bad_id_is_refused_with_a_reason)
{
    struct str trust_domain, path;
    const char *why = NULL;

    ck_assert(!parse(bad[_i], &trust_domain, &path, &why));
    ck_assert_ptr_nonnull(why);
}
END_TEST

START_TEST(each_byte_is_allowed_where_the_standard_says)
{
    for (int c = 0; c < 256; c++) {
        char in_domain[] = "spiffe://t?d/a", in_path[] = "spiffe://td/a?b";
        struct str trust_domain, path;
        const char *why;
        bool low = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr("-._", c));
        bool slash = c == '/';

        in_domain[10] = in_path[13] = (char)c;
        ck_assert_msg(parse((struct str){in_domain, 14}, &trust_domain, &path, &why) ==
                          (low || slash),
                      "%02x in a trust domain", c);
        ck_assert_msg(parse((struct str){in_path, 15}, &trust_domain, &path, &why) ==
                          (low || slash || (c >= 'A' && c <= 'Z')),
                      "%02x in a path", c);
    }
}
END_TEST

/* "spiffe://" and a trust domain and a segment of those lengths; segment 0: no path. */
static bool parse_long(size_t domain, size_t segment)
{
    char id[8192];
    struct str trust_domain, path;
    const char *why;
    size_t len = 9 + domain + (segment ? 1 + segment : 0);

    memset(id, 'a', len);
    memcpy(id, "spiffe://", 9);
    if (segment)
        id[9 + domain] = '/';
    return parse((struct str){id, len}, &trust_domain, &path, &why);
}

START_TEST(lengths_are_bounded)
{
    ck_assert(parse_long(255, 0));
    ck_assert(!parse_long(256, 0));
    ck_assert(parse_long(2, 2048 - 12));
    ck_assert(!parse_long(2, 2048 - 11));
    ck_assert(parse_long(255, 2048 - 265));
    ck_assert(!parse_long(255, 2048 - 264));
    ck_assert(!parse_long(2, 8000));
}
END_TEST

/* ---- templates ------------------------------------------------------------------------------- */

static const struct {
    struct str template;
    bool valid;
} templates[] = {
    {STR("/agent/{tenant}/{agent}"), true},
    {STR("/{agent}/{tenant}"), true},
    {STR("/{tenant}/ns/x/sa/{agent}"), true},
    {STR("/ns/{tenant}/sa/{agent}/v1"), true},
    {STR(""), false},
    {STR("/"), false},
    {STR("agent/{tenant}/{agent}"), false},
    {STR("{tenant}/{agent}"), false},
    {STR("/{tenant}"), false},
    {STR("/{agent}"), false},
    {STR("/agent/acme"), false},
    {STR("/{tenant}/{tenant}/{agent}"), false},
    {STR("/{tenant}/{agent}/{agent}"), false},
    {STR("/{tenant}/{agent}/"), false},
    {STR("/{tenant}//{agent}"), false},
    {STR("//{tenant}/{agent}"), false},
    {STR("/{tenant}/./{agent}"), false},
    {STR("/{tenant}/../{agent}"), false},
    {STR("/{tenant}/{name}"), false}, /* the placeholder of the other kind */
    {STR("/{tenant}/{agent}/{other}"), false},
    {STR("/{tenant}/{agent}/{}"), false},
    {STR("/{tenant}/{Agent}"), false},
    {STR("/{tenant}/a-{agent}"), false},
    {STR("/{tenant}/{agent}x"), false},
    {STR("/{tenant}/{agent"), false},
    {STR("/{tenant}/agent}"), false},
    {STR("/{tenant}/{agent}/*"), false},
    {STR("/{tenant}/{agent}/a%20b"), false},
    {STR("/{tenant}/{agent}/a b"), false},
};

START_TEST(a_template_names_tenant_and_agent_once)
{
    ck_assert_int_eq(spiffe_template_valid(templates[_i].template, STR("agent")),
                     templates[_i].valid);
}
END_TEST

static const struct {
    struct str template, path, tenant, name; /* tenant absent: no match */
} matches[] = {
    {STR("/agent/{tenant}/{agent}"), STR("/agent/acme/a-1"), STR("acme"), STR("a-1")},
    {STR("/{agent}/in/{tenant}"), STR("/a-1/in/acme"), STR("acme"), STR("a-1")},
    {STR("/{tenant}/{agent}/v1"), STR("/acme/a-1/v1"), STR("acme"), STR("a-1")},
    {STR("/agent/{tenant}/{agent}"), STR("/agent/agent/agent"), STR("agent"), STR("agent")},
    {STR("/agent/{tenant}/{agent}"), STR(""), STR_ABSENT, STR_ABSENT},
    {STR("/agent/{tenant}/{agent}"), STR("/agent"), STR_ABSENT, STR_ABSENT},
    {STR("/agent/{tenant}/{agent}"), STR("/agent/acme"), STR_ABSENT, STR_ABSENT},
    {STR("/agent/{tenant}/{agent}"), STR("/agent/acme/a-1/b"), STR_ABSENT, STR_ABSENT},
    {STR("/agent/{tenant}/{agent}"), STR("/Agent/acme/a-1"), STR_ABSENT, STR_ABSENT},
    {STR("/agent/{tenant}/{agent}"), STR("/agents/acme/a-1"), STR_ABSENT, STR_ABSENT},
    {STR("/agent/{tenant}/{agent}"), STR("/agen/acme/a-1"), STR_ABSENT, STR_ABSENT},
    {STR("/agent/{tenant}/{agent}"), STR("/operator/acme/a-1"), STR_ABSENT, STR_ABSENT},
    {STR("/{tenant}/{agent}/v1"), STR("/acme/a-1/v2"), STR_ABSENT, STR_ABSENT},
    {STR("/{tenant}/{agent}/v1"), STR("/acme/a-1"), STR_ABSENT, STR_ABSENT},
};

START_TEST(a_path_matches_segment_by_segment)
{
    struct str tenant = STR_ABSENT, name = STR_ABSENT;
    bool match =
        spiffe_template_match(matches[_i].template, STR("agent"), matches[_i].path, &tenant, &name);

    ck_assert_int_eq(match, matches[_i].tenant.ptr != NULL);
    if (match) {
        ck_assert(str_equal(tenant, matches[_i].tenant));
        ck_assert(str_equal(name, matches[_i].name));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("spiffe");
    TCase *ids = suite_case(suite, "ids");
    TCase *paths = suite_case(suite, "paths");

    tcase_add_loop_test(ids, a_good_id_is_split, 0, COUNT_OF(good));
    tcase_add_loop_test(ids, a_bad_id_is_refused_with_a_reason, 0, COUNT_OF(bad));
    tcase_add_test(ids, each_byte_is_allowed_where_the_standard_says);
    tcase_add_test(ids, lengths_are_bounded);
    tcase_add_loop_test(paths, a_template_names_tenant_and_agent_once, 0, COUNT_OF(templates));
    tcase_add_loop_test(paths, a_path_matches_segment_by_segment, 0, COUNT_OF(matches));
    return suite_run(suite);
}
