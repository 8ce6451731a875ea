/* The SQL files that `cafctl migrate` applies, read whole before anything is done. */
#ifndef CAF_CAFCTL_MIGRATION_FILES_H
#define CAF_CAFCTL_MIGRATION_FILES_H

#include <stdbool.h>
#include <stddef.h>

enum { CHECKSUM_TEXT_SIZE = 65 };

/* version: the number that the name begins with; 0 for grants.sql. name: without folder and ".sql".
 * checksum: SHA-256 of the bytes in text, as lower-case hex. */
struct migration_file {
    int version;
    char *name;
    char *path;
    char *text;
    char checksum[CHECKSUM_TEXT_SIZE];
};

/* files: in order of version, no version twice. */
struct migration_files {
    struct migration_file *files;
    size_t count;
    struct migration_file grants;
};

/* Reads FOLDER/migrations/NNN_name.sql (all that end in ".sql") and FOLDER/grants.sql. Returns
 * false and says why on stderr when one cannot be read, holds a NUL byte, is misnamed, or shares a
 * number with another. Either way the caller frees with migration_files_free. */
bool migration_files_read(const char *folder, struct migration_files *files);

void migration_files_free(struct migration_files *files);

/* The file of this version, or NULL. */
const struct migration_file *migration_files_find(const struct migration_files *files, int version);

#endif
