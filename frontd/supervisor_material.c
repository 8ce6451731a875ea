/* Reads the public half of TLS from its files, for the workers, which can open none, and tries it
 * out. A set that is not whole, or that a worker could not use, is refused. */
#include "frontd/supervisor.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"
#include "frontd/tls_material.h"

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

/* ---- the trial ------------------------------------------------------------------------------ */

/* A reading of the set: what was read goes into a context as a worker would put it there. */
struct trial {
    struct supervisor_material *material;
    SSL_CTX *context;
    char *error;
    size_t error_size;
};

/* Notes the file's name, and when all that is in it is valid. */
static void note_file(struct supervisor_material *material, const char *path, const char *text)
{
    struct supervisor_file file = {str_dup(str_from(path)), INT64_MIN, INT64_MAX};
    BIO *bio = BIO_new_mem_buf(text, -1);
    X509 *certificate;

    while ((certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        int64_t starts = tls_time_seconds(X509_get0_notBefore(certificate));
        int64_t ends = tls_time_seconds(X509_get0_notAfter(certificate));

        file.starts = starts > file.starts ? starts : file.starts;
        file.ends = ends < file.ends ? ends : file.ends;
        X509_free(certificate);
    }
    BIO_free(bio);
    ERR_clear_error();
    material->files =
        memory_resize(material->files, (material->file_count + 1) * sizeof(*material->files));
    material->files[material->file_count++] = file;
}

/* Notes the key's name. The key that the trial goes on with is the public half alone. */
static EVP_PKEY *note_key(const struct tls_key_maker *maker, const X509 *leaf, const char **why)
{
    struct supervisor_material *material = maker->arg;
    EVP_PKEY *key = X509_get_pubkey((X509 *)leaf);
    size_t count = material->key_count;

    *why = "its public key cannot be read";
    if (!key || !tls_signature_key_type(key, why)) {
        EVP_PKEY_free(key);
        return NULL;
    }
    material->keys = memory_resize(material->keys, (count + 1) * sizeof(*material->keys));
    material->keys[count].file = material->files[material->file_count - 1].name;
    tls_signature_key_id(key, material->keys[count].id);
    material->key_count++;
    return key;
}

static bool name_file(struct trial *trial, const char *path, const char *why)
{
    snprintf(trial->error, trial->error_size, "%s: %s", path, why);
    return false;
}

static bool try_certificates(struct trial *trial, const char *path, const char *text)
{
    const struct tls_key_maker maker = {note_key, trial->material};
    char why[256];

    note_file(trial->material, path, text);
    return tls_material_use_certificates(trial->context, &maker, str_from(text), why,
                                         sizeof(why)) ||
           name_file(trial, path, why);
}

/* All certificate files, one behind the other. */
static char *read_certificates(struct trial *trial, const struct config_list *files)
{
    cleanup_free char *all = str_dup(STR(""));

    for (size_t i = 0; i < files->count; i++) {
        size_t have = strlen(all);
        size_t left = have < PROTO_CERTIFICATES_MAX ? PROTO_CERTIFICATES_MAX - have - 1 : 0;
        cleanup_free char *text =
            read_pem(files->items[i], PEM_CERTIFICATES, left, trial->error, trial->error_size);

        if (!text || !try_certificates(trial, files->items[i], text))
            return NULL;
        all = memory_resize(all, have + strlen(text) + 2);
        memcpy(all + have, text, strlen(text));
        memcpy(all + have + strlen(text), "\n", 2);
    }
    return steal_pointer(all);
}

static char *read_client_ca(struct trial *trial, const char *path)
{
    cleanup_free char *text =
        read_pem(path, PEM_CERTIFICATES, PROTO_CLIENT_CA_MAX, trial->error, trial->error_size);
    char why[256];

    if (text && !tls_material_use_client_ca(trial->context, str_from(text), why, sizeof(why))) {
        name_file(trial, path, why);
        return NULL;
    }
    return steal_pointer(text);
}

static char *read_crls(struct trial *trial, const char *path)
{
    cleanup_free char *text =
        *path ? read_pem(path, PEM_CRLS, PROTO_CRLS_MAX, trial->error, trial->error_size)
              : str_dup(STR(""));
    char why[256];

    if (text && !tls_material_use_crls(trial->context, str_from(text), why, sizeof(why))) {
        name_file(trial, path, why);
        return NULL;
    }
    return steal_pointer(text);
}

bool supervisor_read_material(const struct frontd_options *options,
                              struct supervisor_material *material, char *error, size_t error_size)
{
    struct trial trial = {.material = material,
                          .context = tls_material_context(error, error_size),
                          .error = error,
                          .error_size = error_size};

    if (!trial.context)
        return false;
    material->certificates = read_certificates(&trial, &options->tls_certificates);
    if (material->certificates)
        material->client_ca = read_client_ca(&trial, options->tls_client_ca);
    if (material->client_ca)
        material->crls = read_crls(&trial, options->tls_crl);
    SSL_CTX_free(trial.context);
    if (material->crls)
        return true;
    supervisor_free_material(material);
    return false;
}

bool supervisor_crls_in_date(const struct supervisor_material *material)
{
    BIO *bio = BIO_new_mem_buf(material->crls, -1);
    bool in_date = true;
    X509_CRL *crl;

    while ((crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
        const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);

        if (X509_cmp_current_time(X509_CRL_get0_lastUpdate(crl)) > 0 ||
            (next && X509_cmp_current_time(next) < 0))
            in_date = false;
        X509_CRL_free(crl);
    }
    BIO_free(bio);
    ERR_clear_error();
    return in_date;
}

const char *supervisor_out_of_date(const struct supervisor_material *material)
{
    int64_t now = clock_wall_ms() / 1000;

    for (size_t i = 0; i < material->file_count; i++)
        if (now < material->files[i].starts || now > material->files[i].ends)
            return material->files[i].name;
    return NULL;
}

void supervisor_tell_out_of_date(const struct supervisor_material *material)
{
    const char *file = supervisor_out_of_date(material);

    if (file)
        log_error("a server certificate is out of date: clients will refuse it",
                  LOG_TEXT("file", file));
}

void supervisor_free_material(struct supervisor_material *material)
{
    free(material->certificates);
    free(material->client_ca);
    free(material->crls);
    for (size_t i = 0; i < material->file_count; i++)
        free(material->files[i].name);
    free(material->files);
    free(material->keys);
    *material = (struct supervisor_material){0};
}
