"""A back daemon that is broken, or in somebody else's hands: a worker gives its client an error, and does not die of it.

The place of registryd is taken by a few lines that speak its protocol and answer as the test wants."""

import contextlib
import struct

import msgpack
import pytest
from harness import PYTHON, Stack, check_error, wait_for

ID = "the request's"  # stands for the id of the request that is answered
JSON = '{"a":"' + "x" * 200 + '"}'
ANSWERS = {
    "status": [4, ID, True, False, JSON],
    "mesh_registered": [31, ID, True, False, JSON, 10, 100, b""],
    "mesh_beat": [33, ID, "a" * 200, "active", 1, 1],
    "mesh_agent": [35, ID, JSON],
}
RIGHT = {"register": "mesh_registered", "heartbeat": "mesh_beat", "self": "mesh_agent"}

# Takes registryd's place. Its argument: its socket, its HELLO, and its answer to every request, in hexadecimal, an id of
# 16 zero bytes in it standing for the request's.
FAKE = """
import socket, sys, threading
path, hello, answer = sys.argv[1], bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
listener = socket.socket(socket.AF_UNIX); listener.bind(path); listener.listen(64)
def exactly(peer, count):
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more: raise ConnectionError
        data += more
    return data
def serve(peer):
    try:
        peer.sendall(hello)
        exactly(peer, int.from_bytes(exactly(peer, 4), "big"))
        while True:
            payload = exactly(peer, int.from_bytes(exactly(peer, 4), "big"))
            at = payload.index(bytes([0xc4, 16])) + 2
            peer.sendall(answer.replace(bytes(16), payload[at:at + 16]))
    except OSError: pass
while True: threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
"""


def framed(payload):
    return struct.pack(">I", len(payload)) + payload


def frame(values):
    return framed(msgpack.packb([bytes(16) if value == ID else value for value in values], use_bin_type=True))


HELLO = frame([1, ID, 1, "registryd", "fake"])


@pytest.fixture(scope="module")
def own():
    """A stack without its registryd; it comes back at the end, and then everything works."""
    sets = ["frontd.timeouts.read_deadline_seconds=1", "frontd.timeouts.write_deadline_seconds=1"]
    made = Stack(sets=sets).up()
    workers = made.workers()
    with made.without("registryd"):
        yield made
    agent = made.agent()
    wait_for(lambda: agent.register().status_code == 201)
    assert agent.self().json()["agent"]["agent_id"] == agent.name
    assert made.workers() == workers
    made.close()


@contextlib.contextmanager
def registryd_taken(own, answer, hello=HELLO):
    """The fake stands in registryd's place meanwhile, and costs no worker its life."""
    before, path = own.workers(), own.folder.socket("registryd")
    path.unlink(missing_ok=True)
    fake = own.spawn_as_owner([PYTHON, "-c", FAKE, path, hello.hex(), answer.hex()])
    try:
        wait_for(path.exists)
        yield
        assert own.workers() == before
    finally:
        fake.kill()
        fake.wait()


def ask(agent, name):
    return {"register": agent.register, "heartbeat": agent.heartbeat, "self": agent.self}[name]()


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_to_another_question(own, name):
    agent = own.agent()
    with registryd_taken(own, frame(ANSWERS[name])):
        for question, right in RIGHT.items():
            answer = ask(agent, question)
            if right == name:
                assert answer.status_code in (200, 201)
            else:
                assert answer.status_code in (500, 503), answer.text
                check_error(answer, answer.status_code, {500: "INTERNAL", 503: "UNAVAILABLE"}[answer.status_code])


@pytest.mark.parametrize("code", ["CONFLICT", "NONSENSE", "x" * 32])
def test_a_failure_of_any_name(own, code):
    with registryd_taken(own, frame([2, ID, code, "no \"quotes\"\n harm"])):
        answer = own.agent().self()
        check_error(answer, 409 if code == "CONFLICT" else 500, "CONFLICT" if code == "CONFLICT" else "INTERNAL")


BROKEN = {
    "garbage": b"\xff" * 64,
    "a length of 4 GiB": b"\xff\xff\xff\xff",
    "half an answer": frame(ANSWERS["mesh_agent"])[:20],
    "an answer of the wrong shape": frame([35, ID, 7]),
    "a member too long": frame([33, ID, "a" * 256, "active", 1, 1]),
    "no UTF-8": frame([35, ID, "{{}}"]).replace(b"{{}}", b"{\xff\xfe}"),
    "somebody else's message": frame([54, ID, "{}"]),
    "a request": frame([34, ID, "acme", "spiffe://x/y"]),
    "an answer to nobody": frame([35, b"nobody's request", JSON]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer(own, name):
    agent = own.agent()
    with registryd_taken(own, BROKEN[name]):
        check_error(agent.self(), 503, "UNAVAILABLE")


@pytest.mark.parametrize("hello", [b"\xff" * 64, frame([1, ID, 2, "registryd", "fake"]),
                                   frame([1, ID, 1, "eventd", "fake"]), frame([35, ID, JSON])],
                         ids=["garbage", "version", "name", "no HELLO"])
def test_a_wrong_hello(own, hello):
    agent = own.agent()
    with registryd_taken(own, frame(ANSWERS["mesh_agent"]), hello):
        check_error(agent.self(), 503, "UNAVAILABLE")


def test_two_answers_to_one_question(own):
    agent = own.agent()
    with registryd_taken(own, frame(ANSWERS["mesh_agent"]) * 2):
        for _ in range(3):
            assert agent.self().status_code == 200
