"""What heartbeats report on its way to the row: in the order in which it was said, and none lost in an orderly stop."""

import concurrent.futures
import time

from harness import unique, wait_for


def values(stack, tenant):
    return dict(stack.rows("SELECT agent_id, heartbeat_status FROM agent_registry WHERE tenant_id = %s", tenant))


def test_a_registration_is_newer_than_the_heartbeat_before_it(stack):
    agent = stack.agent()
    agent.register(metadata={"said": "first"})
    assert agent.heartbeat(metadata={"said": "second"}).status_code == 200
    assert agent.register(metadata={"said": "third"}).json()["agent"]["metadata"] == {"said": "third"}
    other = stack.agent()
    other.register()
    other.heartbeat(status="written behind")  # what was noted earlier is written by then
    wait_for(lambda: stack.rows("SELECT 1 FROM agent_registry WHERE spiffe_id = %s AND heartbeat_status IS NOT NULL",
                                other.spiffe_id))
    assert agent.self().json()["agent"]["metadata"] == {"said": "third"}


def test_a_stop_writes_more_than_the_queue_holds(make_stack):
    stack = make_stack(sets=("registryd.mesh.write_behind_seconds=60", "registryd.database.queue_max=8"))
    tenant = unique("tenant")
    agents = [stack.agent(tenant=tenant) for _ in range(30)]
    for agent in agents:
        assert agent.register().status_code == 201
        assert agent.heartbeat(status="last words").status_code == 200
    stack.stop("registryd")
    assert values(stack, tenant) == {agent.name: "last words" for agent in agents}
    stack.start("registryd")


def test_writing_behind_leaves_room_for_registrations(make_stack):
    """However many times wait to be written, they do not take the queue from those who wait for an answer."""
    stack = make_stack(sets=("registryd.mesh.write_behind_seconds=1", "registryd.database.queue_max=8",
                              "registryd.database.connections=1"))
    tenant = unique("tenant")
    agents = [stack.agent(tenant=tenant) for _ in range(30)]
    for agent in agents:
        assert agent.register().status_code == 201
    newcomer = stack.agent(tenant=tenant)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with stack.table_locked("agent_registry"):
            for agent in agents:
                assert agent.heartbeat(status="seen").status_code == 200
            time.sleep(3)  # the times are due
            answer = pool.submit(newcomer.register)
            time.sleep(0.5)
            assert not answer.done(), answer.result().text
        assert answer.result().status_code == 201, answer.result().text
    wait_for(lambda: list(values(stack, tenant).values()).count("seen") == len(agents))


def test_a_long_interval_stretched_is_still_a_number(make_stack):
    stack = make_stack(sets=("registryd.mesh.heartbeat_interval_seconds=3600", "registryd.mesh.beats_per_second=1"))
    agent = stack.agent()
    agent.register()

    def beat():
        answer = agent.heartbeat()
        assert answer.status_code == 200, answer.text
        return answer.json()["next_due_ms"]

    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert 0 < beat() <= 86400 * 1000
