"""Redis: what a node tells the others when an agent changes, and what it makes of what they say."""

import socket

import pytest
from harness import wait_for


class Redis:
    """A connection to the stack's Redis, speaking its protocol."""

    def __init__(self, stack):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(stack.env["REDIS_SOCKET"])
        self.stream = self.socket.makefile("rb")

    def send(self, *words):
        parts = [f"*{len(words)}\r\n"] + [f"${len(word)}\r\n{word}\r\n" for word in words]
        self.socket.sendall("".join(parts).encode())

    def reply(self):
        kind, rest = (line := self.stream.readline())[:1], line[1:-2]
        assert kind in b"*$:+", line
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return self.stream.read(int(rest) + 2)[:-2].decode() if kind == b"$" else rest.decode()


@pytest.fixture
def subscriber(stack):
    redis = Redis(stack)
    redis.send("SUBSCRIBE", "caf:agents")
    assert redis.reply()[:2] == ["subscribe", "caf:agents"]
    yield redis
    redis.socket.close()


def test_a_registration_is_told(stack, subscriber):
    agent = stack.agent()
    agent.register()
    kind, channel, instance = subscriber.reply()
    assert (kind, channel) == ("message", "caf:agents")
    assert len(instance) == 16 and agent.name not in instance


def test_what_another_node_says_makes_it_look_again(stack):
    agent = stack.agent()
    agent.register()
    link = stack.db("postgres")
    with link.cursor() as cursor:
        cursor.execute("UPDATE agent_registry SET state = 'quarantined', changed_xid = pg_current_xact_id() "
                       "WHERE spiffe_id = %s", (agent.spiffe_id,))
    link.close()
    redis = Redis(stack)
    redis.send("PUBLISH", "caf:agents", "0123456789abcdef")
    assert int(redis.reply()) >= 1
    wait_for(lambda: agent.heartbeat().json()["state"] == "quarantined", seconds=2)
