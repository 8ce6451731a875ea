/* Session tickets in memory, on the small stack of a handshake's job: what resumes, what does not,
 * and how much of that stack the longest chain leaves. */
#include "frontd/tls.h"
#include "frontd/tls_verify.h"
#include "tests/unit/suite.h"

#include <openssl/async.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

enum {
    JOB_STACK = 32768, /* what OpenSSL's job allocates */
    JOB_STACK_LEFT_MIN = JOB_STACK / 2,
    PAINT = 0xa5,
    STACKS_MAX = 64,
    INTERMEDIATES = TLS_CHAIN_DEPTH_MAX,
};

/* ---- the stacks of jobs --------------------------------------------------------------------- */

static struct {
    unsigned char *at[STACKS_MAX];
    size_t count;
} stacks;

static void *painting_malloc(size_t size, const char *file, int line)
{
    unsigned char *bytes = malloc(size);

    (void)file, (void)line;
    if (size == JOB_STACK && stacks.count < STACKS_MAX) {
        memset(bytes, PAINT, size);
        stacks.at[stacks.count++] = bytes;
    }
    return bytes;
}

static void *plain_realloc(void *old, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return realloc(old, size);
}

static void plain_free(void *bytes, const char *file, int line)
{
    (void)file, (void)line;
    free(bytes);
}

/* The bytes of the fullest stack that nobody has touched. */
static size_t stack_left(void)
{
    size_t least = JOB_STACK;

    for (size_t i = 0; i < stacks.count; i++) {
        size_t left = 0;

        while (left < JOB_STACK && stacks.at[i][left] == PAINT)
            left++;
        least = left < least ? left : least;
    }
    return least;
}

/* ---- certificates --------------------------------------------------------------------------- */

struct holder {
    EVP_PKEY *key;
    X509 *certificate;
};

static struct holder root, server, client;
static struct holder below[INTERMEDIATES];

static void add_extension(X509 *certificate, int nid, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    ck_assert_ptr_nonnull(extension);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

static struct holder issue(const struct holder *issuer, const char *name, EVP_PKEY *key,
                           const char *san)
{
    struct holder holder = {key, X509_new()};
    X509_NAME *subject = X509_get_subject_name(holder.certificate);

    X509_set_version(holder.certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(holder.certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(holder.certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(holder.certificate), 3600);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0);
    X509_set_issuer_name(holder.certificate,
                         issuer ? X509_get_subject_name(issuer->certificate) : subject);
    X509_set_pubkey(holder.certificate, key);
    add_extension(holder.certificate, NID_basic_constraints,
                  san ? "critical,CA:FALSE" : "critical,CA:TRUE");
    if (san)
        add_extension(holder.certificate, NID_subject_alt_name, san);
    ck_assert_int_gt(X509_sign(holder.certificate, issuer ? issuer->key : key, EVP_sha256()), 0);
    return holder;
}

static void make_certificates(void)
{
    const struct holder *above = &root;

    root = issue(NULL, "root", EVP_EC_gen("P-256"), NULL);
    server = issue(&root, "server", EVP_EC_gen("P-256"), "DNS:localhost");
    for (size_t i = 0; i < INTERMEDIATES; i++) {
        char name[16];

        snprintf(name, sizeof(name), "below %zu", i);
        below[i] = issue(above, name, EVP_RSA_gen(2048), NULL);
        above = &below[i];
    }
    client = issue(above, "client", EVP_EC_gen("P-384"), "URI:spiffe://caf.test/agent/acme/a");
}

static void free_certificates(void)
{
    struct holder *all[] = {&root, &server, &client};

    for (size_t i = 0; i < COUNT_OF(all); i++) {
        EVP_PKEY_free(all[i]->key);
        X509_free(all[i]->certificate);
    }
    for (size_t i = 0; i < INTERMEDIATES; i++) {
        EVP_PKEY_free(below[i].key);
        X509_free(below[i].certificate);
    }
}

/* ---- both sides ----------------------------------------------------------------------------- */

static struct tls_ticket_keys keys;
static struct deny deny;
static char trust_domain[] = "caf.test", agent_path[] = "/agent/{tenant}/{agent}",
            operator_path[] = "/operator/{tenant}/{name}";
static const struct frontd_options options = {.tls_ticket_key_seconds = 3600,
                                              .identity_trust_domain = trust_domain,
                                              .identity_agent_path = agent_path,
                                              .identity_operator_path = operator_path};

static SSL_CTX *server_context(int verify)
{
    char error[128];
    SSL_CTX *context = tls_material_context(error, sizeof(error));

    SSL_CTX_use_certificate(context, server.certificate);
    SSL_CTX_use_PrivateKey(context, server.key);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), root.certificate);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | verify, NULL);
    SSL_CTX_set_verify_depth(context, TLS_CHAIN_DEPTH_MAX);
    SSL_CTX_set_cert_verify_callback(context, tls_verify_shown, NULL);
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"caf", 3);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    tls_tickets_enable(context, &options, &keys);
    return context;
}

static SSL_CTX *client_context(int version, bool shows_certificate)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    if (shows_certificate) {
        SSL_CTX_use_certificate(context, client.certificate);
        SSL_CTX_use_PrivateKey(context, client.key);
        for (size_t i = 0; i < INTERMEDIATES; i++)
            SSL_CTX_add1_chain_cert(context, below[INTERMEDIATES - 1 - i].certificate);
    }
    return context;
}

/* One connection; *session is brought, and replaced by what the server gave. True: both sides have
 * come through. */
static bool connect_both(SSL_CTX *server_side, SSL_CTX *client_side, SSL_SESSION **session,
                         struct tls_peer *peer)
{
    SSL *here = SSL_new(server_side), *there = SSL_new(client_side);
    BIO *one, *other;
    char byte;
    bool good = true;
    int result[2] = {0, 0};

    BIO_new_bio_pair(&one, 0, &other, 0);
    SSL_set_bio(here, one, one);
    SSL_set_bio(there, other, other);
    SSL_set_accept_state(here);
    SSL_set_connect_state(there);
    SSL_set_mode(here, SSL_MODE_ASYNC);
    SSL_set_app_data(here, peer);
    if (*session)
        SSL_set_session(there, *session);
    for (int i = 0; i < 30; i++) {
        result[0] = SSL_do_handshake(there);
        result[1] = SSL_do_handshake(here);
    }
    good = result[0] == 1 && result[1] == 1;
    if (good) {
        SSL_read(there, &byte, 1); /* takes the tickets in */
        tls_connection_settle(here);
        SSL_SESSION_free(*session);
        *session = SSL_get1_session(there);
        SSL_shutdown(there); /* or the session could not be used again */
        SSL_shutdown(here);
    }
    SSL_free(here);
    SSL_free(there);
    ERR_clear_error();
    return good;
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

START_TEST(the_longest_chain_is_resumed_on_a_jobs_stack)
{
    SSL_CTX *here = server_context(0), *there = client_context(versions[_i], true);
    struct tls_peer peer = {.options = &options, .deny = &deny};
    SSL_SESSION *session = NULL;

    for (int i = 0; i < 3; i++) {
        ck_assert(connect_both(here, there, &session, &peer));
        ck_assert_int_eq(peer.resumed, i > 0);
        ck_assert_str_eq(peer.identity.spiffe_id, "spiffe://caf.test/agent/acme/a");
        tls_peer_clear(&peer);
    }
    ck_assert_uint_gt(stacks.count, 0);
    ck_assert_uint_ge(stack_left(), JOB_STACK_LEFT_MIN);
    SSL_SESSION_free(session);
    SSL_CTX_free(here);
    SSL_CTX_free(there);
}
END_TEST

START_TEST(a_required_certificate_is_not_got_around)
{
    SSL_CTX *optional = server_context(0);
    SSL_CTX *required = server_context(SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
    SSL_CTX *there = client_context(versions[_i], false);
    struct tls_peer peer = {.options = &options, .deny = &deny};
    SSL_SESSION *session = NULL;

    ck_assert(connect_both(optional, there, &session, &peer));
    ck_assert(connect_both(optional, there, &session, &peer));
    ck_assert(peer.resumed && peer.identity.kind == IDENTITY_NONE);
    ck_assert(!connect_both(required, there, &session, &peer));
    SSL_SESSION_free(session);
    SSL_CTX_free(optional);
    SSL_CTX_free(required);
    SSL_CTX_free(there);
}
END_TEST

/* The keys of another supervisor, or of this one after all tickets were ended. */
START_TEST(other_keys_end_a_ticket)
{
    SSL_CTX *here = server_context(0), *there = client_context(versions[_i], true);
    struct tls_peer peer = {.options = &options, .deny = &deny};
    struct tls_ticket_keys old = keys;
    SSL_SESSION *session = NULL;

    ck_assert(connect_both(here, there, &session, &peer));
    keys.previous = keys.current;
    memset(&keys.current, 3, sizeof(keys.current));
    ck_assert(connect_both(here, there, &session, &peer));
    ck_assert(peer.resumed); /* by the previous key, and has a ticket of the new one */
    memset(&keys.previous, 4, sizeof(keys.previous));
    ck_assert(connect_both(here, there, &session, &peer));
    ck_assert(peer.resumed);
    keys.next = keys.current; /* another worker has turned the keys already */
    memset(&keys.current, 5, sizeof(keys.current));
    ck_assert(connect_both(here, there, &session, &peer));
    ck_assert(peer.resumed);
    memset(&keys, 6, sizeof(keys));
    ck_assert(connect_both(here, there, &session, &peer));
    ck_assert(!peer.resumed && peer.identity.kind == IDENTITY_AGENT);
    keys = old;
    tls_peer_clear(&peer);
    SSL_SESSION_free(session);
    SSL_CTX_free(here);
    SSL_CTX_free(there);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tls_tickets");
    TCase *all = suite_case(suite, "tickets");

    CRYPTO_set_mem_functions(painting_malloc, plain_realloc, plain_free);
    memset(&keys.current, 1, sizeof(keys.current));
    memset(&keys.previous, 2, sizeof(keys.previous));
    tcase_add_unchecked_fixture(all, make_certificates, free_certificates);
    tcase_add_loop_test(all, the_longest_chain_is_resumed_on_a_jobs_stack, 0, 2);
    tcase_add_loop_test(all, a_required_certificate_is_not_got_around, 0, 2);
    tcase_add_loop_test(all, other_keys_end_a_ticket, 0, 2);
    return suite_run(suite);
}
