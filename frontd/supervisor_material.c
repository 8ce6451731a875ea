/* Reads the public half of TLS from its files, for the workers, which can open none. A set that is
 * not whole is refused. */
#include "frontd/supervisor.h"

#include "common/memory.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

/* A file's content of at most max bytes, NUL-terminated, that the caller frees; NULL with the
 * reason in error. */
static char *read_file(const char *path, size_t max, char *error, size_t error_size)
{
    FILE *file = fopen(path, "re");
    char *text;
    size_t len;

    if (!file) {
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
        return NULL;
    }
    text = memory_new(1, max + 1);
    len = fread(text, 1, max + 1, file);
    if (ferror(file))
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
    else if (len > max)
        snprintf(error, error_size, "%s: more than the %zu bytes left for such files", path, max);
    else
        text[len] = '\0';
    if (ferror(file) || len > max) {
        free(text);
        text = NULL;
    }
    fclose(file);
    return text;
}

enum pem_kind { PEM_CERTIFICATES, PEM_CRLS };

/* How many objects of the kind OpenSSL can read in the text. */
static int count_objects(const char *text, enum pem_kind kind)
{
    BIO *bio = BIO_new_mem_buf(text, -1);
    STACK_OF(X509_INFO) *objects = PEM_X509_INFO_read_bio(bio, NULL, NULL, NULL);
    int count = 0;

    for (int i = 0; i < sk_X509_INFO_num(objects); i++) {
        const X509_INFO *object = sk_X509_INFO_value(objects, i);

        count += kind == PEM_CERTIFICATES ? object->x509 != NULL : object->crl != NULL;
    }
    sk_X509_INFO_pop_free(objects, X509_INFO_free);
    BIO_free(bio);
    ERR_clear_error();
    return count;
}

/* How often the text begins a PEM object: more than could be read means that one is broken. */
static int count_begins(const char *text)
{
    int count = 0;

    for (const char *at = text; (at = strstr(at, "-----BEGIN ")); at++)
        count++;
    return count;
}

/* Reads a PEM file in which every object must be of the kind, and readable. */
static char *read_pem(const char *path, enum pem_kind kind, size_t max, char *error,
                      size_t error_size)
{
    char *text = read_file(path, max, error, error_size);
    int found = text ? count_objects(text, kind) : 0;

    if (text && strstr(text, "PRIVATE KEY-----"))
        snprintf(error, error_size, "%s: holds a private key, which is the keeper's alone", path);
    else if (text && (found == 0 || found != count_begins(text)))
        snprintf(error, error_size, "%s: object %d is missing or malformed", path, found + 1);
    else
        return text;
    free(text);
    return NULL;
}

/* All certificate files, one behind the other. */
static char *read_certificates(const struct config_list *files, char *error, size_t error_size)
{
    cleanup_free char *all = str_dup(STR(""));

    for (size_t i = 0; i < files->count; i++) {
        size_t have = strlen(all);
        size_t left = have < PROTO_CERTIFICATES_MAX ? PROTO_CERTIFICATES_MAX - have - 1 : 0;
        cleanup_free char *text =
            read_pem(files->items[i], PEM_CERTIFICATES, left, error, error_size);

        if (!text)
            return NULL;
        all = memory_resize(all, have + strlen(text) + 2);
        memcpy(all + have, text, strlen(text));
        memcpy(all + have + strlen(text), "\n", 2);
    }
    return steal_pointer(all);
}

bool supervisor_read_material(const struct frontd_options *options,
                              struct supervisor_material *material, char *error, size_t error_size)
{
    struct supervisor_material fresh = {0};
    bool has_crls = *options->tls_crl != '\0';

    fresh.certificates = read_certificates(&options->tls_certificates, error, error_size);
    if (fresh.certificates)
        fresh.client_ca = read_pem(options->tls_client_ca, PEM_CERTIFICATES, PROTO_CLIENT_CA_MAX,
                                   error, error_size);
    if (fresh.client_ca)
        fresh.crls = has_crls
                         ? read_pem(options->tls_crl, PEM_CRLS, PROTO_CRLS_MAX, error, error_size)
                         : str_dup(STR(""));
    if (!fresh.crls) {
        supervisor_free_material(&fresh);
        return false;
    }
    supervisor_free_material(material);
    *material = fresh;
    return true;
}

void supervisor_free_material(struct supervisor_material *material)
{
    free(material->certificates);
    free(material->client_ca);
    free(material->crls);
    *material = (struct supervisor_material){0};
}
