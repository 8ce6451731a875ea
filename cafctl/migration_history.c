/* Reads and writes the two tables that remember migrations, and judges whether the files at hand
 * continue them.
 *
 * Touches schema_migrations and schema_grants and nothing else of the database. */
#include "cafctl/migration_history.h"

#include "common/memory.h"
#include "common/str.h"

#include <stdlib.h>
#include <string.h>

static const char create_tables[] =
    "CREATE TABLE public.schema_migrations ("
    "    version    integer PRIMARY KEY,"
    "    name       text NOT NULL,"
    "    checksum   text NOT NULL CHECK (checksum ~ '^[0-9a-f]{64}$'),"
    "    applied_at timestamptz NOT NULL DEFAULT now(),"
    "    applied_by text NOT NULL DEFAULT session_user);"
    "CREATE TABLE public.schema_grants ("
    "    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),"
    "    checksum   text NOT NULL CHECK (checksum ~ '^[0-9a-f]{64}$'),"
    "    version    integer NOT NULL REFERENCES public.schema_migrations,"
    "    applied_at timestamptz NOT NULL DEFAULT now(),"
    "    applied_by text NOT NULL DEFAULT session_user)";

static void copy_checksum(char to[CHECKSUM_TEXT_SIZE], const char *from)
{
    snprintf(to, CHECKSUM_TEXT_SIZE, "%s", from);
}

static bool read_recorded(struct database *database, bool *recorded)
{
    PGresult *result = database_query(
        database, "SELECT to_regclass('public.schema_migrations') IS NOT NULL", 0, NULL);
    if (!result)
        return false;
    *recorded = *PQgetvalue(result, 0, 0) == 't';
    PQclear(result);
    return true;
}

static bool read_records(struct database *database, struct migration_history *history)
{
    PGresult *result = database_query(database,
                                      "SELECT version, name, checksum "
                                      "FROM public.schema_migrations ORDER BY version",
                                      0, NULL);
    if (!result)
        return false;
    history->count = (size_t)PQntuples(result);
    history->records = memory_new(history->count + 1, sizeof(*history->records));
    for (size_t i = 0; i < history->count; i++) {
        struct migration_record *record = &history->records[i];
        record->version = atoi(PQgetvalue(result, (int)i, 0));
        record->name =
            memory_copy(PQgetvalue(result, (int)i, 1), (size_t)PQgetlength(result, (int)i, 1));
        copy_checksum(record->checksum, PQgetvalue(result, (int)i, 2));
    }
    PQclear(result);
    return true;
}

static bool read_grants(struct database *database, struct migration_history *history)
{
    PGresult *result =
        database_query(database, "SELECT version, checksum FROM public.schema_grants", 0, NULL);
    if (!result)
        return false;
    if (PQntuples(result) == 1) {
        history->grants_version = atoi(PQgetvalue(result, 0, 0));
        copy_checksum(history->grants_checksum, PQgetvalue(result, 0, 1));
    }
    PQclear(result);
    return true;
}

bool migration_history_read(struct database *database, struct migration_history *history)
{
    *history = (struct migration_history){.recorded = false};
    if (!read_recorded(database, &history->recorded))
        return false;
    return !history->recorded ||
           (read_records(database, history) && read_grants(database, history));
}

void migration_history_free(struct migration_history *history)
{
    for (size_t i = 0; i < history->count; i++)
        free(history->records[i].name);
    free(history->records);
}

int migration_history_newest(const struct migration_history *history)
{
    return history->count ? history->records[history->count - 1].version : 0;
}

bool migration_history_has(const struct migration_history *history, int version)
{
    for (size_t i = 0; i < history->count; i++)
        if (history->records[i].version == version)
            return true;
    return false;
}

static bool record_fits(const struct migration_record *record, const struct migration_files *files)
{
    const struct migration_file *file = migration_files_find(files, record->version);
    if (!file) {
        fputs("cafctl: the database has had migration ", stderr);
        print_escaped(stderr, record->name);
        fputs(", which is not among the files: it belongs to another, newer cafctl\n", stderr);
        return false;
    }
    if (strcmp(file->checksum, record->checksum) != 0) {
        fprintf(stderr,
                "cafctl: %s was changed after it was applied: checksum %s, applied was %s\n",
                file->path, file->checksum, record->checksum);
        return false;
    }
    return true;
}

bool migration_history_fits(const struct migration_history *history,
                            const struct migration_files *files)
{
    int newest = migration_history_newest(history);
    bool fits = true;
    for (size_t i = 0; i < history->count; i++)
        fits = record_fits(&history->records[i], files) && fits;
    for (size_t i = 0; i < files->count; i++) {
        const struct migration_file *file = &files->files[i];
        if (file->version > newest || migration_history_has(history, file->version))
            continue;
        fprintf(
            stderr,
            "cafctl: %s was never applied, yet the database is at %d: migrations only go forward\n",
            file->path, newest);
        fits = false;
    }
    return fits;
}

bool migration_history_create(struct database *database)
{
    return database_run(database, create_tables);
}

/* Runs a statement of this file's with text parameters. */
static bool run_with(struct database *database, const char *sql, int count,
                     const char *const *parameters)
{
    PGresult *result = database_query(database, sql, count, parameters);
    PQclear(result);
    return result != NULL;
}

bool migration_history_add(struct database *database, const struct migration_file *file)
{
    char version[STR_NUMBER_BYTES];
    const char *const parameters[] = {str_from_number(file->version, version).ptr, file->name,
                                      file->checksum};
    return run_with(database,
                    "INSERT INTO public.schema_migrations (version, name, checksum) "
                    "VALUES ($1, $2, $3)",
                    3, parameters);
}

bool migration_history_set_grants(struct database *database, const struct migration_file *grants,
                                  int version)
{
    char text[STR_NUMBER_BYTES];
    const char *const parameters[] = {str_from_number(version, text).ptr, grants->checksum};
    return run_with(database,
                    "INSERT INTO public.schema_grants (version, checksum) VALUES ($1, $2) "
                    "ON CONFLICT (only_row) DO UPDATE SET version = excluded.version, "
                    "checksum = excluded.checksum, applied_at = now(), applied_by = session_user",
                    2, parameters);
}
