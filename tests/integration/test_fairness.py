"""A well-behaved client beside those who keep the worker busy: what it waits for an answer stays in bounds."""

import contextlib
import signal
import statistics
import subprocess
import time

import pytest
from connection import TlsConnection, request
from crowds import at_once
from harness import PYTHON

BEAT = request("POST", "/v1/mesh/heartbeat", b"")

# Both run behind everybody else, are told the port and a certificate, and say at their end how much they did.
BEGINNING = """
import os, signal, socket, ssl, sys
os.nice(15)
port, crt, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(count)))
count = 0
"""
# Connects with a certificate that is refused, again and again.
HANDSHAKES = BEGINNING + """
context.load_cert_chain(crt, key)
print("ready", flush=True)
while True:
    with socket.create_connection(("127.0.0.1", port)) as plain:
        try:
            context.wrap_socket(plain).recv(1)
        except ssl.SSLError:
            count += 1
        except ConnectionError:
            pass
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
    """Some processes of one kind, which do something only within `with flood.on():`."""

    def __init__(self, stack, program, processes):
        crt, key = stack.cert("spiffe://elsewhere.example/agent/acme/stranger")
        words = [PYTHON, "-c", program, str(stack.port), str(crt), str(key)]
        self.processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        assert all(process.stdout.readline() == "ready\n" for process in self.processes)
        self.tell(signal.SIGSTOP)

    def tell(self, number):
        for process in self.processes:
            process.send_signal(number)

    @contextlib.contextmanager
    def on(self):
        self.tell(signal.SIGCONT)
        yield
        self.tell(signal.SIGSTOP)

    def end(self):
        """How much all of them did."""
        self.tell(signal.SIGTERM)
        self.tell(signal.SIGCONT)
        return sum(int(process.communicate()[0]) for process in self.processes)


def sample(connection, seconds):
    """How long each answer took, asked for one after the other."""
    times, until = [], time.monotonic() + seconds
    while (start := time.monotonic()) < until:
        assert connection.ask(BEAT).status_code == 200
        times.append(time.monotonic() - start)
    return times


def percentile(times, percent):
    return sorted(times)[len(times) * percent // 100]


def compare(stack, program, processes, rounds):
    """Quiet and flooded seconds by turns, so that what else the machine does falls on both."""
    agent = stack.agent()
    assert agent.register().status_code == 201
    connection = stack.connection(agent.crt, agent.key)
    flood, quiet, loud = Flood(stack, program, processes), [], []
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
    assert compare(make_stack("--workers", "1"), HANDSHAKES, 2, 4) > 30


def test_a_flood_of_pipelined_requests(make_stack):
    assert compare(make_stack("--workers", "1"), PIPELINES, 1, 3) > 3000


def test_new_clients_come_in_beside_a_crowd_that_asks(make_stack):
    """Many take turns that are about as long as one's: those who ask do not leave a step a turn to those who come."""
    stack = make_stack("--workers", "1")
    agent = stack.agent()
    context = stack.context(agent.crt, agent.key)
    flood, alone, many = Flood(stack, CROWD, 1), [], []

    def come():
        with TlsConnection(stack.port, context) as connection:
            assert connection.ask(request("GET", "/livez")).status_code == 200

    def measure(count):
        start = time.monotonic()
        assert not any(at_once([come] * count))
        return time.monotonic() - start

    with flood.on():
        for _ in range(3):
            alone.append(measure(1))
            many.append(measure(24))
    assert flood.end() > 1000000
    print(f"\n{statistics.median(alone):.2f} s alone, {statistics.median(many):.2f} s with 23 others")
    assert statistics.median(many) < 4 * statistics.median(alone)


@pytest.mark.long
def test_a_long_flood_of_refused_handshakes(make_stack):
    assert compare(make_stack("--workers", "1"), HANDSHAKES, 2, 30) > 500
