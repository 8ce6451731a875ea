"""Good clients and every kind of bad input at once, for long: no process dies, and none grows."""

import contextlib
import random
import socket
import ssl
import statistics
import struct
import time
from pathlib import Path

import httpx
import pytest
from caf_dev import authority
from crowds import Beside
from harness import DAEMONS, REPOSITORY, request, unique, wait_for
from nodes import Redis
from test_frames import CASES, exchange
from test_http import MALFORMED
from test_mesh import BAD_JSON

PLAIN = REPOSITORY / "build"  # a sanitizer keeps freed memory on purpose: only the shipped programs can be flat
KIB = 1024
ALLOWED_GROWTH = 1.1
ALLOWED_BYTES = 2048 * KIB  # above that: pages that an allocator keeps
SAMPLE_SECONDS = 0.5
ENDED = (OSError, ssl.SSLError, httpx.HTTPError)  # a refusal, as a client sees it


class Clients(Beside):
    """Threads that do their one thing again and again, until the end; what none of them may raise is kept."""

    def __init__(self, actions):
        self.wrong = []
        self.turns = {action.__name__: 0 for action in actions}
        super().__init__(self.run, [[action] for action in actions])

    def run(self, action):
        while not self.stopping.is_set():
            try:
                action()
                self.turns[action.__name__] += 1
            except Exception as error:  # told at the end
                self.wrong.append((action.__name__, repr(error)))
                return


# ---- good clients --------------------------------------------------------------------------------


def good_actions(stack):
    agents, auditor = [stack.agent(tenant=unique("endure")) for _ in range(3)], stack.operator("auditor")

    def live():
        agent = random.choice(agents)
        assert agent.register(machine_id_fingerprint=random.choice("ab")).status_code in (200, 201)
        for _ in range(20):
            assert agent.heartbeat(status="well", metadata={"load": random.random()}).status_code == 200
        assert agent.self().status_code == 200
        assert agent.client.post("/v1/mesh/deregister").status_code == 200

    def read():
        for path in ("/v1/security/events?limit=50", "/v1/mesh/agents?total=true", "/health"):
            assert auditor.get(path).status_code == 200
        time.sleep(0.05)

    def come_and_go():
        crt, key = agents[0].crt, agents[0].key
        with contextlib.closing(httpx.Client(base_url=stack.env["CAF_URL"], verify=stack.context(crt, key))) as client:
            assert client.get("/livez").status_code == 200

    return [live, read, come_and_go]


# ---- bad ones ------------------------------------------------------------------------------------


def plain_connection(stack):
    return contextlib.closing(socket.create_connection(("localhost", stack.port), timeout=15))


def bad_actions(stack):
    agent = stack.agent(tenant=unique("endure"))
    stranger = authority.Issuer.root("somebody else")
    refused = stack.context(*stack.cert(stack.agent_id("acme", "nobody"), issuer=stranger))

    def http():
        with contextlib.suppress(*ENDED), stack.connection(agent.crt, agent.key) as connection:
            connection.ask(random.choice(list(MALFORMED.values())))

    def json():
        body = random.choice(list(BAD_JSON.values()))
        with contextlib.suppress(*ENDED):
            assert agent.client.post("/v1/mesh/register", content=body).status_code == 400

    def certificate():
        with contextlib.suppress(*ENDED), stack.raw_socket(refused) as connection:
            connection.sendall(request("GET", "/livez"))
            connection.recv(100)

    def garbage():
        with contextlib.suppress(*ENDED), plain_connection(stack) as connection:
            connection.sendall(random.choice((b"\x16\x03\x01\xff\xff", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", b"")) +
                               random.randbytes(random.randrange(2000)))
            connection.recv(100)

    def reset():
        with contextlib.suppress(*ENDED), stack.connection(agent.crt, agent.key) as connection:
            connection.send(request("GET", "/livez") * 100 + b"GET /v1/me")
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def slow():
        with contextlib.suppress(*ENDED), stack.connection(agent.crt, agent.key) as connection:
            for byte in b"POST /v1/mesh/register HTTP/1.1\r\nHost: l":
                connection.send(bytes([byte]))
                time.sleep(0.02)

    def frames():
        name = random.choice(("keeper", "registryd", "auditd", "eventd"))
        _, data = random.choice(list(CASES.values()))
        exchange(stack, stack.folder.socket(name), [data], 1)
        time.sleep(0.5)

    def hints():
        with Redis(stack) as redis:
            for _ in range(50):
                redis.ask("PUBLISH", "caf:agents", random.choice(("", "x", "1 2 3")) * random.randrange(2000))
        time.sleep(0.1)

    return [http, json, certificate, garbage, reset, slow, frames, hints]


# ---- what it costs -------------------------------------------------------------------------------


def processes(stack):
    workers = {f"worker {number}": pid for number, pid in enumerate(sorted(stack.workers()))}
    return {**{name: stack.pid(name) for name in DAEMONS}, **workers}


def resident_bytes(pid):
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * KIB


def descriptors(pids):
    return {name: len(list(Path(f"/proc/{pid}/fd").iterdir())) for name, pid in pids.items()}


def sample(pids, seconds):
    """The resident memory of each process over that time."""
    samples = {name: [] for name in pids}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, pid in pids.items():
            samples[name].append(resident_bytes(pid))
        time.sleep(SAMPLE_SECONDS)
    return samples


def endure(make_stack, seconds):
    stack = make_stack(build=PLAIN)
    pids = processes(stack)
    before = descriptors(pids)
    with Clients(good_actions(stack) + bad_actions(stack)) as clients:
        sample(pids, seconds / 4)  # caches fill, buffers find their size
        samples = sample(pids, seconds * 3 / 4)
    print(clients.turns)
    assert not clients.wrong
    assert all(clients.turns.values()), clients.turns
    assert processes(stack) == pids
    check_flat(samples)
    stack.close_clients()
    wait_for(lambda: descriptors(pids) == before, 30, f"{before} descriptors")


def check_flat(samples):
    growth = {}
    for name, sizes in samples.items():
        third = len(sizes) // 3
        first, last = statistics.median(sizes[:third]), statistics.median(sizes[-third:])
        growth[name] = (round(first / KIB), round(last / KIB))
        assert last <= first * ALLOWED_GROWTH + ALLOWED_BYTES, f"{name} grows: {sizes[::max(1, third // 5)]}"
    print(f"KiB at first and at last: {growth}")


def test_nothing_grows(make_stack):
    endure(make_stack, 24)


@pytest.mark.long
def test_nothing_grows_in_ten_minutes(make_stack):
    endure(make_stack, 600)
