/* A handshake that fails is told to the worker before it is told to the client: whoever saw it
 * refused has been counted. */
#include "frontd/tls.h"
#include "tests/unit/suite.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

static struct world {
    SSL_CTX *context;
    struct tls_peer peer;
    SSL *ssl;
    int server, client;
    int refusals;
    char why[64];
} world;

static ssize_t bytes_for_client(void)
{
    char byte;

    return recv(world.client, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
}

static void note_refusal(const struct tls_peer *peer)
{
    ck_assert_ptr_eq(peer, &world.peer);
    ck_assert_int_eq(bytes_for_client(), -1);
    world.refusals++;
    snprintf(world.why, sizeof(world.why), "%s", tls_refusal_reason(peer));
}

static void open_world(void)
{
    int ends[2];

    world = (struct world){.context = SSL_CTX_new(TLS_server_method())};
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    SSL_CTX_set_options(world.context, SSL_OP_IGNORE_UNEXPECTED_EOF); /* as the worker does */
    world.server = ends[0];
    world.client = ends[1];
    fcntl(world.server, F_SETFL, O_NONBLOCK);
    world.peer.refused = note_refusal;
    world.peer.reads_left = TLS_READS_PER_TURN;
    world.ssl = tls_connection_new(world.context, world.server, &world.peer);
    ck_assert_ptr_nonnull(world.ssl);
}

static void close_world(void)
{
    SSL_free(world.ssl);
    SSL_CTX_free(world.context);
    close(world.server);
    close(world.client);
    ERR_clear_error();
}

static int run_with(const char *bytes, size_t len)
{
    ck_assert_int_eq(send(world.client, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
    return SSL_get_error(world.ssl, SSL_do_handshake(world.ssl));
}

/* A handshake record whose message is no ClientHello. */
#define NO_HELLO "\x16\x03\x01\x00\x04\x0b\x00\x00\x00"

START_TEST(a_refusal_is_told_before_the_client_hears_of_it)
{
    ck_assert_int_eq(run_with(NO_HELLO, sizeof(NO_HELLO) - 1), SSL_ERROR_SSL);
    ck_assert_int_eq(world.refusals, 1);
    ck_assert_str_eq(world.why, "unexpected message");
    ck_assert_int_eq(bytes_for_client(), 1); /* the alert */
    SSL_shutdown(world.ssl);
    ck_assert_int_eq(world.refusals, 1);
}
END_TEST

START_TEST(what_was_wrong_with_the_certificate_is_the_reason)
{
    snprintf(world.peer.reason, sizeof(world.peer.reason), "two URI SANs");
    ck_assert_int_eq(run_with(NO_HELLO, sizeof(NO_HELLO) - 1), SSL_ERROR_SSL);
    ck_assert_str_eq(world.why, "two URI SANs");
}
END_TEST

START_TEST(nobody_is_told_who_does_not_ask)
{
    world.peer.refused = NULL;
    ck_assert_int_eq(run_with(NO_HELLO, sizeof(NO_HELLO) - 1), SSL_ERROR_SSL);
    ck_assert_int_eq(world.refusals, 0);
    ck_assert_int_eq(bytes_for_client(), 1);
}
END_TEST

START_TEST(a_client_that_leaves_is_no_refusal)
{
    shutdown(world.client, SHUT_WR);
    ck_assert_int_ne(SSL_do_handshake(world.ssl), 1);
    ck_assert_int_eq(world.refusals, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tls_refusal");
    TCase *refusals = suite_case(suite, "refusals");

    tcase_add_checked_fixture(refusals, open_world, close_world);
    tcase_add_test(refusals, a_refusal_is_told_before_the_client_hears_of_it);
    tcase_add_test(refusals, what_was_wrong_with_the_certificate_is_the_reason);
    tcase_add_test(refusals, nobody_is_told_who_does_not_ask);
    tcase_add_test(refusals, a_client_that_leaves_is_no_refusal);
    return suite_run(suite);
}
