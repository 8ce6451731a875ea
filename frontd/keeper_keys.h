/* The keeper's private keys: read once at start, kept in memory that is neither dumped nor swapped.
 */
#ifndef CAF_FRONTD_KEEPER_KEYS_H
#define CAF_FRONTD_KEEPER_KEYS_H

#include "common/config.h"
#include "frontd/tls_signature.h"

#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

struct keeper_key {
    uint8_t id[TLS_SIGNATURE_KEY_ID_SIZE];
    const char *type; /* static, as tls_signature_key_type() says it */
    EVP_PKEY *key;
};

struct keeper_keys {
    struct keeper_key *items;
    size_t count;
};

/* Makes this process's memory a fit place for keys: no core file, and for private numbers OpenSSL's
 * secure heap (guarded pages, locked, left out of dumps). Once, before the first key is read. Ends
 * the process when that cannot be had; where only the locking is refused, logs a warning. */
void keeper_keys_protect_memory(void);

/* Reads PEM private keys, one from each file. A relative name is looked up in directory (systemd's
 * credentials), NULL when there is none. Refused: a file that cannot be read, is no regular file,
 * is longer than 64 KiB or may be read by others than its owner and group; an encrypted key; a key
 * that tls_signature_key_type() does not accept. Returns 0, and keys holds them (keeper_keys_free);
 * or -1 with error set to "FILE: reason", and keys is empty. */
int keeper_keys_load(struct keeper_keys *keys, const struct config_list *files,
                     const char *directory, char *error, size_t error_size);

/* The key of that name, NULL when it is not held. id may have any length. */
const struct keeper_key *keeper_keys_find(const struct keeper_keys *keys, struct str id);

/* Frees and wipes all keys. */
void keeper_keys_free(struct keeper_keys *keys);

#endif
