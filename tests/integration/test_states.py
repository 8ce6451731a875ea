"""What each state of an agent allows (contract, Mesh), and that no write, whatever it races with, undoes one."""

import collections
import concurrent.futures
import contextlib
import os
import random
import secrets
import signal
import time

import httpx
import pytest
from harness import check_error, check_registered, unique, wait_for
from test_frames import frame, unframe
from test_hostname_shared import waiting
from test_resend import answers, register

FAIL, REGISTERED, BEAT, RECORD = 2, 31, 33, 35
FORBIDDEN = "FORBIDDEN"
AT_ONCE = 3  # seconds: the feed's bound, with room for a busy machine


def heartbeat(stack, tenant, name, status=None):
    """The frame of one heartbeat."""
    return frame(32, secrets.token_bytes(16), tenant, stack.agent_id(tenant, name), int(time.time() * 1000), status, None)


def record(stack, tenant, name):
    """The frame of one question for the agent's own record."""
    return frame(34, secrets.token_bytes(16), tenant, stack.agent_id(tenant, name))


def told(answer):
    """The error that registryd answered, or the number of the message."""
    return answer[2] if answer[0] == FAIL else answer[0]


def row(stack, tenant, name):
    """What a heartbeat or a registration would have changed."""
    return stack.rows("SELECT state, last_heartbeat, heartbeat_status, hostname, recent_requests, changed_xid::text "
                      "FROM agent_registry WHERE tenant_id = %s AND agent_id = %s", tenant, name)[0]


@contextlib.contextmanager
def changing(stack, tenant, state, name="%"):
    """The state is set by the owner role in a transaction that commits at the end: its rows are locked until then."""
    link = stack.db()
    link.autocommit = False
    with link, link.cursor() as cursor:
        cursor.execute("UPDATE agent_registry SET state = %s, changed_xid = pg_current_xact_id() "
                       "WHERE tenant_id = %s AND agent_id LIKE %s", (state, tenant, name))
        assert cursor.rowcount > 0
        yield
    link.close()


def change(stack, tenant, state, name="%"):
    with changing(stack, tenant, state, name):
        pass


def enrolled(stack, tenant):
    """The trace_ids of the tenant's registrations, with what is still in the outbox."""
    rows = stack.rows("SELECT trace_id FROM security_events WHERE tenant_id = %s AND event_type = %s UNION ALL "
                      "SELECT trace_id FROM identity_outbox WHERE tenant_id = %s AND event_type = %s",
                      *(tenant, "identity.enrollment_success") * 2)
    return collections.Counter(trace for trace, in rows)


@pytest.fixture
def tenant():
    return unique("states")


# ---- what a client is answered -------------------------------------------------------------------


def test_quarantined(stack, tenant):
    agent = stack.agent(tenant=tenant)
    agent.register(version="1")
    change(stack, tenant, "quarantined")
    wait_for(lambda: agent.heartbeat().json()["state"] == "quarantined", AT_ONCE)
    assert agent.heartbeat(status="held").status_code == 200
    assert agent.self().json()["agent"]["state"] == "quarantined"
    check_error(agent.register(version="2"), 403, FORBIDDEN)
    check_error(agent.client.post("/v1/mesh/deregister"), 403, FORBIDDEN)
    shown = wait_for(lambda: (found := agent.self().json()["agent"])["heartbeat_status"] == "held" and found)
    assert (shown["state"], shown["version"]) == ("quarantined", "1")
    change(stack, tenant, "active")
    wait_for(lambda: agent.heartbeat().json()["state"] == "active", AT_ONCE)
    check_registered(agent.register(version="2"), 200)


def test_deregistered(stack, tenant):
    agent = stack.agent(tenant=tenant)
    first = agent.register(version="1").json()["agent"]
    change(stack, tenant, "deregistered")
    wait_for(lambda: agent.heartbeat().status_code == 404, AT_ONCE)
    for answer in (agent.heartbeat(), agent.self()):
        check_error(answer, 404, "NOT_REGISTERED", recovery=True)
    back = check_registered(agent.register(), 200)["agent"]
    assert (back["state"], back["version"], back["registered_at"]) == ("active", "1", first["registered_at"])
    assert agent.heartbeat().json()["state"] == "active"


def test_revoked(stack, tenant):
    """Whatever still gets through to registryd is refused there; the connection is cut, and no new one is taken."""
    agent = stack.agent(tenant=tenant)
    agent.register()
    before = row(stack, tenant, agent.name)[1:5]
    change(stack, tenant, "revoked")
    assert [told(each) for each in answers(stack, register(stack, tenant, agent.name), record(stack, tenant, agent.name),
                                           heartbeat(stack, tenant, agent.name))] == [FORBIDDEN] * 3

    def cut():
        try:
            check_error(agent.heartbeat(), 403, FORBIDDEN)
        except httpx.TransportError:
            return True
        return False

    wait_for(cut, AT_ONCE)
    time.sleep(1.5)  # a write-behind
    assert row(stack, tenant, agent.name)[:5] == ("revoked", *before)


# ---- a registration against a change of state ----------------------------------------------------


@pytest.mark.parametrize("state", ["revoked", "quarantined"])
def test_a_registration_that_waits_while_the_state_changes(stack, tenant, state):
    """The statement began when the agent was active, and gets the row when it is so no more."""
    answers(stack, register(stack, tenant, "a"))
    before, traces = row(stack, tenant, "a"), enrolled(stack, tenant)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with changing(stack, tenant, state):
            late = pool.submit(answers, stack, register(stack, tenant, "a", hostname="other"))
            wait_for(lambda: waiting(stack, "transactionid"))
        assert told(late.result()[0]) == FORBIDDEN
    assert row(stack, tenant, "a")[:5] == (state, *before[1:5])
    assert enrolled(stack, tenant) == traces


def test_a_registration_that_waits_while_its_agent_is_deregistered(stack, tenant):
    answers(stack, register(stack, tenant, "a"))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with changing(stack, tenant, "deregistered"):
            late = pool.submit(answers, stack, register(stack, tenant, "a"))
            wait_for(lambda: waiting(stack, "transactionid"))
        (answer,) = late.result()
    assert answer[0] == REGISTERED and answer[2] is False
    assert row(stack, tenant, "a")[0] == "active"


def test_a_deregistration_that_waits_while_the_state_changes(stack, tenant):
    agent = stack.agent(tenant=tenant)
    agent.register()
    before = row(stack, tenant, agent.name)[1:5]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with changing(stack, tenant, "quarantined"):
            late = pool.submit(agent.client.post, "/v1/mesh/deregister")
            wait_for(lambda: waiting(stack, "transactionid"))
        check_error(late.result(), 403, FORBIDDEN)
    assert row(stack, tenant, agent.name)[:5] == ("quarantined", *before)
    assert not stack.rows("SELECT FROM identity_outbox WHERE tenant_id = %s AND event_type = %s UNION ALL SELECT FROM "
                          "security_events WHERE tenant_id = %s AND event_type = %s",
                          *(tenant, "identity.deregistered") * 2)


def test_of_one_batch_only_those_that_may_are_registered(stack, tenant):
    names, traces = [f"{'bad' if i % 2 else 'good'}-{i}" for i in range(20)], [secrets.token_hex(8) for _ in range(20)]
    answers(stack, *(register(stack, tenant, name) for name in names), together=True)
    before = {name: row(stack, tenant, name)[1:5] for name in names}
    frames = [register(stack, tenant, name, trace=trace) for name, trace in zip(names, traces)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with changing(stack, tenant, "revoked", "bad-%"):
            late = pool.submit(answers, stack, *frames, together=True)
            wait_for(lambda: waiting(stack, "transactionid"))
        found = [told(answer) for answer in late.result()]
    assert sorted(map(str, found)) == sorted([str(REGISTERED)] * 10 + [FORBIDDEN] * 10)
    for name, trace in zip(names, traces):
        assert (row(stack, tenant, name)[1:5] == before[name]) == name.startswith("bad"), name
        assert enrolled(stack, tenant)[trace] == (not name.startswith("bad")), name


@pytest.mark.parametrize("state", ["revoked", "quarantined"])
def test_a_request_sent_again_after_the_state_changed(stack, tenant, state):
    """It was registered, its answer was lost, and the state is now another: that is what is answered."""
    frames = [register(stack, tenant, "a"), register(stack, tenant, "a", hostname="other")]
    assert [each[0] for each in answers(stack, *frames)] == [REGISTERED] * 2
    before, traces = row(stack, tenant, "a"), enrolled(stack, tenant)
    change(stack, tenant, state)
    assert [told(each) for each in answers(stack, *frames)] == [FORBIDDEN] * 2
    assert row(stack, tenant, "a")[:5] == (state, *before[1:5])
    assert enrolled(stack, tenant) == traces and sum(traces.values()) == 2


def test_a_request_sent_again_while_the_first_still_runs(stack, tenant):
    """registryd dies with a statement in the database, and its next life gets the same request: it waits for the first,
    finds it done, and answers as that would have."""
    answers(stack, register(stack, tenant, "a", hostname="one"))
    again = register(stack, tenant, "a", hostname="two")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with changing(stack, tenant, "active"):
            lost = pool.submit(answers, stack, again)
            wait_for(lambda: waiting(stack, "transactionid") == 1)
            stack.kill("registryd")
            with pytest.raises(AssertionError, match="closed"):
                lost.result()
            late = pool.submit(answers, stack, again)
            wait_for(lambda: waiting(stack, "transactionid") + waiting(stack, "tuple") == 2)
        (answer,) = late.result()
    assert answer[0] == REGISTERED and answer[2] is False, answer
    assert row(stack, tenant, "a")[3] == "two"
    wait_for(lambda: len(stack.events(tenant, event_type="identity.hostname_changed")) == 1)
    assert set(enrolled(stack, tenant).values()) == {1} and len(enrolled(stack, tenant)) == 2


# ---- a write-behind, a look-up -------------------------------------------------------------------


@pytest.mark.parametrize("state", ["revoked", "deregistered", "quarantined"])
def test_a_write_behind_that_waits_while_the_state_changes(stack, tenant, state):
    answers(stack, register(stack, tenant, "a"))
    before = row(stack, tenant, "a")
    with changing(stack, tenant, state):
        assert told(answers(stack, heartbeat(stack, tenant, "a", status="late"))[0]) == BEAT
        wait_for(lambda: waiting(stack, "transactionid"))
    wait_for(lambda: not waiting(stack, "transactionid"))
    time.sleep(1.5)  # what could not be written would be, in another round
    after = row(stack, tenant, "a")
    assert after[0] == state
    if state == "quarantined":
        assert after[1] > before[1] and after[2] == "late"
    else:
        assert after[1:5] == before[1:5]


def test_a_look_up_that_was_answered_before_the_state_changed(stack, tenant):
    """registryd reads "active" when the agent is revoked already: that heartbeat is none in the row, and the next is
    refused."""
    answers(stack, register(stack, tenant, "a"))
    before = row(stack, tenant, "a")
    stack.restart("registryd")
    pid = stack.pid("registryd")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with stack.table_locked("agent_registry"):
            beat = pool.submit(answers, stack, heartbeat(stack, tenant, "a", status="late"))
            wait_for(lambda: waiting(stack, "relation"))
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: not waiting(stack, "relation"))
            change(stack, tenant, "revoked")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert told(beat.result()[0]) in (BEAT, FORBIDDEN)
    wait_for(lambda: told(answers(stack, heartbeat(stack, tenant, "a"))[0]) == FORBIDDEN, AT_ONCE)
    time.sleep(1.5)
    assert row(stack, tenant, "a")[:5] == ("revoked", *before[1:5])


# ---- all at once ---------------------------------------------------------------------------------


def by_request(stack, frames):
    """The answers to frames that are sent at once on one channel, in the order of the frames."""
    found = {answer[1]: answer for answer in answers(stack, *frames, together=True)}
    return [found[next(unframe(each))[1]] for each in frames]


def test_many_agents_race_with_their_revocation(stack, tenant):
    """Heartbeats and registrations of 40 agents from four sides, while one after the other is revoked or quarantined."""
    chance = random.Random(7)
    names = [f"a{i}" for i in range(40)]
    answers(stack, *(register(stack, tenant, name) for name in names), together=True)
    first = enrolled(stack, tenant)

    def storm(seed):
        """Rounds of frames for all agents in an order of its own; what each registration was answered, by trace_id."""
        order, outcome = random.Random(seed), {}
        for _ in range(6):
            traces = {name: secrets.token_hex(8) for name in names}
            pairs = [(trace, register(stack, tenant, name, trace=trace)) for name, trace in traces.items()]
            pairs += [(None, heartbeat(stack, tenant, name, status="storm")) for name in names]
            order.shuffle(pairs)
            trace_of = [trace for trace, _ in pairs]
            for trace, answer in zip(trace_of, by_request(stack, [each for _, each in pairs])):
                if trace:
                    outcome[trace] = told(answer)
        return outcome

    stopped = {}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        storms = [pool.submit(storm, seed) for seed in range(4)]
        link = stack.db()
        with link.cursor() as cursor:
            for name in chance.sample(names, 30):
                state = chance.choice(["revoked", "revoked", "quarantined"])
                cursor.execute("UPDATE agent_registry SET state = %s, changed_xid = pg_current_xact_id() WHERE tenant_id = "
                               "%s AND agent_id = %s RETURNING last_heartbeat, recent_requests", (state, tenant, name))
                stopped[name] = (state, *cursor.fetchone())
                time.sleep(chance.random() / 20)
        link.close()
        outcome = collections.ChainMap(*(each.result() for each in storms))
    time.sleep(1.5)
    for name, (state, last_heartbeat, requests) in stopped.items():
        now = row(stack, tenant, name)
        assert (now[0], now[4]) == (state, requests), name
        assert now[1] == last_heartbeat or state == "quarantined", name
    assert set(outcome.values()) == {REGISTERED, FORBIDDEN}
    happened = enrolled(stack, tenant)
    assert happened == first + collections.Counter(trace for trace, each in outcome.items() if each == REGISTERED)
