"""A worker that can take no more connections, for want of descriptors or by its limit: it says so once in a while, and
goes on when there is room again."""

import contextlib
import os
import socket
import time
from pathlib import Path

import httpx
import pytest
from harness import wait_for


@pytest.fixture
def narrow(make_stack):
    """A stack whose one worker may open a few descriptors more than it has."""
    stack = make_stack("--workers", "1")
    worker, = stack.workers()
    bound = len(os.listdir(f"/proc/{worker}/fd")) + 4
    done = stack.run_as_owner(["prlimit", "--pid", worker, f"--nofile={bound}:{bound}"])
    assert done.returncode == 0, done.stderr
    return stack


@contextlib.contextmanager
def crowd(stack, size=20):
    with contextlib.ExitStack() as held:
        for _ in range(size):
            held.enter_context(socket.create_connection(("localhost", stack.port)))
        yield


def lets_in(stack):
    try:
        return stack.client().get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def complaints(stack):
    return stack.log("frontd").count("cannot accept")


def test_a_crowd_fills_no_log(narrow):
    with crowd(narrow):
        wait_for(lambda: complaints(narrow))
        time.sleep(2)
        assert complaints(narrow) < 50
    wait_for(lambda: narrow.client().get("/livez").status_code == 200)


def test_a_backend_that_came_back_meanwhile_is_found(narrow):
    agent = narrow.agent()
    with crowd(narrow):
        wait_for(lambda: complaints(narrow))
        narrow.kill("registryd")
        time.sleep(1)
    answer = wait_for(lambda: (got := agent.register()).status_code == 201 and got, seconds=20)
    assert answer


def processor_seconds(pid):
    """What the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_who_asks_for_metrics_meanwhile_waits_without_a_loop(narrow):
    worker, = narrow.workers()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(15)
        with crowd(narrow):
            wait_for(lambda: complaints(narrow))
            client.connect(narrow.env["CAF_METRICS_SOCKET"])
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            before = processor_seconds(worker)
            time.sleep(2)
            assert processor_seconds(worker) - before < 1
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_crowd_at_the_limit_fills_no_log(make_stack):
    stack = make_stack("--workers", "1", sets=("frontd.limits.connections=4",))
    with crowd(stack, 200):
        wait_for(lambda: "limits.connections reached" in stack.log("frontd"))
        time.sleep(1)
        assert stack.log("frontd").count("limits.connections reached") < 20
    wait_for(lambda: lets_in(stack))
