/* Reads the folder of SQL files. It opens files of that folder for reading and talks to nobody;
 * what is applied later is the very text that the checksum was taken of. */
#include "cafctl/migration_files.h"

#include "common/memory.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_SIZE_MAX = 4 * 1024 * 1024, VERSION_DIGITS = 3 };

static const char suffix[] = ".sql";

static bool has_suffix(const char *name)
{
    size_t len = strlen(name), suffix_len = sizeof(suffix) - 1;
    return len >= suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
}

static int is_sql_entry(const struct dirent *entry)
{
    return has_suffix(entry->d_name);
}

/* NNN_name.sql, the name in lower-case letters, digits and underscores; returns NNN, or -1. */
static int parse_version(const char *name)
{
    int version = 0;
    for (int i = 0; i < VERSION_DIGITS; i++) {
        if (!isdigit((unsigned char)name[i]))
            return -1;
        version = version * 10 + (name[i] - '0');
    }
    size_t word = strspn(name + VERSION_DIGITS, "abcdefghijklmnopqrstuvwxyz0123456789_");
    bool well_formed = version > 0 && name[VERSION_DIGITS] == '_' &&
                       strcmp(name + VERSION_DIGITS + word, suffix) == 0;
    return well_formed ? version : -1;
}

static char *join_path(const char *folder, const char *name)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = memory_new(size, 1);
    snprintf(path, size, "%s/%s", folder, name);
    return path;
}

static bool take_checksum(const char *text, size_t len, char checksum[CHECKSUM_TEXT_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_len = 0;
    if (EVP_Digest(text, len, digest, &digest_len, EVP_sha256(), NULL) != 1)
        return false;
    for (unsigned i = 0; i < digest_len; i++)
        snprintf(checksum + 2 * i, 3, "%02x", digest[i]);
    return true;
}

/* The whole file with a NUL behind it; NULL and errno when it cannot be read or is too long. */
static char *read_text(const char *path, size_t *len)
{
    FILE *in = fopen(path, "re");
    if (!in)
        return NULL;
    char *text = memory_new(FILE_SIZE_MAX + 1, 1);
    *len = fread(text, 1, FILE_SIZE_MAX + 1, in);
    int failure = ferror(in) ? errno : *len > FILE_SIZE_MAX ? EFBIG : 0;
    fclose(in);
    if (failure) {
        free(text);
        errno = failure;
        return NULL;
    }
    text = memory_resize(text, *len + 1);
    text[*len] = '\0';
    return text;
}

/* Fills a file whose path is set. */
static bool read_file(struct migration_file *file)
{
    size_t len = 0;
    file->text = read_text(file->path, &len);
    if (!file->text) {
        fprintf(stderr, "cafctl: %s: %s\n", file->path, strerror(errno));
        return false;
    }
    if (strlen(file->text) != len) {
        fprintf(stderr, "cafctl: %s: holds a NUL byte\n", file->path);
        return false;
    }
    if (!take_checksum(file->text, len, file->checksum)) {
        fprintf(stderr, "cafctl: %s: SHA-256 failed\n", file->path);
        return false;
    }
    return true;
}

/* Adds the entry to the list; entries come in the order of their names. */
static bool add_migration(struct migration_files *files, const char *folder, const char *entry)
{
    struct migration_file *file = &files->files[files->count++];
    file->version = parse_version(entry);
    file->path = join_path(folder, entry);
    file->name = memory_copy(entry, strlen(entry) - (sizeof(suffix) - 1));
    if (file->version < 0) {
        fprintf(stderr, "cafctl: %s: a migration is named NNN_name.sql\n", file->path);
        return false;
    }
    if (files->count > 1 && file[-1].version == file->version) {
        fprintf(stderr, "cafctl: %s and %s have the same number\n", file[-1].path, file->path);
        return false;
    }
    return read_file(file);
}

static bool read_migrations(struct migration_files *files, const char *folder)
{
    struct dirent **entries = NULL;
    int found = scandir(folder, &entries, is_sql_entry, alphasort);
    if (found <= 0) {
        fprintf(stderr, "cafctl: %s: %s\n", folder, found ? strerror(errno) : "no migrations");
        free(entries);
        return false;
    }
    files->files = memory_new((size_t)found, sizeof(*files->files));
    bool good = true;
    for (int i = 0; i < found; i++) {
        good = good && add_migration(files, folder, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return good;
}

bool migration_files_read(const char *folder, struct migration_files *files)
{
    *files = (struct migration_files){.files = NULL};
    cleanup_free char *migrations = join_path(folder, "migrations");
    files->grants.path = join_path(folder, "grants.sql");
    files->grants.name = memory_copy("grants", strlen("grants"));
    return read_migrations(files, migrations) && read_file(&files->grants);
}

static void free_file(struct migration_file *file)
{
    free(file->name);
    free(file->path);
    free(file->text);
}

void migration_files_free(struct migration_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free_file(&files->files[i]);
    free(files->files);
    free_file(&files->grants);
}

const struct migration_file *migration_files_find(const struct migration_files *files, int version)
{
    for (size_t i = 0; i < files->count; i++)
        if (files->files[i].version == version)
            return &files->files[i];
    return NULL;
}
