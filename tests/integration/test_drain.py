"""A worker that ends answers who has asked, and sends away who has not."""

import os
import signal
from pathlib import Path

from connection import request
from harness import wait_for

LIVEZ = request("GET", "/livez")


def sleeps(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("S")


def test_requests_that_have_just_arrived_are_answered(make_stack):
    """Idle until then, on connections that were answered before: they lie in the socket when the drain begins."""
    stack = make_stack("--workers", "1")
    worker, = stack.workers()
    asking = [stack.connection() for _ in range(20)]
    silent = [stack.connection() for _ in range(20)]
    assert all(connection.ask(LIVEZ).status_code == 200 for connection in asking + silent)
    os.kill(worker, signal.SIGSTOP)
    os.kill(stack.pid("frontd"), signal.SIGTERM)
    wait_for(lambda: "draining" in stack.log("frontd"))
    wait_for(lambda: sleeps(stack.pid("frontd")), what="the supervisor's word to the worker, which follows that line")
    for connection in asking:
        connection.send(LIVEZ)
    os.kill(worker, signal.SIGCONT)
    for connection in asking:
        answer = connection.receive()
        assert answer and (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert all(connection.ends() for connection in asking + silent)
    wait_for(lambda: not stack.runs("frontd"), what="frontd's end")
    stack.start("frontd")
    assert stack.client().get("/livez").status_code == 200
