/* Role: the program `keeper`: reads its configuration and its private keys, then answers workers'
 * requests for TLS signatures until it is told to stop. A new key is loaded by restarting it.
 * Touches: its configuration, its key files, its Unix socket.
 * Never touches: a client's bytes, the network, the database, another program.
 * Talks to: frontd's workers. */
#include "common/ids.h"
#include "common/log.h"
#include "frontd/keeper.h"

#include <stdlib.h>
#include <unistd.h>

static const struct config_option OPTIONS[] = {
#define CONFIG_STRUCT struct keeper_options
#define OPTION        CONFIG_ROW
#include "frontd/keeper_options.def"
#undef OPTION
    CONFIG_END,
};

static void log_keys(const struct keeper_keys *keys)
{
    char name[2 * TLS_SIGNATURE_KEY_ID_SIZE + 1];

    for (size_t i = 0; i < keys->count; i++) {
        ids_hex(keys->items[i].id, sizeof(keys->items[i].id), name);
        log_info("holding a key", LOG_TEXT("type", keys->items[i].type), LOG_TEXT("key_id", name));
    }
}

static void load_keys(struct keeper *keeper)
{
    char error[4608];

    keeper_keys_protect_memory();
    if (keeper_keys_load(&keeper->keys, &keeper->options.keys_files,
                         getenv("CREDENTIALS_DIRECTORY"), error, sizeof(error)) != 0)
        log_fatal("cannot load a private key", LOG_TEXT("file", error));
    log_keys(&keeper->keys);
}

static void close_all(struct keeper *keeper, int listener)
{
    ipc_server_free(keeper->server);
    close(listener);
    keeper_keys_free(&keeper->keys);
    service_close(&keeper->service);
    free(keeper->peers);
    config_free(OPTIONS, &keeper->options);
}

int main(int argc, char **argv)
{
    static const struct service_events events = {.drain = keeper_drain};
    static const struct service_program program = {.name = "keeper",
                                                   .default_file = CAF_SYSCONF "/keeper.conf",
                                                   .options = OPTIONS,
                                                   .metrics = keeper_metrics_table};
    struct keeper keeper = {0};

    service_configure(&program, argc, argv, &keeper.options);
    service_open(&keeper.service, "keeper", &events, &keeper, keeper.options.service_stop_seconds);
    load_keys(&keeper);
    int listener = service_unix_listener(keeper.options.ipc_socket, 0600);
    keeper_serve(&keeper, listener);
    int status = service_run(&keeper.service);
    close_all(&keeper, listener);
    return status;
}
