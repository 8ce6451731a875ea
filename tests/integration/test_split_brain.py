"""One identity, two fingerprints by turns: identity.split_brain (contract, Security events)."""

import secrets
import time

import pytest
from harness import FAST, TIME, unique, wait_for
from test_resend import answers, register

SPLIT_BRAIN = "identity.split_brain"


def told(stack, *fingerprints, pauses=()):
    """Registers one agent with each of these fingerprints, each from an address of its own, and waits in between where
    pauses says so; which of the registrations (1…) were told as split brain."""
    tenant, traces = unique("split"), []
    for at, fingerprint in enumerate(fingerprints, 1):
        traces.append(secrets.token_hex(8))
        answers(stack, register(stack, tenant, "a", fingerprint=fingerprint, trace=traces[-1], source_ip=f"192.0.2.{at}"))
        if at in pauses:
            time.sleep(2.5)
    wait_for(lambda: {e["trace_id"] for e in stack.events(tenant)} == set(traces))
    return [traces.index(e["trace_id"]) + 1 for e in stack.events(tenant, event_type=SPLIT_BRAIN)]


@pytest.mark.parametrize("fingerprints, expected", [
    ("A", []), ("AA", []), ("AB", []), ("ABB", []), ("ABC", []), ("ABCA", []),
    ("ABA", [3]), ("ABAB", [3, 4]), ("ABABA", [3, 4, 5]), ("AABBAA", [5]), ("ABCB", [4]),
    ("A-B-A", [5]), ("-A-B", []), ("-ABA", [4]), ("A-A", []), ("ABA-A", [3]), ("ABA-B", [3, 5]),
], ids=lambda value: value if isinstance(value, str) else "")
def test_each_return_is_told(stack, fingerprints, expected):
    assert told(stack, *(None if each == "-" else each for each in fingerprints)) == expected


def test_details_say_which_came_from_where_and_when(stack):
    tenant, trace = unique("split"), secrets.token_hex(8)
    answers(stack, register(stack, tenant, "a", fingerprint="A", source_ip="192.0.2.1"),
            register(stack, tenant, "a", fingerprint="B", source_ip="2001:db8::2"),
            register(stack, tenant, "a", source_ip="192.0.2.99"),
            register(stack, tenant, "a", fingerprint="A", source_ip="192.0.2.3", trace=trace, claimed="10.0.0.1"))
    event, = wait_for(lambda: stack.events(tenant, event_type=SPLIT_BRAIN))
    details = event["details"]
    seen = [details.pop(name) for name in ("previous_reported_at", "reported_at")]
    assert all(TIME.fullmatch(each) for each in seen) and seen == sorted(seen)
    assert details == {
        "agent_id": "a", "machine_id_fingerprint": "A", "source_ip": "192.0.2.3", "previous_fingerprint": "B",
        "previous_source_ip": "2001:db8::2", "source_ip_claimed": "10.0.0.1"}
    assert (event["severity"], event["spiffe_id"], event["trace_id"]) == ("error", stack.agent_id(tenant, "a"), trace)
    assert event["source_ip"] == "192.0.2.3"


def test_the_window_is_an_option(make_stack):
    """It goes back from the return to when the agent was last heard from under that fingerprint: a heartbeat counts."""
    own = make_stack(sets=("registryd.mesh.split_brain_seconds=2", *FAST))
    assert told(own, "A", "B", "A") == [3]
    assert told(own, "A", "B", "A", pauses=[1]) == []
    assert told(own, "A", "B", "A", pauses=[2]) == []
    agent = own.agent()
    agent.register(machine_id_fingerprint="A")
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert agent.heartbeat().status_code == 200
        time.sleep(0.1)
    agent.register(machine_id_fingerprint="B")
    trace = agent.register(machine_id_fingerprint="A").json()["trace_id"]
    wait_for(lambda: own.events("acme", trace_id=trace, event_type=SPLIT_BRAIN))


def test_what_a_client_claims_is_in_every_event(stack):
    tenant = unique("claims")
    claim = "10.0.0.1, \"evil\" \\ é"
    for fingerprint, hostname in (("A", "one"), ("B", "two"), ("A", "two")):
        answers(stack, register(stack, tenant, "a", hostname=hostname, fingerprint=fingerprint, claimed=claim))
    answers(stack, register(stack, tenant, "b", hostname="two", claimed=claim))
    found = wait_for(lambda: len(each := stack.events(tenant)) >= 9 and each)
    assert {e["event_type"].removeprefix("identity.") for e in found} == {
        "enrollment_success", "fingerprint_drift", "hostname_changed", "split_brain", "hostname_shared"}
    assert {e["details"]["source_ip_claimed"] for e in found} == {claim}
