"""Redis: what a node tells the others when an agent changes, and what it makes of what they say. It says "look", no more:
whoever lies there, or floods, costs a bounded number of reads."""

import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
from harness import FAST, Stack, wait_for
from nodes import Redis, command, metric, publish, set_state

GAP = 0.02  # registryd.feed.hint_gap_ms
BOUNDED = 1.5 / GAP  # reads a second, and some for a machine that counts late


class Watch:
    """What a node does meanwhile: heartbeats, each answered, and reads of the feed."""

    def __init__(self, node, agent):
        self.node, self.agent, self.slowest, self.beats = node, agent, 0, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.is_set():
            began = time.monotonic()
            assert self.agent.heartbeat().status_code == 200
            self.slowest, self.beats = max(self.slowest, time.monotonic() - began), self.beats + 1

    def __enter__(self):
        self.began, self.reads = time.monotonic(), metric(self.node, "feed_reads_total")
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.reads = metric(self.node, "feed_reads_total") - self.reads
        self.seconds = time.monotonic() - self.began

    def check(self):
        assert self.beats > 0 and self.slowest < 1, (self.beats, self.slowest)
        assert self.reads <= BOUNDED * self.seconds + 5, (self.reads, self.seconds)


@pytest.fixture
def agent(stack):
    made = stack.agent()
    made.register()
    return made


# ---- what is said -----------------------------------------------------------------------------------


@pytest.fixture
def subscriber(stack):
    with Redis(stack) as redis:
        assert redis.ask("SUBSCRIBE", "caf:agents")[:2] == ["subscribe", "caf:agents"]
        yield redis


def test_a_registration_is_told_and_nothing_of_it(stack, subscriber):
    agent = stack.agent()
    agent.register()
    kind, channel, instance = subscriber.reply()
    assert (kind, channel) == ("message", "caf:agents")
    assert len(instance) == 16 and agent.name not in instance


def test_many_changes_are_few_messages(stack, subscriber):
    agents = [stack.agent() for _ in range(4)]
    threads = [threading.Thread(target=lambda one=one: [one.register() for _ in range(25)]) for one in agents]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    subscriber.socket.settimeout(0.2)
    heard = 0
    try:
        while subscriber.reply():
            heard += 1
    except TimeoutError:
        pass
    assert 1 <= heard <= seconds / GAP + 2


def test_what_a_node_says_itself_makes_it_read_nothing(make_stack):
    stack = make_stack(sets=(*FAST, "registryd.feed.interval_ms=60000"))
    agent = stack.agent()
    agent.register()
    time.sleep(2 * GAP)  # the read that tells what the first one applied
    before = metric(stack, "feed_reads_total")
    for _ in range(20):
        assert agent.register().status_code == 200
    assert metric(stack, "feed_reads_total") - before <= 1
    with Redis(stack) as redis:  # whoever says a node's own name is not heard, and harms nobody
        redis.ask("SUBSCRIBE", "caf:agents")
        agent.register()
        name = redis.reply()[2]
    with Redis(stack) as redis:
        redis.ask("PUBLISH", "caf:agents", name)
        set_state(stack, agent, "quarantined")
        assert agent.heartbeat().json()["state"] == "active"
    publish(stack)
    wait_for(lambda: agent.heartbeat().json()["state"] == "quarantined", seconds=2)


# ---- what is heard ----------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"x", b"\x00\xff\r\n*3\r\n", b"a b c d", b"x" * 1000, b"{}", b"'; DROP TABLE"])
def test_whatever_is_said_is_a_hint(stack, agent, said):
    set_state(stack, agent, "quarantined")
    with Redis(stack) as redis:
        redis.ask("PUBLISH", "caf:agents", said)
    wait_for(lambda: agent.heartbeat().json()["state"] == "quarantined", seconds=2)


@pytest.mark.parametrize("words", [("PUBLISH", "caf:agents", "x"), ("PUBLISH", "caf:agents", "y" * 3000)])
def test_a_flood_costs_a_bounded_number_of_reads(stack, agent, words):
    with Redis(stack) as redis, Watch(stack, agent) as watch:
        many = command(*words) * 1000
        reader = threading.Thread(target=lambda: [redis.reply() for _ in range(20_000)])
        reader.start()
        for _ in range(20):
            redis.socket.sendall(many)
        reader.join()
    watch.check()
    set_state(stack, agent, "quarantined")
    wait_for(lambda: agent.heartbeat().json()["state"] == "quarantined", seconds=2)


@pytest.mark.long
def test_a_flood_that_goes_on(stack, agent):
    with Redis(stack) as redis, Watch(stack, agent) as watch:
        reader = threading.Thread(target=lambda: [redis.reply() for _ in range(1_000_000)])
        reader.start()
        for _ in range(1000):
            redis.socket.sendall(command("PUBLISH", "caf:agents", "x") * 1000)
        reader.join()
    watch.check()


def test_large_messages_are_not_kept(stack, agent):
    with Redis(stack) as redis, Watch(stack, agent) as watch:
        for _ in range(20):
            redis.ask("PUBLISH", "caf:agents", b"x" * 1_000_000)
    watch.check()
    with Redis(stack) as redis:  # the connection was given up, and is made again
        wait_for(lambda: int(redis.ask("PUBSUB", "NUMSUB", "caf:agents")[1]) >= 1)


# ---- something else in Redis' place -------------------------------------------------------------------

SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$10\r\ncaf:agents\r\n:1\r\n"
MESSAGE = b"*3\r\n$7\r\nmessage\r\n$10\r\ncaf:agents\r\n$1\r\nx\r\n"
LIARS = {
    "silent": (b"", b""),
    "another protocol": (b"HTTP/1.1 200 OK\r\n\r\n", b""),
    "no numbers": (b"", b"*x\r\n$y\r\n"),
    "an endless reply": (b"$500000000\r\n", b"x" * 4096),
    "an array without an end": (b"*100000000\r\n", b"$1\r\nx\r\n"),
    "a tree": (b"", b"*3\r\n" * 100),
    "subscriptions without end": (SUBSCRIBED, SUBSCRIBED * 100),
    "messages without end": (SUBSCRIBED, MESSAGE * 100),
    "errors without end": (b"", b"-ERR no\r\n" * 100),
    "closes at once": (None, b""),
}


class Liar:
    """Listens in Redis' place, and says to everybody first one thing, then the other without end."""

    def __init__(self, path, once, forever, owner):
        self.once, self.forever = once, forever
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        os.chown(path, owner.pw_uid, owner.pw_gid)
        self.listener.listen(64)
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.accept)]
        self.accepted = 0

    def __enter__(self):
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        self.listener.close()

    def accept(self):
        self.listener.settimeout(0.1)
        while not self.stop.is_set():
            try:
                peer, _ = self.listener.accept()
            except TimeoutError:
                continue
            self.accepted += 1
            self.threads.append(threading.Thread(target=self.speak, args=(peer,)))
            self.threads[-1].start()

    def speak(self, peer):
        peer.settimeout(0.1)
        with peer:
            if self.once is None:
                return
            try:
                peer.sendall(self.once)
            except OSError:
                return
            while not self.stop.is_set():
                try:
                    peer.sendall(self.forever) if self.forever else time.sleep(0.05)
                except TimeoutError:
                    continue
                except OSError:
                    return


@pytest.fixture(scope="module")
def lied_to():
    """A stack whose registryd finds somebody else where Redis should be."""
    folder = Path(tempfile.mkdtemp(prefix="caf-liar-"))
    folder.chmod(0o755)
    made = Stack(sets=(*FAST, f"registryd.redis.socket={folder}/redis")).up()
    made.liar = folder / "redis"
    yield made
    made.close()
    folder.rmdir()


@pytest.mark.parametrize("name", LIARS)
def test_a_liar_costs_nothing(lied_to, name):
    agent = lied_to.agent()
    agent.register()
    pid = lied_to.pid("registryd")
    with Liar(lied_to.liar, *LIARS[name], lied_to.owner()) as liar:
        wait_for(lambda: liar.accepted >= 2)
        with Watch(lied_to, agent) as watch:
            time.sleep(0.5)
            set_state(lied_to, agent, "quarantined")
            wait_for(lambda: agent.heartbeat().json()["state"] == "quarantined", seconds=2)
    lied_to.liar.unlink()
    watch.check()
    assert lied_to.pid("registryd") == pid
