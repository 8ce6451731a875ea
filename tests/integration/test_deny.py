"""Revoked identities: refused in the handshake, cut where they are connected, on every node and whatever is restarted."""

import contextlib
import os
import signal
import ssl
import threading
import time

import httpx
import pytest
from harness import FAST, TlsConnection, request, wait_for
from nodes import Visitor, frozen, metric, publish, seconds_until, set_state, transaction, wait_for_reads
from test_frames import frame
from test_resend import answers

HINTED, READ = 0.5, 1.5  # seconds; the first is generous: a handshake is in it
REASON = "the identity is revoked"


def gets_in(node, agent):
    """Whether a new handshake with this certificate is accepted. With TLS 1.3 a client learns it from its first read."""
    try:
        with TlsConnection(node.port, node.context(agent.crt, agent.key)) as connection:
            return connection.is_open()
    except (ssl.SSLError, ConnectionError):
        return False


def hello(stack, agent):
    """A connection of the agent's that has been answered once."""
    connection = stack.connection(agent.crt, agent.key)
    assert connection.ask(request("GET", "/livez")).status_code == 200
    return connection


def is_cut(connection):
    """Waits for its end, with no word."""
    connection.socket.settimeout(READ)
    try:
        return connection.read() == b""
    except (ConnectionError, ssl.SSLError):
        return True


@pytest.fixture
def agent(stack):
    made = stack.agent()
    assert made.register().status_code == 201
    return made


# ---- one node -------------------------------------------------------------------------------------


def test_a_revoked_identity_is_refused_in_the_handshake(stack, agent):
    assert gets_in(stack, agent)
    set_state(stack, agent, "revoked")
    assert seconds_until(lambda: not gets_in(stack, agent)) < READ + HINTED
    assert not gets_in(stack, agent)  # the first may have been cut and not refused
    note = wait_for(lambda: stack.events(agent.tenant, event_type="auth.mtls_failure", spiffe_id=agent.spiffe_id))[0]
    assert note["details"]["reason"] == REASON and note["severity"] == "warn"
    assert note["hostname"] is None and note["source_ip"] == "127.0.0.1"


def test_others_are_not(stack, agent):
    """Neither who has a longer name, nor the same name in another tenant, nor a row of another tenant's."""
    longer, elsewhere = stack.agent(agent.name + "x"), stack.agent(agent.name, tenant="beta")
    victim = stack.agent()
    for one in (longer, elsewhere, victim):
        one.register()
    with transaction(stack) as cursor:
        cursor.execute("INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, state) "
                       "VALUES ('beta', %s, %s, 'h', 'revoked')", (victim.spiffe_id, victim.name))
    set_state(stack, agent, "revoked", told=True)
    wait_for(lambda: not gets_in(stack, agent))
    for one in (longer, elsewhere, victim):
        assert gets_in(stack, one) and one.heartbeat().status_code == 200


STATES = {
    "idle": b"",
    "in a head": b"GET /livez HTTP/1.1\r\nHost: lo",
    "in a body": b"POST /v1/mesh/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Content-Length: 100\r\n\r\n{",
}


@pytest.mark.parametrize("name", STATES)
def test_a_live_connection_is_cut(stack, agent, name):
    with hello(stack, agent) as connection, hello(stack, agent) as idle:
        connection.send(STATES[name])
        set_state(stack, agent, "revoked", told=True)
        assert is_cut(connection) and is_cut(idle)


def test_a_request_in_flight_is_cut(stack, agent):
    with hello(stack, agent) as connection, frozen(stack.pid("auditd")):
        connection.send(request("GET", "/health"))  # waits two seconds for auditd
        set_state(stack, agent, "revoked", told=True)
        began = time.monotonic()
        assert is_cut(connection)
        assert time.monotonic() < began + 1


def test_an_answer_that_nobody_reads_is_cut(stack, agent):
    with hello(stack, agent) as connection:
        connection.send(request("GET", "/livez") * 3)
        set_state(stack, agent, "revoked", told=True)
        wait_for(lambda: not gets_in(stack, agent))
        connection.unread = b""
        connection.socket.settimeout(READ)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while connection.read():
                pass
        assert not connection.is_open()


def test_a_handshake_under_way_is_refused(stack, agent):
    """The client's certificate comes after the revocation."""
    context = stack.context(agent.crt, agent.key)
    with TlsConnection(stack.port, context, handshake=False) as connection:
        with contextlib.suppress(ssl.SSLWantReadError):
            connection.tls.do_handshake()
        connection.flush()
        connection.incoming.write(connection.socket.recv(65536))
        set_state(stack, agent, "revoked", told=True)
        wait_for(lambda: not gets_in(stack, agent))
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            connection.run(connection.tls.do_handshake)
            assert connection.is_open()


def test_a_handshake_revoked_before_its_last_byte_is_refused_and_told(make_stack):
    """The certificate was shown, and accepted, before the revocation; the proof that it is the client's comes after."""
    stack = make_stack("--workers", "1")
    agent, other = stack.agent(), stack.agent()
    assert agent.register().status_code == other.register().status_code == 201
    wait_for(lambda: len(stack.events(agent.tenant, event_type="auth.mtls_success")) == 2)
    agent.client.close()
    with TlsConnection(stack.port, stack.context(agent.crt, agent.key), handshake=False) as connection:
        finished = all_but_the_last_byte(connection)
        set_state(stack, agent, "revoked")
        set_state(stack, other, "revoked", told=True)
        wait_for(lambda: not gets_in(stack, other))
        with contextlib.suppress(ConnectionError):
            connection.socket.sendall(finished)
        assert is_cut(connection)
    note = wait_for(lambda: stack.events(agent.tenant, event_type="auth.mtls_failure", spiffe_id=agent.spiffe_id))[0]
    assert (note["details"]["reason"], note["count"]) == (REASON, 1)


def all_but_the_last_byte(connection):
    """Shakes hands but for the last byte, which is returned."""
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            connection.tls.do_handshake()
            flight = connection.outgoing.read()
            connection.socket.sendall(flight[:-1])
            return flight[-1:]
        connection.flush()
        connection.incoming.write(connection.socket.recv(65536))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_does_not_help(stack, agent, version):
    context = stack.context(agent.crt, agent.key, maximum_version=version)

    def ask(session=None):
        with stack.raw_socket(context, session) as connection:
            connection.sendall(request("GET", "/livez"))
            return connection.recv(65536), connection.session, connection.session_reused

    _, session, _ = ask()
    answer, _, resumed = ask(session)
    assert answer and resumed
    set_state(stack, agent, "revoked", told=True)
    wait_for(lambda: not gets_in(stack, agent))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert not ask(session)[0]
        raise ConnectionError


# ---- two nodes ------------------------------------------------------------------------------------


def test_the_other_node_cuts_and_refuses_too(stack, second, agent):
    visitor = Visitor(second, agent)
    assert visitor.heartbeat().status_code == 200
    with hello(second, agent) as there, hello(stack, agent) as here:
        set_state(stack, agent, "revoked", told=True)
        began = time.monotonic()
        assert is_cut(there) and is_cut(here)
        assert time.monotonic() < began + HINTED
    assert not gets_in(second, agent) and not gets_in(stack, agent)


def test_without_a_hint_it_takes_one_read(stack, second, agent):
    with hello(second, agent) as there:
        set_state(stack, agent, "revoked")
        assert seconds_until(lambda: is_cut(there)) < READ


# ---- restarts: nobody gets in meanwhile -------------------------------------------------------------


@contextlib.contextmanager
def trying(stack, agent):
    """Tries without end; nothing may get in."""
    stop, got_in, tries = threading.Event(), [], [0]

    def run():
        while not stop.is_set():
            tries[0] += 1
            if gets_in(stack, agent):
                got_in.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert tries[0] > 0 and not got_in


@pytest.fixture
def revoked(stack, agent):
    set_state(stack, agent, "revoked", told=True)
    wait_for(lambda: not gets_in(stack, agent))
    return agent


def test_a_worker_that_starts_later(stack, revoked):
    with trying(stack, revoked):
        before = set(stack.workers())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(set(stack.workers()) - before) == len(before))
        assert wait_for(lambda: stack.agent().register().status_code == 201)


def test_registryd_restarted(stack, revoked):
    for command in (stack.restart, stack.kill):
        with trying(stack, revoked):
            command("registryd")
            wait_for(lambda: stack.agent().register().status_code == 201)
            wait_for_reads(stack)


def test_a_worker_without_a_list_accepts_nobody(stack, revoked):
    other = stack.agent()
    other.register()
    with stack.without("registryd"):
        before = set(stack.workers())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(set(stack.workers()) - before) == len(before))
        with pytest.raises(httpx.TimeoutException):
            httpx.get(stack.env["CAF_URL"] + "/livez", verify=stack.context(), timeout=1, trust_env=False)
    wait_for(lambda: stack.client().get("/livez").status_code == 200)
    assert gets_in(stack, other) and not gets_in(stack, revoked)


def test_a_worker_keeps_its_list_while_registryd_is_away(stack, revoked):
    with stack.without("registryd"):
        assert not gets_in(stack, revoked)
        assert stack.client().get("/livez").status_code == 200


# ---- the list as a whole ----------------------------------------------------------------------------


def add_revoked(stack, count):
    """Rows of the tenant `many` that were never anything else."""
    with transaction(stack) as cursor:
        cursor.execute("""INSERT INTO agent_registry (tenant_id, spiffe_id, agent_id, hostname, state)
                          SELECT 'many', 'spiffe://' || %s || '/agent/many/many-' || i, 'many-' || i, 'h', 'revoked'
                          FROM generate_series(0, %s) AS i""", (stack.trust_domain, count - 1))
    publish(stack)


def test_an_identity_leaves_the_list_by_a_whole_load_alone(make_stack):
    """And a load that is older than an addition does not undo it."""
    stack = make_stack(sets=(*FAST, "registryd.feed.reload_seconds=1", "registryd.feed.rows_per_read=1"))
    add_revoked(stack, 300)  # so that a load is under way most of the time, and has passed the tenant of the others
    back, gone = stack.agent(), [stack.agent()]
    for one in (back, *gone):
        one.register()
        set_state(stack, one, "revoked", told=True)
    wait_for(lambda: metric(stack, "denied_identities") == 302)
    with trying(stack, gone[0]):
        with transaction(stack) as cursor:
            cursor.execute("UPDATE agent_registry SET state = 'active' WHERE spiffe_id = %s", (back.spiffe_id,))
        wait_for(lambda: gets_in(stack, back))
        for _ in range(10):
            one = stack.agent()
            one.register()
            set_state(stack, one, "revoked", told=True)
            wait_for(lambda: not gets_in(stack, one))
            gone.append(one)
    assert metric(stack, "denied_identities") == 311
    assert not any(gets_in(stack, one) for one in gone)
    assert stack.log("registryd").count("identities left the deny list") == 1


def test_a_list_beyond_its_bound_refuses_by_request(make_stack):
    stack = make_stack(sets=(*FAST, "registryd.deny.identities_max=2"))
    agents = [stack.agent() for _ in range(3)]
    for one in agents:
        one.register()
        set_state(stack, one, "revoked", told=True)
    wait_for(lambda: "the deny list is full" in stack.log("registryd"))
    assert stack.client().get("/health").json()["status"] == "degraded"
    wait_for(lambda: not gets_in(stack, agents[0]) and not gets_in(stack, agents[1]))
    answer = agents[2].heartbeat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert agents[2].register().status_code == 403


@pytest.mark.parametrize("many", [20_000, pytest.param(200_000, marks=pytest.mark.long)])
def test_many_revoked_identities(make_stack, many):
    """They come by the feed, by a whole load, and to workers that start; heartbeats go on meanwhile."""
    stack = make_stack()
    agent, last = stack.agent(), stack.agent(f"many-{many - 1}", tenant="many")
    agent.register()
    add_revoked(stack, many)
    slowest, beats = 0, 0
    while beats == 0 or metric(stack, "denied_identities") < many:
        began = time.monotonic()
        assert agent.heartbeat().status_code == 200
        slowest, beats = max(slowest, time.monotonic() - began), beats + 1
    assert slowest < 1
    wait_for(lambda: not gets_in(stack, last))
    stack.restart("registryd")
    with trying(stack, last):
        wait_for(lambda: metric(stack, "denied_identities") == many)
        before = set(stack.workers())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(set(stack.workers()) - before) == len(before))
        wait_for(lambda: gets_in(stack, agent))


def test_a_worker_that_left_costs_nothing(stack):
    """Also when nothing was revoked since: its channel is given back when the next one comes."""
    answers(stack, *(frame(36, os.urandom(16)) for _ in range(50)))
    assert metric(stack, "deny_subscribers") <= 20  # the stack's own, and those that came in one turn of the loop
