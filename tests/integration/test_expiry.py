"""A connection outlives the client's certificate, and the client's identity does not: from the first second after the
chain's first end, whoever asks on it is nobody (contract, Listening and identity)."""

import contextlib
from datetime import timedelta

import pytest
from caf_dev.authority import now
from harness import check_error, request, unique, wait_for
from resuming import VERSIONS, Client

SELF, LIVEZ, EVENTS = (request("GET", path) for path in ("/v1/mesh/self", "/livez", "/v1/security/events"))
REGISTER = request("POST", "/v1/mesh/register", b'{"hostname": "h"}', Content_Type="application/json")
LIFE = timedelta(seconds=4)


def soon():
    """The end of a short life, on a whole second as certificates have it."""
    return (now() + LIFE).replace(microsecond=0)


def over(end):
    """Waits until the second of that end is over."""
    wait_for(lambda: now() >= end + timedelta(seconds=1))


def agent_pair(stack, issuer=None, **rules):
    return stack.cert(stack.agent_id("acme", unique("agent")), issuer=issuer, **rules)


def by_short_lived_ca(stack, end=None):
    """A certificate of a year below a CA that ends then; without an end, of ten years."""
    short = stack.issuer().intermediate("short", **({"ends": end} if end else {}))
    return agent_pair(stack, short.intermediate("long"))


def check_last_second(connection, end):
    """Nobody is refused before the second of that end is over."""
    while True:
        answer = connection.ask(SELF)
        if now() >= end + timedelta(seconds=1):
            return
        assert answer.status_code == 404, answer.text


def count(stack):
    return stack.log("frontd").count("the client's certificate expired while it was connected")


def check_nobody(connection, question, status, code):
    """The question is refused with that, and the connection ends with the answer."""
    answer = connection.ask(question)
    assert "has expired" in check_error(answer, status, code, recovery=True)
    assert answer.headers["connection"] == "close"
    assert connection.ends()


def test_who_was_let_in_is_nobody_when_the_certificate_ends(stack):
    end, before = soon(), count(stack)
    operator = stack.cert(stack.operator_id("acme", "auditor"), ends=end)
    with contextlib.ExitStack() as held:
        watched, agent, other, pipelined, public, by_ca, reader = (
            held.enter_context(stack.connection(*pair)) for pair in (
                *(agent_pair(stack, ends=end) for _ in range(5)), by_short_lived_ca(stack, end), operator))
        lasting = held.enter_context(stack.connection(*by_short_lived_ca(stack)))
        assert [c.ask(SELF).status_code for c in (agent, other, pipelined, by_ca, public, lasting)] == [404] * 6
        assert reader.ask(EVENTS).status_code == 200
        assert now() < end, "this machine was too slow"
        check_last_second(watched, end)
        check_nobody(agent, SELF, 403, "MTLS_REQUIRED")
        check_nobody(other, REGISTER, 403, "MTLS_REQUIRED")
        check_nobody(pipelined, SELF + SELF, 403, "MTLS_REQUIRED")
        check_nobody(by_ca, SELF, 403, "MTLS_REQUIRED")
        check_nobody(reader, EVENTS, 401, "UNAUTHORIZED")
        assert public.ask(LIVEZ).status_code == 200  # anyone may
        assert public.ends()
        assert lasting.ask(SELF).status_code == 404
    assert count(stack) > before


@pytest.mark.parametrize("version", VERSIONS)
def test_so_is_a_session_that_was_resumed(stack, version):
    end = soon()
    client = Client(stack, *by_short_lived_ca(stack, end), version)
    assert [client.ask() for _ in range(2)] == [(404, False), (404, True)]
    with stack.raw_socket(client.context, client.session) as connection:
        connection.sendall(SELF)
        assert b" 404 " in connection.recv(65536)
        assert connection.session_reused and now() < end
        over(end)
        connection.sendall(SELF)
        assert b" 403 " in connection.recv(65536)
        assert connection.recv(65536) == b""


def test_a_clock_skew_counts_as_it_does_in_a_handshake(make_stack):
    stack = make_stack("--workers", "1", sets=("frontd.identity.clock_skew_seconds=3",))
    end = soon() - timedelta(seconds=2)
    with stack.connection(*agent_pair(stack, ends=end)) as connection:
        over(end)
        assert connection.ask(SELF).status_code == 404
        over(end + timedelta(seconds=3))
        check_nobody(connection, SELF, 403, "MTLS_REQUIRED")
