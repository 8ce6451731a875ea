"""A back daemon that answers what was not asked: one of its own message types, at the wrong place. Broken, it may fail
the requests that it serves; it must not get at the memory of a worker."""

import contextlib
import json

import pytest
from harness import PYTHON, check_error, wait_for

# Runs as the stack's user in place of a back daemon, and answers every request with the one message.
LIAR = """
import json, os, socket, sys, threading
import msgpack
path, name, answer = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def frame(*values):
    payload = msgpack.packb(values, use_bin_type=True)
    return len(payload).to_bytes(4, "big") + payload
def serve(peer):
    stream = peer.makefile("rb")
    peer.sendall(frame(1, bytes(16), 1, name, "test"))
    while head := stream.read(4):
        kind, request_id, *_ = msgpack.unpackb(stream.read(int.from_bytes(head, "big")), raw=False)
        if kind != 1:
            peer.sendall(frame(answer[0], request_id, *answer[1:]))
if os.path.exists(path):
    os.unlink(path)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(64)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

STATUS = [4, True, True, "{}"]
BEAT = [33, "a" * 200, "active", 1, 1]
CASES = {
    "a status for a registration": ("registryd", STATUS, "POST", "/v1/mesh/register"),
    "a beat for a registration": ("registryd", BEAT, "POST", "/v1/mesh/register"),
    "a status for a heartbeat": ("registryd", STATUS, "POST", "/v1/mesh/heartbeat"),
    "a status for a record": ("registryd", STATUS, "GET", "/v1/mesh/self"),
    "a status for a page": ("eventd", STATUS, "GET", "/v1/security/events"),
    "done for a page": ("eventd", [52], "GET", "/v1/security/events"),
}


@contextlib.contextmanager
def liar(stack, name, answer):
    """That daemon is gone meanwhile, and this one in its place."""
    with stack.without(name):
        process = stack.spawn_as_owner([PYTHON, "-c", LIAR, stack.folder.socket(name), name, json.dumps(answer)])
        try:
            yield
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("case", CASES)
def test_the_wrong_answer(stack, case):
    name, answer, method, path = CASES[case]
    client = stack.operator("auditor") if name == "eventd" else stack.agent().client
    body = {"hostname": "h"} if path.endswith("register") else None
    pids = stack.pids()["workers"]
    with liar(stack, name, answer):
        check_error(client.request(method, path, json=body), 500, "INTERNAL")
    assert stack.pids()["workers"] == pids
    wait_for(lambda: client.get("/readyz").status_code == 200)
