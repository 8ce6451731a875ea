/* Proves at the first connection that this role can do no more than its daemon must: by what the
 * catalogue says and by trying (sql/selftest.sql). Ends the process when it can do more. A role
 * that can do less, while a migration runs perhaps, is tested again at the next attempt to connect.
 */
#include "common/log.h"
#include "common/pg_array.h"
#include "common/pg_internal.h"

#define STATEMENT(name, text) static const char name[] = text;
#include "selftest_sql.h"
#undef STATEMENT

/* How sql/selftest.sql begins a finding that is no danger. */
static const struct str lacks = {"the role lacks ", sizeof("the role lacks ") - 1};

/* Sends sql with one parameter: what the role must be allowed, as text[]. */
static int send_with_allowed(struct pg_connection *connection, const char *sql)
{
    struct pg_array allowed = {.text = NULL};
    const char *literal;
    int sent;

    for (const char *const *entry = connection->pg->options.allowed; *entry; entry++)
        pg_array_add(&allowed, str_from(*entry));
    literal = pg_array_close(&allowed);
    sent = PQsendQueryParams(connection->link, sql, 1, NULL, &literal, NULL, NULL, 0);
    pg_array_free(&allowed);
    return sent;
}

int pg_selftest_send_catalogue(struct pg_connection *connection)
{
    return send_with_allowed(connection, selftest_catalogue);
}

bool pg_selftest_judge_catalogue(const PGresult *result)
{
    int findings = PQntuples(result), lacking = 0;

    if (pg_remedy_for(result) != PG_REMEDY_NONE)
        return false;
    for (int i = 0; i < findings; i++) {
        struct str finding = str_from(PQgetvalue(result, i, 0));

        lacking += str_starts(finding, lacks);
        log_error("self-test of the database role", LOG_STR("finding", finding));
    }
    if (findings > lacking)
        log_fatal("the database role can do more than this daemon must be able to");
    return findings == 0;
}

/* A DO block takes no parameters: a setting carries them. */
int pg_selftest_send_allowed(struct pg_connection *connection)
{
    return send_with_allowed(
        connection,
        "SELECT set_config('caf.selftest_allowed', array_to_string($1::text[], ','), false)");
}

int pg_selftest_send_attempts(struct pg_connection *connection)
{
    return PQsendQuery(connection->link, selftest_attempts);
}

/* P0001 is the block's own exception: an attempt did not end as it must. */
bool pg_selftest_judge_attempts(const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    if (sqlstate && strcmp(sqlstate, "P0001") == 0)
        log_fatal("the database role can do more than this daemon must be able to",
                  LOG_TEXT("finding", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)));
    return pg_remedy_for(result) == PG_REMEDY_NONE;
}
