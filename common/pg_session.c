/* What runs on a new connection before it counts as up: its settings, the self-test on the first
 * one ever, and each batched statement's PREPARE. Sends one step at a time; reading is
 * pg_connection.c's.
 */
#include "common/log.h"
#include "common/pg_internal.h"

#include <stdio.h>

/* What a session must be, whatever the role or the database has set. lock_timeout is far
 * below statement_timeout: one locked row must not hold its batch up for long. A table is read
 * whole only where no index serves: such a plan looks cheap for one row of many, and reads a
 * million when there is none. What costs so little is not worth compiling. */
static int settings_send(struct pg_connection *connection)
{
    long long statement_ms = connection->pg->options.statement_ms;
    char sql[640];

    snprintf(sql, sizeof(sql),
             "SET statement_timeout = %lld; SET lock_timeout = %lld; "
             "SET idle_in_transaction_session_timeout = %lld; SET TimeZone = 'UTC'; "
             "SET default_transaction_isolation = 'read committed'; "
             "SET enable_seqscan = off; SET jit = off; "
             "SET DateStyle = 'ISO, YMD'; SET bytea_output = 'hex'; "
             "SET client_min_messages = warning; SET standard_conforming_strings = on",
             statement_ms, statement_ms / 4 + 1, statement_ms);
    return PQsendQuery(connection->link, sql);
}

static bool result_passed(const PGresult *result)
{
    return pg_remedy_for(result) == PG_REMEDY_NONE;
}

static const struct session_step {
    const char *name;
    bool self_test; /* until it has passed once */
    int (*send)(struct pg_connection *connection);
    bool (*passed)(const PGresult *result);
} steps[] = {
    {"settings", false, settings_send, result_passed},
    {"self-test: catalogue", true, pg_selftest_send_catalogue, pg_selftest_judge_catalogue},
    {"self-test: allowed", true, pg_selftest_send_allowed, result_passed},
    {"self-test: attempts", true, pg_selftest_send_attempts, pg_selftest_judge_attempts},
};

enum { STEP_COUNT = sizeof(steps) / sizeof(steps[0]) };

/* The statement that the present step prepares, with name NULL behind the last; NULL before them.
 */
static const struct pg_statement *step_statement(const struct pg_connection *connection)
{
    if (connection->step < STEP_COUNT)
        return NULL;
    return &connection->pg->options.statements[connection->step - STEP_COUNT];
}

/* Whether the present step is not for this session: the self-test has passed before, or the
 * statement is not to be prepared. */
static bool step_is_needless(const struct pg_connection *connection)
{
    const struct pg_statement *statement = step_statement(connection);

    if (statement)
        return statement->name && !statement->batched;
    return steps[connection->step].self_test && connection->pg->proven;
}

enum pg_session_progress pg_session_advance(struct pg_connection *connection)
{
    const struct pg_statement *statement;
    int sent;

    while (step_is_needless(connection))
        connection->step++;
    statement = step_statement(connection);
    if (statement && !statement->name)
        return PG_SESSION_READY;
    if (statement)
        sent = PQsendPrepare(connection->link, statement->name, statement->sql, 0, NULL);
    else
        sent = steps[connection->step].send(connection);
    return sent ? PG_SESSION_GOES_ON : PG_SESSION_FAILED;
}

bool pg_session_judge(struct pg_connection *connection, const PGresult *result)
{
    const struct pg_statement *statement = step_statement(connection);
    bool passed = statement ? result_passed(result) : steps[connection->step].passed(result);
    long long suppressed;

    if (!passed && pg_quiet_passed(&connection->pg->refusals, &suppressed))
        log_error("a database session cannot be set up",
                  LOG_TEXT("step", statement ? "prepare" : steps[connection->step].name),
                  LOG_TEXT("statement", statement ? statement->name : ""),
                  LOG_TEXT("reason", PQresultErrorMessage(result)),
                  LOG_NUMBER("suppressed", suppressed));
    connection->step++;
    return passed;
}
