"""Clients that take their time: each is ended when its time is over, however little it does meanwhile, and whoever is
in order is served beside them."""

import contextlib
import os
import re
import socket
import subprocess
import threading
import time

import pytest
from connection import request
from harness import FAST, Stack, wait_for

TIMES = ("frontd.timeouts.handshake_seconds=2", "frontd.timeouts.header_seconds=2", "frontd.timeouts.body_seconds=2",
         "frontd.timeouts.idle_seconds=2", "frontd.timeouts.write_seconds=2")
ENOUGH = 8  # seconds: one of the time-outs, a lingering close, and a machine that does other things
HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Filler: " + b"x" * 5000
POST = b"POST /v1/mesh/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"
HEALTH = request("GET", "/health")


@pytest.fixture(scope="module")
def hasty():
    """A stack that waits two seconds for everything."""
    own = Stack("--workers", "1", sets=(*FAST, *TIMES)).up()
    yield own
    own.close()


def descriptors(stack):
    return {worker: len(os.listdir(f"/proc/{worker}/fd")) for worker in stack.workers()}


def trickle(send, data):
    """A byte each tenth of a second, for as long as the peer takes them."""
    with contextlib.suppress(OSError):
        for byte in data:
            send(bytes([byte]))
            time.sleep(0.1)


# Each is a client of one kind: what it does until it is ended. They all run at once.


def says_nothing(stack):
    with socket.create_connection(("127.0.0.1", stack.port), timeout=30) as plain:
        assert plain.recv(1) == b""


def trickles_its_handshake(stack):
    with socket.create_connection(("127.0.0.1", stack.port), timeout=30) as plain:
        trickle(plain.sendall, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))


def stops_in_its_handshake(stack):
    with stack.connection(handshake=False) as connection:
        with contextlib.suppress(Exception):
            connection.tls.do_handshake()
        connection.flush()
        while connection.socket.recv(65536):
            pass


def asks_nothing(stack):
    with stack.connection() as connection:
        assert connection.ends()


def asks_once_and_is_silent(stack):
    with stack.connection() as connection:
        assert connection.ask(HEALTH).status_code == 200
        assert connection.ends()


def trickles_its_head(stack):
    with stack.connection() as connection:
        trickle(connection.send, HEAD)


def trickles_its_second_head(stack):
    with stack.connection() as connection:
        assert connection.ask(HEALTH).status_code == 200
        trickle(connection.send, HEAD)


def trickles_its_body(stack):
    with stack.connection() as connection:
        connection.send(POST)
        trickle(connection.send, b" " * 5000)


def stops_in_its_body(stack):
    with stack.connection() as connection:
        connection.send(POST + b"{")
        assert connection.ends()


def closes_half_in_its_head(stack):
    with stack.connection() as connection:
        connection.send(HEAD)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.ends()


def trickles_what_it_reads(stack):
    """Asks without end and takes a byte of the answers now and then."""
    with stack.connection() as connection:
        connection.socket.setblocking(False)
        waiting = b""
        with contextlib.suppress(ConnectionError):
            while True:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        if not waiting:
                            connection.tls.write(HEALTH * 100)
                            waiting = connection.outgoing.read()
                        waiting = waiting[connection.socket.send(waiting):]
                time.sleep(0.1)
                connection.socket.recv(1)


CLIENTS = [says_nothing, trickles_its_handshake, stops_in_its_handshake, asks_nothing, asks_once_and_is_silent,
           trickles_its_head, trickles_its_second_head, trickles_its_body, stops_in_its_body, closes_half_in_its_head,
           trickles_what_it_reads]
REASONS = ["timeouts.handshake_seconds passed", "timeouts.header_seconds passed", "timeouts.body_seconds passed",
           "timeouts.write_seconds passed"]


def test_every_kind_is_ended_in_time(hasty):
    before, pids = descriptors(hasty), hasty.pids()
    took, failed = {}, []

    def run(client):
        start = time.monotonic()
        try:
            client(hasty)
        except Exception as error:
            failed.append((client.__name__, repr(error)))
        took[client.__name__] = time.monotonic() - start

    threads = [threading.Thread(target=run, args=[client]) for client in CLIENTS]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with hasty.connection() as beside:
            assert beside.ask(HEALTH).status_code == 200
        time.sleep(0.2)
    assert not failed
    assert all(seconds < ENOUGH for seconds in took.values()), took
    assert not [reason for reason in REASONS if f'reason="{reason}"' not in hasty.log("frontd")]
    wait_for(lambda: descriptors(hasty) == before, what=f"the descriptors {before}")
    assert hasty.pids() == pids


def vanish(connection):
    """Without a FIN, a RST, or an answer to what is sent (TCP_REPAIR closes so). Who may not do that is only silent."""
    tcp_repair = 19
    try:
        connection.socket.setsockopt(socket.IPPROTO_TCP, tcp_repair, 1)
        connection.socket.close()
    except PermissionError:
        pass


def test_a_client_that_vanishes(hasty):
    before = descriptors(hasty)
    gone = [hasty.connection() for _ in range(4)]
    for connection, ask in zip(gone, (b"", HEAD, POST, HEALTH * 50)):
        if ask:
            connection.send(ask)
        vanish(connection)
    assert descriptors(hasty) != before
    wait_for(lambda: descriptors(hasty) == before, what=f"the descriptors {before}")


# ---- slowhttptest --------------------------------------------------------------------------------

MODES = {"headers": ["-H", "-i", "1"], "body": ["-B", "-i", "1", "-s", "8192"], "range": ["-R", "-a", "10", "-b", "3000"],
         "read": ["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "3"]}


def attack(stack, mode):
    """slowhttptest's own view of the service, second by second, and how it ended."""
    words = ["slowhttptest", "-c", "150", "-r", "100", "-l", "8", "-p", "3", "-u", f"https://127.0.0.1:{stack.port}/livez",
             *MODES[mode]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout + done.stderr)
    return re.findall(r"service available:\s+(YES|NO)", text), text


def test_slowhttptest_finds_the_service_available(make_stack):
    stack = make_stack("--workers", "1")
    before, pids = descriptors(stack), stack.pids()
    agent = stack.agent()
    seen = {}
    threads = [threading.Thread(target=lambda each=mode: seen.update({each: attack(stack, each)})) for mode in MODES]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert agent.register().status_code in (200, 201)
        time.sleep(0.2)
    for mode, (available, text) in seen.items():
        assert available and set(available) == {"YES"}, f"{mode}:\n{text}"
    agent.client.close()
    wait_for(lambda: descriptors(stack) == before, what=f"the descriptors {before}")
    assert stack.pids() == pids
