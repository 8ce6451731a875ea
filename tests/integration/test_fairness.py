"""A well-behaved client beside those who keep the worker busy: what it waits for an answer stays in bounds."""

import contextlib
import signal
import statistics
import subprocess
import time

import pytest
from connection import TlsConnection, request
from crowds import at_once
from harness import PYTHON, REPOSITORY

BEAT = request("POST", "/v1/mesh/heartbeat", b"")

# Each runs behind everybody else, is told the port and a certificate, and says at its end how much it did.
BEGINNING = """
import os, signal, socket, ssl, sys
os.nice(15)
port, crt, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(count)))
count = 0
"""
# Asks hundreds of times before it reads an answer, on several connections.
PIPELINES = BEGINNING + """
asked = b"GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n" * 300
connections = [context.wrap_socket(socket.create_connection(("127.0.0.1", port))) for _ in range(8)]
print("ready", flush=True)
while True:
    for connection in connections:
        connection.sendall(asked)
    for connection in connections:
        text = b""
        while text.count(b"HTTP/1.1 200") < 300 or not text.endswith(b"}"):
            text += connection.recv(65536)
        count += 300
"""
# Asks without a pause on many connections, and throws away what comes.
CROWD = BEGINNING + """
import select
asked, poll, crowd = b"GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n" * 300, select.epoll(), {}
for _ in range(300):
    plain, incoming, outgoing = socket.create_connection(("127.0.0.1", port)), ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            incoming.write(plain.recv(65536))
    plain.sendall(outgoing.read())
    plain.setblocking(False)
    crowd[plain.fileno()] = [plain, tls, outgoing, b""]
    poll.register(plain, select.EPOLLIN | select.EPOLLOUT)
print("ready", flush=True)
while True:
    for descriptor, what in poll.poll():
        one = plain, tls, outgoing, unsent = crowd[descriptor]
        try:
            if what & select.EPOLLIN:
                count += len(plain.recv(1 << 20))
            if what & select.EPOLLOUT:
                if not unsent:
                    tls.write(asked)
                    one[3] = outgoing.read()
                one[3] = one[3][plain.send(one[3]):]
        except BlockingIOError:
            pass
"""


class Flood:
    """A process that does something only within `with flood.on():`; before and after the words are a port, and a
    certificate that is refused."""

    def __init__(self, stack, *before, after=()):
        crt, key = stack.cert("spiffe://elsewhere.example/agent/acme/stranger")
        words = [*map(str, (*before, stack.port, crt, key, *after))]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        self.process.send_signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def on(self):
        self.process.send_signal(signal.SIGCONT)
        yield
        self.process.send_signal(signal.SIGSTOP)

    def end(self):
        """How much it did."""
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGCONT)
        return int(self.process.communicate()[0])


def sample(connection, seconds):
    """How long each answer took, asked for one after the other."""
    times, until = [], time.monotonic() + seconds
    while (start := time.monotonic()) < until:
        assert connection.ask(BEAT).status_code == 200
        times.append(time.monotonic() - start)
    return times


def percentile(times, percent):
    return sorted(times)[len(times) * percent // 100]


def handshakes(stack, connections, rate):
    """So many clients that are refused, and begin anew; as many a second as they can, and no more than the rate."""
    return Flood(stack, REPOSITORY / "build" / "bench" / "flood", after=[connections, rate])


def compare(stack, flood, rounds):
    """Quiet and flooded seconds by turns, so that what else the machine does falls on both: the answers' times with the
    flood are within bounds of those without; how much the flood did."""
    agent = stack.agent()
    assert agent.register().status_code == 201
    connection = stack.connection(agent.crt, agent.key)
    quiet, loud = [], []
    sample(connection, 0.5)
    for _ in range(rounds):
        quiet += sample(connection, 1)
        with flood.on():
            loud += sample(connection, 1)
    done = flood.end()
    print(f"\n{done} in {rounds} s; p50 {statistics.median(quiet) * 1e3:.2f} ms quiet, "
          f"{statistics.median(loud) * 1e3:.2f} ms beside them; p99 {percentile(quiet, 99) * 1e3:.2f} and "
          f"{percentile(loud, 99) * 1e3:.2f} ms")
    assert statistics.median(loud) < 5 * statistics.median(quiet)
    assert percentile(loud, 99) < 5 * percentile(quiet, 99)
    return done


def test_a_flood_of_refused_handshakes(make_stack):
    stack = make_stack("--workers", "1")
    assert compare(stack, handshakes(stack, 64, 2000), 4) > 30


def test_a_flood_of_pipelined_requests(make_stack):
    stack = make_stack("--workers", "1")
    assert compare(stack, Flood(stack, PYTHON, "-c", PIPELINES), 3) > 3000


def test_new_clients_come_in_beside_a_crowd_that_asks(make_stack):
    """Many take turns that are about as long as one's: those who ask do not leave a step a turn to those who come."""
    stack = make_stack("--workers", "1")
    agent = stack.agent()
    context = stack.context(agent.crt, agent.key)
    flood, alone, many = Flood(stack, PYTHON, "-c", CROWD), [], []

    def come():
        with TlsConnection(stack.port, context) as connection:
            assert connection.ask(request("GET", "/livez")).status_code == 200

    def seconds_for(count):
        start = time.monotonic()
        assert not any(at_once([come] * count))
        return time.monotonic() - start

    with flood.on():
        for _ in range(3):
            alone.append(seconds_for(1))
            many.append(seconds_for(24))
    assert flood.end() > 1000000
    print(f"\n{statistics.median(alone):.2f} s alone, {statistics.median(many):.2f} s with 23 others")
    assert statistics.median(many) < 4 * statistics.median(alone)


@pytest.mark.long
@pytest.mark.alone
def test_two_thousand_handshakes_a_second(make_stack):
    """More than a worker can refuse in full: what is beyond the limits by address is refused before TLS begins."""
    stack, rounds = make_stack("--workers", "1", build=REPOSITORY / "build"), 20
    assert compare(stack, handshakes(stack, 4000, 1000000), rounds) > 2000 * rounds
