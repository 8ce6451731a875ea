"""The grants, to the letter: what each daemon's role may do, and that there is nothing else."""

import uuid

import psycopg2
import psycopg2.errors
import pytest
from databases import AGENT_COLUMNS_UPDATED, NEEDED, NODE_COLUMNS_UPDATED, ROLES, SUPERUSER

TABLE_PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
COLUMN_PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "REFERENCES"]

# What each role may do, to the letter. UPDATE of agent_registry is column by column.
GRANTS = {
    "caf_registry": {"agent_registry": {"SELECT", "INSERT"}, "identity_outbox": {"INSERT"},
                     "nodes": {"SELECT", "INSERT", "DELETE"}},
    "caf_event": {"security_events": {"SELECT", "INSERT"}, "identity_outbox": {"SELECT", "DELETE"}},
    "caf_audit": {"god_mode_executions": {"SELECT", "INSERT"}},
}
EXECUTE = {
    "caf_time(timestamp with time zone)": {"caf_registry", "caf_event", "caf_audit"},
    "caf_event_id(uuid,text)": {"caf_registry", "caf_event"},
    "caf_agent_json(agent_registry)": {"caf_registry"},
    "caf_hostname_sharers(text[],text[],text[],timestamp with time zone[])": {"caf_registry"},
}


@pytest.mark.parametrize("role", ROLES)
def test_table_privileges_are_exactly_these(migrated, role):
    found = migrated.rows("SELECT relname, privilege FROM pg_class, unnest(%s) AS privilege "
                          "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') "
                          "AND has_table_privilege(%s, oid, privilege)", TABLE_PRIVILEGES, role)
    assert set(found) == {(table, privilege) for table, held in GRANTS[role].items() for privilege in held}


@pytest.mark.parametrize("role", ROLES)
def test_column_privileges_are_exactly_these(migrated, role):
    found = migrated.rows("""SELECT relname, attname, privilege
                             FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid, unnest(%s) AS privilege
                             WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
                                   AND attnum > 0 AND NOT attisdropped
                                   AND has_column_privilege(%s, c.oid, attnum, privilege)
                                   AND NOT has_table_privilege(%s, c.oid, privilege)""", COLUMN_PRIVILEGES, role, role)
    updated = {"agent_registry": AGENT_COLUMNS_UPDATED, "nodes": NODE_COLUMNS_UPDATED} if role == "caf_registry" else {}
    assert set(found) == {(table, column, "UPDATE") for table, columns in updated.items() for column in columns}


def test_nobody_else_has_a_privilege(migrated):
    owner = migrated.stack.env["PGUSER"]
    found = migrated.rows("SELECT DISTINCT acl.grantee::regrole::text FROM pg_class, aclexplode(relacl) AS acl "
                          "WHERE relnamespace = 'public'::regnamespace UNION "
                          "SELECT DISTINCT acl.grantee::regrole::text FROM pg_attribute, aclexplode(attacl) AS acl "
                          "WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)")
    assert {name for name, in found} == {owner, *ROLES}


def test_functions_are_open_to_those_that_need_them(migrated):
    found = migrated.rows("""SELECT oid::regprocedure::text, role FROM pg_proc, unnest(%s) AS role
                             WHERE pronamespace = 'public'::regnamespace
                                   AND has_function_privilege(role, oid, 'EXECUTE')""", ROLES)
    assert set(found) == {(function, role) for function, roles in EXECUTE.items() for role in roles}
    assert migrated.value("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef") == 0


@pytest.mark.parametrize("role", ROLES)
def test_roles_are_plain(migrated, role):
    assert migrated.rows("""SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,
                                   rolinherit
                            FROM pg_roles WHERE rolname = %s""", role) == [(True, *(False,) * 6)]
    assert migrated.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", role, role=SUPERUSER) is None
    for privilege in ("CREATE", "TEMPORARY"):
        assert not migrated.value("SELECT has_database_privilege(%s, current_database(), %s)", role, privilege)
    assert not migrated.value("SELECT has_schema_privilege(%s, 'public', 'CREATE')", role)


@pytest.mark.parametrize("column", ["tenant_id", "spiffe_id", "agent_id", "registered_at"])
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
    database.rows("""INSERT INTO identity_outbox (event_id, tenant_id, event_type, severity, occurred_at)
                     SELECT gen_random_uuid(), 'acme', 'identity.enrollment_success', 'info', now()
                     FROM generate_series(1, 10)""", role="caf_registry")
    database.rows("""WITH moved AS (DELETE FROM identity_outbox WHERE tenant_id = 'acme' RETURNING *)
                     INSERT INTO security_events (event_id, tenant_id, event_type, severity, details, occurred_at)
                     SELECT event_id, tenant_id, event_type, severity, details, occurred_at FROM moved
                     ON CONFLICT DO NOTHING""", role="caf_event")
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
