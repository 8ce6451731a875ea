"""keeper, auditd and eventd broken, or in somebody else's hands, all three at once and each in the same way: frontd
refuses, counts and logs what they say, and serves whatever needs none of them; when they are themselves again, so is it."""

import concurrent.futures
import os
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest
from caf_dev.authority import SERVER, certificate_pem, server_names
from cryptography.hazmat.primitives import serialization
from fake_daemon import ID, FakeDaemon, frame, hello
from harness import Stack, check_error, wait_for
from scraping import scrape

BACK = ("keeper", "auditd", "eventd")
SETS = ("frontd.timeouts.read_deadline_seconds=1", "frontd.timeouts.handshake_seconds=1", "frontd.tls.reload_seconds=0",
        "eventd.outbox.sweep_seconds=3600")
REASONS = {"length": "frame of a forbidden length", "malformed": "malformed frame", "hello": "wrong HELLO",
           "unasked": "an answer that nobody asked for"}
GROWTH_KB = 96 * 1024  # the sanitizer keeps what was freed for a while
STRANGER = 4242


def status(request_id=ID, ready=True):
    return frame(4, request_id, ready, False, '{"a":"' + "x" * 200 + '"}')


# By what they do: the reason for which frontd refuses it (None: it does not), and what each says.
CASES = {
    "another version": ("hello", lambda name: {"hello": hello(name, version=2)}),
    "another's name": ("hello", lambda name: {"hello": hello("registryd")}),
    "no HELLO": ("hello", lambda name: {"hello": status()}),
    "garbage for HELLO": ("length", lambda name: {"hello": b"\xff" * 64}),
    "garbage": ("length", lambda name: {"hello": hello(name), "answer": b"\xff" * 64}),
    "a length of 4 GiB": ("length", lambda name: {"hello": hello(name), "answer": b"\xff\xff\xff\xff" + bytes(65536)}),
    "a length of nothing": ("length", lambda name: {"hello": hello(name), "answer": bytes(4)}),
    "an unknown type": ("malformed", lambda name: {"hello": hello(name), "answer": frame(999, ID)}),
    "another's message": ("malformed", lambda name: {"hello": hello(name), "answer": frame(35, ID, "{}")}),
    "wrong types": ("malformed", lambda name: {"hello": hello(name), "answer": status(ready=1)}),
    "an answer to nobody": ("unasked", lambda name: {"hello": hello(name), "answer": status(b"nobody's request")}),
    "a push": ("unasked", lambda name: {"hello": hello(name), "answer": status(bytes(16))}),
    "half an answer": (None, lambda name: {"hello": hello(name), "answer": status()[:50], "close": "then"}),
    "silence": (None, lambda name: {"hello": b""}),
    "closed at once": (None, lambda name: {"hello": hello(name), "close": "at once"}),
}


class Own:
    """A stack with a fake before each of its daemons, an agent and clients whose connections are open."""

    def __init__(self):
        self.stack = Stack("--workers", "1", sets=SETS).up()
        self.fakes = {name: FakeDaemon(self.stack, name) for name in BACK}
        self.stack.restart("frontd")
        self.agent, self.clients = self.stack.agent(), [self.stack.client(), self.stack.client()]
        assert [client.get("/livez").status_code for client in self.clients] == [200, 200]
        assert self.agent.register().status_code == 201
        self.memory, self.hostnames = self.resident(), 0

    def resident(self):
        """Of each process of frontd, in KiB."""
        return {pid: int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
                for pid in (self.stack.pid("frontd"), *self.stack.workers())}

    def refusals(self):
        sample = scrape(self.stack)
        return {name: sample.values_of("backend_refusals_total", "reason", backend=name) for name in BACK}

    def losses(self, since):
        """The lines that tell of a lost daemon, by the daemon's name."""
        lines = self.stack.log("frontd")[since:].splitlines()
        return {name: [line for line in lines if "backend lost" in line and f"peer={name}" in line] for name in BACK}

    def mend(self):
        for fake in self.fakes.values():
            fake.hand_on()
        for fake in self.fakes.values():
            fake.wait_taken()
        wait_for(lambda: self.agent.client.get("/readyz").status_code == 200, what="everything back")

    def close(self):
        for fake in self.fakes.values():
            fake.close()
        wait_for(lambda: self.agent.client.get("/readyz").status_code == 200, what="everything back, without a fake")
        self.stack.close()


@pytest.fixture(scope="module")
def own():
    made = Own()
    yield made
    made.close()


def handshake(own):
    """How a new client fares."""
    try:
        return own.stack.client().get("/livez").status_code
    except httpx.TransportError:
        return "refused"


class Seen:
    """What was seen of one case."""

    def __init__(self, own, case):
        self.reason, role = CASES[case]
        self.began, before = own.stack.pids(), own.refusals()
        since = len(own.stack.log("frontd"))
        for name, fake in own.fakes.items():
            fake.play(**role(name))
        with concurrent.futures.ThreadPoolExecutor() as pool:
            new_client = pool.submit(handshake, own)
            health, ready = (pool.submit(client.get, path) for client, path in zip(own.clients, ("/health", "/readyz")))
            for fake in own.fakes.values():
                fake.wait_taken()
            self.beat, self.itself = own.agent.heartbeat(), own.agent.self()
            own.hostnames += 1
            self.registered = own.agent.register(hostname=f"{own.agent.name}-{own.hostnames}")
            self.health, self.ready, self.new_client = health.result(), ready.result(), new_client.result()
        if self.reason:
            wait_for(lambda: all(any(REASONS[self.reason] in line for line in lines)
                                 for lines in own.losses(since).values()), what="a line of each refusal")
        own.mend()
        self.afterwards = handshake(own)
        after = own.refusals()
        self.counted = {name: {reason: after[name][reason] - before[name][reason] for reason in after[name]}
                        for name in BACK}
        self.losses = own.losses(since)
        self.ended = own.stack.pids()


@pytest.fixture(scope="module", params=CASES)
def seen(own, request):
    return Seen(own, request.param)


def test_nothing_dies(seen):
    assert seen.began == seen.ended


def test_who_needs_none_of_them_is_served(seen):
    assert [answer.status_code for answer in (seen.beat, seen.itself, seen.registered)] == [200, 200, 200]


def test_a_new_client_is_refused_meanwhile_and_let_in_afterwards(seen):
    assert (seen.new_client, seen.afterwards) == ("refused", 200)


def test_health_names_them(seen):
    assert seen.health.status_code == 503
    checks = seen.health.json()["checks"]
    assert {name: check["status"] for name, check in checks.items()} == {
        "keeper": "unreachable", "registryd": "ok", "auditd": "unreachable", "eventd": "unreachable"}
    check_error(seen.ready, 503, "UNAVAILABLE")


@pytest.mark.parametrize("name", BACK)
def test_it_is_counted_by_its_reason(seen, name):
    counted = seen.counted[name]
    assert set(REASONS) < set(counted)
    assert {reason: count > 0 for reason, count in counted.items()} == {reason: reason == seen.reason for reason in counted}


@pytest.mark.parametrize("name", BACK)
def test_it_is_logged_and_floods_nothing(seen, name):
    assert len(seen.losses[name]) <= 5


# ---- the supervisor, which asks the keeper for its keys -------------------------------------------


def reload(own):
    """SIGHUP with another certificate of the same key; the line that tells how it ended."""
    tls, since = own.stack.folder.tls, len(own.stack.log("frontd"))
    key = serialization.load_pem_private_key((tls / "server-p256.key").read_bytes(), None)
    chain = own.stack.issuer().issue(key, common_name="localhost", names=server_names(), uses=(SERVER,))
    (tls / "server-p256.crt").write_bytes(certificate_pem(*chain))
    os.kill(own.stack.pid("frontd"), signal.SIGHUP)
    return wait_for(lambda: re.findall(r'msg=reloaded.*|msg="reload refused.*', own.stack.log("frontd")[since:]))[0]


@pytest.mark.parametrize("case", ["garbage", "closed at once"])
def test_the_supervisor_refuses_a_broken_keeper_too(own, case):
    """The workers' client of the keeper has nothing to ask here: what is refused of answers is the supervisor's."""
    pids, (reason, role), before = own.stack.pids(), CASES[case], own.refusals()["keeper"]
    own.fakes["keeper"].play(**role("keeper"))
    own.fakes["keeper"].wait_taken()
    since = len(own.stack.log("frontd"))
    assert "the keeper does not say which keys it holds" in reload(own)
    assert len(own.losses(since)["keeper"]) <= 6
    own.mend()
    assert "reloaded" in reload(own)
    assert own.stack.pids() == pids
    after = own.refusals()["keeper"]
    assert {each: after[each] > before[each] for each in after} == {each: each == reason for each in after}


# ---- at the end of all ---------------------------------------------------------------------------


def test_no_memory_has_grown(own):
    now = own.resident()
    assert now.keys() == own.memory.keys()
    assert {pid: grown for pid in now if (grown := now[pid] - own.memory[pid]) > GROWTH_KB} == {}


def test_every_event_came_through_once(own):
    def changes():
        return len(own.stack.events("acme", spiffe_id=own.agent.spiffe_id, event_type="identity.hostname_changed"))

    assert own.hostnames > 0
    wait_for(lambda: changes() >= own.hostnames)
    assert changes() == own.hostnames


# ---- somebody else's socket ----------------------------------------------------------------------


if os.getuid() == 0:  # nobody else can be two users

    def test_another_users_process_in_a_daemons_place(own):
        pids, before = own.stack.pids(), own.refusals()["eventd"]
        stranger = FakeDaemon(own.stack, "eventd", user=STRANGER)
        own.fakes["eventd"].hand_on()
        stranger.wait_taken()
        wait_for(lambda: f"uid={STRANGER}" in own.stack.log("frontd"))
        check_error(own.clients[0].get("/readyz"), 503, "UNAVAILABLE")
        assert own.agent.heartbeat().status_code == 200
        after = own.refusals()["eventd"]
        assert {each: after[each] > before[each] for each in after} == {each: each == "user" for each in after}
        stranger.close()
        wait_for(lambda: own.clients[0].get("/readyz").status_code == 200, what="eventd back")
        assert own.stack.pids() == pids


def test_a_socket_that_somebody_else_listens_at(own):
    """A second frontd that expects another user than the stack's behind the sockets: it says nothing there, and ends."""
    folder = own.stack.folder
    file, log = folder.etc / "frontd-other.conf", folder.log / "frontd-other.log"
    text = re.sub(r"(?m)^users = .*$", f"users = {STRANGER}", folder.configuration("frontd").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = re.sub(r"(?m)^port = .*$", f"port = {port}", re.sub(r"(?m)^\[admin\]\nlisten = .*$", "[admin]\nlisten =", text))
    file.write_text(text)
    file.chmod(0o644)
    with open(log, "wb") as output:
        frontd = own.stack.spawn_as_owner([folder.bin / "frontd", "-c", file], stderr=output)
        assert frontd.wait(timeout=15) != 0
    lines = [line for line in log.read_text().splitlines() if "none of backends.users" in line]
    assert 1 <= len(lines) <= 5 and "refusals=1" in lines[0] and all(f"uid={own.stack.owner().pw_uid}" in line for line in lines)
