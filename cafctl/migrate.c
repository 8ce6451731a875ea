/* `cafctl migrate`: applies what sql/ holds and the database lacks. Each migration is one
 * transaction together with its record; then the partitions of the months to come and the grants,
 * in one transaction more.
 *
 * Runs as the owner role of the database, reads the folder of SQL files, and holds an advisory lock
 * of the database, so that two runs never meet. It must never leave half of a file behind. */
#include "cafctl/command.h"
#include "cafctl/database.h"
#include "cafctl/migration_files.h"
#include "cafctl/migration_history.h"
#include "cafctl/sql_text.h"
#include "common/memory.h"

#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct migrate_options {
    const char *folder;
    const char *conninfo;
    int to;
    bool check;
};

struct migrate {
    struct migrate_options options;
    struct database database;
    struct migration_files files;
    struct migration_history history;
};

/* "caf" in ASCII, and the first lock of it. */
static const char try_lock[] = "SELECT pg_try_advisory_lock(6513014, 1)";
static const char wait_for_lock[] = "SELECT pg_advisory_lock(6513014, 1)";

/* Daemons wait for their reads 10 s: a migration gives up sooner than make them fail. PGOPTIONS can
 * say otherwise. */
static const char bound_waiting[] = "SELECT set_config('lock_timeout', '5s', false) "
                                    "WHERE current_setting('lock_timeout') = '0'";

/* ---- The command line ------------------------------------------------------ */

static void print_help(FILE *out)
{
    fputs(
        "usage: cafctl migrate [--sql DIR] [--to VERSION] [--check] [CONNINFO]\n\n"
        "Applies DIR/migrations/NNN_name.sql in order, each in one transaction, then makes the\n"
        "partitions of the coming months and applies DIR/grants.sql. Run it as the owner of the\n"
        "database. CONNINFO is libpq's connection string or URI; without it, the PG* environment.\n"
        "Waits at most 5 s for a lock, unless PGOPTIONS sets lock_timeout.\n\n"
        "  --sql DIR     where the SQL files are (default " CAF_DATADIR "/sql)\n"
        "  --to VERSION  stop after this migration; grants follow with the last one\n"
        "  --check       change nothing; tell whether migrations or grants are pending\n\n"
        "exit codes: 0 up to date, 1 failed or refused, 2 wrong usage, 3 pending (--check)\n",
        out);
}

static bool parse_version(const char *text, int *version)
{
    char *end = NULL;
    long number = strtol(text, &end, 10);
    if (end == text || *end || number < 1 || number > INT_MAX) {
        fprintf(stderr, "cafctl migrate: --to takes a number, not '%s'\n", text);
        return false;
    }
    *version = (int)number;
    return true;
}

/* Returns -1 to go on, or the exit code to end with. */
static int parse_option(int option, struct migrate_options *options)
{
    switch (option) {
    case 's':
        options->folder = optarg;
        return -1;
    case 't':
        return parse_version(optarg, &options->to) ? -1 : EXIT_CODE_USAGE;
    case 'c':
        options->check = true;
        return -1;
    case 'h':
        print_help(stdout);
        return EXIT_CODE_DONE;
    default:
        print_help(stderr);
        return EXIT_CODE_USAGE;
    }
}

static int parse_options(int argc, char **argv, struct migrate_options *options)
{
    static const struct option known[] = {
        {"sql", required_argument, NULL, 's'},
        {"to", required_argument, NULL, 't'},
        {"check", no_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    *options = (struct migrate_options){.folder = CAF_DATADIR "/sql", .to = INT_MAX};
    int option, code = -1;
    while (code < 0 && (option = getopt_long(argc, argv, "h", known, NULL)) != -1)
        code = parse_option(option, options);
    if (code < 0 && optind < argc)
        options->conninfo = argv[optind++];
    if (code < 0 && optind < argc)
        code = parse_option('?', options);
    return code;
}

/* ---- Running a file -------------------------------------------------------- */

/* Says where in the file something is wrong: "PATH:LINE". */
static void format_place(char *place, size_t size, const struct migration_file *file, unsigned line)
{
    snprintf(place, size, "%s:%u", file->path, line);
}

static void tell_statement_error(const struct migrate *migrate, const struct migration_file *file,
                                 const struct sql_statement *statement, const PGresult *result)
{
    char place[PATH_MAX + 16];
    const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    format_place(place, sizeof(place), file,
                 sql_line_of(statement, position ? strtoul(position, NULL, 10) : 0));
    database_tell_error(&migrate->database, place, result);
}

static bool run_statement(struct migrate *migrate, const struct migration_file *file,
                          const struct sql_statement *statement)
{
    cleanup_free char *text = memory_copy(statement->start, statement->len);
    PGresult *result = PQexec(migrate->database.link, text);
    ExecStatusType status = PQresultStatus(result);
    bool success = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
    if (!success)
        tell_statement_error(migrate, file, statement, result);
    PQclear(result);
    return success;
}

/* Finds, before anything runs, what a file must not hold: a transaction's end would leave half of
 * it behind. */
static bool check_file(const struct migration_file *file)
{
    struct sql_cursor cursor = {file->text, 1};
    struct sql_statement statement;
    enum sql_found found;
    while ((found = sql_next(&cursor, &statement)) == SQL_STATEMENT) {
        if (sql_controls_transaction(&statement)) {
            fprintf(stderr, "cafctl: %s:%u: a file runs in one transaction and cannot control it\n",
                    file->path, statement.line);
            return false;
        }
    }
    if (found == SQL_UNTERMINATED)
        fprintf(stderr, "cafctl: %s:%u: a string or comment of this statement never ends\n",
                file->path, statement.line);
    return found == SQL_END;
}

/* Runs every statement within the transaction that stands open. */
static bool run_file(struct migrate *migrate, const struct migration_file *file)
{
    struct sql_cursor cursor = {file->text, 1};
    struct sql_statement statement;
    while (sql_next(&cursor, &statement) == SQL_STATEMENT)
        if (!run_statement(migrate, file, &statement))
            return false;
    return true;
}

/* ---- The steps ------------------------------------------------------------- */

/* Commits when the steps before went well, else takes them all back. */
static bool end_transaction(struct migrate *migrate, bool success)
{
    if (success)
        return database_run(&migrate->database, "COMMIT");
    PQclear(PQexec(migrate->database.link, "ROLLBACK"));
    return false;
}

static bool apply_migration(struct migrate *migrate, const struct migration_file *file)
{
    struct database *database = &migrate->database;
    database->doing = file->name;
    if (!check_file(file) || !database_run(database, "BEGIN"))
        return false;
    bool success = (migrate->history.recorded || migration_history_create(database)) &&
                   run_file(migrate, file) && migration_history_add(database, file);
    if (!end_transaction(migrate, success))
        return false;
    migrate->history.recorded = true;
    printf("applied %s\n", file->name);
    return true;
}

static bool is_pending(const struct migrate *migrate, const struct migration_file *file)
{
    return file->version <= migrate->options.to &&
           !migration_history_has(&migrate->history, file->version);
}

/* Applies what is pending and counts it. */
static bool apply_pending(struct migrate *migrate, unsigned *applied)
{
    for (size_t i = 0; i < migrate->files.count; i++) {
        if (!is_pending(migrate, &migrate->files.files[i]))
            continue;
        if (!apply_migration(migrate, &migrate->files.files[i]))
            return false;
        ++*applied;
    }
    return true;
}

/* The number that a query returns, or -1. */
static int query_number(struct migrate *migrate, const char *sql)
{
    PGresult *result = database_query(&migrate->database, sql, 0, NULL);
    int number = result ? atoi(PQgetvalue(result, 0, 0)) : -1;
    PQclear(result);
    return number;
}

/* The number of partitions made, or -1. Before 051 there is nothing to partition. */
static int make_partitions(struct migrate *migrate)
{
    migrate->database.doing = "partitions";
    int able = query_number(
        migrate, "SELECT count(to_regprocedure('public.caf_create_partitions(integer)'))");
    return able == 1 ? query_number(migrate, "SELECT public.caf_create_partitions()") : able;
}

/* The version that the files lead to. */
static int final_version(const struct migrate *migrate)
{
    return migrate->files.files[migrate->files.count - 1].version;
}

static bool grants_wait(const struct migrate *migrate)
{
    return migrate->history.grants_version != final_version(migrate) ||
           strcmp(migrate->history.grants_checksum, migrate->files.grants.checksum) != 0;
}

static bool apply_grants(struct migrate *migrate, int version)
{
    migrate->database.doing = migrate->files.grants.name;
    return check_file(&migrate->files.grants) && run_file(migrate, &migrate->files.grants) &&
           migration_history_set_grants(&migrate->database, &migrate->files.grants, version);
}

/* New partitions and the grants belong together: a new table must not be open to a role for a
 * moment. The grants name tables of the last version, and so wait for it. */
static bool maintain(struct migrate *migrate, unsigned *applied)
{
    int last = final_version(migrate);
    bool complete = last <= migrate->options.to || migration_history_has(&migrate->history, last);
    if (!database_run(&migrate->database, "BEGIN"))
        return false;
    int partitions = make_partitions(migrate);
    bool grants = complete && (grants_wait(migrate) || partitions > 0);
    bool success = partitions >= 0 && (!grants || apply_grants(migrate, last));
    if (!end_transaction(migrate, success))
        return false;
    if (partitions > 0)
        printf("made %d partitions\n", partitions);
    if (grants)
        puts("applied grants");
    *applied += (partitions > 0) + grants;
    return true;
}

static bool take_lock(struct migrate *migrate)
{
    struct database *database = &migrate->database;
    database->doing = "lock";
    PGresult *result = database_query(database, try_lock, 0, NULL);
    if (!result)
        return false;
    bool taken = *PQgetvalue(result, 0, 0) == 't';
    PQclear(result);
    if (!taken) {
        puts("another migration is running; waiting for it");
        taken = database_run(database, wait_for_lock);
    }
    return taken && database_run(database, bound_waiting);
}

static int check_only(struct migrate *migrate)
{
    unsigned pending = 0;
    for (size_t i = 0; i < migrate->files.count; i++) {
        if (!is_pending(migrate, &migrate->files.files[i]))
            continue;
        printf("pending %s\n", migrate->files.files[i].name);
        pending++;
    }
    if (migrate->options.to == INT_MAX && grants_wait(migrate)) {
        puts("pending grants");
        pending++;
    }
    if (pending)
        return EXIT_CODE_PENDING;
    printf("up to date at %d\n", migration_history_newest(&migrate->history));
    return EXIT_CODE_DONE;
}

static int bring_up_to_date(struct migrate *migrate)
{
    unsigned applied = 0;
    if (!apply_pending(migrate, &applied) || !maintain(migrate, &applied))
        return EXIT_CODE_FAILED;
    if (!applied)
        printf("up to date at %d\n", migration_history_newest(&migrate->history));
    return EXIT_CODE_DONE;
}

/* Whether --to names something that can still be reached. */
static bool check_target(const struct migrate *migrate)
{
    int to = migrate->options.to, newest = migration_history_newest(&migrate->history);
    if (to == INT_MAX)
        return true;
    if (!migration_files_find(&migrate->files, to)) {
        fprintf(stderr, "cafctl: there is no migration %d\n", to);
        return false;
    }
    if (to < newest) {
        fprintf(stderr, "cafctl: the database is at %d: migrations only go forward\n", newest);
        return false;
    }
    return true;
}

static bool prepare(struct migrate *migrate)
{
    struct migrate_options *options = &migrate->options;
    if (!migration_files_read(options->folder, &migrate->files) ||
        !database_open(&migrate->database, options->conninfo))
        return false;
    bool guarded = options->check
                       ? database_run(&migrate->database, "SET default_transaction_read_only = on")
                       : take_lock(migrate);
    migrate->database.doing = "history";
    return guarded && migration_history_read(&migrate->database, &migrate->history) &&
           migration_history_fits(&migrate->history, &migrate->files) && check_target(migrate);
}

int command_migrate(int argc, char **argv)
{
    struct migrate migrate = {.database = {.link = NULL}};
    int code = parse_options(argc, argv, &migrate.options);
    if (code >= 0)
        return code;
    if (!prepare(&migrate))
        code = EXIT_CODE_FAILED;
    else
        code = migrate.options.check ? check_only(&migrate) : bring_up_to_date(&migrate);
    migration_history_free(&migrate.history);
    migration_files_free(&migrate.files);
    database_close(&migrate.database);
    return code;
}
