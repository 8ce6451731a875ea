"""A request that is sent again under its own id: frontd does so when a back daemon's answer never came. Here the frames
are sent by hand, so that the moment is known."""

import collections
import secrets
import time

from harness import unique, wait_for
from test_frames import HELLO, exchange, frame, unframe

REGISTER, REGISTERED = 30, 31


def register(stack, tenant, name, request_id=None, hostname="h", fingerprint=None, trace=None):
    """The frame of one registration; its request id and trace_id are new unless given."""
    return frame(REGISTER, request_id or secrets.token_bytes(16), tenant, stack.agent_id(tenant, name), name,
                 "192.0.2.1", trace or secrets.token_hex(8), int(time.time() * 1000), hostname, fingerprint,
                 None, None, None, None)


def answers(stack, *frames):
    """Sends each frame on a channel of its own, one after the other, and returns each one's one answer."""
    replies = []
    for how, data in exchange(stack, stack.folder.socket("registryd"), [HELLO + each for each in frames], enough=2):
        assert how == "enough", how
        hello, answer = unframe(data)
        assert hello[0] == 1
        replies.append(answer)
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
