"""A request that is sent again under its own id: frontd does so when a back daemon's answer never came. Here the frames
are sent by hand, so that the moment is known."""

import collections
import secrets
import time

from harness import unique, wait_for
from test_frames import HELLO, exchange, frame, unframe
from test_metrics import scrape

REGISTER, REGISTERED = 30, 31


def register(stack, tenant, name, hostname="h", fingerprint=None, trace=None, source_ip="192.0.2.1", claimed=None):
    """The frame of one registration; its request id and trace_id are new unless given."""
    return frame(REGISTER, secrets.token_bytes(16), tenant, stack.agent_id(tenant, name), name, source_ip, claimed,
                 trace or secrets.token_hex(8), int(time.time() * 1000), hostname, fingerprint, None, None, None, None)


def answers(stack, *frames, together=False):
    """Sends each frame on a channel of its own, one after the other, or all at once on one, and returns each one's one
    answer."""
    cases = [b"".join([HELLO, *frames])] if together else [HELLO + each for each in frames]
    replies = []
    for how, data in exchange(stack, stack.folder.socket("registryd"), cases, 1 + len(frames) // len(cases)):
        assert how == "enough", how
        hello, *found = unframe(data)
        assert hello[0] == 1
        replies += found
    return replies


def events(stack, tenant):
    return collections.Counter((e["event_type"], e["trace_id"]) for e in stack.events(tenant))


def test_the_same_request_writes_once_and_answers_the_same(stack):
    tenant, traces = unique("resend"), [secrets.token_hex(8) for _ in range(2)]
    one = register(stack, tenant, "a", hostname="one", fingerprint="x", trace=traces[0])
    two = register(stack, tenant, "a", hostname="two", fingerprint="y", trace=traces[1])
    first, second, again_first, again_second = answers(stack, one, two, one, two)
    assert [m[0] for m in (first, second)] == [REGISTERED] * 2
    assert (first[2:4], second[2:4]) == ([True, False], [False, True])
    assert again_second[2:4] == second[2:4] and again_second[4] == second[4]
    assert again_first[2:4] == first[2:4]
    wait_for(lambda: sum(events(stack, tenant).values()) >= 4)
    time.sleep(2)
    assert events(stack, tenant) == {
        ("identity.enrollment_success", traces[0]): 1, ("identity.enrollment_success", traces[1]): 1,
        ("identity.fingerprint_drift", traces[1]): 1, ("identity.hostname_changed", traces[1]): 1}


def test_the_same_request_after_a_restart(stack):
    tenant, trace = unique("resend"), secrets.token_hex(8)
    one = register(stack, tenant, "a", trace=trace)
    first, = answers(stack, one)
    stack.kill("registryd")
    again, = answers(stack, one)
    assert (first[0], again[0]) == (REGISTERED, REGISTERED)
    assert first[2:5] == again[2:5]
    wait_for(lambda: events(stack, tenant))
    time.sleep(2)
    assert events(stack, tenant) == {("identity.enrollment_success", trace): 1}


def registrations(stack):
    return [scrape(stack).value("registry_registrations_total", outcome=outcome) for outcome in ("created", "existing")] + [
        scrape(stack).value("registry_fingerprint_drifts_total")]


def test_the_same_request_is_counted_once(stack):
    tenant = unique("resend")
    one, two = (register(stack, tenant, "a", fingerprint=fingerprint) for fingerprint in "xy")
    before = registrations(stack)
    assert {answer[0] for answer in answers(stack, one, two, one, two)} == {REGISTERED}
    assert [after - value for after, value in zip(registrations(stack), before)] == [1, 1, 1]
    stack.kill("registryd")
    assert {answer[0] for answer in answers(stack, one, two)} == {REGISTERED}
    assert registrations(stack) == [0, 0, 0]  # of this life: the one before wrote them, and counted them


def test_a_repeated_split_brain_and_shared_hostname_are_told_once(stack):
    tenant, trace = unique("resend"), secrets.token_hex(8)
    back = register(stack, tenant, "a", fingerprint="x", trace=trace)
    first = answers(stack, register(stack, tenant, "b"), register(stack, tenant, "a", fingerprint="x"),
                    register(stack, tenant, "a", fingerprint="y"), back)[-1]
    stack.kill("registryd")
    again, = answers(stack, back)
    assert first[2:5] == again[2:5] and first[2:4] == [False, True]
    wait_for(lambda: len(events(stack, tenant)) >= 10)
    time.sleep(2)
    assert {event: count for (event, of), count in events(stack, tenant).items() if of == trace} == {
        "identity.enrollment_success": 1, "identity.fingerprint_drift": 1, "identity.split_brain": 1,
        "identity.hostname_shared": 1}
