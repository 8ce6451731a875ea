"""POST /v1/mesh/deregister: an agent takes itself out, once, and may come back (contract, Routes)."""

import concurrent.futures
import secrets
import time

import pytest
from harness import TRACE_ID, check_error, check_registered, unique, wait_for
from test_frames import frame
from test_resend import REGISTERED, answers, register

DEREGISTER, DEREGISTERED, FAIL = 39, 40, 2
EVENT = "identity.deregistered"


@pytest.fixture
def agent(stack):
    registered = stack.agent(tenant=unique("tenant"))
    check_registered(registered.register(), 201)
    return registered


def check_deregistered(agent, answer):
    """The reply of deregister, to the letter; returns its trace_id."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    trace_id = body.pop("trace_id")
    assert TRACE_ID.fullmatch(trace_id)
    assert body == {"status": "ok", "agent_id": agent.name, "state": "deregistered"}
    return trace_id


def check_out(agent):
    check_error(agent.heartbeat(), 404, "NOT_REGISTERED", recovery=True)
    check_error(agent.self(), 404, "NOT_REGISTERED", recovery=True)


def row(stack, agent, columns="state"):
    found, = stack.rows(f"SELECT {columns} FROM agent_registry WHERE spiffe_id = %s", agent.spiffe_id)
    return found if len(found) > 1 else found[0]


def set_state(stack, agent, state):
    """As the owner of the tables, with what tells the other nodes."""
    with stack.db() as link, link.cursor() as cursor:
        cursor.execute("UPDATE agent_registry SET state = %s, changed_xid = pg_current_xact_id() WHERE spiffe_id = %s",
                       (state, agent.spiffe_id))


def written_behind(stack, tenant):
    """Waits until what was noted before now has been written."""
    other = stack.agent(tenant=tenant)
    other.register()
    other.heartbeat(status="seen")
    wait_for(lambda: row(stack, other, "heartbeat_status") == "seen")


def test_an_agent_takes_itself_out_and_comes_back(stack, agent):
    check_deregistered(agent, agent.deregister())
    assert row(stack, agent) == "deregistered"
    check_out(agent)
    body = check_registered(agent.register(), 200)
    assert (body["created"], body["agent"]["state"]) == (False, "active")
    assert agent.heartbeat().status_code == agent.self().status_code == 200
    check_deregistered(agent, agent.deregister())
    check_out(agent)


def test_it_is_one_event_however_often_it_is_repeated(stack, agent):
    trace_id = check_deregistered(agent, agent.deregister())
    again = [check_deregistered(agent, agent.deregister()) for _ in range(3)]
    assert len({trace_id, *again}) == 4
    event, = wait_for(lambda: stack.events(agent.tenant, event_type=EVENT))
    assert (event["severity"], event["trace_id"]) == ("info", trace_id)
    assert (event["spiffe_id"], event["hostname"]) == (agent.spiffe_id, agent.name)
    assert (event["source_ip"], event["count"]) == ("127.0.0.1", 1)
    assert event["details"] == {"agent_id": agent.name}
    agent.register()
    second = check_deregistered(agent, agent.deregister())
    found = wait_for(lambda: len(found := stack.events(agent.tenant, event_type=EVENT)) > 1 and found)
    assert [e["trace_id"] for e in found] == [trace_id, second]


def test_the_change_is_told_to_other_nodes(stack, agent):
    before = row(stack, agent, "changed_xid::text::bigint")
    agent.deregister()
    after = row(stack, agent, "changed_xid::text::bigint")
    assert after > before
    agent.deregister()
    assert row(stack, agent, "changed_xid::text::bigint") == after


def test_who_never_registered(stack):
    stranger = stack.agent()
    check_error(stranger.deregister(), 404, "NOT_REGISTERED", recovery=True)
    check_error(stranger.deregister(), 404, "NOT_REGISTERED", recovery=True)
    assert stack.rows("SELECT 1 FROM agent_registry WHERE spiffe_id = %s", stranger.spiffe_id) == []


def test_who_is_quarantined(stack, agent):
    assert agent.heartbeat().status_code == 200
    set_state(stack, agent, "quarantined")
    check_error(agent.deregister(), 403, "FORBIDDEN")
    assert row(stack, agent) == "quarantined" and stack.events(agent.tenant, event_type=EVENT) == []
    set_state(stack, agent, "active")
    check_deregistered(agent, agent.deregister())


def test_the_same_name_elsewhere_stays(stack):
    name = unique("agent")
    here, there = stack.agent(name, unique("tenant")), stack.agent(name, unique("tenant"))
    for each in (here, there):
        each.register()
    check_deregistered(here, here.deregister())
    assert there.heartbeat().json()["state"] == "active"


def test_the_body_may_be_anything_that_is_an_object(agent):
    url = "/v1/mesh/deregister"
    for body in ("[]", "{", '{"a":1,"a":1}'):
        check_error(agent.client.post(url, content=body), 400, "VALIDATION")
    assert agent.heartbeat().status_code == 200
    check_deregistered(agent, agent.client.post(url, json={"reason": "over", "agent_id": "another"}))
    check_deregistered(agent, agent.client.post(f"/api{url}", content="{}"))


def test_who_may_not(stack):
    check_error(stack.operator("admin").post("/v1/mesh/deregister"), 403, "FORBIDDEN")
    check_error(stack.client().post("/v1/mesh/deregister"), 403, "MTLS_REQUIRED", recovery=True)
    assert stack.operator("admin").get("/v1/mesh/deregister").headers["allow"] == "POST"


# ---- heartbeats beside it ------------------------------------------------------------------------


def test_a_heartbeat_before_it_is_on_record(stack, agent):
    beat = agent.heartbeat(status="last words").json()["last_heartbeat"]
    check_deregistered(agent, agent.deregister())
    status, heard = row(stack, agent, "heartbeat_status, caf_time(last_heartbeat)")
    assert (status, heard) == ("last words", beat)


def test_heartbeats_beside_it_bring_nobody_back(stack, agent):
    """Whatever was in flight or noted: the row stays as it was left."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        def beat(_):
            with_own = stack.client(agent.crt, agent.key)
            return [with_own.post("/v1/mesh/heartbeat").status_code for _ in range(15)]
        beats = [pool.submit(beat, i) for i in range(3)]
        time.sleep(0.1)
        check_deregistered(agent, agent.deregister())
        left = row(stack, agent, "state, last_heartbeat, heartbeat_status, metadata::text")
        assert {code for each in beats for code in each.result()} <= {200, 404}
    check_out(agent)
    written_behind(stack, agent.tenant)
    assert left[0] == "deregistered"
    assert row(stack, agent, "state, last_heartbeat, heartbeat_status, metadata::text") == left


# ---- sent again ----------------------------------------------------------------------------------


def deregister(stack, tenant, name, trace_id=None):
    """The frame of one deregistration with a new request id."""
    return frame(DEREGISTER, secrets.token_bytes(16), tenant, stack.agent_id(tenant, name), "192.0.2.1", None,
                 trace_id or secrets.token_hex(8), int(time.time() * 1000))


def test_the_same_request_after_a_restart_answers_the_same(stack):
    tenant, trace_id = unique("resend"), secrets.token_hex(8)
    one = deregister(stack, tenant, "a", trace_id)
    registered, first = answers(stack, register(stack, tenant, "a"), one)
    assert (registered[0], first[0]) == (REGISTERED, DEREGISTERED)
    assert len(first[2]) == 16
    stack.kill("registryd")
    again, other = answers(stack, one, deregister(stack, tenant, "a"))
    assert (again[0], again[2], other[0], other[2]) == (DEREGISTERED, b"", DEREGISTERED, b"")
    event, = wait_for(lambda: stack.events(tenant, event_type=EVENT))
    assert event["trace_id"] == trace_id
    assert str(event["event_id"]).replace("-", "") == first[2].hex()


def test_a_request_sent_again_late_does_not_take_back_a_registration(stack):
    tenant = unique("resend")
    one = deregister(stack, tenant, "a")
    kinds = [each[0] for each in answers(stack, register(stack, tenant, "a"), one, register(stack, tenant, "a"), one)]
    assert kinds == [REGISTERED, DEREGISTERED, REGISTERED, DEREGISTERED]
    assert stack.rows("SELECT state FROM agent_registry WHERE tenant_id = %s", tenant) == [("active",)]
    wait_for(lambda: len(stack.events(tenant)) == 3)
    assert len(stack.events(tenant, event_type=EVENT)) == 1


def test_a_registration_sent_again_late_does_not_bring_back(stack):
    tenant = unique("resend")
    one = register(stack, tenant, "a")
    answers(stack, one, deregister(stack, tenant, "a"), one)
    assert stack.rows("SELECT state FROM agent_registry WHERE tenant_id = %s", tenant) == [("deregistered",)]


@pytest.mark.parametrize("state", ["quarantined", "revoked"])
def test_a_request_sent_again_meets_the_present_state(stack, state):
    tenant = unique("resend")
    one = deregister(stack, tenant, "a")
    answers(stack, register(stack, tenant, "a"), one)
    with stack.db() as link, link.cursor() as cursor:
        cursor.execute("UPDATE agent_registry SET state = %s, changed_xid = pg_current_xact_id() WHERE tenant_id = %s",
                       (state, tenant))
    for each in answers(stack, one, deregister(stack, tenant, "a")):
        assert (each[0], each[2]) == (FAIL, "FORBIDDEN")
    assert stack.rows("SELECT state FROM agent_registry WHERE tenant_id = %s", tenant) == [(state,)]


def test_a_batch_of_many(stack):
    """Of registered ones, a stranger and one twice: each gets its own answer, and each registered one its event."""
    tenant = unique("batch")
    answers(stack, *[register(stack, tenant, f"a{i}") for i in range(20)], together=True)
    frames = [deregister(stack, tenant, f"a{i}") for i in range(20)] + [deregister(stack, tenant, "stranger"),
                                                                       deregister(stack, tenant, "a0")]
    kinds = sorted(each[0] for each in answers(stack, *frames, together=True))
    assert kinds == [FAIL] + [DEREGISTERED] * 21
    wait_for(lambda: len(stack.events(tenant, event_type=EVENT)) == 20)
    assert stack.rows("SELECT DISTINCT state FROM agent_registry WHERE tenant_id = %s", tenant) == [("deregistered",)]
