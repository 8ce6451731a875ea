"""The schema: cafctl migrate, what each migration does to rows that are there, the grants to the letter, and the
self-test that every daemon runs with its role. Every test works in databases of its own in the stack's cluster."""

import hashlib
import itertools
import os
import re
import shutil
import subprocess
import time
import uuid
from contextlib import contextmanager

import psycopg2
import psycopg2.errors
import pytest
from psycopg2.extras import Json, execute_values

SUPERUSER = "postgres"
TABLE_PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
COLUMN_PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "REFERENCES"]

# What each role may do, to the letter. UPDATE of agent_registry is column by column.
GRANTS = {
    "caf_registry": {"agent_registry": {"SELECT", "INSERT"}, "identity_outbox": {"INSERT"}},
    "caf_event": {"security_events": {"SELECT", "INSERT"}, "identity_outbox": {"SELECT", "DELETE"}},
    "caf_audit": {"god_mode_executions": {"SELECT", "INSERT"}},
}
AGENT_COLUMNS_WRITTEN_ONCE = {"agent_id", "tenant_id", "spiffe_id", "registered_at"}
EXECUTE = {
    "caf_time(timestamp with time zone)": {"caf_registry", "caf_event", "caf_audit"},
    "caf_event_id(uuid,text)": {"caf_registry", "caf_event"},
    "caf_agent_json(agent_registry)": {"caf_registry"},
}
NEEDED = {
    "caf_registry": ["agent_registry:SELECT", "agent_registry:INSERT", "agent_registry:UPDATE",
                     "identity_outbox:INSERT"],
    "caf_event": ["security_events:SELECT", "security_events:INSERT", "identity_outbox:SELECT",
                  "identity_outbox:DELETE"],
    "caf_audit": ["god_mode_executions:SELECT", "god_mode_executions:INSERT"],
}
ROLES = sorted(GRANTS)
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


def statements(folder):
    """The named statements of selftest.sql."""
    blocks = re.split(r"^-- name: *", (folder / "selftest.sql").read_text(), flags=re.M)[1:]
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


# ---- cafctl migrate -----------------------------------------------------------------------------


def test_migrate_applies_every_file_once_and_records_it(database):
    printed = database.migrate()
    files = migration_files(database.sql)
    assert [file.stem for file in files][:5] == ["048_base", "049_god_mode_executions", "050_agent_registry_upsert_key",
                                                 "051_partitions", "052_identity"]
    recorded = database.rows("SELECT version, name, checksum, applied_by FROM schema_migrations ORDER BY version")
    assert recorded == [(int(file.name[:3]), file.stem, hashlib.sha256(file.read_bytes()).hexdigest(),
                         database.stack.env["PGUSER"]) for file in files]
    assert re.findall(r"^applied (\S+)$", printed, re.M) == [*(file.stem for file in files), "grants"]


def dump(database):
    return subprocess.run(["pg_dump", "--restrict-key=caf"] if pg_dump_has_restrict_key() else ["pg_dump"],
                          env=database.env(), capture_output=True, text=True, check=True).stdout


def pg_dump_has_restrict_key():
    return "--restrict-key" in subprocess.run(["pg_dump", "--help"], capture_output=True, text=True, check=True).stdout


def test_second_run_does_nothing(database):
    database.migrate()
    before = dump(database)
    printed = database.migrate()
    assert f"up to date at {last_version(database.sql)}" in printed
    assert "applied" not in printed and "made" not in printed
    assert dump(database) == before


def test_conninfo_argument_is_stronger_than_the_environment(database):
    env = {**database.env(), "PGDATABASE": "there_is_no_such_database"}
    done = subprocess.run(database.cafctl(f"dbname={database.name}"), env=env, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert database.versions()[-1] == last_version(database.sql)


def test_check_changes_nothing_and_tells(database):
    printed = database.migrate("--check", code=3)
    assert "pending 048_base" in printed and "pending grants" in printed
    assert database.relations() == set()
    database.migrate("--to", 50)
    printed = database.migrate("--check", code=3)
    assert "050" not in printed and "pending 051_partitions" in printed
    assert database.versions() == [48, 49, 50]
    assert "up to date at 50" in database.migrate("--check", "--to", 50)
    database.migrate()
    assert f"up to date at {last_version(database.sql)}" in database.migrate("--check")


def test_to_stops_there_and_only_goes_forward(database):
    database.migrate("--to", 49)
    assert database.versions() == [48, 49]
    assert not database.value("SELECT bool_or(has_table_privilege('caf_audit', oid, 'SELECT')) FROM pg_class "
                              "WHERE relname = 'god_mode_executions' AND to_regrole('caf_audit') IS NOT NULL")
    database.migrate("--to", 51)
    assert "only go forward" in database.migrate("--to", 50, code=1)
    assert "no migration 47" in database.migrate("--to", 47, code=1)
    assert database.versions() == [48, 49, 50, 51]
    database.migrate()
    assert database.versions()[-1] == last_version(database.sql)


@pytest.mark.parametrize("arguments", [["--to", "x"], ["--to", "0"], ["--bogus"], ["dbname=a", "dbname=b"]])
def test_wrong_usage_is_2(database, arguments):
    database.migrate(*arguments, code=2)


def test_changed_old_file_is_refused(database, tmp_path):
    database.copy_sql(tmp_path)
    database.migrate()
    file = database.sql / "migrations" / "049_god_mode_executions.sql"
    applied = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text(file.read_text() + "-- one byte more is another file\n")
    changed = hashlib.sha256(file.read_bytes()).hexdigest()
    database.add_file("900_new.sql", "CREATE TABLE never ();")
    for arguments in ([], ["--check"]):
        printed = database.migrate(*arguments, code=1)
        assert str(file) in printed and applied in printed and changed in printed
    assert "never" not in database.relations()


def test_unknown_version_in_the_database_is_refused(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_newer.sql", "CREATE TABLE newer ();")
    database.migrate()
    (database.sql / "migrations" / "900_newer.sql").unlink()
    for arguments in ([], ["--check"]):
        assert "900_newer" in database.migrate(*arguments, code=1)


def test_file_before_the_newest_applied_is_refused(database, tmp_path):
    database.copy_sql(tmp_path)
    database.migrate()
    database.add_file("047_late.sql", "CREATE TABLE late ();")
    assert "047_late.sql was never applied" in database.migrate(code=1)
    assert "late" not in database.relations()


@pytest.mark.parametrize("name", ["900-dash.sql", "90_short.sql", "900_Upper.sql", "new.sql", "048_twin.sql"])
def test_misnamed_file_is_refused(database, tmp_path, name):
    database.copy_sql(tmp_path)
    database.add_file(name, "SELECT 1;")
    assert name in database.migrate(code=1)
    assert database.relations() == set()


@pytest.mark.parametrize("text, line", [("SELECT 1;\nCOMMIT;", 2), ("-- x\n/* y */ begin;", 2), ("\nROLLBACK", 2),
                                        ("SELECT ';';\n\nSELECT 'open", 3), ("SELECT 1;\nSELECT $x$ ; $y$;", 2)])
def test_file_that_leaves_its_transaction_or_never_ends_is_refused_unrun(database, tmp_path, text, line):
    database.copy_sql(tmp_path)
    database.add_file("900_bad.sql", "CREATE TABLE half ();" + text)
    assert f"900_bad.sql:{line}:" in database.migrate(code=1)
    assert "half" not in database.relations()
    assert 900 not in database.versions()


def test_statements_are_cut_where_postgresql_cuts_them(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_lexer.sql", r"""
        CREATE TABLE lexed (id int, text text);
        INSERT INTO lexed VALUES (1, 'it''s; one'), (2, E'it\'s; ''two'), (3, $$three;$$), (4, $a$ $$; $b$ ; $a$);
        /* a comment; /* nested; */ still; */ INSERT INTO lexed VALUES (5, 'five') -- to the end; of the line
        ;;
        CREATE TABLE "odd;name" (a$b$c int); INSERT INTO "odd;name" VALUES (6);
        DO $do$ BEGIN PERFORM 1; END $do$; INSERT INTO lexed VALUES (6, E'six''\';'); INSERT INTO lexed VALUES (7, 'ü;')""")
    database.migrate()
    assert database.rows("SELECT * FROM lexed ORDER BY id") == [
        (1, "it's; one"), (2, "it's; 'two"), (3, "three;"), (4, " $$; $b$ ; "), (5, "five"), (6, "six'';"), (7, "ü;")]
    assert database.value('SELECT a$b$c FROM "odd;name"') == 6


def test_what_the_server_says_cannot_forge_a_line(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_loud.sql", r"DO $$ BEGIN RAISE NOTICE E'one\napplied 901_forged\x1b[2J'; RAISE E'two\ncafctl: forged\r'; END $$;")
    printed = database.migrate(code=1)
    assert "900_loud: NOTICE: one" in printed and "900_loud.sql:1: two" in printed
    assert not re.search(r"[\x1b\r]|^applied 901_forged|^cafctl: forged", printed, re.M)


def test_failing_migration_leaves_nothing(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_good.sql", "CREATE TABLE good (id int PRIMARY KEY);")
    database.add_file("901_bad.sql", "CREATE TABLE bad ();\nINSERT INTO good VALUES (1);\n\nINSERT INTO good\n"
                                     "SELECT 'é', nowhere\nFROM good;\n")
    database.add_file("902_after.sql", "CREATE TABLE after_it ();")
    printed = database.migrate(code=1)
    assert "901_bad.sql:5: column \"nowhere\" does not exist (SQLSTATE 42703)" in printed
    assert database.versions()[-1] == 900
    assert database.rows("SELECT * FROM good") == []
    assert not {"bad", "after_it"} & database.relations()
    database.add_file("901_bad.sql", "INSERT INTO good VALUES (1);\nINSERT INTO good VALUES (1);")
    printed = database.migrate(code=1)
    assert "901_bad.sql:2:" in printed and "23505" in printed and "Key (id)=(1) already exists" in printed
    assert database.rows("SELECT * FROM good") == []


def test_failing_first_migration_leaves_an_empty_database(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("048_base.sql", "CREATE TABLE first (); SELECT 1 / 0;")
    database.migrate(code=1)
    assert database.relations() == set()


def test_lost_connection_leaves_nothing_and_the_next_run_goes_on(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_slow.sql", "CREATE TABLE half (); SELECT pg_sleep(60);")
    running = database.start_migrate()
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query LIKE '%%pg_sleep(60)%%' AND pid <> pg_backend_pid()"
    pids = until(lambda: database.rows(waiting, database.name))
    database.rows("SELECT pg_terminate_backend(%s)", pids[0][0])
    printed, _ = running.communicate(timeout=30)
    assert running.returncode == 1 and "900_slow.sql:1:" in printed
    assert "half" not in database.relations()
    database.add_file("900_slow.sql", "CREATE TABLE half ();")
    database.migrate()
    assert 900 in database.versions()


def until(look, seconds=20):
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def test_two_migrations_at_once_apply_everything_once(database, tmp_path):
    database.copy_sql(tmp_path)
    database.add_file("900_slow.sql", "SELECT pg_sleep(0.5);")
    running = [database.start_migrate() for _ in range(4)]
    printed = [each.communicate(timeout=60)[0] for each in running]
    assert [each.returncode for each in running] == [0] * 4, printed
    assert sum("applied 048_base" in text for text in printed) == 1
    assert sum("up to date" in text for text in printed) == 3
    assert any("waiting for it" in text for text in printed)
    assert database.versions()[-1] == 900


def test_databases_of_one_cluster_migrate_at_once_and_share_the_roles(stack, tmp_path):
    """The roles do not exist yet: all of them want to create them."""
    prefix = f"caft{os.getpid()}"
    with temporary_database(stack) as one, temporary_database(stack) as two, temporary_database(stack) as three:
        one.copy_sql(tmp_path)
        grants = one.sql / "grants.sql"
        grants.write_text(re.sub(r"\bcaf_(registry|audit|event)\b", prefix + r"_\1", grants.read_text())
                          + "SELECT pg_sleep(0.3);\n")
        databases = [one, two, three]
        for each in databases:
            each.sql = one.sql
        running = [each.start_migrate() for each in databases]
        printed = [each.communicate(timeout=60)[0] for each in running]
        made = one.rows("SELECT rolname FROM pg_roles WHERE rolname LIKE %s ORDER BY 1", prefix + "%")
        for each in databases:
            for (role,) in made:
                each.rows(f"DROP OWNED BY {role}", role=SUPERUSER)
        for (role,) in made:
            one.rows(f"DROP ROLE {role}", role=SUPERUSER)
    assert [each.returncode for each in running] == [0] * 3, printed
    assert [role for role, in made] == [f"{prefix}_{name}" for name in ("audit", "event", "registry")]


def test_migration_gives_up_on_a_busy_table_before_clients_fail(database):
    database.migrate("--to", 50)
    with database.session() as reader:
        reader.execute("BEGIN; SELECT count(*) FROM god_mode_executions")
        begun = time.monotonic()
        printed = database.migrate(code=1)
        assert time.monotonic() - begun < 8
        assert "051_partitions.sql" in printed and "55P03" in printed
    assert database.versions() == [48, 49, 50]
    database.migrate()


# ---- 050: one row per identity ------------------------------------------------------------------

AGENT = "INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, state, registered_at, last_heartbeat) VALUES %s"


def insert_agents(database, agents):
    """agents: (tenant, spiffe_id, hostname, registered_at, last_heartbeat), state as a sixth."""
    with database.session() as cursor:
        execute_values(cursor, AGENT, [(tenant, spiffe_id, spiffe_id.rpartition("/")[2], hostname, *(state or ["active"]),
                                        registered, heartbeat)
                                       for tenant, spiffe_id, hostname, registered, heartbeat, *state in agents])


def agents_of(database):
    return database.rows("SELECT tenant_id, spiffe_id, hostname, registered_at::date::text, last_heartbeat::date::text, "
                         "state FROM agent_registry ORDER BY tenant_id, spiffe_id")


def test_050_merges_rows_that_break_the_key_and_reports_each(database):
    database.migrate("--to", 49)
    one, two, three = (f"spiffe://td/agent/acme/{name}" for name in ("one", "two", "three"))
    insert_agents(database, [
        ("acme", one, "old", "2024-01-01", "2025-03-01"),
        ("acme", one, "newest", "2024-05-01", "2025-05-01"),
        ("acme", one, "silent", "2023-01-01", None),
        ("acme", two, "never-b", "2024-02-02", None),
        ("acme", two, "never-a", "2024-02-02", None),
        ("acme", three, "alone", "2024-03-03", None),
        ("other", one, "elsewhere", "2024-04-04", "2026-01-01"),
        ("other", one, "elsewhere-once", "2022-04-04", "2025-01-01"),
        ("third", one, "third", "2021-01-01", "2026-06-06"),
    ])
    printed = database.migrate("--to", 50)
    assert agents_of(database) == [
        ("acme", one, "newest", "2023-01-01", "2025-05-01", "active"),
        ("acme", three, "alone", "2024-03-03", None, "active"),
        ("acme", two, "never-a", "2024-02-02", None, "active"),
        ("other", one, "elsewhere", "2022-04-04", "2026-01-01", "active"),
        ("third", one, "third", "2021-01-01", "2026-06-06", "active"),
    ]
    reports = [line for line in printed.splitlines() if "merged" in line]
    assert reports == [
        f'050_agent_registry_upsert_key: NOTICE: merged 3 rows of agent_registry: tenant "acme", spiffe_id "{one}", '
        'kept hostname "newest", dropped hostnames ["old", "silent"]',
        f'050_agent_registry_upsert_key: NOTICE: merged 2 rows of agent_registry: tenant "acme", spiffe_id "{two}", '
        'kept hostname "never-a", dropped hostnames ["never-b"]',
        f'050_agent_registry_upsert_key: NOTICE: merged 2 rows of agent_registry: tenant "other", spiffe_id "{one}", '
        'kept hostname "elsewhere", dropped hostnames ["elsewhere-once"]',
    ]
    with pytest.raises(psycopg2.errors.UniqueViolation, match="ux_agent_registry_tenant_spiffe"):
        insert_agents(database, [("acme", one, "again", "2024-01-01", None)])
    database.migrate()


def test_050_ends_ties_the_same_whatever_the_order_of_the_rows(stack):
    tied = [("acme", "spiffe://td/agent/acme/a", hostname, "2024-01-01", "2025-01-01") for hostname in ("b", "C", "a")]
    kept = []
    for order in itertools.permutations(tied):
        with temporary_database(stack) as each:
            each.migrate("--to", 49)
            insert_agents(each, order)
            each.migrate("--to", 50)
            kept.append(agents_of(each))
    assert kept == [[("acme", "spiffe://td/agent/acme/a", "C", "2024-01-01", "2025-01-01", "active")]] * len(kept)


@pytest.mark.parametrize("states, merged", [(("active", "revoked"), "revoked"), (("active", "quarantined"), "quarantined"),
                                            (("quarantined", "revoked"), "revoked"), (("deregistered", "active"), "deregistered"),
                                            (("active", "deregistered"), "active")])
def test_050_gives_nobody_a_right_back(database, states, merged):
    """The first state is that of the row with the newest heartbeat."""
    database.migrate("--to", 49)
    insert_agents(database, [("acme", "spiffe://td/agent/acme/a", "new", "2024-01-01", "2025-02-02", states[0]),
                             ("acme", "spiffe://td/agent/acme/a", "old", "2024-01-01", "2025-01-01", states[1])])
    database.migrate()
    assert [(row[2], row[5]) for row in agents_of(database)] == [("new", merged)]


def test_050_on_a_big_group_and_many_small_ones(database):
    database.migrate("--to", 49)
    database.rows("INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, registered_at, last_heartbeat) "
                  "SELECT 'acme', 'spiffe://td/agent/acme/big', 'big', 'host-' || i, timestamptz '2024-01-01' - i * interval '1 s', "
                  "timestamptz '2025-01-01' + i * interval '1 s' FROM generate_series(1, 20000) AS i")
    database.rows("INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, last_heartbeat) "
                  "SELECT 'acme', 'spiffe://td/agent/acme/' || i % 5000, (i % 5000)::text, 'host-' || i, "
                  "timestamptz '2025-01-01' + i * interval '1 s' FROM generate_series(1, 15000) AS i")
    printed = database.migrate()
    assert printed.count("merged 3 rows") == 5000
    assert printed.count("merged 20000 rows") == 1
    assert database.rows("SELECT hostname, registered_at = timestamptz '2024-01-01' - interval '20000 s' "
                         "FROM agent_registry WHERE agent_id = 'big'") == [("host-20000", True)]
    assert database.value("SELECT count(*) FROM agent_registry") == 5001
    assert database.value("SELECT count(*) FROM agent_registry WHERE hostname IN "
                          "(SELECT 'host-' || i FROM generate_series(10001, 15000) AS i)") == 5000


def test_050_report_cannot_be_forged(database):
    database.migrate("--to", 49)
    insert_agents(database, [("acme", "spiffe://td/agent/acme/a", hostname, "2024-01-01", None)
                             for hostname in ("z", "a\napplied 052_identity\x1b[2J")])
    printed = database.migrate("--to", 50)
    assert "\x1b" not in printed
    assert "applied 052_identity" not in printed.splitlines()


# ---- 051: partitions ----------------------------------------------------------------------------


def insert_history(database, when):
    """An execution and an event at each of these times, made to differ in every column."""
    with database.session() as cursor:
        execute_values(
            cursor, "INSERT INTO god_mode_executions (trace_id, tenant_id, api_key_id, source_ip, tool, params, risk_level, "
            "result, error_code, error, executed_at, duration_ms) VALUES %s",
            [(f"{i:016x}", "acme", f"key-{i}", "192.0.2.1", "caf.get_agent", Json({"i": i}), "read_only", Json([i]),
              "CONFLICT", f"error {i}", moment, i) for i, moment in enumerate(when)])
        execute_values(
            cursor, "INSERT INTO security_events (event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, "
            "trace_id, details, count, occurred_at, recorded_at, node) VALUES %s",
            [(str(uuid.UUID(int=i)), "acme", "auth.mtls_success", "info", f"spiffe://td/agent/acme/{i}", f"h{i}",
              "192.0.2.1", f"{i:016x}", Json({"i": i}), i + 1, moment, "2025-01-01", f"n{i}")
             for i, moment in enumerate(when)])


def history_of(database, table, columns="*"):
    return sorted(database.rows(f"SELECT {columns} FROM {table}"), key=repr)


def partition_of(database, table, key):
    return {moment.isoformat(): name for moment, name in
            database.rows(f"SELECT {key} AT TIME ZONE 'UTC', tableoid::regclass::text FROM {table}")}


EDGES = ["2019-12-31T23:59:59.999999+00", "2020-01-01T00:00:00+00", "2024-02-29T23:59:59.999999+00",
         "2024-03-01T00:00:00+00", "2031-07-15T12:00:00+00"]


def test_051_keeps_every_row_in_the_month_of_its_time_in_utc(database):
    database.migrate("--to", 50)
    database.rows(f"ALTER DATABASE {database.name} SET timezone = 'Pacific/Kiritimati'")
    database.rows(f"ALTER DATABASE {database.name} SET datestyle = 'SQL, DMY'")
    insert_history(database, EDGES)
    executions = "trace_id, tenant_id, api_key_id, source_ip, tool, params, risk_level, result, error_code, error, executed_at, duration_ms"
    before = history_of(database, "god_mode_executions", executions), history_of(database, "security_events")
    database.migrate()
    assert (history_of(database, "god_mode_executions", executions), history_of(database, "security_events")) == before
    for table, key in (("god_mode_executions", "executed_at"), ("security_events", "occurred_at")):
        assert partition_of(database, table, key) == {
            "2019-12-31T23:59:59.999999": f"{table}_2019_12", "2020-01-01T00:00:00": f"{table}_2020_01",
            "2024-02-29T23:59:59.999999": f"{table}_2024_02", "2024-03-01T00:00:00": f"{table}_2024_03",
            "2031-07-15T12:00:00": f"{table}_2031_07"}
    assert database.rows("SELECT DISTINCT status, spiffe_id, node, seq, row_hash FROM god_mode_executions") == [(None,) * 5]


def test_051_keeps_many_rows(database):
    database.migrate("--to", 50)
    database.rows("INSERT INTO god_mode_executions (trace_id, tenant_id, api_key_id, executed_at) "
                  "SELECT lpad(to_hex(i), 16, '0'), 'acme', 'key', now() - i * interval '10 minutes' FROM generate_series(1, 100000) AS i")
    sums = "SELECT count(*), sum(hashtext(trace_id || executed_at::text)) FROM god_mode_executions"
    before = database.rows(sums)
    database.migrate()
    assert database.rows(sums) == before
    assert database.value("SELECT count(*) FROM god_mode_executions_default") == 0


def test_051_makes_this_month_and_twelve_more(migrated):
    for table in ("god_mode_executions", "security_events"):
        made = migrated.rows("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1", table)
        expected = migrated.rows("SELECT %s || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + i * interval '1 month', '_YYYY_MM') "
                                 "FROM generate_series(0, 12) AS i ORDER BY 1", table)
        assert made == expected + [(f"{table}_default",)]


@pytest.mark.parametrize("table, columns", [("god_mode_executions", ["tenant_id", "trace_id", "executed_at"]),
                                            ("security_events", ["tenant_id", "event_id", "occurred_at"]),
                                            ("identity_outbox", ["tenant_id", "event_id"]),
                                            ("agent_registry", ["tenant_id", "spiffe_id"])])
def test_primary_keys_begin_with_the_tenant(migrated, table, columns):
    found = migrated.rows("SELECT a.attname FROM pg_index AS i, unnest(i.indkey::int[]) WITH ORDINALITY AS k (attnum, place), "
                          "pg_attribute AS a WHERE i.indrelid = %s::regclass AND i.indisprimary AND a.attrelid = i.indrelid "
                          "AND a.attnum = k.attnum ORDER BY k.place", table)
    assert [name for name, in found] == columns


def test_every_unique_index_begins_with_the_tenant(migrated):
    assert migrated.rows("SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid "
                         "JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] "
                         "WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique AND a.attname <> 'tenant_id' "
                         "AND c.relname NOT IN ('schema_migrations', 'schema_grants', 'nodes')") == []


@pytest.mark.parametrize("table, key, identity", [("security_events", "occurred_at", "event_id"),
                                                  ("god_mode_executions", "executed_at", "trace_id")])
def test_newest_first_needs_no_sort(migrated, table, key, identity):
    with migrated.session() as cursor:
        cursor.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        cursor.execute(f"EXPLAIN SELECT * FROM {table} WHERE tenant_id = 'acme' AND ({key}, {identity}) < (now(), %s) "
                       f"ORDER BY {key} DESC, {identity} DESC LIMIT 100", ("f" * 8 + "-ffff-ffff-ffff-" + "f" * 12,))
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert not re.search(r"\bSort\b", plan.replace("Sort Key", "")), plan
    assert "Merge Append" in plan and "Index" in plan


def test_events_of_a_type_prefix_are_found_by_index(database):
    database.migrate()
    database.rows("INSERT INTO security_events (event_id, tenant_id, event_type, severity, occurred_at) "
                  "SELECT gen_random_uuid(), 'acme', CASE WHEN i % 500 = 0 THEN 'identity.revoked' ELSE 'auth.mtls_success' END, "
                  "'info', now() - i * interval '1 ms' FROM generate_series(1, 20000) AS i")
    with database.session() as cursor:
        cursor.execute("ANALYZE security_events")
        for condition in ("LIKE 'identity.%'", "= 'identity.revoked'"):
            cursor.execute(f"EXPLAIN SELECT * FROM security_events WHERE tenant_id = 'acme' AND event_type {condition}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
            assert re.search(r"Index Cond: \(\(tenant_id = 'acme'::text\) AND \(event_type (~>=~|=) 'identity\.", plan), plan


def default_rows(database, table):
    return database.value(f"SELECT count(*) FROM {table}_default")


def test_rows_in_the_default_partition_move_when_their_month_is_made(database):
    database.migrate()
    insert_history(database, EDGES + ["infinity"])
    assert (default_rows(database, "security_events"), default_rows(database, "god_mode_executions")) == (6, 6)
    before = history_of(database, "god_mode_executions"), history_of(database, "security_events", "*, 1")
    printed = database.migrate()
    assert "made 10 partitions" in printed and "applied grants" in printed
    assert "god_mode_executions: 6 rows moved out of the default partition" in printed
    assert (history_of(database, "god_mode_executions"), history_of(database, "security_events", "*, 1")) == before
    assert database.rows("SELECT event_id FROM security_events_default") == [(str(uuid.UUID(int=5)),)]
    assert database.rows("SELECT executed_at = 'infinity' FROM god_mode_executions_default") == [(True,)]
    assert "up to date" in database.migrate()
    assert not [name for name in database.relations() if "retired" in name]


def test_new_partitions_are_append_only_indexed_and_closed_too(database):
    database.migrate()
    database.rows("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
    insert_history(database, EDGES)
    database.migrate()
    for partition in ("god_mode_executions_2020_01", "god_mode_executions_default"):
        for change in CHANGES:
            with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
                database.rows(change.format(partition))
        assert database.value("SELECT count(*) FROM pg_indexes WHERE tablename = %s", partition) == 3
    for role in ROLES:
        assert database.catalogue(role, NEEDED[role]) == []
        assert database.attempts(role, NEEDED[role]) is None


def test_detached_month_is_left_alone(database):
    database.migrate()
    insert_history(database, EDGES)
    database.migrate()
    database.rows("ALTER TABLE security_events DETACH PARTITION security_events_2020_01")
    with database.session() as cursor:
        cursor.execute("INSERT INTO security_events (event_id, tenant_id, event_type, severity, occurred_at) "
                       "VALUES (%s, 'acme', 'auth.key_failure', 'warn', '2020-01-05')", (str(uuid.uuid4()),))
    assert "up to date" in database.migrate()
    assert database.value("SELECT count(*) FROM security_events_2020_01") == 1
    assert default_rows(database, "security_events") == 1


def test_chain_columns_come_all_or_none(migrated):
    """A row of before this version has none of them; a new one cannot leave one out."""
    with migrated.session() as cursor:
        cursor.execute("BEGIN")
        insert = ("INSERT INTO god_mode_executions (trace_id, tenant_id, api_key_id, status, node, seq, prev_hash, row_hash) "
                  "VALUES (%s, 'acme', 'key', %s, 'n', %s, %s, %s)")
        cursor.execute(insert, ("a" * 16, "succeeded", 1, b"p" * 32, b"r" * 32))
        for values in (("succeeded", None, b"p" * 32, b"r" * 32), (None, 1, b"p" * 32, b"r" * 32),
                       ("succeeded", 1, b"short", b"r" * 32), ("fine", 1, b"p" * 32, b"r" * 32)):
            cursor.execute("SAVEPOINT before")
            with pytest.raises(psycopg2.errors.CheckViolation):
                cursor.execute(insert, ("b" * 16, *values))
            cursor.execute("ROLLBACK TO before")
        cursor.execute("ROLLBACK")


CHANGES = ["UPDATE {} SET tool = 'x'", "UPDATE {} SET tool = 'x' WHERE false", "DELETE FROM {}", "DELETE FROM {} WHERE false",
           "TRUNCATE {}", "INSERT INTO {} (trace_id, tenant_id, api_key_id) VALUES ('x', 'y', 'z') "
           "ON CONFLICT (tenant_id, trace_id, executed_at) DO UPDATE SET tool = 'x'"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("role", [None, SUPERUSER])
def test_executions_are_append_only_for_everybody(migrated, role, change):
    month = migrated.value("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")
    for table in ("god_mode_executions", f"god_mode_executions_{month}", "god_mode_executions_default"):
        with pytest.raises(psycopg2.errors.RaiseException, match=f"{table} is append-only"):
            migrated.rows(change.format(table), role=role)
    with migrated.session(SUPERUSER) as cursor:
        cursor.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
            cursor.execute(change.format("god_mode_executions"))


# ---- 052: identity ------------------------------------------------------------------------------


def test_052_names_spiffe_ids_that_share_an_agent_id(database):
    database.migrate("--to", 49)
    insert_agents(database, [("acme", "spiffe://td/agent/acme/a", "h", "2024-01-01", None),
                             ("acme", "spiffe://td/other/acme/a", "h", "2024-01-01", None),
                             ("other", "spiffe://td/agent/acme/a", "h", "2024-01-01", None)])
    printed = database.migrate(code=1)
    assert "052_identity.sql:" in printed and "23505" in printed
    assert 'tenant "acme", agent_id "a": ["spiffe://td/agent/acme/a", "spiffe://td/other/acme/a"]' in printed
    assert 'tenant "other"' not in printed
    assert database.versions() == [48, 49, 50, 51]
    database.rows("DELETE FROM agent_registry WHERE spiffe_id = 'spiffe://td/other/acme/a'")
    database.migrate()


def test_052_names_states_that_it_does_not_know(database):
    database.migrate("--to", 49)
    insert_agents(database, [("acme", f"spiffe://td/agent/acme/{i}", "h", "2024-01-01", None, state)
                             for i, state in enumerate(["offline", "offline", "active"])])
    assert 'unknown states: "offline" (2 rows)' in database.migrate(code=1)
    assert database.versions() == [48, 49, 50, 51]
    database.rows("UPDATE agent_registry SET state = 'deregistered' WHERE state = 'offline'")
    database.migrate()


@pytest.mark.parametrize("column, good, bad", [
    ("tenant_id", "t" * 255, "t" * 256), ("tenant_id", "a_b", "_system"), ("tenant_id", "t", ""),
    ("agent_id", "a" * 255, "a" * 256), ("agent_id", "a", ""), ("spiffe_id", "s" * 2048, "s" * 2049),
    ("hostname", "h" * 253, "h" * 254), ("machine_id_fingerprint", "f" * 256, "f" * 257),
    ("state", "quarantined", "offline"), ("last_heartbeat_via", "hostname", "guess"),
    ("capabilities", '["a"]', "{}"), ("metadata", '{"a": 1}', "[]"), ("recent_requests", "{}", "{" + str(uuid.UUID(int=1)) + "}"),
])
def test_agent_registry_is_bounded(migrated, column, good, bad):
    row = {"tenant_id": "acme", "agent_id": "a", "spiffe_id": "spiffe://td/agent/acme/a", "hostname": "h"}
    with migrated.session() as cursor:
        for value, refused in ((good, False), (bad, True)):
            values = {**row, column: value}
            cursor.execute("BEGIN")
            insert = f"INSERT INTO agent_registry ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})"
            if refused:
                with pytest.raises(psycopg2.errors.CheckViolation):
                    cursor.execute(insert, list(values.values()))
            else:
                cursor.execute(insert, list(values.values()))
            cursor.execute("ROLLBACK")


def test_longest_identity_fits_every_index(migrated):
    """2,048 bytes that do not compress."""
    noise = "".join(hashlib.sha512(str(i).encode()).hexdigest() for i in range(16))
    with migrated.session() as cursor:
        cursor.execute("BEGIN; SET LOCAL search_path = public")
        cursor.execute("INSERT INTO agent_registry (tenant_id, agent_id, spiffe_id, hostname) VALUES (%s, %s, %s, %s)",
                       (noise[:255], noise[300:555], noise[:2048], noise[600:853]))
        cursor.execute("ROLLBACK")


def test_changed_xid_is_the_transaction_that_made_the_row(migrated):
    with migrated.session() as cursor:
        cursor.execute("BEGIN; INSERT INTO agent_registry (tenant_id, agent_id, spiffe_id, hostname) "
                       "VALUES ('acme', 'x', 'spiffe://td/agent/acme/x', 'h')")
        cursor.execute("SELECT changed_xid = pg_current_xact_id() FROM agent_registry WHERE agent_id = 'x'")
        assert cursor.fetchone() == (True,)
        cursor.execute("ROLLBACK")


def test_outbox_has_the_columns_of_the_events(migrated):
    def columns(table):
        return migrated.rows("SELECT attname, atttypid::regtype::text FROM pg_attribute "
                             "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum", table)
    assert columns("identity_outbox") == [column for column in columns("security_events")
                                          if column[0] not in ("count", "recorded_at")]


def event_id(request, event_type):
    digest = bytearray(hashlib.sha256(b"caf-event" + request.bytes + event_type.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(digest))


def test_caf_event_id_is_the_same_anywhere(migrated):
    with migrated.session("caf_registry") as cursor:
        for i in range(200):
            request = uuid.UUID(bytes=hashlib.md5(str(i).encode()).digest())
            for event_type in ("identity.enrollment_success", "identity.fingerprint_drift", "ü", r"a\b", ""):
                cursor.execute("SELECT caf_event_id(%s, %s)", (str(request), event_type))
                made = uuid.UUID(cursor.fetchone()[0])
                assert made == event_id(request, event_type)
                assert (made.version, made.variant) == (8, uuid.RFC_4122)
    assert migrated.rows("SELECT provolatile, proparallel FROM pg_proc WHERE proname = 'caf_event_id'") == [("i", "s")]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati"])
@pytest.mark.parametrize("style", ["ISO, YMD", "SQL, DMY", "German", "Postgres, MDY"])
def test_caf_time_knows_no_session_settings(migrated, zone, style):
    moments = {"2026-01-02T03:04:05.678+00": "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678999+00": "2026-01-02T03:04:05.678Z",
               "2026-12-31T23:59:59.999999+00": "2026-12-31T23:59:59.999Z", "2026-07-01T00:00:00+05:45": "2026-06-30T18:15:00.000Z",
               "0001-01-01T00:00:00+00": "0001-01-01T00:00:00.000Z", None: None}
    with migrated.session("caf_event") as cursor:
        cursor.execute("SELECT set_config('timezone', %s, false), set_config('datestyle', %s, false)", (zone, style))
        cursor.execute("SET lc_time = 'C'")
        for moment, text in moments.items():
            cursor.execute("SELECT caf_time(%s::timestamptz)", (moment,))
            assert cursor.fetchone() == (text,)


# ---- the grants, to the letter ------------------------------------------------------------------


def agent_columns_updated(database):
    return {name for name, in database.rows("SELECT attname FROM pg_attribute WHERE attrelid = 'agent_registry'::regclass "
                                            "AND attnum > 0 AND NOT attisdropped")} - AGENT_COLUMNS_WRITTEN_ONCE


@pytest.mark.parametrize("role", ROLES)
def test_table_privileges_are_exactly_these(migrated, role):
    found = migrated.rows("SELECT relname, privilege FROM pg_class, unnest(%s) AS privilege "
                          "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') "
                          "AND has_table_privilege(%s, oid, privilege)", TABLE_PRIVILEGES, role)
    assert set(found) == {(table, privilege) for table, held in GRANTS[role].items() for privilege in held}


@pytest.mark.parametrize("role", ROLES)
def test_column_privileges_are_exactly_these(migrated, role):
    found = migrated.rows("SELECT relname, attname, privilege FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid, "
                          "unnest(%s) AS privilege WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') "
                          "AND attnum > 0 AND NOT attisdropped AND has_column_privilege(%s, c.oid, attnum, privilege) "
                          "AND NOT has_table_privilege(%s, c.oid, privilege)", COLUMN_PRIVILEGES, role, role)
    updated = agent_columns_updated(migrated) if role == "caf_registry" else set()
    assert set(found) == {("agent_registry", column, "UPDATE") for column in updated}


def test_nobody_else_has_a_privilege(migrated):
    owner = migrated.stack.env["PGUSER"]
    found = migrated.rows("SELECT DISTINCT acl.grantee::regrole::text FROM pg_class, aclexplode(relacl) AS acl "
                          "WHERE relnamespace = 'public'::regnamespace UNION "
                          "SELECT DISTINCT acl.grantee::regrole::text FROM pg_attribute, aclexplode(attacl) AS acl "
                          "WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)")
    assert {name for name, in found} == {owner, *ROLES}


def test_functions_are_open_to_those_that_need_them(migrated):
    found = migrated.rows("SELECT oid::regprocedure::text, role FROM pg_proc, unnest(%s) AS role "
                          "WHERE pronamespace = 'public'::regnamespace AND has_function_privilege(role, oid, 'EXECUTE')", ROLES)
    assert set(found) == {(function, role) for function, roles in EXECUTE.items() for role in roles}
    assert migrated.value("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef") == 0


@pytest.mark.parametrize("role", ROLES)
def test_roles_are_plain(migrated, role):
    assert migrated.rows("SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit "
                         "FROM pg_roles WHERE rolname = %s", role) == [(True, *(False,) * 6)]
    assert migrated.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", role, role=SUPERUSER) is None
    for privilege in ("CREATE", "TEMPORARY"):
        assert not migrated.value("SELECT has_database_privilege(%s, current_database(), %s)", role, privilege)
    assert not migrated.value("SELECT has_schema_privilege(%s, 'public', 'CREATE')", role)


@pytest.mark.parametrize("column", sorted(AGENT_COLUMNS_WRITTEN_ONCE))
def test_registry_cannot_move_a_row_to_another_identity(migrated, column):
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        migrated.rows(f"UPDATE agent_registry SET {column} = {column}", role="caf_registry")


def test_outbox_insert_needs_no_select(migrated):
    """ON CONFLICT DO NOTHING without a target; naming the key would need SELECT."""
    insert = ("INSERT INTO identity_outbox (event_id, tenant_id, event_type, severity, occurred_at) "
              "VALUES (%s, 'acme', 'identity.enrollment_success', 'info', now()) ON CONFLICT {} DO NOTHING")
    with migrated.session("caf_registry") as cursor:
        cursor.execute("BEGIN")
        for rows in (1, 0):
            cursor.execute(insert.format(""), (str(uuid.UUID(int=7)),))
            assert cursor.rowcount == rows
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(insert.format("(tenant_id, event_id)"), (str(uuid.UUID(int=7)),))
        cursor.execute("ROLLBACK")


def test_eventd_can_move_events_out_of_the_outbox(database):
    database.migrate()
    database.rows("INSERT INTO identity_outbox (event_id, tenant_id, event_type, severity, occurred_at) "
                  "SELECT gen_random_uuid(), 'acme', 'identity.enrollment_success', 'info', now() FROM generate_series(1, 10)",
                  role="caf_registry")
    database.rows("WITH moved AS (DELETE FROM identity_outbox WHERE tenant_id = 'acme' RETURNING *) INSERT INTO security_events "
                  "(event_id, tenant_id, event_type, severity, details, occurred_at) "
                  "SELECT event_id, tenant_id, event_type, severity, details, occurred_at FROM moved ON CONFLICT DO NOTHING",
                  role="caf_event")
    assert database.value("SELECT count(*) FROM security_events", role="caf_event") == 10
    assert database.value("SELECT count(*) FROM identity_outbox", role="caf_event") == 0


def test_changed_grants_are_applied_again_and_take_back_what_was_added(database, tmp_path):
    database.copy_sql(tmp_path)
    database.migrate()
    database.rows("GRANT ALL ON ALL TABLES IN SCHEMA public TO caf_event, PUBLIC")
    database.rows("GRANT UPDATE (tenant_id) ON agent_registry TO caf_registry")
    database.rows("GRANT EXECUTE ON FUNCTION caf_create_partitions(integer) TO PUBLIC")
    assert "up to date" in database.migrate()
    grants = database.sql / "grants.sql"
    grants.write_text(grants.read_text() + "\n-- changed\n")
    assert "pending grants" in database.migrate("--check", code=3)
    assert "applied grants" in database.migrate()
    for role in ROLES:
        assert database.catalogue(role, NEEDED[role]) == []
    assert not database.value("SELECT has_column_privilege('caf_registry', 'agent_registry', 'tenant_id', 'UPDATE')")


def test_failing_grants_leave_the_old_ones_and_are_tried_again(database, tmp_path):
    database.copy_sql(tmp_path)
    database.migrate()
    grants = database.sql / "grants.sql"
    good = grants.read_text()
    grants.write_text(good + "\nGRANT SELECT ON nowhere TO caf_event;\n")
    assert f"grants.sql:{good.count(chr(10)) + 2}:" in database.migrate(code=1)
    for role in ROLES:
        assert database.catalogue(role, NEEDED[role]) == []
    database.add_file("900_new.sql", "CREATE TABLE new_one ();")
    database.migrate(code=1)
    assert 900 in database.versions()
    grants.write_text(good)
    assert "applied grants" in database.migrate()


# ---- the self-test of the daemons ---------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_selftest_passes_with_the_grants(migrated, role):
    assert migrated.catalogue(role, NEEDED[role]) == []
    assert migrated.attempts(role, NEEDED[role]) is None


def test_selftest_can_be_given_single_columns(migrated):
    needed = [entry for entry in NEEDED["caf_registry"] if entry != "agent_registry:UPDATE"]
    columns = [f"agent_registry({column}):UPDATE" for column in agent_columns_updated(migrated)]
    assert migrated.catalogue("caf_registry", needed + columns) == []
    assert migrated.attempts("caf_registry", needed + columns) is None
    missing = [column for column in columns if "(state)" not in column]
    assert migrated.catalogue("caf_registry", needed + missing) == ["the role has UPDATE on column state of table agent_registry"]
    assert "UPDATE on public.agent_registry(state) ended with SQLSTATE 00000" in migrated.attempts("caf_registry", needed + missing)
    assert migrated.catalogue("caf_registry", needed + columns + ["agent_registry(tenant_id):UPDATE"]) == [
        "the role lacks agent_registry(tenant_id):UPDATE"]


TWIN_NEEDS = ["security_events:SELECT", "security_events:INSERT", "identity_outbox:SELECT", "identity_outbox:DELETE"]


@pytest.fixture
def twin(database):
    """A migrated database and a role with the grants of caf_event, to be given too much: roles belong to the whole
    cluster, and the stack's daemons use theirs."""
    database.migrate()
    name = f"caf_twin_{os.getpid()}_{next(numbers)}"
    with database.session(SUPERUSER) as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN NOINHERIT")
        cursor.execute(f"GRANT USAGE ON SCHEMA public TO {name}")
        cursor.execute(f"GRANT SELECT, INSERT ON security_events TO {name}")
        cursor.execute(f"GRANT SELECT, DELETE ON identity_outbox TO {name}")
    try:
        yield database, name
    finally:
        with database.session(SUPERUSER) as cursor:
            cursor.execute(f"ALTER ROLE {name} NOSUPERUSER")
            cursor.execute(f"REASSIGN OWNED BY {name} TO {SUPERUSER}")
            cursor.execute(f"DROP OWNED BY {name}")
            cursor.execute(f"DROP ROLE {name}")


def test_selftest_passes_for_the_twin(twin):
    database, role = twin
    assert database.catalogue(role, TWIN_NEEDS) == []
    assert database.attempts(role, TWIN_NEEDS) is None


SURPLUS = [
    # what is given; what the catalogue must say; what the attempts must say, where an attempt can find it
    ("ALTER ROLE {role} SUPERUSER", "the role is SUPERUSER", "SQLSTATE 00000"),
    ("ALTER ROLE {role} BYPASSRLS", "the role is BYPASSRLS", None),
    ("ALTER ROLE {role} CREATEROLE", "the role is CREATEROLE", None),
    ("ALTER ROLE {role} CREATEDB", "the role is CREATEDB", None),
    ("ALTER ROLE {role} REPLICATION", "the role is REPLICATION", None),
    ("GRANT caf_audit TO {role}", "the role is a member of caf_audit", None),
    ("GRANT pg_read_all_data TO {role}", "the role is a member of pg_read_all_data", None),
    ("CREATE SCHEMA AUTHORIZATION {role}", "the role owns schema {role}", None),
    ("ALTER TABLE identity_outbox OWNER TO {role}", "the role owns table identity_outbox", "public.identity_outbox"),
    ("ALTER FUNCTION caf_time OWNER TO {role}", "the role owns function caf_time(timestamp with time zone)", None),
    ("ALTER DATABASE {database} OWNER TO {role}", "the role owns database {database}",
     "CREATE on temporary tables ended with SQLSTATE 00000"),
    ("GRANT CREATE ON SCHEMA public TO {role}", "the role has CREATE on schema public",
     "CREATE on schema public ended with SQLSTATE 00000"),
    ("GRANT CREATE ON SCHEMA public TO PUBLIC", "the role has CREATE on schema public",
     "CREATE on schema public ended with SQLSTATE 00000"),
    ("GRANT CREATE ON DATABASE {database} TO {role}", "the role has CREATE on database {database}",
     "CREATE on database ended with SQLSTATE 00000"),
    ("GRANT TEMPORARY ON DATABASE {database} TO PUBLIC", "the role has TEMPORARY on database {database}",
     "CREATE on temporary tables ended with SQLSTATE 00000"),
    ("GRANT SELECT ON agent_registry TO {role}", "the role has SELECT on table agent_registry",
     "SELECT on public.agent_registry ended with SQLSTATE 00000"),
    ("GRANT INSERT ON agent_registry TO PUBLIC", "the role has INSERT on table agent_registry",
     "INSERT on public.agent_registry ended with SQLSTATE 00000"),
    ("GRANT UPDATE ON security_events TO {role}", "the role has UPDATE on table security_events",
     "UPDATE on public.security_events(event_id) ended with SQLSTATE 00000"),
    ("GRANT DELETE ON security_events TO {role}", "the role has DELETE on table security_events",
     "DELETE on public.security_events ended with SQLSTATE 00000"),
    ("GRANT DELETE ON security_events_default TO {role}", "the role has DELETE on table security_events_default",
     "DELETE on public.security_events_default ended with SQLSTATE 00000"),
    ("GRANT TRUNCATE ON identity_outbox TO {role}", "the role has TRUNCATE on table identity_outbox",
     "TRUNCATE on public.identity_outbox is granted"),
    ("GRANT UPDATE ON god_mode_executions TO {role}", "the role has UPDATE on table god_mode_executions",
     "UPDATE on public.god_mode_executions(trace_id) ended with SQLSTATE P0001"),
    ("GRANT DELETE ON god_mode_executions TO {role}", "the role has DELETE on table god_mode_executions",
     "DELETE on public.god_mode_executions ended with SQLSTATE P0001"),
    ("GRANT DELETE ON god_mode_executions_default TO {role}", "the role has DELETE on table god_mode_executions_default",
     "DELETE on public.god_mode_executions_default ended with SQLSTATE P0001"),
    ("GRANT TRUNCATE ON god_mode_executions TO {role}", "the role has TRUNCATE on table god_mode_executions",
     "TRUNCATE on public.god_mode_executions is granted"),
    ("GRANT REFERENCES ON agent_registry TO {role}", "the role has REFERENCES on table agent_registry", None),
    ("GRANT TRIGGER ON security_events TO {role}", "the role has TRIGGER on table security_events", None),
    ("GRANT SELECT ON security_events TO {role} WITH GRANT OPTION",
     "the role has SELECT WITH GRANT OPTION on table security_events", None),
    ("GRANT SELECT (hostname) ON agent_registry TO {role}", "the role has SELECT on column hostname of table agent_registry",
     "SELECT on public.agent_registry ended with SQLSTATE 00000"),
    ("GRANT INSERT (hostname) ON agent_registry TO {role}", "the role has INSERT on column hostname of table agent_registry",
     "INSERT on public.agent_registry ended with SQLSTATE 00000"),
    ("GRANT UPDATE (details) ON security_events TO {role}", "the role has UPDATE on column details of table security_events",
     "UPDATE on public.security_events(details) ended with SQLSTATE 00000"),
    ("GRANT UPDATE (error) ON god_mode_executions TO {role}", "the role has UPDATE on column error of table god_mode_executions",
     "UPDATE on public.god_mode_executions(error) ended with SQLSTATE P0001"),
    ("GRANT REFERENCES (hostname) ON agent_registry TO {role}",
     "the role has REFERENCES on column hostname of table agent_registry", None),
    ("GRANT SELECT ON schema_migrations TO {role}", "the role has SELECT on table schema_migrations",
     "SELECT on public.schema_migrations ended with SQLSTATE 00000"),
    ("CREATE SCHEMA beside; CREATE TABLE beside.security_events (); GRANT USAGE ON SCHEMA beside TO {role}; "
     "GRANT SELECT ON beside.security_events TO {role}", "the role has SELECT on table beside.security_events", None),
    ("CREATE VIEW seen AS SELECT * FROM agent_registry; GRANT SELECT ON seen TO {role}", "the role has SELECT on table seen", None),
    ("CREATE SEQUENCE counted; GRANT USAGE ON SEQUENCE counted TO {role}", "the role has USAGE on sequence counted", None),
    ("CREATE FUNCTION elevated() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
     "the role has EXECUTE on elevated(), which runs as its owner", None),
    ("REVOKE INSERT ON security_events FROM {role}", "the role lacks security_events:INSERT",
     "INSERT on public.security_events ended with SQLSTATE 42501 and must end with 00000"),
    ("REVOKE DELETE ON identity_outbox FROM {role}", "the role lacks identity_outbox:DELETE",
     "DELETE on public.identity_outbox ended with SQLSTATE 42501 and must end with 00000"),
    ("REVOKE USAGE ON SCHEMA public FROM {role}", "the role lacks USAGE on schema public", "ended with SQLSTATE 42501 and must end with 00000"),
    ("DROP TABLE identity_outbox", "the role lacks identity_outbox:SELECT", None),
]


@pytest.mark.parametrize("given, finding, complaint", SURPLUS, ids=[entry[0].replace("{role}", "role") for entry in SURPLUS])
def test_selftest_names_what_is_wrong(twin, given, finding, complaint):
    database, role = twin
    names = {"role": role, "database": database.name}
    database.rows(given.format(**names), role=SUPERUSER)
    assert finding.format(**names) in database.catalogue(role, TWIN_NEEDS)
    if complaint:
        assert complaint in (database.attempts(role, TWIN_NEEDS) or "no complaint")


@pytest.mark.parametrize("needed", ["security_events", "security_events:", "Security_Events:SELECT", "nowhere:SELECT", ""])
def test_selftest_entry_that_means_nothing_is_told(migrated, needed):
    assert f"the role lacks {needed}" in migrated.catalogue("caf_event", NEEDED["caf_event"] + [needed])


def test_selftest_changes_nothing_even_with_every_grant(twin):
    database, role = twin
    insert_history(database, EDGES)
    insert_agents(database, [("acme", "spiffe://td/agent/acme/a", "h", "2024-01-01", None)])
    database.rows(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON SCHEMA public TO {role}; "
                  f"GRANT ALL ON DATABASE {database.name} TO {role}", role=SUPERUSER)
    tables = sorted(name for name, in database.rows("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') "
                                                    "AND relnamespace = 'public'::regnamespace"))
    columns = database.rows("SELECT relname, attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid "
                            "WHERE relname = ANY (%s) AND attnum > 0 AND NOT attisdropped", tables)
    protected = [table for table in tables if table.startswith("god_mode_executions")]

    def state():
        return {table: (history_of(database, table),
                        database.value("SELECT relfilenode FROM pg_class WHERE oid = %s::regclass", table)) for table in tables}
    before = state()
    assert "SQLSTATE P0001" in database.attempts(role, [f"{table}:{privilege}" for table in tables for privilege in
                                                        ("SELECT", "INSERT", "DELETE", "TRUNCATE", "UPDATE")])
    database.rows(f"REVOKE UPDATE, DELETE ON {', '.join(protected)} FROM {role}")
    everything = [f"{table}:{privilege}" for table in tables for privilege in ("SELECT", "INSERT", "TRUNCATE")]
    everything += [f"{table}:DELETE" for table in tables if table not in protected]
    everything += [f"{table}({column}):UPDATE" for table, column in columns if table not in protected]
    assert "CREATE on schema public ended with SQLSTATE 00000" in database.attempts(role, everything)
    database.rows(f"REVOKE CREATE ON SCHEMA public FROM {role}; REVOKE CREATE, TEMPORARY ON DATABASE {database.name} FROM {role}",
                  role=SUPERUSER)
    assert database.attempts(role, everything) is None
    assert state() == before
    assert "caf_selftest" not in database.relations()


def test_selftest_neither_waits_for_a_busy_table_nor_holds_it_up(twin):
    database, role = twin
    insert_history(database, EDGES)
    with database.session() as busy:
        busy.execute("BEGIN; INSERT INTO identity_outbox (event_id, tenant_id, event_type, severity, occurred_at) VALUES "
                     "(gen_random_uuid(), 'acme', 'identity.enrollment_success', 'info', now()); SELECT * FROM security_events; "
                     "SELECT * FROM god_mode_executions; SELECT * FROM agent_registry")
        begun = time.monotonic()
        assert database.attempts(role, TWIN_NEEDS) is None
        database.rows(f"GRANT TRUNCATE ON identity_outbox TO {role}")
        assert "TRUNCATE on public.identity_outbox is granted" in database.attempts(role, TWIN_NEEDS)
        assert time.monotonic() - begun < 1


def test_selftest_does_not_wait_for_a_locked_table_for_long(twin):
    """A lock is not a refusal: what could not be tried does not pass."""
    database, role = twin
    with database.session() as holder:
        holder.execute("BEGIN; LOCK TABLE agent_registry IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        complaint = database.attempts(role, TWIN_NEEDS)
        assert time.monotonic() - begun < 5
    assert "public.agent_registry" in complaint and "SQLSTATE 55P03" in complaint
    assert database.attempts(role, TWIN_NEEDS) is None


def test_selftest_needs_its_list(migrated):
    with migrated.session("caf_event") as cursor, pytest.raises(psycopg2.errors.UndefinedObject):
        cursor.execute(statements(migrated.sql)["selftest_attempts"])
