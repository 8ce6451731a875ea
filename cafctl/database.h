/* A blocking connection to PostgreSQL that tells its user what the server says. */
#ifndef CAF_CAFCTL_DATABASE_H
#define CAF_CAFCTL_DATABASE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdio.h>

/* doing: what the server's notices and errors are told under, such as a file's name; set by the
 * user, who owns it. */
struct database {
    PGconn *link;
    const char *doing;
};

/* Connects with libpq's conninfo string or URI (NULL: the PG* environment alone), by default to a
 * server that takes writes, and settles what the SQL files rely on (UTF-8, search_path public,
 * standard strings, no statement timeout). Notices go to stdout. Returns false and says why on
 * stderr; either way the caller ends with database_close. */
bool database_open(struct database *database, const char *conninfo);

void database_close(struct database *database);

/* Runs one statement with count text parameters. The caller frees the result with PQclear. Returns
 * NULL and says why on stderr when the server refuses it. */
PGresult *database_query(struct database *database, const char *sql, int count,
                         const char *const *parameters);

/* The same for statements whose result nobody needs; several may be joined by semicolons. */
bool database_run(struct database *database, const char *sql);

/* Says on stderr what the server answered: where (such as "FILE:LINE"), message, SQLSTATE, detail,
 * hint and context. */
void database_tell_error(const struct database *database, const char *where,
                         const PGresult *result);

/* Writes text from outside with its control bytes replaced and its further lines indented: it can
 * move no cursor and forge no line. */
void print_escaped(FILE *out, const char *text);

#endif
