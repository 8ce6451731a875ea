"""The self-test that every daemon runs with its role when it first connects: it passes with the grants, and names
each thing that a role has and must not have, or lacks."""

import itertools
import os
import re
import time

import psycopg2
import psycopg2.errors
import pytest
from databases import (AGENT_COLUMNS_UPDATED, EDGES, NEEDED, ROLES, SUPERUSER, history_of, insert_agents,
                       insert_history, statements)
from harness import wait_for

numbers = itertools.count(1)


@pytest.mark.parametrize("role", ROLES)
def test_selftest_passes_with_the_grants(migrated, role):
    assert migrated.catalogue(role, NEEDED[role]) == []
    assert migrated.attempts(role, NEEDED[role]) is None


def test_selftest_can_be_given_single_columns(migrated):
    needed = [entry for entry in NEEDED["caf_registry"] if entry != "agent_registry:UPDATE"]
    columns = [f"agent_registry({column}):UPDATE" for column in AGENT_COLUMNS_UPDATED]
    assert migrated.catalogue("caf_registry", needed + columns) == []
    assert migrated.attempts("caf_registry", needed + columns) is None
    missing = [column for column in columns if "(state)" not in column]
    assert migrated.catalogue("caf_registry", needed + missing) == [
        "the role has UPDATE on column state of table agent_registry"]
    complaint = migrated.attempts("caf_registry", needed + missing)
    assert "UPDATE on public.agent_registry(state) ended with SQLSTATE 00000" in complaint
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


# What is given to the twin or taken from it; what the catalogue says of it; what the attempts say and the SQLSTATE that
# they say it with, where an attempt can find it.
WRONG = [
    ("ALTER ROLE {role} SUPERUSER", "is SUPERUSER", ": 00000"),
    ("ALTER ROLE {role} BYPASSRLS", "is BYPASSRLS", None),
    ("ALTER ROLE {role} CREATEROLE", "is CREATEROLE", None),
    ("ALTER ROLE {role} CREATEDB", "is CREATEDB", None),
    ("ALTER ROLE {role} REPLICATION", "is REPLICATION", None),
    ("GRANT caf_audit TO {role}", "is a member of caf_audit", None),
    ("GRANT pg_read_all_data TO {role}", "is a member of pg_read_all_data", None),
    ("CREATE SCHEMA AUTHORIZATION {role}", "owns schema {role}", None),
    ("ALTER TABLE identity_outbox OWNER TO {role}",
     "owns table identity_outbox", "INSERT on public.identity_outbox: 00000"),
    ("ALTER FUNCTION caf_time OWNER TO {role}", "owns function caf_time(timestamp with time zone)", None),
    ("ALTER DATABASE {database} OWNER TO {role}", "owns database {database}", "CREATE on temporary tables: 00000"),
    ("GRANT CREATE ON SCHEMA public TO {role}", "has CREATE on schema public", "CREATE on schema public: 00000"),
    ("GRANT CREATE ON SCHEMA public TO PUBLIC", "has CREATE on schema public", "CREATE on schema public: 00000"),
    ("GRANT CREATE ON DATABASE {database} TO {role}", "has CREATE on database {database}", "CREATE on database: 00000"),
    ("GRANT TEMPORARY ON DATABASE {database} TO PUBLIC",
     "has TEMPORARY on database {database}", "CREATE on temporary tables: 00000"),
    ("GRANT SELECT ON agent_registry TO {role}",
     "has SELECT on table agent_registry", "SELECT on public.agent_registry: 00000"),
    ("GRANT INSERT ON agent_registry TO PUBLIC",
     "has INSERT on table agent_registry", "INSERT on public.agent_registry: 00000"),
    ("GRANT UPDATE ON security_events TO {role}",
     "has UPDATE on table security_events", "UPDATE on public.security_events(event_id): 00000"),
    ("GRANT DELETE ON security_events TO {role}",
     "has DELETE on table security_events", "DELETE on public.security_events: 00000"),
    ("GRANT DELETE ON security_events_default TO {role}",
     "has DELETE on table security_events_default", "DELETE on public.security_events_default: 00000"),
    ("GRANT TRUNCATE ON identity_outbox TO {role}",
     "has TRUNCATE on table identity_outbox", "TRUNCATE on public.identity_outbox is granted"),
    ("GRANT UPDATE ON god_mode_executions TO {role}",
     "has UPDATE on table god_mode_executions", "UPDATE on public.god_mode_executions(trace_id): P0001"),
    ("GRANT DELETE ON god_mode_executions TO {role}",
     "has DELETE on table god_mode_executions", "DELETE on public.god_mode_executions: P0001"),
    ("GRANT DELETE ON god_mode_executions_default TO {role}",
     "has DELETE on table god_mode_executions_default", "DELETE on public.god_mode_executions_default: P0001"),
    ("GRANT TRUNCATE ON god_mode_executions TO {role}",
     "has TRUNCATE on table god_mode_executions", "TRUNCATE on public.god_mode_executions is granted"),
    ("GRANT REFERENCES ON agent_registry TO {role}", "has REFERENCES on table agent_registry", None),
    ("GRANT TRIGGER ON security_events TO {role}", "has TRIGGER on table security_events", None),
    ("GRANT SELECT ON security_events TO {role} WITH GRANT OPTION",
     "has SELECT WITH GRANT OPTION on table security_events", None),
    ("GRANT SELECT (hostname) ON agent_registry TO {role}",
     "has SELECT on column hostname of table agent_registry", "SELECT on public.agent_registry: 00000"),
    ("GRANT INSERT (hostname) ON agent_registry TO {role}",
     "has INSERT on column hostname of table agent_registry", "INSERT on public.agent_registry: 00000"),
    ("GRANT UPDATE (details) ON security_events TO {role}",
     "has UPDATE on column details of table security_events", "UPDATE on public.security_events(details): 00000"),
    ("GRANT UPDATE (error) ON god_mode_executions TO {role}",
     "has UPDATE on column error of table god_mode_executions", "UPDATE on public.god_mode_executions(error): P0001"),
    ("GRANT REFERENCES (hostname) ON agent_registry TO {role}",
     "has REFERENCES on column hostname of table agent_registry", None),
    ("GRANT SELECT ON schema_migrations TO {role}",
     "has SELECT on table schema_migrations", "SELECT on public.schema_migrations: 00000"),
    ("CREATE SCHEMA beside; CREATE TABLE beside.security_events (); "
     "GRANT USAGE ON SCHEMA beside TO {role}; GRANT SELECT ON beside.security_events TO {role}",
     "has SELECT on table beside.security_events", None),
    ("CREATE VIEW seen AS SELECT * FROM agent_registry; GRANT SELECT ON seen TO {role}",
     "has SELECT on table seen", None),
    ("CREATE SEQUENCE counted; GRANT USAGE ON SEQUENCE counted TO {role}", "has USAGE on sequence counted", None),
    ("CREATE FUNCTION elevated() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
     "has EXECUTE on elevated(), which runs as its owner", None),
    ("REVOKE INSERT ON security_events FROM {role}",
     "lacks security_events:INSERT", "INSERT on public.security_events: 42501"),
    ("REVOKE DELETE ON identity_outbox FROM {role}",
     "lacks identity_outbox:DELETE", "DELETE on public.identity_outbox: 42501"),
    ("REVOKE USAGE ON SCHEMA public FROM {role}", "lacks USAGE on schema public", ": 42501"),
    ("DROP TABLE identity_outbox", "lacks identity_outbox:SELECT", None),
]


@pytest.mark.parametrize("given, finding, complaint", WRONG, ids=[given for given, *_ in WRONG])
def test_selftest_names_what_is_wrong(twin, given, finding, complaint):
    database, role = twin
    names = {"role": role, "database": database.name}
    database.rows(given.format(**names), role=SUPERUSER)
    assert f"the role {finding.format(**names)}" in database.catalogue(role, TWIN_NEEDS)
    if complaint:
        said = re.sub(r": (\w{5})$", r" ended with SQLSTATE \1", complaint)
        assert said in (database.attempts(role, TWIN_NEEDS) or "no complaint")


@pytest.mark.parametrize("needed", ["security_events", "security_events:", "Security_Events:SELECT",
                                    "nowhere:SELECT", ""])
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
        files = dict(database.rows("SELECT relname, relfilenode FROM pg_class WHERE relname = ANY (%s)", tables))
        return {table: (history_of(database, table), files[table]) for table in tables}
    before = state()
    assert "SQLSTATE P0001" in database.attempts(role, [f"{table}:{privilege}" for table in tables for privilege in
                                                        ("SELECT", "INSERT", "DELETE", "TRUNCATE", "UPDATE")])
    database.rows(f"REVOKE UPDATE, DELETE ON {', '.join(protected)} FROM {role}")
    everything = [f"{table}:{privilege}" for table in tables for privilege in ("SELECT", "INSERT", "TRUNCATE")]
    everything += [f"{table}:DELETE" for table in tables if table not in protected]
    everything += [f"{table}({column}):UPDATE" for table, column in columns if table not in protected]
    assert "CREATE on schema public ended with SQLSTATE 00000" in database.attempts(role, everything)
    database.rows(f"REVOKE CREATE ON SCHEMA public FROM {role}; "
                  f"REVOKE CREATE, TEMPORARY ON DATABASE {database.name} FROM {role}", role=SUPERUSER)
    assert database.attempts(role, everything) is None
    assert state() == before
    assert "caf_selftest" not in database.relations()


def test_selftest_neither_waits_for_a_busy_table_nor_holds_it_up(twin):
    database, role = twin
    insert_history(database, EDGES)
    with database.session() as busy:
        busy.execute("""BEGIN;
                        INSERT INTO identity_outbox (event_id, tenant_id, event_type, severity, occurred_at)
                            VALUES (gen_random_uuid(), 'acme', 'identity.enrollment_success', 'info', now());
                        SELECT * FROM security_events;
                        SELECT * FROM god_mode_executions;
                        SELECT * FROM agent_registry""")
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


@pytest.mark.parametrize("daemon, role, surplus, finding", [
    ("eventd", "caf_event", "DELETE", "the role has DELETE on table security_events"),
    ("registryd", "caf_registry", "SELECT (details)", "the role has SELECT on column details of table security_events"),
])
def test_daemon_whose_role_can_do_more_ends(make_stack, daemon, role, surplus, finding):
    stack = make_stack()
    stack.stop(daemon)
    with stack.db(SUPERUSER).cursor() as cursor:
        cursor.execute(f"GRANT {surplus} ON security_events TO {role}")
        stack.command("start", stack.dir, daemon, check=False)
        wait_for(lambda: not stack.runs(daemon), what="its end")
        assert finding in stack.log(daemon)
        cursor.execute(f"REVOKE {surplus} ON security_events FROM {role}")
    stack.start(daemon)
    with stack.client() as client:
        wait_for(lambda: client.get("/readyz").status_code == 200, what="readiness")
    assert stack.runs(daemon)
