/* Role: reads the keeper's private keys and finds them by name.
 * Touches: the configured key files, at start only; private keys, which stay in this process.
 * Never touches: sockets; it logs names of keys (hashes of the public halves) and never a key.
 * Talks to: nobody. */
#include "frontd/keeper_keys.h"

#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    KEY_FILE_MAX = 65536,
    SECURE_HEAP_SIZE = 1048576, /* a power of two; an 8,192-bit RSA key takes about 10 KiB of it */
    SECURE_HEAP_UNIT = 32,
};

void keeper_keys_protect_memory(void)
{
    const struct rlimit none = {0, 0};

    if (setrlimit(RLIMIT_CORE, &none) != 0)
        log_fatal("cannot forbid core files", LOG_TEXT("error", strerror(errno)));
    switch (CRYPTO_secure_malloc_init(SECURE_HEAP_SIZE, SECURE_HEAP_UNIT)) {
    case 0:
        log_fatal("cannot make the secure heap");
    case 2:
        log_warn("the secure heap is not locked: keys might be swapped out (see RLIMIT_MEMLOCK)");
    }
}

/* Opens a key file for reading. Returns its descriptor and its size, or -1 with the reason in *why.
 */
static int file_open(const char *path, size_t *size, const char **why)
{
    cleanup_close int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat status;

    if (file < 0 || fstat(file, &status) != 0)
        *why = strerror(errno);
    else if (!S_ISREG(status.st_mode))
        *why = "not a regular file";
    else if ((status.st_mode & S_IRWXO) != 0)
        *why = "others than its owner and group have access to it";
    else if (status.st_size > KEY_FILE_MAX)
        *why = "longer than 65536 bytes";
    else {
        *size = (size_t)status.st_size;
        return steal_descriptor(&file);
    }
    return -1;
}

/* There is nobody to ask for a passphrase. */
static int passphrase_refuse(char *buffer, int size, int is_encryption, void *arg)
{
    (void)buffer;
    (void)size;
    (void)is_encryption;
    (void)arg;
    return -1;
}

static EVP_PKEY *key_parse(const void *text, size_t length, const char **why)
{
    BIO *source = BIO_new_mem_buf(text, (int)length);
    EVP_PKEY *key = source ? PEM_read_bio_PrivateKey(source, NULL, passphrase_refuse, NULL) : NULL;

    BIO_free(source);
    ERR_clear_error();
    if (!key)
        *why = "not an unencrypted PEM private key";
    return key;
}

/* Reads a key; the buffer that held the file's content is wiped. */
static EVP_PKEY *key_read(const char *path, const char **why)
{
    size_t size = 0;
    cleanup_close int file = file_open(path, &size, why);
    EVP_PKEY *key = NULL;

    if (file < 0)
        return NULL;
    void *text = OPENSSL_secure_malloc(size + 1);
    if (!text)
        *why = "no room in the secure heap";
    else if (read(file, text, size) != (ssize_t)size)
        *why = "cannot be read whole";
    else
        key = key_parse(text, size, why);
    OPENSSL_secure_clear_free(text, size + 1);
    return key;
}

/* Takes the key at path into the entry. Returns false with the reason in *why. */
static bool key_load(struct keeper_key *entry, const char *path, const char **why)
{
    entry->key = key_read(path, why);
    if (!entry->key)
        return false;
    entry->type = tls_signature_key_type(entry->key, why);
    if (!entry->type)
        return false;
    *why = "its public half cannot be encoded";
    return tls_signature_key_id(entry->key, entry->id) == 0;
}

/* The path of a configured name; false when it is relative to nothing or too long. */
static bool path_find(const char *name, const char *directory, char *path, size_t size,
                      const char **why)
{
    int length;

    *why = "a relative name needs systemd's credentials directory";
    if (name[0] != '/' && !directory)
        return false;
    *why = "the path is too long";
    if (name[0] == '/')
        length = snprintf(path, size, "%s", name);
    else
        length = snprintf(path, size, "%s/%s", directory, name);
    return length > 0 && (size_t)length < size;
}

int keeper_keys_load(struct keeper_keys *keys, const struct config_list *files,
                     const char *directory, char *error, size_t error_size)
{
    char path[4096];
    const char *why;

    *keys = (struct keeper_keys){.items = memory_new(files->count, sizeof(*keys->items))};
    for (size_t i = 0; i < files->count; i++) {
        struct keeper_key *entry = &keys->items[keys->count++];
        if (path_find(files->items[i], directory, path, sizeof(path), &why) &&
            key_load(entry, path, &why))
            continue;
        snprintf(error, error_size, "%s: %s", files->items[i], why);
        keeper_keys_free(keys);
        return -1;
    }
    return 0;
}

const struct keeper_key *keeper_keys_find(const struct keeper_keys *keys, struct str id)
{
    for (size_t i = 0; i < keys->count; i++)
        if (str_equal(id, (struct str){(const char *)keys->items[i].id, sizeof(keys->items[i].id)}))
            return &keys->items[i];
    return NULL;
}

void keeper_keys_free(struct keeper_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++)
        EVP_PKEY_free(keys->items[i].key);
    free(keys->items);
    *keys = (struct keeper_keys){0};
}
