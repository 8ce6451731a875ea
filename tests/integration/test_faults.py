"""Crowds, kills and outages: what is promised of a registration holds whoever dies."""

import collections
import os
import signal
import threading
import time

import pytest
from crowds import ENROLLED, Load, at_once, check_exactly_once, enrollments, statuses
from harness import check_error, unique, wait_for

# ---- crowds --------------------------------------------------------------------------------------


def test_200_agents_at_once(stack):
    tenant, host = unique("crowd"), unique("host")
    agents = [stack.agent(tenant=tenant) for _ in range(200)]
    calls = [lambda a=agent, n=n: a.register(hostname=host if n < 50 else a.name) for n, agent in enumerate(agents)]
    answers = at_once(calls)
    assert statuses(answers) == {201: 200}
    assert stack.rows("SELECT count(*), count(DISTINCT spiffe_id), count(*) FILTER (WHERE hostname = %s) "
                      "FROM agent_registry WHERE tenant_id = %s", host, tenant) == [(200, 200, 50)]
    check_exactly_once(stack, tenant, answers)
    events = stack.events(tenant, event_type=ENROLLED)
    assert {event["spiffe_id"] for event in events} == {agent.spiffe_id for agent in agents}
    assert len(events) == 200


def test_one_agent_100_times_at_once(stack):
    agent = stack.agent(tenant=unique("crowd"))
    clients = [stack.client(agent.crt, agent.key) for _ in range(100)]
    body = {"hostname": agent.name, "machine_id_fingerprint": "one"}
    answers = at_once([lambda c=client: c.post("/v1/mesh/register", json=body) for client in clients])
    assert statuses(answers) == {201: 1, 200: 99}
    assert not any(answer.json()["fingerprint_drift"] for answer in answers)
    assert stack.rows("SELECT count(*) FROM agent_registry WHERE tenant_id = %s", agent.tenant) == [(1,)]
    check_exactly_once(stack, agent.tenant, answers)
    assert sum(enrollments(stack, agent.tenant).values()) == 100


def test_one_agent_with_two_fingerprints_at_once(stack):
    """A race of two values: the replaced value that each drift tells is the one it replaced, so that they are a chain."""
    agent = stack.agent(tenant=unique("crowd"))
    agent.register(machine_id_fingerprint="fp-start")
    clients = [stack.client(agent.crt, agent.key) for _ in range(40)]
    bodies = [{"hostname": agent.name, "machine_id_fingerprint": f"fp-{n}"} for n in range(40)]
    answers = at_once([lambda c=c, b=b: c.post("/v1/mesh/register", json=b) for c, b in zip(clients, bodies)])
    assert statuses(answers) == {200: 40}
    assert all(answer.json()["fingerprint_drift"] for answer in answers)
    drifts = wait_for(lambda: len(found := stack.events(agent.tenant, event_type="identity.fingerprint_drift")) == 40
                      and found)
    known = {"fp-start", *(body["machine_id_fingerprint"] for body in bodies)}
    told = collections.Counter(v for e in drifts for v in e["details"].values() if v in known)
    last = agent.self().json()["agent"]["machine_id_fingerprint"]
    assert told == {name: 1 if name in ("fp-start", last) else 2 for name in known}


# ---- kills in the middle of load -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["registryd", "eventd", "keeper", "auditd"])
def test_a_killed_back_daemon_fails_no_client(stack, name):
    with Load(stack) as load:
        for _ in range(3):
            load.progress()
            before = stack.pid(name)
            stack.kill(name)
            assert stack.pid(name) != before
        load.progress()
    assert set(statuses(load.answers)) <= {200, 201}
    load.check()
    assert sum(enrollments(stack, load.tenant).values()) == len(load.answers)


@pytest.mark.parametrize("name", ["registryd", "eventd", "keeper"])
def test_a_stopped_back_daemon_is_waited_for(stack, name):
    with Load(stack, 4) as load:
        load.progress(10)
        with stack.without(name):
            time.sleep(1.5)
        load.progress(10)
    assert set(statuses(load.answers)) <= {200, 201}
    load.check()


def test_both_ends_of_the_outbox_killed(stack):
    with Load(stack) as load:
        load.progress()
        for name in ("registryd", "eventd", "eventd", "registryd"):
            stack.kill(name)
        load.progress()
    assert set(statuses(load.answers)) <= {200, 201}
    load.check()


def test_postgres_killed_under_load(stack):
    with Load(stack) as load:
        for _ in range(2):
            load.progress()
            stack.kill("postgres")
        load.progress()
    assert set(statuses(load.answers)) <= {200, 201, 503}
    load.check()
    assert sum(enrollments(stack, load.tenant).values()) >= len(load.good())


def test_a_killed_worker_is_replaced(stack):
    agent = stack.agent()
    agent.register()
    before = stack.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(now := stack.workers()) == len(before) and before[0] not in now)
    for _ in range(10):
        assert stack.client(agent.crt, agent.key).post("/v1/mesh/heartbeat").status_code == 200


def test_a_killed_supervisor_takes_its_workers_with_it(stack):
    agent = stack.agent()
    agent.register()
    before = stack.workers()
    stack.kill("frontd")
    assert not set(before) & set(stack.workers())
    assert stack.client(agent.crt, agent.key).post("/v1/mesh/heartbeat").status_code == 200


# ---- what is in flight ---------------------------------------------------------------------------


class InFlight:
    """Registrations of new agents that wait for the database, which is locked until release()."""

    def __init__(self, stack, count=20):
        self.stack, self.tenant = stack, unique("flight")
        self.agents = [stack.agent(tenant=self.tenant) for _ in range(count)]
        self.answers = []
        self.lock = stack.table_locked("agent_registry")
        self.lock.__enter__()
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()
        wait_for(lambda: stack.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                                    "AND usename = 'caf_registry'"), what="a registration in flight")

    def ask(self):
        self.answers = at_once([agent.register for agent in self.agents])

    def release(self):
        self.lock.__exit__(None, None, None)
        self.thread.join()
        return self.answers


@pytest.mark.parametrize("name", ["registryd", "eventd"])
def test_what_was_in_flight_at_a_kill_is_written_once(stack, name):
    """The killed daemon's statement still waits in the database when the request is sent again."""
    flight = InFlight(stack)
    stack.kill(name)
    time.sleep(0.5)
    answers = flight.release()
    assert statuses(answers) == {201: 20}
    check_exactly_once(stack, flight.tenant, answers)
    assert sum(enrollments(stack, flight.tenant).values()) == 20


@pytest.mark.parametrize("name", ["registryd", "frontd"])
def test_a_stop_answers_what_is_in_flight(stack, name):
    flight = InFlight(stack, 4)
    stopping = threading.Thread(target=stack.stop, args=[name])
    drains = stack.log(name).count("msg=draining") + (len(stack.workers()) if name == "frontd" else 0)
    stopping.start()
    wait_for(lambda: stack.log(name).count("msg=draining") > drains, what="the drain")
    restart = threading.Thread(target=stack.start, args=[name])
    restart.start()
    answers = flight.release()
    stopping.join()
    restart.join()
    assert statuses(answers) == {201: 4}
    if name == "frontd":
        assert {answer.headers["connection"].lower() for answer in answers} == {"close"}
    check_exactly_once(stack, flight.tenant, answers)


# ---- outages -------------------------------------------------------------------------------------


@pytest.fixture
def without_redis(stack):
    with stack.without("redis"):
        yield


def beat_with_a_cold_cache(stack):
    agents = [stack.agent() for _ in range(40)]
    assert statuses(at_once([agent.register for agent in agents])) == {201: 40}
    stack.restart("registryd")
    assert statuses(at_once([agent.heartbeat for agent in agents])) == {200: 40}
    stack.kill("registryd")
    assert statuses(at_once([agent.heartbeat for agent in agents] * 2)) == {200: 80}


def test_heartbeats_with_a_cold_cache(stack):
    beat_with_a_cold_cache(stack)


def test_heartbeats_with_a_cold_cache_and_without_redis(stack, without_redis):
    beat_with_a_cold_cache(stack)


def test_without_redis_all_goes_on(stack, without_redis):
    agent = stack.agent()
    assert agent.register().status_code == 201
    assert agent.heartbeat().status_code == 200
    assert agent.self().status_code == 200
    assert stack.client().get("/readyz").status_code == 200


def test_a_stop_writes_the_last_heartbeats(make_stack):
    own = make_stack(sets=["registryd.mesh.write_behind_seconds=60"])
    agent = own.agent()
    agent.register()
    told = agent.heartbeat(status="last words").json()["last_heartbeat"]
    own.restart("registryd")
    record = agent.self().json()["agent"]
    assert (record["heartbeat_status"], record["last_heartbeat"]) == ("last words", told)


@pytest.mark.parametrize("name", ["registryd", "eventd", "auditd", "postgres"])
def test_readiness_follows_the_back(stack, name):
    client = stack.client()
    with stack.without(name):
        wait_for(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/livez").status_code == 200
        health = client.get("/health").json()
        assert health["status"] in ("degraded", "unhealthy")
    wait_for(lambda: client.get("/readyz").status_code == 200)
    wait_for(lambda: client.get("/health").json()["status"] == "healthy")


def test_nobody_waits_for_ever(make_stack):
    own = make_stack(sets=["frontd.timeouts.read_deadline_seconds=1", "frontd.timeouts.write_deadline_seconds=2"])
    agent, auditor = own.agent(), own.operator("auditor")
    agent.register()
    with own.without("registryd", "eventd"):
        for ask, least, most in ((agent.self, 0.9, 5), (agent.register, 1.9, 6),
                                 (lambda: auditor.get("/v1/security/events"), 0.9, 5)):
            started = time.monotonic()
            answer = ask()
            check_error(answer, 503, "UNAVAILABLE")
            assert int(answer.headers["retry-after"]) >= 1
            assert least <= time.monotonic() - started <= most
    assert agent.self().status_code == 200
