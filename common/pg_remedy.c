/* What each kind of error calls for, as one table of SQLSTATE prefixes (PostgreSQL manual, appendix
 * A), the first that fits. Touches nothing. */
#include "common/pg_internal.h"

static const struct {
    const char *prefix;
    enum pg_remedy remedy;
} remedies[] = {
    {"08P01", PG_REMEDY_REFUSE},    /* the statement has another number of parameters */
    {"08", PG_REMEDY_RECONNECT},    /* connection exception */
    {"0A000", PG_REMEDY_RECONNECT}, /* a migration changed what a prepared statement returns */
    {"25", PG_REMEDY_RECONNECT},    /* 25006: the server became read-only */
    {"26", PG_REMEDY_RECONNECT},    /* the prepared statement is not there any more */
    {"40001", PG_REMEDY_RETRY},     /* serialization failure */
    {"40003", PG_REMEDY_RETRY},     /* statement completion unknown */
    {"40P01", PG_REMEDY_RETRY},     /* deadlock */
    {"42", PG_REMEDY_REFUSE},       /* no right, no such table or column, syntax */
    {"53", PG_REMEDY_RECONNECT},    /* out of disk, memory or connections: back off */
    {"55P03", PG_REMEDY_HALVE},     /* lock_timeout: the rows that are free get through */
    {"57014", PG_REMEDY_HALVE},     /* statement_timeout */
    {"57P", PG_REMEDY_RECONNECT},   /* shut down, crashed or starting up */
    {"58", PG_REMEDY_RECONNECT},    /* the server's own input and output failed */
};

static bool result_is_good(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

enum pg_remedy pg_remedy_for(const PGresult *result)
{
    const char *sqlstate = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;

    if (result && result_is_good(result))
        return PG_REMEDY_NONE;
    if (!sqlstate)
        return PG_REMEDY_RECONNECT;
    for (size_t i = 0; i < sizeof(remedies) / sizeof(remedies[0]); i++)
        if (strncmp(sqlstate, remedies[i].prefix, strlen(remedies[i].prefix)) == 0)
            return remedies[i].remedy;
    return PG_REMEDY_SPLIT;
}
