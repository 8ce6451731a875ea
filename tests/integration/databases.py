"""Databases of a test's own in the stack's cluster: cafctl migrate for them, connections, rows, and the statements of
the self-test. conftest.py makes its fixtures known to every test."""

import itertools
import os
import re
import shutil
import subprocess
import uuid
from contextlib import contextmanager

import psycopg2
import pytest
from psycopg2.extras import Json, execute_values

SUPERUSER = "postgres"
# What each daemon's role needs, as the self-test is told it.
NEEDED = {
    "caf_registry": ["agent_registry:SELECT", "agent_registry:INSERT", "agent_registry:UPDATE",
                     "identity_outbox:INSERT", "nodes:SELECT", "nodes:INSERT", "nodes:UPDATE",
                     "nodes:DELETE"],
    "caf_event": ["security_events:SELECT", "security_events:INSERT", "identity_outbox:SELECT",
                  "identity_outbox:DELETE"],
    "caf_audit": ["god_mode_executions:SELECT", "god_mode_executions:INSERT"],
}
ROLES = sorted(NEEDED)
# What registryd may write again; the rest of an agent's row is written once.
AGENT_COLUMNS_UPDATED = ("hostname", "machine_id_fingerprint", "endpoint", "version", "capabilities", "metadata",
                         "state", "last_heartbeat", "heartbeat_status", "last_heartbeat_via", "previous_fingerprint",
                         "previous_hostname", "recent_requests", "recent_outcomes", "changed_xid",
                         "fingerprint_source_ip", "fingerprint_reported_at", "previous_fingerprint_source_ip",
                         "previous_fingerprint_reported_at", "previous_fingerprint_heard_at", "metadata_at")
NODE_COLUMNS_UPDATED = ("last_seen", "applied")
numbers = itertools.count(1)


class Database:
    """One database of the stack's cluster: cafctl, connections and short cuts for it."""

    def __init__(self, stack, name):
        self.stack, self.name = stack, name
        self.sql = stack.repo / "sql"

    def env(self):
        return {**os.environ, **self.stack.env, "PGDATABASE": self.name}

    def cafctl(self, *arguments):
        return [str(self.stack.build / "bin" / "cafctl"), "migrate", "--sql", str(self.sql), *map(str, arguments)]

    def migrate(self, *arguments, code=0):
        """Runs cafctl migrate and returns what it printed on both streams together."""
        done = subprocess.run(self.cafctl(*arguments), env=self.env(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stdout
        return done.stdout

    def start_migrate(self, *arguments):
        return subprocess.Popen(self.cafctl(*arguments), env=self.env(), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    @contextmanager
    def session(self, role=None):
        link = psycopg2.connect(host=self.stack.env["PGHOST"], dbname=self.name,
                                user=role or self.stack.env["PGUSER"])
        link.autocommit = True
        try:
            with link.cursor() as cursor:
                yield cursor
        finally:
            link.close()

    def rows(self, query, *values, role=None):
        with self.session(role) as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, query, *values, role=None):
        return self.rows(query, *values, role=role)[0][0]

    def copy_sql(self, folder):
        """Gives this database a copy of sql/ of its own, to be changed."""
        shutil.copytree(self.sql, folder / "sql")
        self.sql = folder / "sql"

    def add_file(self, name, text):
        (self.sql / "migrations" / name).write_text(text)

    def versions(self):
        return [row[0] for row in self.rows("SELECT version FROM schema_migrations ORDER BY version")]

    def relations(self):
        return {row[0] for row in self.rows("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")}

    def catalogue(self, role, needed):
        """The findings of selftest_catalogue."""
        with self.session(role) as cursor:
            cursor.execute("PREPARE catalogue (text[]) AS " + statements(self.sql)["selftest_catalogue"])
            cursor.execute("EXECUTE catalogue (%s)", (needed,))
            return [row[0] for row in cursor.fetchall()]

    def attempts(self, role, needed):
        """Runs selftest_attempts; returns what it complains about, or None."""
        with self.session(role) as cursor:
            cursor.execute("SELECT set_config('caf.selftest_allowed', %s, false)", (",".join(needed),))
            try:
                cursor.execute(statements(self.sql)["selftest_attempts"])
            except psycopg2.Error as complaint:
                message = complaint.diag.message_primary
                ended = re.search(r"ended with SQLSTATE (\w+)", message)
                # P0001 is for what the role could do; whatever else stood in the way keeps its own code.
                assert complaint.pgcode == (ended[1] if ended and ended[1] != "00000" else "P0001"), complaint
                return message
        return None


def statements(folder, file="selftest.sql"):
    """The named statements of a file."""
    blocks = re.split(r"^-- name: *", (folder / file).read_text(), flags=re.M)[1:]
    named = (block.partition("\n") for block in blocks)
    return {name.strip(): text.strip().removesuffix(";") for name, _, text in named}


def migration_files(folder):
    return sorted((folder / "migrations").glob("*.sql"))


def last_version(folder):
    return int(migration_files(folder)[-1].name[:3])


@contextmanager
def temporary_database(stack):
    name = f"caf_test_{os.getpid()}_{next(numbers)}"
    server = Database(stack, stack.env["PGDATABASE"])
    server.rows(f"CREATE DATABASE {name}")
    try:
        yield Database(stack, name)
    finally:
        server.rows(f"DROP DATABASE {name} WITH (FORCE)", role=SUPERUSER)


@pytest.fixture
def database(stack):
    """An empty database."""
    with temporary_database(stack) as own:
        yield own


@pytest.fixture(scope="module")
def migrated(stack):
    """A migrated database that no test changes for good."""
    with temporary_database(stack) as shared:
        shared.migrate()
        yield shared


# ---- rows ----------------------------------------------------------------------------------------

def insert_agents(database, agents):
    """agents: (tenant, spiffe_id, hostname, registered_at, last_heartbeat), state as a sixth."""
    rows = [(tenant, spiffe_id, spiffe_id.rpartition("/")[2], hostname, *(state or ["active"]), registered, heartbeat)
            for tenant, spiffe_id, hostname, registered, heartbeat, *state in agents]
    with database.session() as cursor:
        execute_values(cursor, """INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, state,
                                                              registered_at, last_heartbeat) VALUES %s""", rows)


EDGES = ["2019-12-31T23:59:59.999999+00", "2020-01-01T00:00:00+00", "2024-02-29T23:59:59.999999+00",
         "2024-03-01T00:00:00+00", "2031-07-15T12:00:00+00"]


def insert_history(database, when):
    """An execution and an event at each of these times, made to differ in every column."""
    with database.session() as cursor:
        execute_values(
            cursor, """INSERT INTO god_mode_executions (trace_id, tenant_id, api_key_id, source_ip, tool, params,
                           risk_level, result, error_code, error, executed_at, duration_ms) VALUES %s""",
            [(f"{i:016x}", "acme", f"key-{i}", "192.0.2.1", "caf.get_agent", Json({"i": i}), "read_only", Json([i]),
              "CONFLICT", f"error {i}", moment, i) for i, moment in enumerate(when)])
        execute_values(
            cursor, """INSERT INTO security_events (event_id, tenant_id, event_type, severity, spiffe_id, hostname,
                           source_ip, trace_id, details, count, occurred_at, recorded_at, node) VALUES %s""",
            [(str(uuid.UUID(int=i)), "acme", "auth.mtls_success", "info", f"spiffe://td/agent/acme/{i}", f"h{i}",
              "192.0.2.1", f"{i:016x}", Json({"i": i}), i + 1, moment, "2025-01-01", f"n{i}")
             for i, moment in enumerate(when)])


def history_of(database, table, columns="*"):
    return sorted(database.rows(f"SELECT {columns} FROM {table}"), key=repr)
