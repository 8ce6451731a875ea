"""Two nodes on one PostgreSQL and one Redis: what each does for the agents of both."""

import contextlib
import json

import pytest
from harness import Stack, check_registered, processes, request, unique, wait_for

ROUNDS = 50


@pytest.fixture(scope="module")
def nodes():
    """Two stacks, the second joined to the first."""
    one = Stack("--agents", 1).up()
    two = Stack("--agents", 1, join=one).up()
    yield one, two
    two.close()
    one.close()


def elsewhere(agent, node):
    """The agent's client of another node, with the agent's own certificate."""
    return node.client(agent.crt, agent.key)


@pytest.mark.parametrize("first, second", [(0, 1), (1, 0)])
def test_an_agent_of_one_node_is_known_on_the_other(nodes, first, second):
    here, there = nodes[first], nodes[second]
    agent = here.agent()
    assert agent.register(version="1").status_code == 201
    other = elsewhere(agent, there)
    assert other.post("/v1/mesh/heartbeat").status_code == 200
    assert other.get("/v1/mesh/self").json()["agent"]["version"] == "1"
    again = other.post("/v1/mesh/register", json={"hostname": agent.name, "version": "2"})
    assert (again.status_code, again.json()["created"]) == (200, False)
    assert agent.self().json()["agent"]["version"] == "2"
    assert here.rows("SELECT count(*) FROM agent_registry WHERE spiffe_id = %s", agent.spiffe_id) == [(1,)]


def test_each_node_signs_its_events(nodes):
    tenant = unique("tenant")
    for node in nodes:
        assert node.agent(tenant=tenant).register().status_code == 201
    names = sorted(node.env["CAF_NODE"] for node in nodes)
    assert names[0] != names[1]
    for kind in ("identity.enrollment_success", "auth.mtls_success"):
        events = wait_for(lambda: len(found := nodes[0].events(tenant, event_type=kind)) >= 2 and found, what=kind)
        assert sorted(event["node"] for event in events) == names


def test_the_death_of_one_node_is_no_death_of_the_other(nodes):
    """Every process of one is killed at once; what it owed is done by the other."""
    one, two = nodes
    agent = one.agent(tenant=unique("tenant"))
    pids = one.pids()
    with one.without("eventd"):
        assert agent.register().status_code == 201
        processes.destroy([*pids.pop("workers"), *(pid for name, pid in pids.items() if name != "eventd")])
        other = elsewhere(agent, two)
        assert other.post("/v1/mesh/heartbeat").status_code == 200
        assert two.agent().register().status_code == 201
        (event,) = wait_for(lambda: two.events(agent.tenant, event_type="identity.enrollment_success"), what="the event")
        assert event["node"] == one.env["CAF_NODE"]
    for name in pids:
        one.start(name)
    assert agent.heartbeat().status_code == 200


# ---- one hostname, at the same moment, through both nodes ----------------------------------------


def register_at_once(connections, hostname):
    """Each asks before any is answered, a different one first each time; the trace_id of each."""
    body = json.dumps({"hostname": hostname}).encode()
    for connection in connections:
        connection.send(request("POST", "/v1/mesh/register", body))
    answers = [connection.receive() for connection in connections]
    return [check_registered(answer, answer.status_code)["trace_id"] for answer in answers]


def told(event):
    """An event without what differs each time."""
    others = [other["agent_id"] for other in event["details"].get("others", [])]
    return event["event_type"], event["node"], event["hostname"], event["trace_id"], others


def expected(agent, node, hostname, trace, is_first):
    """What one registration tells, whoever else there is."""
    kinds = ["identity.enrollment_success", *(() if is_first else ("identity.hostname_changed",))]
    return [(kind, node.env["CAF_NODE"], hostname, trace, []) for kind in kinds]


def test_one_hostname_for_two_at_the_same_moment_is_told_once(nodes):
    """By the one whose registration was second, wherever it came: never by none, never by both."""
    tenant = unique("shared")
    pairs = [(node.agent(unique("agent"), tenant), node) for node in nodes]
    wanted, seconds = [], []
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(node.connection(agent.crt, agent.key)) for agent, node in pairs]
        for turn in range(ROUNDS):
            hostname, order = f"host-{turn}", (0, 1) if turn % 2 else (1, 0)
            traces = register_at_once([links[i] for i in order], hostname)
            for i, trace in zip(order, traces):
                wanted += expected(*pairs[i], hostname, trace, is_first=turn == 0)
            seconds.append({("identity.hostname_shared", pairs[i][1].env["CAF_NODE"], hostname, trace,
                             (pairs[1 - i][0].name,)) for i, trace in zip(order, traces)})
    wait_for(lambda: nodes[0].rows("SELECT count(*) FROM identity_outbox WHERE tenant_id = %s", tenant) == [(0,)])
    found = [told(event) for event in nodes[0].events(tenant) if event["event_type"].startswith("identity.")]
    shared = [(*event[:4], tuple(event[4])) for event in found if event[0] == "identity.hostname_shared"]
    assert sorted(event for event in found if event[0] != "identity.hostname_shared") == sorted(wanted)
    assert [len(either & set(shared)) for either in seconds] == [1] * ROUNDS and len(shared) == ROUNDS
