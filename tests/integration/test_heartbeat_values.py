"""What heartbeats report on its way to the row: in the order in which it was said, and none lost in an orderly stop."""

import collections
import concurrent.futures
import json
import secrets
import time

import pytest
from harness import unique, wait_for
from test_frames import frame
from test_hostname_shared import holding, waiting
from test_resend import answers


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


def heartbeat(stack, agent, age_seconds=0, **values):
    """The frame of a heartbeat that was received this long ago."""
    metadata = json.dumps(values["metadata"]) if "metadata" in values else None
    return frame(32, secrets.token_bytes(16), agent.tenant, agent.spiffe_id,
                 int((time.time() - age_seconds) * 1000), values.get("status"), metadata)


def test_metadata_said_before_those_on_record_do_not_replace_them(stack):
    """A heartbeat to one node is written behind after a registration at another: it is the older word."""
    agent = stack.agent()
    registered = agent.register(metadata={"said": "second"}).json()["agent"]
    answers(stack, heartbeat(stack, agent, 3, status="first", metadata={"said": "first"}))
    shown = wait_for(lambda: (found := agent.self().json()["agent"])["heartbeat_status"] == "first" and found)
    assert (shown["metadata"], shown["last_heartbeat"]) == ({"said": "second"}, registered["last_heartbeat"])
    answers(stack, heartbeat(stack, agent, -1, status="third", metadata={"said": "third"}), heartbeat(stack, agent, -2))
    shown = wait_for(lambda: (found := agent.self().json()["agent"])["heartbeat_status"] == "third" and found)
    assert shown["metadata"] == {"said": "third"} and shown["last_heartbeat"] > registered["last_heartbeat"]


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "overtaken"])
def test_a_later_heartbeat_does_not_make_earlier_metadata_new(stack, order):
    """Both are noted, and written as one: the metadata keep their own time."""
    agent = stack.agent()
    agent.register(metadata={"said": "second"})
    frames = [heartbeat(stack, agent, 3, metadata={"said": "first"}), heartbeat(stack, agent, -1, status="third")]
    answers(stack, *frames[::order], together=True)
    shown = wait_for(lambda: (found := agent.self().json()["agent"])["heartbeat_status"] == "third" and found)
    assert shown["metadata"] == {"said": "second"}


def test_a_write_that_is_repeated_after_a_registration_does_not_undo_it(make_stack):
    """The write-behind waits for a locked row and is given up, a registration behind it is not: the values are noted
    again, and they are older than what the registration wrote."""
    stack = make_stack(sets=("registryd.mesh.write_behind_seconds=1", "registryd.database.request_seconds=4"))
    agent, other = stack.agent(), stack.agent()
    agent.register(metadata={"said": "first"})
    other.register()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with holding(stack, "SELECT FROM agent_registry WHERE spiffe_id = %s FOR UPDATE", agent.spiffe_id):
            assert agent.heartbeat(metadata={"said": "second"}, status="beat").status_code == 200
            wait_for(lambda: waiting(stack, "transactionid"))
            time.sleep(2)
            third = pool.submit(agent.register, metadata={"said": "third"})
            time.sleep(3)
            assert not third.done()
        assert third.result().json()["agent"]["metadata"] == {"said": "third"}
    other.heartbeat(status="in the round after")
    wait_for(lambda: other.self().json()["agent"]["heartbeat_status"])
    shown = wait_for(lambda: (found := agent.self().json()["agent"])["heartbeat_status"] and found)
    assert shown["metadata"] == {"said": "third"}


def test_heartbeats_that_wait_for_one_look_up_are_bounded(make_stack):
    stack = make_stack(sets=("registryd.database.queue_max=8", "registryd.mesh.write_behind_seconds=1"))
    agent = stack.agent()
    agent.register()
    stack.restart("registryd")  # it knows nobody now
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with stack.table_locked("agent_registry"):
            found = pool.submit(answers, stack, *(heartbeat(stack, agent) for _ in range(30)), together=True)
            wait_for(lambda: waiting(stack, "relation"))
            time.sleep(0.5)
        told = collections.Counter(answer[2] if answer[0] == 2 else answer[0] for answer in found.result())
    assert told == {33: 8, "UNAVAILABLE": 22}
    assert [answer[0] for answer in answers(stack, *(heartbeat(stack, agent) for _ in range(30)), together=True)] == [33] * 30
