/* Addresses and networks: which texts are some, how they are written, what is in what. */
#include "frontd/address.h"

#include "tests/unit/suite.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* ---- addresses ------------------------------------------------------------------------------ */

static const struct {
    const char *text, *written; /* NULL: refused */
} addresses[] = {
    {"192.0.2.1", "192.0.2.1"},
    {"0.0.0.0", "0.0.0.0"},
    {"255.255.255.255", "255.255.255.255"},
    {"2001:DB8:0:0::1", "2001:db8::1"},
    {"::", "::"},
    {"::1", "::1"},
    {"::ffff:192.0.2.1", "192.0.2.1"},
    {"::ffff:c000:201", "192.0.2.1"},
    {"0000:0000:0000:0000:0000:ffff:192.168.100.200", "192.168.100.200"},
    {"", NULL},
    {"192.0.2", NULL},
    {"192.0.2.256", NULL},
    {"192.0.2.1 ", NULL},
    {" 192.0.2.1", NULL},
    {"192.0.2.1:443", NULL},
    {"[::1]", NULL},
    {"fe80::1%eth0", NULL},
    {"localhost", NULL},
    {"0x7f.1", NULL},
    {"1::2::3", NULL},
    {"0000:0000:0000:0000:0000:ffff:192.168.100.2000", NULL},
};

START_TEST(test_addresses)
{
    char text[ADDRESS_TEXT_BYTES];
    struct address address;

    ck_assert_int_eq(address_parse(str_from(addresses[_i].text), &address),
                     addresses[_i].written != NULL);
    if (!addresses[_i].written)
        return;
    address_format(&address, text);
    ck_assert_str_eq(text, addresses[_i].written);
}
END_TEST

START_TEST(test_a_nul_is_no_end)
{
    struct address address;

    ck_assert(!address_parse(STR("192.0.2.1\0"), &address));
    ck_assert(!address_parse(STR("::1\0"), &address));
}
END_TEST

START_TEST(test_sockets)
{
    struct sockaddr_storage storage = {0};
    struct sockaddr_in *ip4 = (struct sockaddr_in *)&storage;
    struct sockaddr_in6 *ip6 = (struct sockaddr_in6 *)&storage;
    char text[ADDRESS_TEXT_BYTES];
    struct address address;

    ip4->sin_family = AF_INET;
    ip4->sin_addr.s_addr = htonl(0x7f000002);
    address = address_from_socket(&storage);
    address_format(&address, text);
    ck_assert_str_eq(text, "127.0.0.2");
    ip6->sin6_family = AF_INET6;
    inet_pton(AF_INET6, "::ffff:127.0.0.3", &ip6->sin6_addr);
    address = address_from_socket(&storage);
    address_format(&address, text);
    ck_assert_str_eq(text, "127.0.0.3");
}
END_TEST

/* ---- networks ------------------------------------------------------------------------------- */

static const struct {
    const char *network, *address;
    int in; /* 1, 0; -1: the network is refused */
} networks[] = {
    {"10.0.0.0/8", "10.255.255.255", 1},
    {"10.0.0.0/8", "11.0.0.0", 0},
    {"10.0.0.0/8", "::ffff:10.1.2.3", 1},
    {"10.0.0.0/8", "a00::", 0},
    {"192.0.2.4/30", "192.0.2.7", 1},
    {"192.0.2.4/30", "192.0.2.8", 0},
    {"192.0.2.4/30", "192.0.2.3", 0},
    {"192.0.2.5", "192.0.2.5", 1},
    {"192.0.2.5", "192.0.2.4", 0},
    {"192.0.2.5/32", "192.0.2.5", 1},
    {"0.0.0.0/0", "203.0.113.9", 1},
    {"0.0.0.0/0", "2001:db8::1", 0},
    {"::/0", "2001:db8::1", 1},
    {"::/0", "203.0.113.9", 0},
    {"2001:db8::/33", "2001:db8:7fff::1", 1},
    {"2001:db8::/33", "2001:db8:8000::1", 0},
    {"::ffff:10.0.0.0/104", "10.9.9.9", 1},
    {"2001:db8::1", "2001:db8::1", 1},
    {"2001:db8::1", "2001:db8::2", 0},
    {"10.0.0.1/8", "10.0.0.1", -1},
    {"2001:db8::1/64", "2001:db8::1", -1},
    {"10.0.0.0/33", "10.0.0.0", -1},
    {"::/129", "::", -1},
    {"10.0.0.0/", "10.0.0.0", -1},
    {"10.0.0.0/-1", "10.0.0.0", -1},
    {"10.0.0.0/8/8", "10.0.0.0", -1},
    {"10.0/8", "10.0.0.0", -1},
    {"proxy.example", "10.0.0.0", -1},
    {"/8", "10.0.0.0", -1},
};

START_TEST(test_networks)
{
    struct network network;
    struct address address;

    ck_assert(address_parse(str_from(networks[_i].address), &address));
    ck_assert_int_eq(network_parse(str_from(networks[_i].network), &network), networks[_i].in >= 0);
    if (networks[_i].in >= 0)
        ck_assert_int_eq(networks_have(&(struct networks){&network, 1}, &address), networks[_i].in);
}
END_TEST

START_TEST(test_lists)
{
    char *items[] = {"10.0.0.0/8", "2001:db8::/32", "10.0.0.1/8"};
    struct networks read;
    struct address address;

    ck_assert(networks_read(&(struct config_list){items, 2}, &read));
    ck_assert(address_parse(STR("2001:db8::7"), &address) && networks_have(&read, &address));
    ck_assert(address_parse(STR("192.0.2.1"), &address) && !networks_have(&read, &address));
    free(read.items);
    ck_assert(!networks_read(&(struct config_list){items, 3}, &read));
    free(read.items);
    ck_assert(networks_read(&(struct config_list){NULL, 0}, &read) &&
              !networks_have(&read, &address));
    free(read.items);
}
END_TEST

/* ---- what limits count by ------------------------------------------------------------------- */

static const struct {
    const char *address, *prefix;
} prefixes[] = {
    {"192.0.2.1", "192.0.2.1"},
    {"::ffff:192.0.2.1", "192.0.2.1"},
    {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
};

START_TEST(test_prefixes)
{
    char text[ADDRESS_TEXT_BYTES];
    struct address address;

    ck_assert(address_parse(str_from(prefixes[_i].address), &address));
    address = address_prefix(&address);
    address_format(&address, text);
    ck_assert_str_eq(text, prefixes[_i].prefix);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("address");
    TCase *tests = suite_case(suite, "all");

    tcase_add_loop_test(tests, test_addresses, 0, COUNT_OF(addresses));
    tcase_add_test(tests, test_a_nul_is_no_end);
    tcase_add_test(tests, test_sockets);
    tcase_add_loop_test(tests, test_networks, 0, COUNT_OF(networks));
    tcase_add_test(tests, test_lists);
    tcase_add_loop_test(tests, test_prefixes, 0, COUNT_OF(prefixes));
    return suite_run(suite);
}
