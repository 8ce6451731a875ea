/* For unit tests: a PostgreSQL of the test's own, in a new folder under /tmp. As root it runs as
 * nobody, for it refuses to run as root. It ends when the process that started it does. */
#ifndef CAF_TESTS_UNIT_SCRATCH_POSTGRES_H
#define CAF_TESTS_UNIT_SCRATCH_POSTGRES_H

#include "common/clock.h"

#include <check.h>
#include <fcntl.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    char folder[64], data[96], log[96], conninfo[160];
    char initdb[256], postgres[256];
    pid_t postmaster;
} server;

static void drop_root(void)
{
    const struct passwd *nobody = getpwnam("nobody");

    if (geteuid() != 0)
        return;
    if (!nobody || setgroups(0, NULL) != 0 ||
        setresgid(nobody->pw_gid, nobody->pw_gid, nobody->pw_gid) != 0 ||
        setresuid(nobody->pw_uid, nobody->pw_uid, nobody->pw_uid) != 0)
        _exit(126);
}

/* Runs a program of the server's, its output in the log. It ends when this process does. */
static pid_t spawn(char *const argv[])
{
    pid_t parent = getpid(), pid = fork();
    int log;

    if (pid != 0)
        return pid;
    drop_root();
    log = open(server.log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0 || chdir("/") != 0)
        _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent)
        execv(argv[0], argv);
    _exit(127);
}

static void server_find_programs(void)
{
    FILE *out = popen("pg_config --bindir", "re");
    char folder[200] = "";

    ck_assert(out && fgets(folder, sizeof(folder), out));
    pclose(out);
    folder[strcspn(folder, "\n")] = '\0';
    snprintf(server.initdb, sizeof(server.initdb), "%s/initdb", folder);
    snprintf(server.postgres, sizeof(server.postgres), "%s/postgres", folder);
}

static void server_make(void)
{
    const struct passwd *nobody = getpwnam("nobody");
    int status;

    snprintf(server.folder, sizeof(server.folder), "/tmp/caf-outage-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(server.folder));
    if (geteuid() == 0)
        ck_assert_int_eq(chown(server.folder, nobody->pw_uid, nobody->pw_gid), 0);
    snprintf(server.data, sizeof(server.data), "%s/data", server.folder);
    snprintf(server.log, sizeof(server.log), "%s/log", server.folder);
    snprintf(server.conninfo, sizeof(server.conninfo), "host=%s user=postgres dbname=postgres",
             server.folder);
    server_find_programs();
    waitpid(spawn((char *[]){server.initdb, "-D", server.data, "-A", "trust", "-U", "postgres",
                             "-E", "UTF8", "--locale=C", "--no-sync", NULL}),
            &status, 0);
    ck_assert_int_eq(status, 0);
}

static void server_remove(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf -- '%s'", server.folder);
    ck_assert_int_eq(system(command), 0);
}

static void server_spawn(void)
{
    server.postmaster = spawn((char *[]){server.postgres, "-D", server.data, "-k", server.folder,
                                         "-c", "listen_addresses=", "-c", "fsync=off", NULL});
}

/* After a kill the old backends may hold the shared memory for a moment: then it starts again. */
static void server_start(void)
{
    int64_t end_ms = clock_monotonic_ms() + 20000;

    server_spawn();
    while (PQping(server.conninfo) != PQPING_OK) {
        ck_assert_int_lt(clock_monotonic_ms(), end_ms);
        usleep(20000);
        if (waitpid(server.postmaster, NULL, WNOHANG) == server.postmaster)
            server_spawn();
    }
}

static void server_signal_and_wait(int number)
{
    ck_assert_int_eq(kill(server.postmaster, number), 0);
    waitpid(server.postmaster, NULL, 0);
}

/* ---- as its owner ---------------------------------------------------------------------------- */

static inline void server_run(const char *sql)
{
    PGconn *admin = PQconnectdb(server.conninfo);
    PGresult *result = PQexec(admin, sql);

    ck_assert_msg(PQresultStatus(result) == PGRES_COMMAND_OK ||
                      PQresultStatus(result) == PGRES_TUPLES_OK,
                  "%s: %s", sql, PQerrorMessage(admin));
    PQclear(result);
    PQfinish(admin);
}

static inline long long server_number(const char *sql)
{
    PGconn *admin = PQconnectdb(server.conninfo);
    PGresult *result = PQexec(admin, sql);
    long long number;

    ck_assert_msg(PQntuples(result) == 1, "%s: %s", sql, PQerrorMessage(admin));
    number = atoll(PQgetvalue(result, 0, 0));
    PQclear(result);
    PQfinish(admin);
    return number;
}

#endif
