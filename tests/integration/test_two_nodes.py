"""Two nodes on one PostgreSQL and one Redis: what each does for the agents of both."""

import pytest
from harness import FAST, Stack, processes, unique, wait_for


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
