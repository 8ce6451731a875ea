"""Two live identities of one tenant under one hostname: identity.hostname_shared (contract, Security events)."""

import concurrent.futures
import contextlib
import secrets

import pytest
from harness import TIME, unique, wait_for
from psycopg2.extras import execute_values
from test_resend import answers, register

SHARED = "identity.hostname_shared"
LOCKS = 6512998  # caf_hostname_sharers' advisory locks


def shared(stack, tenant):
    """What was told of this tenant: the trace_id of each registration, and the agents named, newest heartbeat first."""
    return {e["trace_id"]: [other["agent_id"] for other in e["details"]["others"]]
            for e in stack.events(tenant, event_type=SHARED)}


def settled(stack, tenant, *traces):
    """The same, when these registrations' events have all arrived."""
    wait_for(lambda: {e["trace_id"] for e in stack.events(tenant)} >= set(traces))
    return shared(stack, tenant)


def join(stack, tenant, name, **rest):
    """Registers; the trace_id."""
    trace = secrets.token_hex(8)
    answer, = answers(stack, register(stack, tenant, name, trace=trace, **rest))
    assert answer[0] == 31, answer
    return trace


def change(stack, tenant, name, values):
    link = stack.db()
    with link.cursor() as cursor:
        cursor.execute(f"UPDATE agent_registry SET {values}, changed_xid = pg_current_xact_id() "
                       "WHERE tenant_id = %s AND agent_id = %s", (tenant, name))
        assert cursor.rowcount == 1
    link.close()


# ---- when ----------------------------------------------------------------------------------------


def test_the_second_is_told_and_the_first_was_alone(stack):
    tenant = unique("shared")
    one = join(stack, tenant, "one", fingerprint="first")
    two = join(stack, tenant, "two", fingerprint="second")
    assert settled(stack, tenant, one, two) == {two: ["one"]}
    event, = stack.events(tenant, event_type=SHARED)
    other, = event["details"]["others"]
    assert TIME.fullmatch(other.pop("last_heartbeat"))
    assert other == {"agent_id": "one", "spiffe_id": stack.agent_id(tenant, "one"), "machine_id_fingerprint": "first"}
    assert event["details"] == {"agent_id": "two", "hostname": "h", "machine_id_fingerprint": "second", "more": False,
                                "others": [other]} | {"others": event["details"]["others"]}
    assert (event["severity"], event["hostname"], event["spiffe_id"]) == ("warn", "h", stack.agent_id(tenant, "two"))


def test_it_is_told_at_every_registration_while_it_lasts(stack):
    tenant = unique("shared")
    traces = [join(stack, tenant, name) for name in ("one", "two", "one", "two")]
    assert settled(stack, tenant, *traces) == dict(zip(traces[1:], (["one"], ["two"], ["one"])))


def test_moving_to_a_hostname_and_away(stack):
    tenant = unique("shared")
    traces = [join(stack, tenant, "one"), join(stack, tenant, "two", hostname="other"), join(stack, tenant, "two"),
              join(stack, tenant, "one", hostname="third"), join(stack, tenant, "two")]
    assert settled(stack, tenant, *traces) == {traces[2]: ["one"]}


def test_an_agent_alone_shares_with_nobody(stack):
    tenant, other = unique("shared"), unique("shared")
    traces = [join(stack, tenant, "one"), join(stack, tenant, "one"), join(stack, other, "one")]
    assert settled(stack, tenant, *traces[:2]) == {} == settled(stack, other, traces[2])


@pytest.mark.parametrize("values, counts", [
    ("state = 'quarantined'", True), ("state = 'revoked'", False), ("state = 'deregistered'", False),
    ("last_heartbeat = now() - interval '29 s'", True), ("last_heartbeat = now() - interval '32 s'", False),
    ("last_heartbeat = NULL", False), ("last_heartbeat = now() + interval '1 h'", True),
])
def test_who_counts_as_live(stack, values, counts):
    """Three intervals of 10 s, and one second that a heartbeat may wait to be written here."""
    tenant = unique("shared")
    one = join(stack, tenant, "one")
    change(stack, tenant, "one", values)
    two = join(stack, tenant, "two")
    assert settled(stack, tenant, one, two) == ({two: ["one"]} if counts else {})


def test_at_most_eight_are_named_newest_first(stack):
    tenant = unique("shared")
    names = [f"a{i}" for i in range(9)]
    for i, name in enumerate(names):
        join(stack, tenant, name, hostname=f"alone-{i}")
        change(stack, tenant, name, f"hostname = 'h', last_heartbeat = now() - interval '{i} s'")
    trace = join(stack, tenant, "late")
    assert settled(stack, tenant, trace) == {trace: names[:8]}
    event, = stack.events(tenant, event_type=SHARED)
    assert event["details"]["more"] is True


# ---- at the same moment --------------------------------------------------------------------------


def test_two_in_one_batch(stack):
    tenant = unique("shared")
    traces = [secrets.token_hex(8) for _ in range(4)]
    answers(stack, register(stack, tenant, "one", trace=traces[0]), register(stack, tenant, "two", trace=traces[1]),
            register(stack, tenant, "three", trace=traces[2], hostname="other"),
            register(stack, tenant, "four", trace=traces[3]), together=True)
    assert len(set(stack.rows("SELECT xmin::text FROM agent_registry WHERE tenant_id = %s", tenant))) == 1
    found = settled(stack, tenant, *traces)
    assert {trace: sorted(names) for trace, names in found.items()} == {
        traces[0]: ["four", "two"], traces[1]: ["four", "one"], traces[3]: ["one", "two"]}


def waiting(stack, what):
    """How many of registryd's statements wait for a lock of this kind."""
    return stack.rows("SELECT count(*) FROM pg_stat_activity WHERE usename = 'caf_registry' AND wait_event_type = 'Lock' "
                      "AND wait_event = %s", what)[0][0]


@contextlib.contextmanager
def holding(stack, statement, *values):
    """What this statement locks is locked meanwhile."""
    link = stack.db()
    link.autocommit = False
    try:
        with link.cursor() as cursor:
            cursor.execute(statement, values)
        yield
    finally:
        link.close()


def test_one_that_came_after_the_statement_began(stack):
    """One registration waits for its row; meanwhile another, which cannot see it, takes the hostname and commits."""
    tenant = unique("shared")
    join(stack, tenant, "one", hostname="other")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with holding(stack, "SELECT FROM agent_registry WHERE tenant_id = %s FOR UPDATE", tenant):
            slow = pool.submit(join, stack, tenant, "one")
            wait_for(lambda: waiting(stack, "transactionid"))
            quick = join(stack, tenant, "two")
        assert settled(stack, tenant, quick, slow.result()) == {slow.result(): ["two"]}


def test_two_in_flight_on_two_connections(stack):
    """Both have written their rows, and neither has committed: whoever looks second sees the first."""
    tenant = unique("shared")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with holding(stack, "SELECT pg_advisory_xact_lock(%s, slot) FROM generate_series(0, 63) AS slot", LOCKS):
            one = pool.submit(join, stack, tenant, "one")
            wait_for(lambda: waiting(stack, "advisory") == 1)
            two = pool.submit(join, stack, tenant, "two")
            wait_for(lambda: waiting(stack, "advisory") == 2)
        found = settled(stack, tenant, one.result(), two.result())
    assert found in ({one.result(): ["two"]}, {two.result(): ["one"]})


def test_many_at_once_on_two_hostnames_are_all_written(stack):
    """Batches on all connections, whose hostnames come in every order: no deadlock, and each hostname is told."""
    tenant = unique("shared")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        frames = [[register(stack, tenant, f"a{i}", hostname=f"h{(i * (k * 2 + 1)) % 50}") for i in range(k, 200, 4)]
                  for k in range(4)]
        found = list(pool.map(lambda each: answers(stack, *each, together=True), frames))
    assert [answer[0] for each in found for answer in each] == [31] * 200
    assert stack.rows("SELECT count(*) FROM agent_registry WHERE tenant_id = %s", tenant) == [(200,)]
    hostnames = stack.rows("SELECT hostname FROM agent_registry WHERE tenant_id = %s GROUP BY 1 HAVING count(*) > 1", tenant)
    wait_for(lambda: {(e["hostname"],) for e in stack.events(tenant, event_type=SHARED)} == set(hostnames))


# ---- what it costs -------------------------------------------------------------------------------


def blocks_read(cursor, hostname):
    """How many blocks a look at who shares this hostname with a newcomer reads."""
    cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM caf_hostname_sharers("
                   "ARRAY['acme'], ARRAY['spiffe://td/agent/acme/new'], ARRAY[%s], ARRAY[now() - interval '1 min'])",
                   (hostname,))
    plan = cursor.fetchone()[0][0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], plan["Actual Rows"]


@pytest.mark.parametrize("analyzed", [False, True], ids=["", "analyzed"])
def test_a_hostname_of_50_000_agents_is_looked_at_by_its_index(database, analyzed):
    """So is one of a single agent among them, and one of nobody."""
    database.migrate()
    hosts = [(f"spiffe://td/agent/acme/{i}", str(i), "crowd" if i else "lonely") for i in range(50000)]
    with database.session("postgres") as cursor:
        execute_values(cursor, "INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, last_heartbeat) "
                       "VALUES %s", hosts, template="('acme', %s, %s, %s, now())", page_size=5000)
        if analyzed:
            cursor.execute("VACUUM ANALYZE agent_registry")
        for _ in range(8):  # until the plan is the general one
            for hostname in ("crowd", "lonely", "nobody"):
                blocks_read(cursor, hostname)
        for hostname, rows in (("crowd", 1), ("lonely", 1), ("nobody", 0)):
            blocks, found = blocks_read(cursor, hostname)
            assert found == rows and blocks < 100, (hostname, blocks)
