"""At every limit the newest are refused, with an error that says so; who is in stays in, and operators find room."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading

import pytest
from connection import request
from harness import BUILD, REPOSITORY, check_error, wait_for

PLAIN = BUILD.parent if BUILD.name == "san" else BUILD  # memory is measured without the sanitizers
ALERT = bytes([21, 3, 3, 0, 2, 2, 80])  # fatal, internal_error, in the clear (RFC 8446 6.2)
LIVEZ = request("GET", "/livez")


def half_open(stack, source="127.0.0.1"):
    """A connection that has said nothing."""
    return socket.create_connection(("127.0.0.1", stack.port), timeout=15, source_address=(source, 0))


def is_refused(stack, source="127.0.0.1"):
    """Whether a new connection from there is turned away: by an alert that arrives, and an orderly end."""
    try:
        with stack.connection(source=source) as connection:
            return connection.ask(LIVEZ).status_code != 200
    except ssl.SSLError as error:
        assert "ALERT_INTERNAL_ERROR" in str(error)
        return True


def refusals(stack, reason):
    return stack.log("frontd").count(f'reason="{reason}"')


def descriptors(stack):
    """How many each worker has."""
    return {worker: len(os.listdir(f"/proc/{worker}/fd")) for worker in stack.workers()}


@contextlib.contextmanager
def descriptors_return(stack):
    """The workers have as many descriptors at the end as at the beginning, and are the same processes."""
    before = descriptors(stack)
    yield
    wait_for(lambda: descriptors(stack) == before, what=f"the descriptors {before}")


@contextlib.contextmanager
def stopped(stack):
    """The one worker stands still, until the end or a SIGCONT."""
    worker, = stack.workers()
    os.kill(worker, signal.SIGSTOP)
    yield
    os.kill(worker, signal.SIGCONT)


# ---- connections and handshakes ------------------------------------------------------------------


def test_connections_in_all(make_stack):
    stack = make_stack("--workers", "1", sets=("frontd.limits.connections=4", "frontd.limits.operators_percent=0"))
    with descriptors_return(stack):
        held = [stack.connection() for _ in range(4)]
        for _ in range(5):
            with half_open(stack) as fifth:
                assert fifth.recv(100) == ALERT
                assert fifth.recv(100) == b""
        with stopped(stack), half_open(stack) as eager:  # what was on its way before the refusal resets nothing
            eager.sendall(b"\x16\x03\x01" + bytes(1000))
            os.kill(stack.workers()[0], signal.SIGCONT)
            assert eager.recv(100) == ALERT
            assert eager.recv(100) == b""
        assert is_refused(stack)
        assert all(connection.ask(LIVEZ).status_code == 200 for connection in held)
        held.pop().socket.close()
        wait_for(lambda: not is_refused(stack))
        for connection in held:
            connection.socket.close()
    assert 2 <= refusals(stack, "limits.connections reached") <= 5  # the first, and whenever it has doubled


def test_connections_of_one_address(make_stack):
    stack = make_stack("--workers", "1", sets=("frontd.limits.connections_per_address=3",))
    with descriptors_return(stack):
        held = [stack.connection(source="127.0.0.2") for _ in range(3)]
        assert is_refused(stack, "127.0.0.2")
        assert not is_refused(stack, "127.0.0.3")
        assert all(connection.ask(LIVEZ).status_code == 200 for connection in held)
        held.pop().socket.close()
        wait_for(lambda: not is_refused(stack, "127.0.0.2"))
        for connection in held:
            connection.socket.close()
    assert refusals(stack, "limits.connections_per_address reached")


def test_what_lingers_by_address(make_stack):
    stack = make_stack("--workers", "1", sets=("frontd.limits.connections_per_address=1",
                                               "frontd.limits.lingering_per_address=2"))
    worker, = stack.workers()
    with descriptors_return(stack), contextlib.ExitStack() as held:
        before = descriptors(stack)[worker]
        held.enter_context(stack.connection(source="127.0.0.2"))
        for _ in range(6):
            assert held.enter_context(half_open(stack, "127.0.0.2")).recv(100) == ALERT
        after = held.enter_context(stack.connection(source="127.0.0.3"))
        assert after.ask(LIVEZ).status_code == 200
        assert descriptors(stack)[worker] <= before + 4  # two connections, and two that linger


def test_handshakes_in_all_and_of_one_address(make_stack):
    stack = make_stack("--workers", "1", sets=("frontd.limits.handshakes=5", "frontd.limits.handshakes_per_address=3"))
    with descriptors_return(stack):
        through = stack.connection(source="127.0.0.2")
        assert through.ask(LIVEZ).status_code == 200
        held = [half_open(stack, "127.0.0.2") for _ in range(3)]
        assert is_refused(stack, "127.0.0.2")
        assert not is_refused(stack, "127.0.0.3")
        held += [half_open(stack, "127.0.0.4") for _ in range(2)]
        assert is_refused(stack, "127.0.0.3")
        assert through.ask(LIVEZ).status_code == 200
        for connection in held:
            connection.close()
        wait_for(lambda: not is_refused(stack, "127.0.0.3"))
        through.socket.close()
    assert refusals(stack, "limits.handshakes reached") and refusals(stack, "limits.handshakes_per_address reached")


# ---- the operators' share ------------------------------------------------------------------------


def test_the_last_connections_are_the_operators(make_stack):
    stack = make_stack("--workers", "1", sets=("frontd.limits.connections=6", "frontd.limits.operators_percent=50"))
    agent, operator = stack.agent(), stack.cert(stack.operator_id("acme", "auditor"))
    with descriptors_return(stack):
        held = [stack.connection(agent.crt, agent.key) for _ in range(3)]
        for _ in range(4):
            with stack.connection(agent.crt, agent.key) as late:
                answer = late.ask(request("POST", "/v1/mesh/heartbeat", b"{}"))
                check_error(answer, 503, "UNAVAILABLE", names="operators")
                assert int(answer.headers["retry-after"]) > 0
                assert late.ends()
        with stack.connection() as silent:  # one that asks nothing holds its place for a moment only
            assert silent.ends()
        operators = [stack.connection(*operator) for _ in range(3)]
        for connection in operators:
            assert connection.ask(request("GET", "/v1/security/events")).status_code == 200
        with half_open(stack) as beyond:
            assert beyond.recv(100) == ALERT
        assert all(connection.ask(LIVEZ).status_code == 200 for connection in held)
        for connection in held + operators:
            connection.socket.close()
    assert refusals(stack, "only the operators' share of limits.connections is left")


def test_a_place_that_is_free_meanwhile(make_stack):
    """What counts is how many there are when the handshake is done, not when the connection came."""
    stack = make_stack("--workers", "1", sets=("frontd.limits.connections=2", "frontd.limits.operators_percent=50"))
    client = stack.client()
    assert client.get("/livez").status_code == 200
    with stack.connection(handshake=False) as late:
        before = descriptors(stack)
        client.close()
        wait_for(lambda: descriptors(stack) != before, what="a free place")
        late.run(late.tls.do_handshake)
        assert late.ask(LIVEZ).status_code == 200


def test_the_last_requests_in_flight_are_the_operators(make_stack):
    stack = make_stack("--workers", "1", sets=("frontd.limits.in_flight=20", "frontd.limits.operators_percent=50"))
    agents, operator, answers = [stack.agent() for _ in range(16)], stack.operator("auditor"), []
    with stack.table_locked("agent_registry"):
        threads = [threading.Thread(target=lambda each=agent: answers.append(each.register())) for agent in agents]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answers) == 6, what="six refusals, and ten requests in flight")
        for refused in answers:
            check_error(refused, 503, "UNAVAILABLE")
            assert int(refused.headers["retry-after"]) > 0
        health = stack.client().get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        assert health.json()["checks"]["registryd"] == {
            "status": "unavailable", "detail": {"reason": "too many requests wait for it"}}
        assert health.json()["checks"]["eventd"]["status"] == "ok"
        check_error(stack.client().get("/readyz"), 503, "UNAVAILABLE")
        assert operator.get("/health").json()["checks"]["registryd"]["status"] == "ok"
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers[6:]] == [201] * 10
    assert stack.client().get("/health").status_code == 200
    assert refusals(stack, "limits.in_flight reached, but for the operators' share")


# ---- pipelining ----------------------------------------------------------------------------------


def resident(stack):
    """KiB of memory that the one worker has."""
    worker, = stack.workers()
    with open(f"/proc/{worker}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def test_a_pipelining_flood(make_stack):
    """Tens of thousands of requests that nobody takes the answers of: read only as far as they are answered."""
    stack = make_stack("--workers", "1", sets=("frontd.timeouts.write_seconds=2",), build=PLAIN)
    client = stack.client()
    with descriptors_return(stack):
        before = resident(stack)
        flood = [stack.connection() for _ in range(20)]
        for connection in flood:
            connection.socket.setblocking(False)
        sent = 0
        for connection in flood:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while True:
                    connection.tls.write(LIVEZ * 400)
                    data = connection.outgoing.read()
                    while data:
                        done = connection.socket.send(data)
                        sent, data = sent + done, data[done:]
            assert client.get("/livez").status_code == 200
        assert sent > 20 * 100000
        assert resident(stack) - before < 20 * 1024
        wait_for(lambda: refusals(stack, "timeouts.write_seconds passed"))
        assert client.get("/livez").status_code == 200
        for connection in flood:
            connection.socket.close()
        client.close()


# ---- idle connections ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [600, pytest.param(10000, marks=pytest.mark.long)])
def test_idle_connections_are_cheap(make_stack, count):
    stack = make_stack("--workers", "1", build=PLAIN,
                       sets=("frontd.limits.connections=12000", "frontd.limits.connections_per_address=12000",
                             "frontd.timeouts.idle_seconds=600"))
    agent = stack.agent()
    assert agent.register().status_code == 201
    with descriptors_return(stack):
        warm = [stack.connection(agent.crt, agent.key) for _ in range(50)]
        before = resident(stack)
        held = [stack.connection(agent.crt, agent.key) for _ in range(count)]
        each = (resident(stack) - before) / count
        print(f"\n{each:.1f} KiB for each of {count} idle connections")
        assert each < 40
        assert agent.heartbeat().status_code == 200
        for connection in warm + held:
            connection.socket.close()
    assert agent.heartbeat().status_code == 200


# ---- descriptors ---------------------------------------------------------------------------------


def test_the_unit_leaves_room_for_every_connection():
    """LimitNOFILE is enough for limits.connections, and for what a worker opens beside them."""
    words = [BUILD / "bin" / "frontd", "-p", "-c", "/dev/null"]
    options = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    connections, = (int(line.split(" = ")[1]) for line in options.splitlines() if line.startswith("connections = "))
    unit = (REPOSITORY / "systemd" / "caf-frontd.service").read_text()
    bound, = (int(line.split("=")[1]) for line in unit.splitlines() if line.startswith("LimitNOFILE="))
    assert connections + 2000 < bound


def test_more_connections_than_descriptors(make_stack):
    """A worker knows its bound, and refuses beyond it as beyond any other."""
    stack = make_stack("--workers", "1", sets=("frontd.limits.connections=2000", "frontd.limits.operators_percent=0"))
    done = stack.run_as_owner(["prlimit", "--pid", stack.pid("frontd"), "--nofile=1092:1092"])
    assert done.returncode == 0, done.stderr
    worker, = stack.workers()
    os.kill(worker, 9)
    wait_for(lambda: "limits.connections is more than RLIMIT_NOFILE has room for" in stack.log("frontd"))
    held = wait_for(lambda: fill(stack), what="a worker with four connections")
    assert len(held) == 4 and is_refused(stack)


def fill(stack):
    """As many connections as there is room for; none when nobody answers yet."""
    held = []
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        while len(held) < 10:
            held.append(stack.connection())
    return held
