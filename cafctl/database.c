/* The connection behind cafctl's commands: libpq, blocking, one statement at a time.
 *
 * Talks to PostgreSQL as whoever the conninfo and the PG* environment say. Text from the server may
 * hold what agents reported, so that it is escaped before it reaches a terminal. */
#include "cafctl/database.h"

#include <stdlib.h>
#include <string.h>

static const char session_settings[] =
    "SET search_path = public; SET standard_conforming_strings = on; SET client_min_messages = "
    "notice; "
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

void print_escaped(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\n    ", out);
        else if ((unsigned char)*text < 0x20 || *text == 0x7f)
            fputc('?', out);
        else
            fputc(*text, out);
    }
}

static void print_field(FILE *out, const char *label, const char *text)
{
    if (!text)
        return;
    fprintf(out, "  %s: ", label);
    print_escaped(out, text);
    fputc('\n', out);
}

/* libpq's PQnoticeReceiver. */
static void tell_notice(void *arg, const PGresult *result)
{
    const struct database *database = arg;
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    printf("%s: %s: ", database->doing, severity ? severity : "NOTICE");
    print_escaped(stdout, message ? message : "");
    putchar('\n');
    print_field(stdout, "detail", PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL));
    print_field(stdout, "hint", PQresultErrorField(result, PG_DIAG_MESSAGE_HINT));
}

void database_tell_error(const struct database *database, const char *where, const PGresult *result)
{
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    fprintf(stderr, "cafctl: %s: ", where);
    print_escaped(stderr, message ? message : PQerrorMessage(database->link));
    if (sqlstate)
        fprintf(stderr, " (SQLSTATE %s)", sqlstate);
    fputc('\n', stderr);
    print_field(stderr, "detail", PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL));
    print_field(stderr, "hint", PQresultErrorField(result, PG_DIAG_MESSAGE_HINT));
    print_field(stderr, "context", PQresultErrorField(result, PG_DIAG_CONTEXT));
}

static PGconn *connect_to(const char *conninfo)
{
    /* A later keyword wins: what conninfo says is stronger than the two before it. */
    const char *const keywords[] = {"target_session_attrs", "fallback_application_name", "dbname",
                                    "client_encoding", NULL};
    const char *const values[] = {"read-write", "cafctl", conninfo, "UTF8", NULL};
    return PQconnectdbParams(keywords, values, 1);
}

bool database_open(struct database *database, const char *conninfo)
{
    *database = (struct database){.link = connect_to(conninfo), .doing = "connection"};
    if (PQstatus(database->link) != CONNECTION_OK) {
        fputs("cafctl: ", stderr);
        print_escaped(stderr, PQerrorMessage(database->link));
        fputc('\n', stderr);
        return false;
    }
    PQsetNoticeReceiver(database->link, tell_notice, database);
    return database_run(database, session_settings);
}

void database_close(struct database *database)
{
    PQfinish(database->link);
}

static bool is_success(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

PGresult *database_query(struct database *database, const char *sql, int count,
                         const char *const *parameters)
{
    PGresult *result = PQexecParams(database->link, sql, count, NULL, parameters, NULL, NULL, 0);
    if (is_success(result))
        return result;
    database_tell_error(database, database->doing, result);
    PQclear(result);
    return NULL;
}

bool database_run(struct database *database, const char *sql)
{
    PGresult *result = PQexec(database->link, sql);
    bool success = is_success(result);
    if (!success)
        database_tell_error(database, database->doing, result);
    PQclear(result);
    return success;
}
