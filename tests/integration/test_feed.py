"""The change feed: what one node changes, and what anybody changes in the database, is in force on every node in time."""

import contextlib
import statistics
import threading
import time

import pytest
from databases import statements
from harness import FAST, Stack, check_error, wait_for
from nodes import (CHANGE, Redis, Visitor, frozen, metric, publish, seconds_until, set_state, transaction,
                   wait_for_reads)

HINTED, READ = 0.1, 1.5  # seconds: with Redis, and without


def state(agent):
    """What a heartbeat says of an agent: its state, or the error's code."""
    body = agent.heartbeat().json()
    return body["state"] if "state" in body else body["error"]["code"]


@pytest.fixture(scope="module")
def tight():
    """A stack whose bounds are narrow."""
    made = Stack(sets=(*FAST, "registryd.feed.rows_per_read=3", "registryd.cache.authority_seconds=2",
                       "frontd.timeouts.read_deadline_seconds=1", "frontd.timeouts.write_deadline_seconds=1")).up()
    yield made
    made.close()


@pytest.fixture
def agent(stack):
    made = stack.agent()
    assert made.register().status_code == 201
    assert state(made) == "active"
    return made


@pytest.fixture
def visitor(second, agent):
    """The same agent at the second node, which knows it."""
    found = Visitor(second, agent)
    assert state(found) == "active"
    return found


# ---- in time --------------------------------------------------------------------------------------


def test_both_nodes_have_their_row(stack, second):
    wait_for_reads(stack)
    rows = dict(stack.rows("SELECT node, now() - last_seen < interval '3 seconds' AND applied_xid IS NOT NULL FROM nodes"))
    assert rows == {stack.env["CAF_NODE"]: True, second.env["CAF_NODE"]: True}


def test_what_one_node_says_is_in_force_on_the_other_at_once(stack, agent, visitor):
    gone, back = [], []
    for _ in range(7):
        set_state(stack, agent, "deregistered")
        publish(stack)
        gone.append(seconds_until(lambda: state(visitor) == "NOT_REGISTERED"))
        assert agent.register().status_code == 200
        back.append(seconds_until(lambda: state(visitor) == "active"))
    assert statistics.median(gone) < HINTED and statistics.median(back) < HINTED, (gone, back)


@pytest.mark.parametrize("to", ["quarantined", "deregistered"])
def test_a_change_that_nobody_tells_is_in_force_everywhere_soon(stack, agent, visitor, to):
    set_state(stack, agent, to)
    seen = "NOT_REGISTERED" if to == "deregistered" else to
    assert seconds_until(lambda: state(agent) == seen and state(visitor) == seen) < READ


def test_quarantined_is_answered_as_the_contract_says(stack, agent):
    set_state(stack, agent, "quarantined", told=True)
    wait_for(lambda: state(agent) == "quarantined")
    assert agent.self().json()["agent"]["state"] == "quarantined"
    check_error(agent.register(), 403, "FORBIDDEN")
    set_state(stack, agent, "active", told=True)
    wait_for(lambda: state(agent) == "active")
    assert agent.register().status_code == 200


def test_without_redis_it_is_the_database_alone(stack, agent, visitor):
    with stack.without("redis"):
        set_state(stack, agent, "deregistered")
        assert seconds_until(lambda: state(visitor) == "NOT_REGISTERED") < READ
        assert agent.register().status_code == 200
        assert seconds_until(lambda: state(visitor) == "active") < READ
    with Redis(stack) as redis:
        wait_for(lambda: subscribers(redis) == 2)


# ---- what transactions can do ---------------------------------------------------------------------


def test_a_late_commit_is_not_missed(stack, second, agent, visitor):
    other = stack.agent()
    with transaction(stack) as cursor:
        cursor.execute(CHANGE, ("quarantined", agent.spiffe_id))
        for _ in range(2):  # others begin later and commit earlier, and all nodes have read them
            assert other.register().status_code in (200, 201)
            wait_for_reads(stack)
            wait_for_reads(second)
        assert (state(agent), state(visitor)) == ("active", "active")
    assert seconds_until(lambda: state(agent) == "quarantined" and state(visitor) == "quarantined") < READ


def test_two_late_commits_in_the_other_order(stack, second, agent, visitor):
    """The row's number goes down: the change that counts has begun first."""
    with transaction(stack) as early:
        early.execute("SELECT pg_current_xact_id()")
        set_state(stack, agent, "deregistered")
        seconds_until(lambda: state(visitor) == "NOT_REGISTERED")
        early.execute(CHANGE, ("quarantined", agent.spiffe_id))
    assert seconds_until(lambda: state(visitor) == "quarantined") < READ
    low, high = stack.rows("SELECT changed_xid::text::bigint, pg_current_xact_id()::text::bigint FROM agent_registry "
                           "WHERE spiffe_id = %s", agent.spiffe_id)[0]
    assert low < high - 1


def test_an_open_transaction_elsewhere_costs_nothing(stack, second, agent, visitor):
    agents = [stack.agent() for _ in range(5)]
    with transaction(stack, dbname="postgres"):
        wait_for_reads(stack)
        for one in agents:
            one.register()
        set_state(stack, agent, "quarantined")
        assert seconds_until(lambda: state(visitor) == "quarantined") < READ
        wait_for_reads(second)
        before = metric(second, "feed_rows_total")
        wait_for_reads(second, 3)
        assert metric(second, "feed_rows_total") == before, "rows are read again"
    wait_for_reads(second)
    assert metric(second, "feed_rows_total") == before


def test_more_rows_than_a_read_may_bring(tight):
    stack = tight
    agents = [stack.agent() for _ in range(20)]
    for one in agents:
        assert one.register().status_code == 201
    with transaction(stack) as cursor:
        cursor.execute("UPDATE agent_registry SET state = 'quarantined', changed_xid = pg_current_xact_id()")
    assert seconds_until(lambda: all(state(one) == "quarantined" for one in agents)) < READ
    with transaction(stack) as early, transaction(stack) as late:
        late.execute(CHANGE, ("active", agents[0].spiffe_id))
        early.execute("UPDATE agent_registry SET state = 'active', changed_xid = pg_current_xact_id() "
                      "WHERE spiffe_id <> %s", (agents[0].spiffe_id,))
    assert seconds_until(lambda: all(state(one) == "active" for one in agents)) < READ
    assert metric(stack, "feed_rows_total") >= 40 and metric(stack, "feed_reads_total") >= 14


def test_changes_under_load_reach_everybody(stack, second):
    """Many at once on both nodes, and by hand: in the end each node says what the database says."""
    agents = [stack.agent() for _ in range(8)]
    visitors = [Visitor(second, one) for one in agents]
    for one in agents:
        one.register()
    stop = threading.Event()

    def beat(one):
        while not stop.is_set():
            assert one.heartbeat().status_code in (200, 404)

    threads = [threading.Thread(target=beat, args=(one,)) for one in (*agents[:4], *visitors[:4])]
    for thread in threads:
        thread.start()
    try:
        for turn in range(30):
            one = agents[turn % len(agents)]
            set_state(stack, one, ("deregistered", "quarantined", "active")[turn % 3], told=turn % 2 == 0)
            visitors[(turn + 3) % len(agents)].register(hostname=f"h{turn}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    wait_for_reads(stack)
    wait_for_reads(second)
    states = dict(stack.rows("SELECT spiffe_id, state FROM agent_registry"))
    for one, there in zip(agents, visitors):
        expected = states[one.spiffe_id].replace("deregistered", "NOT_REGISTERED")
        assert (state(one), state(there)) == (expected, expected)


# ---- Redis away ------------------------------------------------------------------------------------


def subscribers(redis):
    return int(redis.ask("PUBSUB", "NUMSUB", "caf:agents")[1])


def test_a_subscription_that_was_cut_is_made_again(stack, second, agent, visitor):
    with Redis(stack) as redis:
        wait_for(lambda: subscribers(redis) == 2)
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        set_state(stack, agent, "quarantined")
        assert seconds_until(lambda: state(visitor) == "quarantined") < READ
        wait_for(lambda: subscribers(redis) == 2)


def test_redis_that_hangs_holds_nobody_up(stack, second, agent, visitor):
    with frozen(stack.pid("redis")):
        for to in ("quarantined", "active", "deregistered"):
            set_state(stack, agent, to)
            seen = "NOT_REGISTERED" if to == "deregistered" else to
            assert seconds_until(lambda: state(visitor) == seen) < READ
        assert agent.register().status_code == 200
        assert seconds_until(lambda: state(visitor) == "active") < READ


def test_redis_that_comes_back_carries_hints_again(stack, second, agent):
    stack.restart("redis")
    with Redis(stack) as redis:
        wait_for(lambda: subscribers(redis) == 2)
    taken = []
    for to in ("quarantined", "active") * 3:
        set_state(stack, agent, to, told=True)
        taken.append(seconds_until(lambda: state(agent) == to))
    assert statistics.median(taken) < HINTED


# ---- what is believed, and for how long --------------------------------------------------------------


def change_by_hand(stack, agent, to):
    with transaction(stack) as cursor:
        cursor.execute("UPDATE agent_registry SET state = %s WHERE spiffe_id = %s", (to, agent.spiffe_id))


def test_nothing_is_believed_beyond_the_bound(tight):
    stack, agent = tight, tight.agent()
    agent.register()
    assert state(agent) == "active"
    change_by_hand(stack, agent, "quarantined")
    assert state(agent) == "active"  # it is believed
    with stack.table_locked("nodes"):  # the feed cannot be read
        wait_for(lambda: metric(stack, "feed_lag_seconds") > 2)
        assert state(agent) == "quarantined"  # by a look at the database
        change_by_hand(stack, agent, "active")
        assert state(agent) == "active"  # by another
        assert stack.client().get("/health").json()["status"] == "degraded"
        with stack.table_locked("agent_registry"):
            check_error(agent.heartbeat(), 503, "UNAVAILABLE")
        assert state(agent) == "active"
    wait_for(lambda: metric(stack, "feed_lag_seconds") < 2)
    wait_for(lambda: stack.client().get("/health").json()["status"] == "healthy")
    assert state(agent) == "active"


def run_as_owner_role(stack, statement):
    with contextlib.closing(stack.db()) as link, link.cursor() as cursor:
        cursor.execute(statement)


def test_a_feed_that_is_refused_says_so(tight):
    run_as_owner_role(tight, "REVOKE UPDATE ON nodes FROM caf_registry")
    try:
        line = wait_for(lambda: next((line for line in tight.log("registryd").splitlines()
                                      if "the change feed" in line), None), what="a word in the log")
    finally:
        run_as_owner_role(tight, "GRANT UPDATE ON nodes TO caf_registry")
    assert "level=error" in line and "sqlstate=42501" in line
    wait_for(lambda: metric(tight, "feed_lag_seconds") < 2)


def test_with_the_database_away_what_is_known_is_believed_and_then_nothing(tight):
    stack, agent = tight, tight.agent()
    agent.register()
    assert state(agent) == "active"
    with stack.without("postgres"):
        began = time.monotonic()
        codes = []
        while time.monotonic() < began + 4:
            codes.append((time.monotonic() - began, agent.heartbeat().status_code))
        assert {code for at, code in codes if at > 2} == {503}
        assert codes[0][1] == 200
    wait_for(lambda: agent.heartbeat().status_code == 200)


def test_each_entry_is_looked_at_anew_in_time(make_stack):
    """Against changes that no feed can tell."""
    stack = make_stack(sets=(*FAST, "registryd.feed.reload_seconds=2"))
    agent = stack.agent()
    agent.register()
    assert state(agent) == "active"
    change_by_hand(stack, agent, "quarantined")
    assert seconds_until(lambda: state(agent) == "quarantined") < 3


def test_another_timeline_ends_all_that_is_believed(tight):
    """As if the promoted server had not seen the changes that this node has."""
    stack = tight
    agent, revoked = stack.agent(), stack.agent()
    for one in (agent, revoked):
        one.register()
        assert state(one) == "active"
    wait_for_reads(stack)
    change_by_hand(stack, agent, "quarantined")
    change_by_hand(stack, revoked, "revoked")
    wait_for_reads(stack)
    assert state(agent) == "active" and revoked.client.get("/livez").status_code == 200
    segment = stack.rows("SELECT pg_walfile_name(pg_current_wal_lsn() + 16 * 1024 * 1024)")[0][0]
    stack.stop("postgres")
    done = stack.run_as_owner(["/usr/lib/postgresql/15/bin/pg_resetwal", "-l", "00000002" + segment[8:],
                               stack.folder.postgres])
    assert done.returncode == 0, done.stderr
    stack.start("postgres")
    wait_for(lambda: "another history" in stack.log("registryd"))
    wait_for(lambda: state(agent) == "quarantined")
    with pytest.raises(Exception, match="(?i)alert|eof|reset|closed|disconnect"):
        seconds_until(lambda: stack.client(revoked.crt, revoked.key).get("/livez").status_code != 200, limit=5)


# ---- how it is read ----------------------------------------------------------------------------------


def test_the_plan_has_index_conditions_whatever_the_parameters(stack):
    """The generic plan too: with the whole table between the two snapshots' numbers and an open transaction."""
    text = (stack.repo / "sql" / "registryd.sql").read_text().partition("-- name: feed\n")[2].partition(";\n")[0]
    link = stack.db("postgres")
    with link.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        cursor.execute("PREPARE feed AS " + text)
        cursor.execute("EXPLAIN EXECUTE feed ('n', '5:9:5', NULL, '0', '', '', 10, false)")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    link.close()
    assert plan.count("ix_agent_registry_feed") >= 2 and "Seq Scan" not in plan, plan
    conditions = [line for line in plan.splitlines() if "Index Cond" in line]
    assert any("pg_snapshot_xmax" in line for line in conditions), plan
    assert any("ANY" in line for line in conditions), plan


def rows_read(plan):
    """By this node and those below."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) if "Index" in plan["Node Type"] else 0
    return own + sum(map(rows_read, plan.get("Plans", [])))


@pytest.mark.parametrize("was_open", [True, False])
def test_a_page_reads_what_it_brings_of_many_changes_in_one_transaction(database, was_open):
    database.migrate()
    with database.session() as cursor:
        cursor.execute("INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname) "
                       "SELECT 't', 'agent-' || n, n, 'h' FROM generate_series(10001, 20000) AS n RETURNING changed_xid::text")
        xid = int(cursor.fetchone()[0])
        cursor.execute("ANALYZE agent_registry")
        cursor.execute("SELECT pg_current_snapshot()::text")
        (sweep,), applied = cursor.fetchone(), f"{xid}:{xid + 1}:{xid}" if was_open else f"{xid}:{xid}:"
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("PREPARE feed AS " + statements(database.sql, "registryd.sql")["feed"])
        page = f"('n', '{applied}', '{sweep}', '{xid}', 't', 'agent-15000', 10, false)"
        cursor.execute("EXECUTE feed " + page)
        assert [row[4] for row in cursor.fetchall()] == [f"agent-{n}" for n in range(15001, 15011)]
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE feed " + page)
        plan, = cursor.fetchone()
    assert rows_read(plan[0]["Plan"]) <= 50, plan
