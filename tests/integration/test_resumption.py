"""Sessions are resumed by tickets, and nothing is let in by one that a full handshake would refuse (contract, Listening
and identity)."""

import os
import signal
import ssl
import time
from datetime import timedelta

import pytest
from caf_dev.authority import Issuer, new_key, now
from cryptography import x509
from harness import Stack, check_registered, unique, wait_for
from resuming import VERSIONS, Client, Session, s_client

LIFE = 6  # seconds that a ticket lives


@pytest.fixture(scope="module")
def own():
    """A stack whose tickets live for seconds."""
    stack = Stack(sets=[f"frontd.tls.ticket_key_seconds={3 * LIFE}"]).up()
    yield stack
    stack.close()


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


def new_client(stack, version, **rules):
    """A registered agent that resumes; its SPIFFE ID."""
    spiffe_id = stack.agent_id("acme", unique("agent"))
    crt, key = stack.cert(spiffe_id, **rules)
    check_registered(stack.client(crt, key).post("/v1/mesh/register", json={"hostname": "h"}), 201)
    return Client(stack, crt, key, version), spiffe_id


def handshakes(stack, spiffe_id):
    """How many were accepted, full and resumed, and the roles that they gave."""
    events = stack.events("acme", event_type="auth.mtls_success", spiffe_id=spiffe_id)
    counts = [sum(e["count"] for e in events if e["details"]["resumed"] is resumed) for resumed in (False, True)]
    return (*counts, {e["details"]["role"] for e in events})


# ---- what is resumed -----------------------------------------------------------------------------


def test_a_session_is_resumed_as_the_same_identity(stack, version):
    client, spiffe_id = new_client(stack, version)
    assert client.ask() == (200, False)
    assert [client.ask() for _ in range(5)] == [(200, True)] * 5
    wait_for(lambda: handshakes(stack, spiffe_id) == (2, 5, {"agent"}))


def test_nobody_is_resumed_as_nobody(stack, version):
    client = Client(stack, version=version)
    assert client.ask() == (403, False)
    assert [client.ask() for _ in range(3)] == [(403, True)] * 3


def test_a_long_chain_is_resumed(stack, version):
    """The intermediates are known from the ticket alone."""
    below = stack.issuer().intermediate("one").intermediate("two")
    client, _ = new_client(stack, version, issuer=below)
    assert [client.ask() for _ in range(3)] == [(200, False), (200, True), (200, True)]


def test_intermediates_too_long_for_a_ticket_mean_a_full_handshake(stack, version):
    big = stack.issuer()
    for number in range(3):
        names = [x509.DNSName(f"{'x' * 60}.{n}.example") for n in range(90)]
        key = new_key()
        chain = big.issue(key, common_name=f"big {number}", ca=True, usage=("key_cert_sign",), uses=(), names=names)
        big = Issuer(chain[0], key, chain[1:])
    client, _ = new_client(stack, version, issuer=big)
    assert [client.ask() for _ in range(3)] == [(200, False)] * 3


def test_resumption_is_an_option(make_stack):
    stack = make_stack(sets=["frontd.tls.resumption=no"])
    for version in VERSIONS:
        client, _ = new_client(stack, version)
        assert [client.ask() for _ in range(2)] == [(200, False)] * 2


# ---- what is not ---------------------------------------------------------------------------------


def refused(client):
    with pytest.raises(ssl.SSLError, match="ALERT"):
        client.ask()
    return True


def reasons(stack):
    return [e["details"]["reason"] for e in stack.events("_system", event_type="auth.mtls_failure")]


def test_an_expired_certificate_is_not_resumed(stack, version):
    end = now() + timedelta(seconds=4)
    client, _ = new_client(stack, version, ends=end)
    assert client.ask() == (200, False)
    assert client.ask() == (200, True)
    before = reasons(stack).count("certificate has expired")
    wait_for(lambda: now() > end + timedelta(seconds=1))  # notAfter is a whole second, and the last one
    assert refused(client)
    wait_for(lambda: reasons(stack).count("certificate has expired") > before)


def test_an_expired_intermediate_is_not_resumed(stack, version):
    end, key = now() + timedelta(seconds=4), new_key()
    chain = stack.issuer().issue(key, common_name="short", ca=True, usage=("key_cert_sign",), uses=(), ends=end)
    client, _ = new_client(stack, version, issuer=Issuer(chain[0], key, chain[1:]))
    assert client.ask() == (200, False)
    assert client.ask() == (200, True)
    wait_for(lambda: now() > end + timedelta(seconds=1))  # notAfter is a whole second, and the last one
    assert refused(client)


def test_a_ticket_lives_for_its_time_and_no_longer(own, version):
    client, _ = new_client(own, version)
    assert [client.ask() for _ in range(2)] == [(200, False), (200, True)]
    old = client.session
    time.sleep(LIFE + 1.1)
    client.session = old
    assert client.ask() == (200, False)


def test_tickets_survive_the_change_of_keys_by_age(own):
    client, _ = new_client(own, "1.3")
    assert client.ask() == (200, False)
    until = time.monotonic() + 2 * LIFE + 2
    while time.monotonic() < until:
        assert client.ask() == (200, True)
        time.sleep(LIFE / 4)


def test_all_tickets_end_when_a_worker_dies(own, version):
    client, _ = new_client(own, version)
    assert [client.ask() for _ in range(2)] == [(200, False), (200, True)]
    before = own.log("frontd").count("worker accepts")
    os.kill(own.workers()[0], signal.SIGKILL)
    wait_for(lambda: own.log("frontd").count("worker accepts") > before)
    assert client.ask() == (200, False)
    assert [client.ask() for _ in range(6)] == [(200, True)] * 6


# ---- tickets that somebody made, changed or stole ------------------------------------------------


@pytest.fixture
def kept(stack, version, tmp_path):
    """A registered agent, its session, as openssl s_client keeps it, and what makes s_client bring it."""
    agent, path = stack.agent(), tmp_path / "session"
    agent.register()
    flag = f"-tls{version.replace('.', '_')}"
    s_client(stack, flag, "-sess_out", path, crt=agent.crt, key=agent.key)
    return agent, Session(path.read_text()), lambda changed: (flag, "-sess_in", changed.write(path))


def flip(at):
    return lambda ticket: ticket[:at] + bytes([ticket[at] ^ 1]) + ticket[at + 1:] if at >= 0 else \
        ticket[:at] + bytes([ticket[at] ^ 1]) + (ticket[at + 1:] if at < -1 else b"")


CHANGED = {
    "another key's name": flip(0), "another initialisation vector": flip(16), "another first block": flip(32),
    "another block": flip(700), "another last block": flip(-33), "another MAC": flip(-1),
    "cut before its MAC": lambda t: t[:-32], "cut by a byte": lambda t: t[:-1], "half": lambda t: t[:len(t) // 2],
    "its name and nothing else": lambda t: t[:16], "a byte": lambda t: t[:1], "longer": lambda t: t + b"\0" * 16,
    "random": lambda t: os.urandom(len(t)), "random under a good name": lambda t: t[:16] + os.urandom(len(t) - 16),
    "as long as can be": lambda t: t[:16] + os.urandom(60000),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_a_changed_ticket_is_no_ticket(stack, kept, kind):
    agent, session, bring = kept
    session.ticket = CHANGED[kind](session.ticket)
    output = s_client(stack, *bring(session))
    assert "New, " in output and "MTLS_REQUIRED" in output, output
    output = s_client(stack, *bring(session), crt=agent.crt, key=agent.key)
    assert "New, " in output and "HTTP/1.1 200" in output, output


def test_an_unchanged_ticket_is_one(stack, kept):
    """The control of the test above: with the ticket alone the agent is who it was."""
    _, session, bring = kept
    output = s_client(stack, *bring(session))
    assert "Reused, " in output and "HTTP/1.1 200" in output, output


def test_another_stacks_ticket_is_none(stack, own, kept):
    _, session, bring = kept
    output = s_client(own, *bring(session))
    assert "New, " in output and "MTLS_REQUIRED" in output, output


def test_a_stolen_ticket_is_worth_nothing_without_its_secret(stack, kept):
    _, session, bring = kept
    session.flip_master_key()
    output = s_client(stack, *bring(session))
    assert "HTTP/1.1 " not in output and ("alert" in output or "bad record mac" in output), output


def test_a_ticket_that_cannot_be_used_says_nothing_about_its_bearer(stack, tmp_path):
    """A ticket of a session with SHA-384 and a client that offers SHA-256 alone: the ticket is good, OpenSSL does not
    use it, and so nothing proves that it is the client's."""
    agent, path = stack.agent(), tmp_path / "session"
    agent.register()
    s_client(stack, "-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384", "-sess_out", path, crt=agent.crt,
             key=agent.key)
    output = s_client(stack, "-sess_in", path, "-ciphersuites", "TLS_AES_128_GCM_SHA256")
    assert "New, " in output and "MTLS_REQUIRED" in output, output


def test_early_data_is_not_taken(stack, tmp_path):
    agent, path, early = stack.agent(), tmp_path / "session", tmp_path / "early"
    s_client(stack, "-tls1_3", "-sess_out", path, crt=agent.crt, key=agent.key)
    session = Session(path.read_text())
    session.allow_early_data()
    body = b'{"hostname": "h"}'
    early.write_bytes(b"POST /v1/mesh/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
                      + body)
    output = s_client(stack, "-sess_in", session.write(path), "-early_data", early)
    assert "Early data was rejected" in output and output.count("HTTP/1.1") == 1, output
    assert "NOT_REGISTERED" in output
