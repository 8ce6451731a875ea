"""Under systemd's protocols: an inherited listener, notification, watchdog, and restarts that refuse nobody.

Each daemon is started by systemd-socket-activate over a small shell loop, which keeps the listener while the daemon
under it is killed and started again, as systemd itself does.
"""

import array
import collections
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time

import pytest
from caf_dev import parts, processes
from crowds import Beside
from harness import PYTHON, request, unique, wait_for

BACK = ("keeper", "registryd", "auditd", "eventd")
ALL = (*BACK, "frontd")
CONNECTIONS = 20
PATIENCE_SECONDS = 20
KEEP_LISTENER = """
while read -r line; do
    sh -c 'export LISTEN_PID=$$; exec "$@"' sh "$@"
    echo "ended $?"
done
"""
KNOCK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(30)
    client.connect(sys.argv[1])
    print("connected", flush=True)
    print("served" if client.recv(1) else "closed", flush=True)
"""


class Notifications:
    """What a service manager hears: a datagram socket whose messages name the process that sent them."""

    def __init__(self, path, owner):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(str(path))
        os.chown(path, owner.pw_uid, owner.pw_gid)

    def close(self):
        self.socket.close()
        self.path.unlink()

    def next(self):
        """The next message and its sender's process number."""
        assert select.select([self.socket], [], [], PATIENCE_SECONDS)[0], "nothing was notified"
        credentials = struct.Struct("3i")
        text, ancillary, *_ = self.socket.recvmsg(4096, socket.CMSG_SPACE(credentials.size))
        return text.decode(), credentials.unpack(array.array("B", ancillary[0][2]).tobytes())[0]

    def expect(self, wanted):
        """The sender of the next message that is no sign of life, which must be this one."""
        until = time.monotonic() + PATIENCE_SECONDS
        text, pid = self.next()
        while text == "WATCHDOG=1" and time.monotonic() < until:
            text, pid = self.next()
        assert text == wanted
        return pid


class Held:
    """A daemon of a stack, in the place of the stack's own, under a listener that outlives it."""

    def __init__(self, stack, name, **variables):
        self.stack, self.name, self.pid = stack, name, None
        self.manager = Notifications(stack.folder.run / f"{unique('notify')}.sock", stack.owner())
        environment = {**parts.environment(), "NOTIFY_SOCKET": self.manager.path, **variables}
        argv = ["/usr/bin/systemd-socket-activate", *(word for each in self.listeners() for word in ("-l", each))]
        argv += [word for pair in environment.items() for word in ("-E", "=".join(map(str, pair)))]
        argv += ["/bin/sh", "-c", KEEP_LISTENER, "sh", stack.folder.bin / name, "-c", stack.folder.configuration(name)]
        with open(stack.folder.log / f"{name}.held.log", "ab") as log:
            self.loop = stack.spawn_as_owner(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def address(self):
        return f"127.0.0.1:{self.stack.port}" if self.name == "frontd" else self.stack.folder.socket(self.name)

    def listeners(self):
        return [self.address(), *([self.metrics] if self.name == "frontd" else [])]

    @property
    def metrics(self):
        """Where frontd answers for metrics: inherited as well."""
        return self.stack.folder.socket("metrics")

    def connects(self):
        """Whether the listener takes a connection: the first one makes systemd-socket-activate run the loop."""
        if self.name != "frontd":
            return parts.accepts(self.address())
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.stack.port)) == 0

    def start(self):
        """Starts it; returns when it says that it is ready, which only its own main process may say."""
        wait_for(self.connects, what="the listener")
        self.loop.stdin.write("start\n")
        self.loop.stdin.flush()
        self.pid = self.manager.expect("READY=1")
        assert processes.command_line(self.pid)[0] == str(self.stack.folder.bin / self.name)
        return self

    def family(self):
        return [self.pid, *processes.children(self.pid)]

    def end(self, number):
        """Ends it by a signal; returns its exit status once no process of it is left."""
        family = self.family()
        os.kill(self.pid, number)
        if number == signal.SIGTERM:
            assert self.manager.expect("STOPPING=1") == self.pid
        words = self.loop.stdout.readline().split()
        assert processes.wait_gone(family, PATIENCE_SECONDS) == []
        self.pid = None
        return int(words[1])

    def kill(self):
        assert self.end(signal.SIGKILL) == 128 + signal.SIGKILL

    def stop(self):
        assert self.end(signal.SIGTERM) == 0

    def close(self):
        for daemon in processes.children(self.loop.pid):
            processes.destroy([daemon, *processes.children(daemon)])
        self.loop.kill()
        self.loop.communicate()
        self.manager.close()


@pytest.fixture
def hold(stack):
    """Puts a held daemon in the place of a part of the stack, until the test's end."""
    held = []

    def put(name, **variables):
        stack.stop(name)
        held.append(Held(stack, name, **variables))
        return held[-1]

    yield put
    for each in held:
        each.close()
        stack.start(each.name)


class Load(Beside):
    """Agents that register on a connection of their own each time, one after the other, until told to stop."""

    def __init__(self, stack, count=3):
        self.stack, self.seen = stack, collections.Counter()
        self.agents = [stack.agent() for _ in range(count)]
        super().__init__(self.run, [[agent] for agent in self.agents])

    def run(self, agent):
        body = json.dumps({"hostname": agent.name}).encode()
        while not self.stopping.is_set():
            try:
                with self.stack.connection(agent.crt, agent.key) as connection:
                    answer = connection.ask(request("POST", "/v1/mesh/register", body))
                self.seen[answer.status_code] += 1
            except Exception as error:  # what the client saw is the result
                self.seen[repr(error)] += 1

    def progress(self):
        """Waits until each agent had more answers."""
        goal = sum(self.seen.values()) + 3 * len(self.agents)
        wait_for(lambda: sum(self.seen.values()) >= goal, 30, "progress under load")


def knock(stack, name):
    """A client of a back daemon's socket that waits for the daemon's first byte."""
    client = stack.spawn_as_owner([PYTHON, "-c", KNOCK, stack.folder.socket(name)], stdout=subprocess.PIPE, text=True)
    assert client.stdout.readline() == "connected\n"
    return client


@pytest.mark.parametrize("name", ALL)
def test_ready_watchdog_and_stopping_are_notified(hold, name):
    daemon = hold(name, WATCHDOG_USEC=600000).start()
    assert daemon.manager.next() == ("WATCHDOG=1", daemon.pid)
    first = time.monotonic()
    for _ in range(4):
        assert daemon.manager.next() == ("WATCHDOG=1", daemon.pid)
    assert 1.0 <= time.monotonic() - first <= 2.0
    daemon.stop()


@pytest.mark.parametrize("name", ALL)
def test_without_a_watchdog_there_is_no_sign_of_life(hold, name):
    daemon = hold(name).start()
    assert select.select([daemon.manager.socket], [], [], 1)[0] == []
    daemon.stop()


@pytest.mark.parametrize("name", BACK)
def test_a_back_daemon_restarts_under_its_listener(hold, stack, name):
    daemon = hold(name).start()
    with Load(stack) as load:
        for end in (daemon.kill, daemon.stop, daemon.kill):
            load.progress()
            end()
            clients = [knock(stack, name) for _ in range(3)]
            daemon.start()
            for client in clients:
                assert client.communicate(timeout=30)[0] == "served\n"
        load.progress()
    assert set(load.seen) <= {200, 201}
    wait_for(lambda: stack.client().get("/readyz").status_code == 200)


@pytest.mark.parametrize("end", [Held.kill, Held.stop])
def test_frontd_restarts_under_its_listener(hold, stack, end):
    daemon = hold("frontd").start()
    agent = stack.agent()
    assert agent.register().status_code == 201
    for _ in range(2):
        end(daemon)
        waiting = [socket.create_connection(("localhost", stack.port), timeout=30) for _ in range(CONNECTIONS)]
        daemon.start()
        for plain in waiting:
            with stack.context(agent.crt, agent.key).wrap_socket(plain, server_hostname="localhost") as client:
                client.sendall(request("POST", "/v1/mesh/heartbeat"))
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_metrics_are_asked_for_at_a_listener_that_outlives_frontd(hold):
    daemon = hold("frontd").start()
    for end in (daemon.kill, daemon.stop):
        before = os.stat(daemon.metrics).st_ino
        end()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_SECONDS)
            client.connect(str(daemon.metrics))
            client.sendall(request("GET", "/metrics"))
            daemon.start()
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert os.stat(daemon.metrics).st_ino == before


def test_a_restart_of_frontd_in_order_fails_no_new_client(hold, stack):
    """Whoever has connected when it is told to stop is answered still, and whoever connects meanwhile by the next."""
    daemon = hold("frontd").start()
    with Load(stack, 6) as load:
        for _ in range(8):
            load.progress()
            daemon.stop()
            daemon.start()
        load.progress()
    assert set(load.seen) <= {200, 201}
