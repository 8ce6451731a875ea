/* Which key files the keeper takes, which it refuses and why, and where it keeps what it read. */
#include "common/memory.h"
#include "frontd/keeper_keys.h"

#include <check.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[32];

static void folder_make(void)
{
    snprintf(folder, sizeof(folder), "/tmp/caf-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void folder_remove(void)
{
    rmdir(folder);
}

static char *path_in_folder(char path[64], const char *name)
{
    snprintf(path, 64, "%s/%s", folder, name);
    return path;
}

static void key_write(const char *path, EVP_PKEY *key)
{
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    FILE *out = fdopen(file, "w");
    ck_assert_int_eq(PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(out);
}

static const char *load_one(const char *name, const char *directory)
{
    static char error[512];
    char *files[] = {memory_copy(name, strlen(name))};
    const struct config_list list = {files, 1};
    struct keeper_keys keys;
    error[0] = '\0';
    if (keeper_keys_load(&keys, &list, directory, error, sizeof(error)) == 0)
        keeper_keys_free(&keys);
    else
        ck_assert_uint_eq(keys.count, 0);
    free(files[0]);
    return error;
}

static const char *load_text(const char *text, size_t length, mode_t mode)
{
    char path[64];
    int file = open(path_in_folder(path, "candidate.key"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_eq(write(file, text, length), (ssize_t)length);
    fchmod(file, mode);
    close(file);
    const char *error = load_one(path, NULL);
    unlink(path);
    const char *reason = strstr(error, ": ");
    return reason ? reason + 2 : error;
}

static const char *load_key(EVP_PKEY *key, const EVP_CIPHER *cipher, mode_t mode)
{
    BIO *out = BIO_new(BIO_s_mem());
    char *text;
    ck_assert_int_eq(
        PEM_write_bio_PrivateKey(out, key, cipher, (const uint8_t *)"x", 1, NULL, NULL), 1);
    long length = BIO_get_mem_data(out, &text);
    const char *error = load_text(text, (size_t)length, mode);
    BIO_free(out);
    EVP_PKEY_free(key);
    return error;
}

START_TEST(every_configured_key_is_found_by_its_name_and_no_other)
{
    char paths[2][64], error[512];
    char *names[] = {paths[0], paths[1]};
    const struct config_list list = {names, 2};
    EVP_PKEY *written[] = {EVP_EC_gen("P-256"), EVP_RSA_gen(2048)};
    uint8_t id[TLS_SIGNATURE_KEY_ID_SIZE];
    struct keeper_keys keys;

    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof(paths[i]), "%s/%d.key", folder, i);
        key_write(paths[i], written[i]);
    }
    ck_assert_int_eq(keeper_keys_load(&keys, &list, NULL, error, sizeof(error)), 0);
    ck_assert_uint_eq(keys.count, 2);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(tls_signature_key_id(written[i], id), 0);
        const struct keeper_key *found =
            keeper_keys_find(&keys, (struct str){(const char *)id, sizeof(id)});
        ck_assert_ptr_eq(found, &keys.items[i]);
        ck_assert_str_eq(found->type, i == 0 ? "EC" : "RSA");
        ck_assert_ptr_null(keeper_keys_find(&keys, (struct str){(const char *)id, sizeof(id) - 1}));
        id[31] ^= 1;
        ck_assert_ptr_null(keeper_keys_find(&keys, (struct str){(const char *)id, sizeof(id)}));
        EVP_PKEY_free(written[i]);
        unlink(paths[i]);
    }
    keeper_keys_free(&keys);
}
END_TEST

START_TEST(private_numbers_lie_in_memory_that_is_locked_and_not_dumped)
{
    char path[64], error[512];
    char *names[] = {path_in_folder(path, "own.key")};
    const struct config_list list = {names, 1};
    struct keeper_keys keys;
    struct rlimit core;
    EVP_PKEY *key = EVP_RSA_gen(2048);

    key_write(path, key);
    EVP_PKEY_free(key);
    keeper_keys_protect_memory();
    ck_assert_int_eq(getrlimit(RLIMIT_CORE, &core), 0);
    ck_assert_uint_eq(core.rlim_max, 0);
    size_t before = CRYPTO_secure_used();
    ck_assert_int_eq(keeper_keys_load(&keys, &list, NULL, error, sizeof(error)), 0);
    ck_assert_uint_ge(CRYPTO_secure_used() - before, 2048 / 8 * 3); /* d, p and q, and three more */
    keeper_keys_free(&keys);
    ck_assert_uint_eq(CRYPTO_secure_used(), before);
    unlink(path);
}
END_TEST

START_TEST(key_files_that_are_not_fit_are_refused_with_the_reason)
{
    static const char zeros[70000];
    ck_assert_str_eq(load_key(EVP_EC_gen("P-256"), NULL, 0600), "");
    ck_assert_str_eq(load_key(EVP_RSA_gen(2048), NULL, 0440), "");
    ck_assert_str_eq(load_key(EVP_RSA_gen(1024), NULL, 0600),
                     "an RSA server key must have 2048 to 8192 bits");
    ck_assert_str_eq(load_key(EVP_EC_gen("P-384"), NULL, 0600),
                     "an EC server key must be on P-256");
    ck_assert_str_eq(load_key(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), NULL, 0600),
                     "a server key must be ECDSA P-256 or RSA");
    ck_assert_str_eq(load_key(EVP_EC_gen("P-256"), NULL, 0644),
                     "others than its owner and group have access to it");
    ck_assert_str_eq(load_key(EVP_EC_gen("P-256"), EVP_aes_128_cbc(), 0600),
                     "not an unencrypted PEM private key");
    ck_assert_str_eq(load_text("", 0, 0600), "not an unencrypted PEM private key");
    ck_assert_str_eq(load_text("no key", 6, 0600), "not an unencrypted PEM private key");
    ck_assert_str_eq(load_text(zeros, sizeof(zeros), 0600), "longer than 65536 bytes");
}
END_TEST

START_TEST(a_relative_key_file_belongs_to_the_credentials)
{
    char path[64];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    key_write(path_in_folder(path, "own.key"), key);
    EVP_PKEY_free(key);
    ck_assert_str_eq(load_one("own.key", folder), "");
    ck_assert_str_eq(load_one("own.key", NULL),
                     "own.key: a relative name needs systemd's credentials directory");
    ck_assert_str_eq(load_one("other.key", folder), "other.key: No such file or directory");
    ck_assert_str_eq(load_one(".", folder), ".: not a regular file");
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("keeper_keys");
    TCase *tests = tcase_create("key files");
    tcase_add_checked_fixture(tests, folder_make, folder_remove);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, every_configured_key_is_found_by_its_name_and_no_other);
    tcase_add_test(tests, private_numbers_lie_in_memory_that_is_locked_and_not_dumped);
    tcase_add_test(tests, key_files_that_are_not_fit_are_refused_with_the_reason);
    tcase_add_test(tests, a_relative_key_file_belongs_to_the_credentials);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
