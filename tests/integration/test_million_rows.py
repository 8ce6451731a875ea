"""The lists at a million rows each: what their statements read (EXPLAIN), and how long a first page takes over HTTP.

The rows are made to be hard on a planner: what is rare is old, so that a list which is read from its new end until
enough is found would be read whole."""

import concurrent.futures
import datetime
import re
import statistics
import time
from pathlib import Path

import pytest
from databases import statements
from harness import BUILD, REPOSITORY, Stack, processes

ROWS = 1_000_000
TENANT, SECONDS_APART, MONTHS = "big", 20, 5
PLAIN = BUILD.parent if BUILD.name == "san" else BUILD  # time is measured of what is installed
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
NOW = datetime.datetime.now(datetime.timezone.utc)

# Of the greater tenant, agent 1 was heard from last. Each row in the order of the primary key.
AGENTS = f"""
INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, machine_id_fingerprint, endpoint, version,
                            capabilities, metadata, state, registered_at, last_heartbeat, last_heartbeat_via)
SELECT tenant, 'spiffe://caf.test/agent/' || tenant || '/agent-' || n, 'agent-' || n,
       CASE WHEN n > 880000 THEN 'old-crowd' WHEN n % 50 = 0 THEN 'localhost' ELSE 'host-' || n / 3 END,
       CASE WHEN n BETWEEN 879000 AND 880000 THEN 'old-image' WHEN n % 20 = 0 THEN 'image'
            WHEN n % 21 > 0 THEN 'fp-' || n END,
       'https://192.0.2.1:9000/', '1.2.3', '["read", "write"]', '{{"zone": "a"}}',
       CASE WHEN n BETWEEN 800000 AND 810000 THEN 'deregistered' WHEN n % 1000 = 8 THEN 'quarantined'
            WHEN n = 777777 THEN 'revoked' ELSE 'active' END,
       now() - interval '1 year', CASE WHEN n % 100000 <> 99999 THEN now() - n * interval '1 second' END, 'certificate'
FROM (SELECT n, CASE WHEN n <= 900000 THEN '{TENANT}' ELSE 'tenant-' || n / 1000 END AS tenant
      FROM generate_series({ROWS}, 1, -1) AS n) AS numbered
"""
EVENTS = f"""
INSERT INTO security_events (event_id, tenant_id, event_type, severity, spiffe_id, hostname, source_ip, trace_id,
                             details, occurred_at, recorded_at, node)
SELECT lpad(to_hex(n), 32, '0')::uuid, tenant, type,
       CASE type WHEN 'auth.mtls_failure' THEN 'warn' WHEN 'identity.revoked' THEN 'critical' ELSE 'info' END,
       'spiffe://caf.test/agent/' || tenant || '/agent-' || CASE WHEN n % 7 = 0 THEN 7 ELSE n % 5000 END,
       'host', '192.0.2.1', '0123456789abcdef', '{{"reason": "none"}}',
       now() - n * {SECONDS_APART} * interval '1 second', now(), 'node-1'
FROM (SELECT n, CASE WHEN n <= 900000 THEN '{TENANT}' ELSE 'tenant-' || n / 1000 END AS tenant,
             CASE WHEN n IN (850000, 850001) THEN 'identity.revoked'
                  WHEN n BETWEEN 890000 AND 892000 THEN 'identity.enrollment_success'
                  WHEN n % 3 = 0 THEN 'auth.mtls_failure' ELSE 'auth.mtls_success' END AS type
      FROM generate_series(1, {ROWS}) AS n) AS numbered
"""


# ---- a million rows ------------------------------------------------------------------------------


def indexes_of(cursor, table):
    """The indexes beside the primary key: their definitions."""
    cursor.execute("""SELECT indexrelid::regclass::text, replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ')
                      FROM pg_index WHERE indrelid = %s::regclass AND NOT indisprimary""", (table,))
    return dict(cursor.fetchall())


def whole_tree(cursor, table):
    """What is indexed how in the table and its partitions."""
    cursor.execute("""SELECT indrelid::regclass::text, indisvalid, split_part(pg_get_indexdef(indexrelid), ' USING ', 2)
                      FROM pg_index WHERE indrelid = %s::regclass
                      OR indrelid IN (SELECT relid FROM pg_partition_tree(%s::regclass)) ORDER BY 1, 2, 3""",
                   (table, table))
    return cursor.fetchall()


def fill(stack, table, rows):
    """Indexes are made behind the rows, by the definitions that were there: that takes a third of the time."""
    with stack.db("postgres") as link, link.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off; SET maintenance_work_mem = '256MB'; SET TimeZone = 'UTC'")
        indexes, tree = indexes_of(cursor, table), whole_tree(cursor, table)
        cursor.execute("; ".join(f"DROP INDEX {name}" for name in indexes))
        cursor.execute(rows)
        cursor.execute("; ".join(indexes.values()))
        assert whole_tree(cursor, table) == tree and len(indexes) > 2
        cursor.execute(f"ANALYZE {table}")
        cursor.execute(f"SELECT count(*) FROM {table}")
        assert cursor.fetchone() == (ROWS,)


def add_past_months(stack):
    """Partitions for the months of the events, but for the oldest, whose rows the default partition takes."""
    with stack.db("postgres") as link, link.cursor() as cursor:
        cursor.execute("""SET TimeZone = 'UTC';
            SELECT caf_add_partition('security_events', 'security_events' || to_char(month, '_YYYY_MM'),
                                     format('FOR VALUES FROM (%%L) TO (%%L)', month, month + interval '1 month'))
            FROM (SELECT date_trunc('month', now()) - back * interval '1 month' FROM generate_series(1, %s) AS back
                 ) AS past (month)""", (MONTHS,))


@pytest.fixture(scope="module")
def big():
    stack = Stack(build=PLAIN).up()
    try:
        add_past_months(stack)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(fill, stack, "agent_registry", AGENTS),
                         pool.submit(fill, stack, "security_events", EVENTS)]:
                done.result()
        yield stack
    finally:
        stack.close()


# ---- what a statement reads ----------------------------------------------------------------------


def ago(rows, unit):
    """The time of the row of that number, in so many a second."""
    return int((NOW - datetime.timedelta(seconds=rows) - EPOCH).total_seconds() * unit)


def nodes(plan):
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def explain(big, daemon, name, values):
    """The plan of the daemon's statement for these parameters, in a session like its own. It does not prepare its
    lists: PostgreSQL plans them for their parameters each time, as it does here."""
    with big.db("postgres") as link, link.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = force_custom_plan; SET TimeZone = 'UTC'; SET enable_seqscan = off; "
                       "SET jit = off")
        cursor.execute("PREPARE list AS " + statements(REPOSITORY / "sql", f"{daemon}.sql")[name])
        places = ", ".join(["%s"] * len(values))
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE list ({places})", values)
        return cursor.fetchone()[0][0]["Plan"]


def check_plan(plan, blocks):
    """Nothing is read whole, little is thrown away, no more is sorted than a few pages hold."""
    for node in nodes(plan):
        thrown_away = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck", "Join Filter"))
        touched = (node["Actual Rows"] + thrown_away) * node["Actual Loops"]
        if node["Node Type"] in ("Seq Scan", "Bitmap Heap Scan"):  # of an empty partition it does not matter
            assert touched <= 2000, node
        assert touched <= 5000, node
        if node["Node Type"] == "Sort":
            assert node.get("Sort Space Type") in (None, "Memory"), node
    read = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert read <= blocks, f"{read} blocks"


S = f"spiffe://caf.test/agent/{TENANT}/agent-"
AGENT_LISTS = {
    "all": {},
    **{state: {"state": state} for state in ("active", "quarantined", "revoked", "deregistered")},
    "no hostname": {"hostname": "nowhere"}, "a hostname": {"hostname": "host-77"},
    "a common hostname": {"hostname": "localhost"}, "an old hostname": {"hostname": "old-crowd"},
    "a hostname, revoked": {"hostname": "localhost", "state": "revoked"},
    "no fingerprint": {"fingerprint": "none"}, "a fingerprint": {"fingerprint": "fp-77"},
    "a common fingerprint": {"fingerprint": "image"}, "an old fingerprint": {"fingerprint": "old-image"},
    "a fingerprint, revoked": {"fingerprint": "image", "state": "revoked"},
    "stale": {"stale_seconds": 400000}, "very stale": {"stale_seconds": 1000000000},
    "stale, quarantined": {"stale_seconds": 850000, "state": "quarantined"},
}
EVENT_LISTS = {
    "all": {},
    **{severity: {"severity": severity} for severity in ("info", "warn", "error", "critical")},
    "a type": {"type": "auth.mtls_success"}, "an old type": {"type": "identity.enrollment_success"},
    "a rare type": {"type": "identity.revoked"}, "no type": {"type": "identity.none"},
    "a prefix": {"type": "auth.*"}, "a rare prefix": {"type": "identity.*"}, "no prefix": {"type": "z*"},
    "any": {"type": "*"},
    "an identity": {"spiffe_id": S + "77"}, "a loud identity": {"spiffe_id": S + "7"}, "no identity": {"spiffe_id": S},
    "a loud identity, no type": {"spiffe_id": S + "7", "type": "identity.r*"},
    "a loud identity, no severity": {"spiffe_id": S + "7", "severity": "error"},
    "a type, no severity": {"type": "auth.mtls_success", "severity": "warn"},
    "until": {"until": ago(700000 * SECONDS_APART, 1000)}, "since": {"since": ago(100 * SECONDS_APART, 1000)},
    "no time": {"since": ago(0, 1000) + 3600000}, "long ago": {"until": 1000},
    "a type until": {"type": "auth.mtls_failure", "until": ago(800000 * SECONDS_APART, 1000)},
}


@pytest.mark.parametrize("name", AGENT_LISTS)
def test_a_page_of_agents_reads_little(big, name):
    q = AGENT_LISTS[name]
    heard_until = ago(q["stale_seconds"], 1000) if "stale_seconds" in q else None
    bound = heard_until * 1000 + 1 if heard_until else None
    values = (TENANT, q.get("state"), q.get("hostname"), q.get("fingerprint"), heard_until, bound, None, 101, False)
    check_plan(explain(big, "registryd", "list_agents", values), blocks=6000)


def test_a_later_page_of_agents_reads_little(big):
    for microseconds, spiffe_id in ((ago(450000, 1000000), S + "450000"), (None, S + "499999")):
        values = (TENANT, None, None, None, None, microseconds, spiffe_id, 101, False)
        check_plan(explain(big, "registryd", "list_agents", values), blocks=3000)


@pytest.mark.parametrize("name", EVENT_LISTS)
def test_a_page_of_events_reads_little(big, name):
    q = EVENT_LISTS[name]
    bound = q["until"] * 1000 if "until" in q else None
    values = [TENANT, q.get("since"), bound, None, 101]
    statement = "list"
    if {"type", "severity", "spiffe_id"} & set(q):
        statement, prefix = "list_filtered", q.get("type", "").endswith("*")
        values += [None if prefix else q.get("type"), q["type"][:-1] if prefix else None, q.get("severity"),
                   q.get("spiffe_id")]
    check_plan(explain(big, "eventd", statement, tuple(values)), blocks=3000)


# ---- how long a first page takes -----------------------------------------------------------------


def processor_ms(stack):
    """The processor time that the daemons and their sessions of the database have used."""
    sessions = [pid for pid in processes.children(stack.pid("postgres"))
                if re.match(rb"postgres: caf_(event|registry) ", Path(f"/proc/{pid}/cmdline").read_bytes())]
    assert len(sessions) > 1
    pids = [stack.pid("registryd"), stack.pid("eventd"), *stack.workers(), *sessions]
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1000000


def first_page_ms(stack, client, path, query):
    """The median of seven. Should other work on this machine make them slow, another seven, and at last the processor
    time of one, which nobody else's work adds to."""
    for _ in range(3):
        took, used = [], processor_ms(stack)
        for _ in range(7):
            begun = time.monotonic()
            answer = client.get(path, params=query)
            took.append((time.monotonic() - begun) * 1000)
            assert answer.status_code == 200, answer.text
        if statistics.median(took) < 20:
            return statistics.median(took)
    return (processor_ms(stack) - used) / 7


@pytest.mark.parametrize("path, lists", [("/v1/mesh/agents", AGENT_LISTS), ("/v1/security/events", EVENT_LISTS)],
                         ids=["agents", "events"])
def test_a_first_page_takes_less_than_20_ms(big, path, lists):
    client = big.operator("auditor", TENANT)
    slow = {}
    for name, q in lists.items():
        query = {**q}
        for bound in ("since", "until"):
            if bound in q:
                moment = EPOCH + datetime.timedelta(milliseconds=q[bound])
                query[bound] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        took = first_page_ms(big, client, path, query)
        if took >= 20:
            slow[name] = round(took, 1)
    assert not slow


def test_the_lists_are_what_they_are_said_to_be(big):
    """Else quick pages would mean nothing."""
    client = big.operator("auditor", TENANT)

    def count(path, **query):
        return client.get(path, params={**query, "limit": 1000}).json()["count"]
    events, agents = "/v1/security/events", "/v1/mesh/agents"
    states = ("active", "quarantined", "revoked", "deregistered")
    assert [count(agents, state=state) for state in states] == [1000, 890, 1, 1000]
    assert count(agents, hostname="old-crowd") == 1000 and count(agents, hostname="host-77") == 3
    assert count(events, type="identity.*") == 1000 and count(events, severity="critical") == 2
    assert client.get(agents, params={"total": "true", "limit": 1}).json()["total"] == 900000
