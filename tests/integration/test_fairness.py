"""A well-behaved client beside those who only connect and are refused: what it waits for an answer stays in bounds."""

import contextlib
import signal
import statistics
import subprocess
import time

import pytest
from connection import request
from harness import PYTHON

FLOODS = 2
BEAT = request("POST", "/v1/mesh/heartbeat", b"")

# Connects with a certificate that is refused, again and again, behind everybody else; says how often at its end.
FLOOD = """
import os, signal, socket, ssl, sys
os.nice(19)
port, crt, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.load_cert_chain(crt, key)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(count)))
count = 0
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


class Flood:
    """Some processes of FLOOD, which run only within `with flood.on():`."""

    def __init__(self, stack):
        crt, key = stack.cert("spiffe://elsewhere.example/agent/acme/stranger")
        words = [PYTHON, "-c", FLOOD, str(stack.port), str(crt), str(key)]
        self.processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(FLOODS)]
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
        """How many handshakes were refused."""
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


def compare(stack, rounds):
    """Quiet and flooded seconds by turns, so that what else the machine does falls on both."""
    agent = stack.agent()
    assert agent.register().status_code == 201
    connection = stack.connection(agent.crt, agent.key)
    flood, quiet, loud = Flood(stack), [], []
    sample(connection, 0.5)
    for _ in range(rounds):
        quiet += sample(connection, 1)
        with flood.on():
            loud += sample(connection, 1)
    refused = flood.end()
    print(f"\n{refused} refused handshakes in {rounds} s; p50 {statistics.median(quiet) * 1e3:.2f} ms quiet, "
          f"{statistics.median(loud) * 1e3:.2f} ms beside them; p99 {percentile(quiet, 99) * 1e3:.2f} and "
          f"{percentile(loud, 99) * 1e3:.2f} ms")
    return quiet, loud, refused


def test_a_flood_of_refused_handshakes(make_stack):
    stack = make_stack("--workers", "1")
    quiet, loud, refused = compare(stack, 4)
    assert refused > 100
    assert statistics.median(loud) < 5 * statistics.median(quiet)
    assert percentile(loud, 99) < 5 * percentile(quiet, 99)


@pytest.mark.long
def test_a_long_flood_of_refused_handshakes(make_stack):
    stack = make_stack("--workers", "1")
    quiet, loud, refused = compare(stack, 30)
    assert refused > 1000
    assert statistics.median(loud) < 5 * statistics.median(quiet)
    assert percentile(loud, 99) < 5 * percentile(quiet, 99)
