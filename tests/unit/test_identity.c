/* From certificates made on the spot to identities: which leaves are taken, whose they are, which
 * role a pattern gives, and what is refused with which reason. */
#include "frontd/identity.h"

#include "common/memory.h"
#include "tests/unit/suite.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#define ID(path) "spiffe://td/" path
#define AGENT    ID("agent/acme/a-1")

/* A certificate to be made; zeroed members: a good agent's. */
struct spec {
    const char *key;                 /* NULL: P-256; RSA:BITS, a curve, or a one-word algorithm */
    const char *issuer_key, *digest; /* NULL: P-256 with SHA256; "" for a key with its own digest */
    bool pss;
    struct str uris[2]; /* absent: AGENT, but for no_san */
    bool no_san;
    const char *dns, *basic_constraints, *key_usage; /* NULL: none */
};

static struct frontd_options options;

static void read_options(const char *text)
{
    static char error[256];

    options = (struct frontd_options){0};
    ck_assert_msg(config_parse(frontd_option_table, &options, str_from(text), "x", error, 256) == 0,
                  "%s", error);
}

static void open_options(void)
{
    read_options("[identity]\ntrust_domain = td\n"
                 "[operators]\nacme/root = admin\n*/auditor = auditor\nacme/* = operator\n"
                 "_system/* = developer\nacme/never = admin\n* = admin\n");
}

static void close_options(void)
{
    config_free(frontd_option_table, &options);
}

/* ---- certificates ---------------------------------------------------------------------------- */

static EVP_PKEY *make_key(const char *kind)
{
    EVP_PKEY *key;

    if (!kind)
        kind = "P-256";
    if (strncmp(kind, "RSA:", 4) == 0)
        key = EVP_RSA_gen((unsigned)atoi(kind + 4));
    else if (strcmp(kind, "ED25519") == 0 || strcmp(kind, "ED448") == 0 ||
             strcmp(kind, "X25519") == 0)
        key = EVP_PKEY_Q_keygen(NULL, NULL, kind);
    else
        key = EVP_EC_gen(kind);
    ck_assert_msg(key != NULL, "no key %s", kind);
    return key;
}

static void add_name(GENERAL_NAMES *names, int type, struct str text)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *bytes = ASN1_IA5STRING_new();

    ASN1_STRING_set(bytes, text.ptr, (int)text.len);
    GENERAL_NAME_set0_value(name, type, bytes);
    sk_GENERAL_NAME_push(names, name);
}

static void add_san(X509 *certificate, const struct spec *spec)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();

    if (spec->dns)
        add_name(names, GEN_DNS, str_from(spec->dns));
    if (!spec->dns && !spec->uris[0].ptr)
        add_name(names, GEN_URI, STR(AGENT));
    for (int i = 0; i < 2; i++)
        if (spec->uris[i].ptr)
            add_name(names, GEN_URI, spec->uris[i]);
    ck_assert_int_eq(
        X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, X509V3_ADD_APPEND), 1);
    sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
}

static void add_extension(X509 *certificate, int nid, const char *value)
{
    X509_EXTENSION *extension = value ? X509V3_EXT_conf_nid(NULL, NULL, nid, value) : NULL;

    if (extension)
        ck_assert_int_eq(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static void sign(X509 *certificate, const struct spec *spec)
{
    EVP_PKEY *issuer = make_key(spec->issuer_key);
    const EVP_MD *digest = EVP_get_digestbyname(spec->digest ? spec->digest : "SHA256");
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY_CTX *padding;

    ck_assert_int_eq(EVP_DigestSignInit(context, &padding, digest, NULL, issuer), 1);
    if (spec->pss)
        ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_padding(padding, RSA_PKCS1_PSS_PADDING), 1);
    ck_assert_int_gt(X509_sign_ctx(certificate, context), 0);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(issuer);
}

static X509 *make_unsigned(const struct spec *spec)
{
    X509 *certificate = X509_new();
    X509_NAME *name = X509_get_subject_name(certificate);
    EVP_PKEY *key = make_key(spec->key);

    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)AGENT, -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_set_pubkey(certificate, key);
    EVP_PKEY_free(key);
    if (!spec->no_san)
        add_san(certificate, spec);
    add_extension(certificate, NID_basic_constraints, spec->basic_constraints);
    add_extension(certificate, NID_key_usage, spec->key_usage);
    return certificate;
}

/* Signs the certificate and reads it again, as a server gets it; then asks for its identity. */
static const char *identify(X509 *certificate, const struct spec *spec, struct identity *identity,
                            char **claimed)
{
    uint8_t *der = NULL;
    const uint8_t *at;
    X509 *received;
    const char *why;
    int len;

    sign(certificate, spec);
    len = i2d_X509(certificate, &der);
    at = der;
    received = d2i_X509(NULL, &at, len);
    ck_assert_ptr_nonnull(received);
    why = identity_from_certificate(&options, received, identity, claimed);
    X509_free(received);
    X509_free(certificate);
    OPENSSL_free(der);
    return why;
}

static const char *identify_spec(const struct spec *spec, struct identity *identity, char **claimed)
{
    return identify(make_unsigned(spec), spec, identity, claimed);
}

static void assert_refused(const char *why, const char *reason, const struct identity *identity)
{
    ck_assert_msg(why && strstr(why, reason), "%s instead of %s", why ? why : "accepted", reason);
    ck_assert_int_eq(identity->kind, IDENTITY_NONE);
    ck_assert_ptr_null(identity->spiffe_id);
    ck_assert_ptr_null(identity->tenant.ptr);
}

/* ---- leaves ---------------------------------------------------------------------------------- */

static const struct {
    struct spec spec;
    const char *reason; /* NULL: accepted */
} leaves[] = {
    {{0}, NULL},
    /* keys */
    {{.key = "P-384"}, NULL},
    {{.key = "ED25519"}, NULL},
    {{.key = "RSA:2048"}, NULL},
    {{.key = "RSA:3072"}, NULL},
    {{.key = "RSA:1024"}, "key is not"},
    {{.key = "RSA:2047"}, "key is not"},
    {{.key = "P-521"}, "key is not"},
    {{.key = "P-224"}, "key is not"},
    {{.key = "secp256k1"}, "key is not"},
    {{.key = "brainpoolP256r1"}, "key is not"},
    {{.key = "ED448"}, "key is not"},
    {{.key = "X25519"}, "key is not"},
    /* signatures */
    {{.digest = "SHA384"}, NULL},
    {{.digest = "SHA512"}, NULL},
    {{.issuer_key = "ED25519", .digest = ""}, NULL},
    {{.issuer_key = "RSA:2048"}, NULL},
    {{.issuer_key = "RSA:2048", .pss = true}, NULL},
    {{.digest = "SHA1"}, "weaker than SHA-256"},
    {{.digest = "SHA224"}, "weaker than SHA-256"},
    {{.issuer_key = "RSA:2048", .digest = "SHA1"}, "weaker than SHA-256"},
    {{.issuer_key = "RSA:2048", .digest = "MD5"}, "weaker than SHA-256"},
    {{.issuer_key = "RSA:2048", .digest = "SHA1", .pss = true}, "weaker than SHA-256"},
    /* not a CA */
    {{.basic_constraints = "CA:FALSE"}, NULL},
    {{.basic_constraints = "critical,CA:FALSE"}, NULL},
    {{.basic_constraints = "CA:TRUE"}, "is a CA's"},
    {{.basic_constraints = "critical,CA:TRUE,pathlen:0"}, "is a CA's"},
    /* key usage */
    {{.key_usage = "digitalSignature"}, NULL},
    {{.key_usage = "critical,digitalSignature,keyEncipherment,keyAgreement"}, NULL},
    {{.key_usage = "keyAgreement"}, "lacks digitalSignature"},
    {{.key_usage = "nonRepudiation,keyEncipherment"}, "lacks digitalSignature"},
    {{.key_usage = "digitalSignature,keyCertSign"}, "keyCertSign or cRLSign"},
    {{.key_usage = "digitalSignature,cRLSign"}, "keyCertSign or cRLSign"},
    {{.key_usage = "keyCertSign,cRLSign"}, "lacks digitalSignature"},
    /* subject alternative names */
    {{.dns = "a.example", .uris = {STR(AGENT)}}, NULL},
    {{.no_san = true}, "no URI SAN"}, /* though the subject's name reads like a SPIFFE ID */
    {{.dns = "a.example"}, "no URI SAN"},
    {{.dns = AGENT}, "no URI SAN"},
    {{.uris = {STR(AGENT), STR(ID("agent/acme/a-2"))}}, "more than one URI SAN"},
    {{.uris = {STR(AGENT), STR(AGENT)}}, "more than one URI SAN"},
    {{.uris = {STR(AGENT), STR("https://a.example/")}}, "more than one URI SAN"},
    {{.uris = {STR("https://a.example/"), STR(AGENT)}}, "more than one URI SAN"},
    {{.uris = {STR("https://a.example/")}}, "not a SPIFFE ID"},
    {{.uris = {STR("")}}, "not a SPIFFE ID"},
    {{.uris = {STR("\0")}}, "not a SPIFFE ID"},
    {{.uris = {STR(AGENT "\0")}}, "character that is not allowed"},
    {{.uris = {STR(AGENT "\0/x")}}, "character that is not allowed"},
    {{.uris = {STR("spiffe://td\0.evil/agent/acme/a-1")}}, "trust domain is not valid"},
    {{.uris = {STR(AGENT "\xff")}}, "character that is not allowed"},
    {{.uris = {STR("spiffe://other/agent/acme/a-1")}}, "another trust domain"},
    {{.uris = {STR("spiffe://td.evil/agent/acme/a-1")}}, "another trust domain"},
    {{.uris = {STR("spiffe://t/agent/acme/a-1")}}, "another trust domain"},
    {{.uris = {STR("spiffe://TD/agent/acme/a-1")}}, "trust domain is not valid"},
    {{.uris = {STR("spiffe://td")}}, "no path template"},
    {{.uris = {STR(ID("agent/acme"))}}, "no path template"},
    {{.uris = {STR(ID("agent/acme/a/b"))}}, "no path template"},
    {{.uris = {STR(ID("Agent/acme/a"))}}, "no path template"},
    {{.uris = {STR(ID("agent/_acme/a"))}}, "underscore"},
    {{.uris = {STR(ID("agent/_system/a"))}}, "underscore"},
    {{.uris = {STR(ID("operator/_acme/a"))}}, "reserved"},
    {{.uris = {STR(ID("operator/_system2/a"))}}, "reserved"},
};

START_TEST(a_leaf_is_taken_by_the_rules)
{
    struct identity identity;
    char *claimed;
    const char *why = identify_spec(&leaves[_i].spec, &identity, &claimed);

    if (leaves[_i].reason) {
        assert_refused(why, leaves[_i].reason, &identity);
        ck_assert_int_eq(claimed != NULL, strcmp(leaves[_i].reason, "no URI SAN") != 0);
    } else {
        ck_assert_msg(!why, "%s", why);
        ck_assert_ptr_null(claimed);
        ck_assert_str_eq(identity.spiffe_id, AGENT);
        ck_assert(str_equal(identity.tenant, STR("acme")));
        ck_assert(str_equal(identity.name, STR("a-1")));
        ck_assert_int_eq(identity.kind, IDENTITY_AGENT);
        ck_assert_int_eq(identity.role, ROLE_agent);
    }
    free(claimed);
    identity_clear(&identity);
    ck_assert_ptr_null(identity.spiffe_id);
}
END_TEST

static const struct {
    size_t tenant, name;
    const char *reason; /* NULL: accepted */
} lengths[] = {
    {255, 255, NULL},
    {256, 1, "longer than 255"},
    {1, 256, "longer than 255"},
    {1000, 1022, "longer than 255"},
    {1000, 1100, "longer than 2,048"},
    {1, 100000, "longer than 2,048"},
};

START_TEST(long_names_are_refused)
{
    char *uri = calloc(1, lengths[_i].tenant + lengths[_i].name + 32), *claimed;
    int len =
        sprintf(uri, ID("agent/%0*d/%0*d"), (int)lengths[_i].tenant, 0, (int)lengths[_i].name, 0);
    const struct spec spec = {.uris = {{uri, (size_t)len}}};
    struct identity identity;
    const char *why = identify_spec(&spec, &identity, &claimed);

    if (lengths[_i].reason) {
        assert_refused(why, lengths[_i].reason, &identity);
        ck_assert_str_eq(claimed, uri);
    } else {
        ck_assert_msg(!why, "%s", why);
        ck_assert_uint_eq(identity.tenant.len, lengths[_i].tenant);
        ck_assert_uint_eq(identity.name.len, lengths[_i].name);
    }
    free(claimed);
    free(uri);
    identity_clear(&identity);
}
END_TEST

/* An extension whose content is no DER of its kind. */
static void add_broken(X509 *certificate, int nid)
{
    ASN1_OCTET_STRING *content = ASN1_OCTET_STRING_new();
    X509_EXTENSION *extension;

    ASN1_OCTET_STRING_set(content, (const uint8_t *)"\x30\x7f\x01", 3);
    extension = X509_EXTENSION_create_by_NID(NULL, nid, 0, content);
    ck_assert_int_eq(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
    ASN1_OCTET_STRING_free(content);
}

START_TEST(a_broken_or_repeated_extension_is_refused)
{
    static const int nids[] = {NID_subject_alt_name, NID_basic_constraints, NID_key_usage,
                               NID_ext_key_usage};
    const struct spec spec = {.no_san = nids[_i / 2] == NID_subject_alt_name && _i % 2 == 0};
    X509 *certificate = make_unsigned(&spec);
    struct identity identity;
    char *claimed;

    if (_i % 2 == 0) {
        add_broken(certificate, nids[_i / 2]);
    } else if (nids[_i / 2] == NID_subject_alt_name) {
        add_san(certificate, &spec);
    } else {
        for (int i = 0; i < 2; i++)
            add_extension(certificate, nids[_i / 2],
                          nids[_i / 2] == NID_basic_constraints ? "CA:FALSE"
                          : nids[_i / 2] == NID_key_usage       ? "digitalSignature"
                                                                : "clientAuth");
    }
    assert_refused(identify(certificate, &spec, &identity, &claimed), "the certificate", &identity);
    free(claimed);
}
END_TEST

/* ---- whose they are -------------------------------------------------------------------------- */

static const struct {
    struct str uri;
    enum role role;
} operators[] = {
    {STR(ID("operator/acme/root")), ROLE_admin},
    {STR(ID("operator/acme/auditor")), ROLE_auditor}, /* the first line that fits */
    {STR(ID("operator/other/auditor")), ROLE_auditor},
    {STR(ID("operator/acme/anyone")), ROLE_operator},
    {STR(ID("operator/acme/never")), ROLE_operator},
    {STR(ID("operator/_system/bob")), ROLE_developer},
    {STR(ID("operator/other/root")), ROLE_none},
    {STR(ID("operator/acme2/root")), ROLE_none},
    {STR(ID("operator/other/auditor2")), ROLE_none},
};

START_TEST(an_operators_role_comes_from_the_first_line_that_fits)
{
    const struct spec spec = {.uris = {operators[_i].uri}};
    struct identity identity;
    char *claimed;
    const char *why = identify_spec(&spec, &identity, &claimed);

    ck_assert_msg(!why, "%s", why);
    ck_assert_int_eq(identity.kind, IDENTITY_OPERATOR);
    ck_assert_msg(identity.role == operators[_i].role, "%s", role_name(identity.role));
    identity_clear(&identity);
}
END_TEST

START_TEST(templates_are_configuration)
{
    static const struct {
        struct str uri, tenant, name;
        enum identity_kind kind;
        enum role role;
    } rows[] = {
        {STR(ID("ns/acme/sa/a-1")), STR("acme"), STR("a-1"), IDENTITY_AGENT, ROLE_agent},
        {STR(ID("ops/root/of/acme")), STR("acme"), STR("root"), IDENTITY_OPERATOR, ROLE_admin},
        {STR(ID("ops/acme/of/root")), STR("root"), STR("acme"), IDENTITY_OPERATOR, ROLE_none},
    };
    const struct spec spec = {.uris = {rows[_i].uri}};
    struct identity identity;
    char *claimed;
    const char *why;

    close_options();
    read_options("[identity]\ntrust_domain = td\nagent_path = /ns/{tenant}/sa/{agent}\n"
                 "operator_path = /ops/{name}/of/{tenant}\n[operators]\nacme/root = admin\n");
    why = identify_spec(&spec, &identity, &claimed);
    ck_assert_msg(!why, "%s", why);
    ck_assert_int_eq(identity.kind, rows[_i].kind);
    ck_assert_int_eq(identity.role, rows[_i].role);
    ck_assert(str_equal(identity.tenant, rows[_i].tenant));
    ck_assert(str_equal(identity.name, rows[_i].name));
    identity_clear(&identity);
}
END_TEST

START_TEST(only_agents_mesh_and_only_operators_read)
{
    for (enum role role = ROLE_none; role <= ROLE_admin; role++) {
        ck_assert_int_eq((role_permissions(role) & MAY_MESH) != 0, role == ROLE_agent);
        ck_assert_int_eq((role_permissions(role) & MAY_READ) != 0, role >= ROLE_auditor);
    }
    ck_assert_uint_eq(role_permissions(ROLE_none), 0);
    ck_assert_str_eq(role_name(ROLE_admin), "admin");
}
END_TEST

/* ---- options --------------------------------------------------------------------------------- */

static const struct {
    const char *text, *reason; /* NULL: good */
} checks[] = {
    {"", NULL},
    {"[identity]\ntrust_domain = a-b.c_d\n", NULL},
    {"[operators]\na/b = auditor\nc/d = developer\ne/f = operator\ng/h = admin\n", NULL},
    {"[identity]\ntrust_domain = Example.org\n", "trust_domain"},
    {"[identity]\ntrust_domain = a/b\n", "trust_domain"},
    {"[identity]\ntrust_domain = a:1\n", "trust_domain"},
    {"[identity]\ntrust_domain = spiffe://a\n", "trust_domain"},
    {"[identity]\nagent_path = /agent/{agent}\n", "agent_path"},
    {"[identity]\nagent_path = /agent/{tenant}/{name}\n", "agent_path"},
    {"[identity]\noperator_path = operator/{tenant}/{name}\n", "operator_path"},
    {"[identity]\noperator_path = /operator/{tenant}/{agent}\n", "operator_path"},
    {"[operators]\na/b = boss\n", "operators"},
    {"[operators]\na/b = Admin\n", "operators"},
    {"[operators]\na/b =\n", "operators"},
    {"[operators]\na/b = agent\n", "operators"},
    {"[operators]\na/b = none\n", "operators"},
    {"[operators]\na/b = admin\nc/d = boss\n", "operators"},
};

START_TEST(options_are_checked)
{
    const char *why;

    close_options();
    read_options(checks[_i].text);
    why = identity_check_options(&options);
    if (checks[_i].reason)
        ck_assert_msg(why && strstr(why, checks[_i].reason), "%s", why ? why : "accepted");
    else
        ck_assert_msg(!why, "%s", why);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("identity");
    TCase *certificates = suite_case(suite, "certificates");
    TCase *roles = suite_case(suite, "roles");

    tcase_add_checked_fixture(certificates, open_options, close_options);
    tcase_add_checked_fixture(roles, open_options, close_options);
    tcase_add_loop_test(certificates, a_leaf_is_taken_by_the_rules, 0, COUNT_OF(leaves));
    tcase_add_loop_test(certificates, long_names_are_refused, 0, COUNT_OF(lengths));
    tcase_add_loop_test(certificates, a_broken_or_repeated_extension_is_refused, 0, 8);
    tcase_add_loop_test(roles, an_operators_role_comes_from_the_first_line_that_fits, 0,
                        COUNT_OF(operators));
    tcase_add_loop_test(roles, templates_are_configuration, 0, 3);
    tcase_add_test(roles, only_agents_mesh_and_only_operators_read);
    tcase_add_loop_test(roles, options_are_checked, 0, COUNT_OF(checks));
    return suite_run(suite);
}
