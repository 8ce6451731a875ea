"""The schema: what each migration does to the rows that are there, what the tables refuse, and the functions."""

import hashlib
import itertools
import re
import uuid

import psycopg2
import psycopg2.errors
import pytest
from databases import (EDGES, NEEDED, ROLES, SUPERUSER, history_of, insert_agents, insert_history,
                       temporary_database)

# ---- 050: one row per identity ------------------------------------------------------------------


def agents_of(database):
    return database.rows("""SELECT tenant_id, spiffe_id, hostname, registered_at::date::text,
                                   last_heartbeat::date::text, state FROM agent_registry ORDER BY tenant_id, spiffe_id""")


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


@pytest.mark.parametrize("newest, older, merged", [
    ("active", "revoked", "revoked"), ("active", "quarantined", "quarantined"), ("quarantined", "revoked", "revoked"),
    ("deregistered", "active", "deregistered"), ("active", "deregistered", "active"),
])
def test_050_gives_nobody_a_right_back(database, newest, older, merged):
    database.migrate("--to", 49)
    insert_agents(database, [("acme", "spiffe://td/agent/acme/a", "new", "2024-01-01", "2025-02-02", newest),
                             ("acme", "spiffe://td/agent/acme/a", "old", "2024-01-01", "2025-01-01", older)])
    database.migrate()
    assert [(row[2], row[5]) for row in agents_of(database)] == [("new", merged)]


def test_050_on_a_big_group_and_many_small_ones(database):
    database.migrate("--to", 49)
    database.rows("""INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, registered_at,
                                                 last_heartbeat)
                     SELECT 'acme', 'spiffe://td/agent/acme/big', 'big', 'host-' || i,
                            timestamptz '2024-01-01' - i * interval '1 s', timestamptz '2025-01-01' + i * interval '1 s'
                     FROM generate_series(1, 20000) AS i""")
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


def partition_of(database, table, key):
    return {moment.isoformat(): name for moment, name in
            database.rows(f"SELECT {key} AT TIME ZONE 'UTC', tableoid::regclass::text FROM {table}")}


def test_051_keeps_every_row_in_the_month_of_its_time_in_utc(database):
    database.migrate("--to", 50)
    database.rows(f"ALTER DATABASE {database.name} SET timezone = 'Pacific/Kiritimati'")
    database.rows(f"ALTER DATABASE {database.name} SET datestyle = 'SQL, DMY'")
    insert_history(database, EDGES)
    executions = ("trace_id, tenant_id, api_key_id, source_ip, tool, params, risk_level, result, error_code, error, "
                  "executed_at, duration_ms")
    before = history_of(database, "god_mode_executions", executions), history_of(database, "security_events")
    database.migrate()
    assert (history_of(database, "god_mode_executions", executions), history_of(database, "security_events")) == before
    for table, key in (("god_mode_executions", "executed_at"), ("security_events", "occurred_at")):
        assert partition_of(database, table, key) == {
            "2019-12-31T23:59:59.999999": f"{table}_2019_12", "2020-01-01T00:00:00": f"{table}_2020_01",
            "2024-02-29T23:59:59.999999": f"{table}_2024_02", "2024-03-01T00:00:00": f"{table}_2024_03",
            "2031-07-15T12:00:00": f"{table}_2031_07"}
    new = database.rows("SELECT DISTINCT status, spiffe_id, node, seq, row_hash FROM god_mode_executions")
    assert new == [(None,) * 5]


def test_051_keeps_many_rows(database):
    database.migrate("--to", 50)
    database.rows("""INSERT INTO god_mode_executions (trace_id, tenant_id, api_key_id, executed_at)
                     SELECT lpad(to_hex(i), 16, '0'), 'acme', 'key', now() - i * interval '10 minutes'
                     FROM generate_series(1, 100000) AS i""")
    sums = "SELECT count(*), sum(hashtext(trace_id || executed_at::text)) FROM god_mode_executions"
    before = database.rows(sums)
    database.migrate()
    assert database.rows(sums) == before
    assert database.value("SELECT count(*) FROM god_mode_executions_default") == 0


def test_051_makes_this_month_and_twelve_more(migrated):
    for table in ("god_mode_executions", "security_events"):
        made = migrated.rows("""SELECT inhrelid::regclass::text FROM pg_inherits
                                WHERE inhparent = %s::regclass ORDER BY 1""", table)
        expected = migrated.rows("""SELECT %s || to_char(month + ahead * interval '1 month', '_YYYY_MM')
                                    FROM date_trunc('month', now() AT TIME ZONE 'UTC') AS month,
                                         generate_series(0, 12) AS ahead ORDER BY 1""", table)
        assert made == expected + [(f"{table}_default",)]


@pytest.mark.parametrize("table, columns", [("god_mode_executions", ["tenant_id", "trace_id", "executed_at"]),
                                            ("security_events", ["tenant_id", "event_id", "occurred_at"]),
                                            ("identity_outbox", ["tenant_id", "event_id"]),
                                            ("agent_registry", ["tenant_id", "spiffe_id"])])
def test_primary_keys_begin_with_the_tenant(migrated, table, columns):
    found = migrated.rows("""SELECT a.attname
                             FROM pg_index AS i, unnest(i.indkey::int[]) WITH ORDINALITY AS k (attnum, place),
                                  pg_attribute AS a
                             WHERE i.indrelid = %s::regclass AND i.indisprimary
                                   AND a.attrelid = i.indrelid AND a.attnum = k.attnum
                             ORDER BY k.place""", table)
    assert [name for name, in found] == columns


def test_every_unique_index_begins_with_the_tenant(migrated):
    others = migrated.rows("""SELECT i.indexrelid::regclass::text
                              FROM pg_index AS i
                              JOIN pg_class AS c ON c.oid = i.indrelid
                              JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
                              WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique
                                    AND a.attname <> 'tenant_id'
                                    AND c.relname NOT IN ('schema_migrations', 'schema_grants', 'nodes')""")
    assert others == []


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
    database.rows("""INSERT INTO security_events (event_id, tenant_id, event_type, severity, occurred_at)
                     SELECT gen_random_uuid(), 'acme',
                            CASE WHEN i % 500 = 0 THEN 'identity.revoked' ELSE 'auth.mtls_success' END,
                            'info', now() - i * interval '1 ms'
                     FROM generate_series(1, 20000) AS i""")
    with database.session() as cursor:
        cursor.execute("ANALYZE security_events")
        for condition in ("LIKE 'identity.%'", """COLLATE "C" = 'identity.revoked'"""):
            cursor.execute(f"EXPLAIN SELECT * FROM security_events WHERE tenant_id = 'acme' AND event_type {condition}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
            assert re.search(r"Index Cond: .*tenant_id = 'acme'.* AND \(\(?event_type(\)::text)? (>=|=) 'identity\.", plan), plan


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
        insert = """INSERT INTO god_mode_executions (trace_id, tenant_id, api_key_id, status, node, seq, prev_hash,
                                                     row_hash) VALUES (%s, 'acme', 'key', %s, 'n', %s, %s, %s)"""
        cursor.execute(insert, ("a" * 16, "succeeded", 1, b"p" * 32, b"r" * 32))
        for values in (("succeeded", None, b"p" * 32, b"r" * 32), (None, 1, b"p" * 32, b"r" * 32),
                       ("succeeded", 1, b"short", b"r" * 32), ("fine", 1, b"p" * 32, b"r" * 32)):
            cursor.execute("SAVEPOINT before")
            with pytest.raises(psycopg2.errors.CheckViolation):
                cursor.execute(insert, ("b" * 16, *values))
            cursor.execute("ROLLBACK TO before")
        cursor.execute("ROLLBACK")


CHANGES = ["UPDATE {} SET tool = 'x'", "UPDATE {} SET tool = 'x' WHERE false", "DELETE FROM {}",
           "DELETE FROM {} WHERE false", "TRUNCATE {}",
           "INSERT INTO {} (trace_id, tenant_id, api_key_id) VALUES ('x', 'y', 'z') "
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
    ("capabilities", '["a"]', "{}"), ("metadata", '{"a": 1}', "[]"),
    ("recent_requests", "{}", "{00000000-0000-0000-0000-000000000001}"),
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
    moments = {"2026-01-02T03:04:05.678+00": "2026-01-02T03:04:05.678Z",
               "2026-01-02T03:04:05.678999+00": "2026-01-02T03:04:05.678Z",
               "2026-12-31T23:59:59.999999+00": "2026-12-31T23:59:59.999Z",
               "2026-07-01T00:00:00+05:45": "2026-06-30T18:15:00.000Z",
               "0001-01-01T00:00:00+00": "0001-01-01T00:00:00.000Z", None: None}
    with migrated.session("caf_event") as cursor:
        cursor.execute("SELECT set_config('timezone', %s, false), set_config('datestyle', %s, false)", (zone, style))
        cursor.execute("SET lc_time = 'C'")
        for moment, text in moments.items():
            cursor.execute("SELECT caf_time(%s::timestamptz)", (moment,))
            assert cursor.fetchone() == (text,)
