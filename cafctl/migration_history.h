/* What the database knows of the migrations it has had: tables schema_migrations and schema_grants.
 */
#ifndef CAF_CAFCTL_MIGRATION_HISTORY_H
#define CAF_CAFCTL_MIGRATION_HISTORY_H

#include "cafctl/database.h"
#include "cafctl/migration_files.h"

struct migration_record {
    int version;
    char *name;
    char checksum[CHECKSUM_TEXT_SIZE];
};

/* recorded: the tables exist. records: in order of version. grants_version: the newest migration
 * when the grants were applied; 0 when they never were. */
struct migration_history {
    bool recorded;
    struct migration_record *records;
    size_t count;
    int grants_version;
    char grants_checksum[CHECKSUM_TEXT_SIZE];
};

/* Reads the tables; their absence is an empty history. Returns false when the database refuses,
 * told on stderr. Either way the caller frees with migration_history_free. */
bool migration_history_read(struct database *database, struct migration_history *history);

void migration_history_free(struct migration_history *history);

/* The newest version applied, or 0. */
int migration_history_newest(const struct migration_history *history);

bool migration_history_has(const struct migration_history *history, int version);

/* Whether the files continue this history: each migration that was applied is there unchanged, and
 * none that was not comes before one that was. Says on stderr what does not fit. */
bool migration_history_fits(const struct migration_history *history,
                            const struct migration_files *files);

/* Creates the tables, within the transaction that stands open. */
bool migration_history_create(struct database *database);

/* Records, within the transaction that stands open, that a migration was applied, or that the
 * grants were when version was the newest. */
bool migration_history_add(struct database *database, const struct migration_file *file);
bool migration_history_set_grants(struct database *database, const struct migration_file *grants,
                                  int version);

#endif
