"""What tests of two nodes share: the same agent at either node, changes that the owner makes, and a connection to Redis.
"""

import contextlib
import os
import signal
import socket
import time

import httpx

CHANGE = "UPDATE agent_registry SET state = %s, changed_xid = pg_current_xact_id() WHERE spiffe_id = %s"


class Visitor:
    """An agent at another node than the one that it was made for."""

    def __init__(self, node, agent):
        self.client = node.client(agent.crt, agent.key)

    def heartbeat(self, **members):
        return self.client.post("/v1/mesh/heartbeat", json=members or None)

    def register(self, **members):
        return self.client.post("/v1/mesh/register", json=members)


class Redis:
    """A connection to the stack's Redis, speaking its protocol."""

    def __init__(self, stack):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(stack.env["REDIS_SOCKET"])
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def send(self, *words):
        self.socket.sendall(command(*words))

    def reply(self):
        kind, rest = (line := self.stream.readline())[:1], line[1:-2]
        assert kind in b"*$:+", line
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return self.stream.read(int(rest) + 2)[:-2].decode() if kind == b"$" else rest.decode()

    def ask(self, *words):
        self.send(*words)
        return self.reply()


def command(*words):
    """A command in Redis' protocol."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)])


def publish(stack):
    """What a node says when it has changed something."""
    with Redis(stack) as redis:
        assert int(redis.ask("PUBLISH", "caf:agents", "0123456789abcdef")) >= 1


def set_state(stack, agent, state, told=False):
    """Changes an agent as the owner of the table does; told: and says so to all nodes."""
    link = stack.db("postgres")
    with link.cursor() as cursor:
        cursor.execute(CHANGE, (state, agent.spiffe_id))
        assert cursor.rowcount == 1
    link.close()
    if told:
        publish(stack)


@contextlib.contextmanager
def transaction(stack, dbname=None):
    """A cursor in a transaction that has a number; it ends with the block, as a commit."""
    link = stack.db("postgres", dbname)
    link.autocommit = False
    try:
        with link.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")
            yield cursor
        link.commit()
    finally:
        link.close()


@contextlib.contextmanager
def frozen(pid):
    """The process does not run meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def seconds_until(look, limit=10):
    """How long it takes until look() gives something true."""
    began = time.monotonic()
    while not look():
        assert time.monotonic() < began + limit, f"not within {limit} s"
    return time.monotonic() - began


def metric(node, name):
    """The value of a metric of registryd's."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=node.env["CAF_METRICS_SOCKET"])) as client:
        lines = client.get("http://localhost/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"caf_registry_{name} "))


def wait_for_reads(node, count=2):
    """Has the node read the feed that many times more: what was committed before is applied then."""
    goal = metric(node, "feed_reads_total") + count

    def is_read():
        publish(node)
        return metric(node, "feed_reads_total") >= goal

    seconds_until(is_read)
