"""Broken frames into every back daemon's socket: the channel ends, it is logged and counted by its reason, and nothing
dies."""

import json
import re
import struct

import msgpack
import pytest
from harness import PYTHON, wait_for
from scraping import grows, of, scrape

BACK = ("keeper", "registryd", "auditd", "eventd")
ID = bytes(range(16))
STRANGER = 4242

# Runs as the stack's user. Sends each case on a connection of its own, and reads until the end or until that many
# messages have come; says how each ended. What follows enough of them may be half a message, and is left out.
SENDER = """
import json, socket, sys
path, cases, enough = json.load(sys.stdin)
def whole(data):
    count = end = 0
    while len(data) >= end + 4 and len(data) >= (after := end + 4 + int.from_bytes(data[end:end + 4], "big")):
        count, end = count + 1, after
    return count, end
def send(data):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(path)
        answer = b""
        try:
            peer.sendall(bytes.fromhex(data))
            while whole(answer)[0] < enough and (more := peer.recv(65536)):
                answer += more
        except ConnectionError:
            pass
        except TimeoutError:
            return ["open", answer.hex()]
    count, end = whole(answer)
    return ["closed", answer.hex()] if count < enough else ["enough", answer[:end].hex()]
print(json.dumps([send(case) for case in cases]))
"""
FOR_EVER = 1000000


def frame(*values):
    return framed(msgpack.packb(values, use_bin_type=True))


def framed(payload):
    return struct.pack(">I", len(payload)) + payload


HELLO = frame(1, ID, 1, "frontd", "test")

# Why it is refused (common/ipc_refusals.def), and the bytes.
CASES = {
    "garbage": ("length", b"\xff" * 64),
    "HTTP": ("length", b"GET / HTTP/1.1\r\n\r\n"),
    "a length of 4 GiB": ("length", b"\xff\xff\xff\xff" + b"x" * 100),
    "a length beyond 1 MiB": ("length", struct.pack(">I", 1048577) + b"x" * 100),
    "a length of nothing": ("length", struct.pack(">I", 0)),
    "no msgpack": ("malformed", framed(b"\xc1" * 20)),
    "a map": ("malformed", framed(msgpack.packb({"a": 1}))),
    "an array of 4 Gi": ("malformed", framed(b"\xdd\xff\xff\xff\xff")),
    "a text of 4 GiB": ("malformed", framed(b"\x95\x01\xdb\xff\xff\xff\xff")),
    "nested arrays": ("malformed", framed(b"\x91" * 100000)),
    "an empty array": ("malformed", frame()),
    "a type alone": ("malformed", frame(1)),
    "no number": ("malformed", frame("hello", ID, 1, "frontd", "test")),
    "no HELLO first": ("hello", frame(3, ID)),
    "HELLO of another version": ("hello", frame(1, ID, 2, "frontd", "test")),
    "HELLO of a stranger": ("hello", frame(1, ID, 1, "eavesdropd", "test")),
    "HELLO of a back daemon": ("hello", frame(1, ID, 1, "registryd", "test")),
    "HELLO without its build": ("malformed", frame(1, ID, 1, "frontd")),
    "HELLO with more": ("malformed", frame(1, ID, 1, "frontd", "test", "more")),
    "HELLO with left-over bytes": ("malformed", framed(HELLO[4:] + b"\xc0")),
    "HELLO with a short id": ("malformed", frame(1, ID[:15], 1, "frontd", "test")),
    "HELLO with a text for an id": ("malformed", frame(1, "a" * 16, 1, "frontd", "test")),
    "HELLO with a NUL": ("malformed", frame(1, ID, 1, "frontd\0", "test")),
    "HELLO with a long build": ("malformed", frame(1, ID, 1, "frontd", "b" * 65)),
    "HELLO twice": ("hello", HELLO + HELLO),
    "an unknown type": ("malformed", HELLO + frame(999, ID)),
    "a type of 64 bits": ("malformed", HELLO + frame(2**64 - 1, ID)),
    "a negative type": ("malformed", HELLO + frame(-3, ID)),
    "an answer where a request belongs": ("malformed", HELLO + frame(4, ID, True, False, "{}")),
    "the supervisor's message": ("malformed", HELLO + frame(16, ID)),
    "a back daemon's failure": ("malformed", HELLO + frame(2, ID, "INTERNAL", "x")),
    "a field too many": ("malformed", HELLO + frame(3, ID, 1)),
    "no UTF-8": ("malformed", framed(msgpack.packb([1, ID, 1], use_bin_type=True)[:-1] + b"\x01\xa2\xff\xfe\xa1x")),
}


SERVED_ELSEWHERE = frame(34, ID, "acme", "spiffe://x/y")  # mesh_self


def unframe(data):
    """The messages in what a daemon sent."""
    while data:
        length, = struct.unpack(">I", data[:4])
        yield msgpack.unpackb(data[4:4 + length], raw=False)
        data = data[4 + length:]


def exchange(stack, path, cases, enough=FOR_EVER):
    """Sends each case to the socket; how its connection ended, and what was answered."""
    question = json.dumps([str(path), [case.hex() for case in cases], enough])
    done = stack.run_as_owner([PYTHON, "-c", SENDER], input=question)
    assert done.returncode == 0, done.stderr
    return [(how, bytes.fromhex(answer)) for how, answer in json.loads(done.stdout)]


def complaints(stack, name):
    return len(re.findall(r"level=(?:warn|error) ", stack.log(name)))


def refusals(stack, name, reason, count):
    """What the daemon shall have counted of every reason, for grows."""
    reasons = scrape(stack).values_of("ipc_refusals_total", "reason", daemon=name)
    assert reason in reasons
    return {of("ipc_refusals_total", daemon=name, reason=each): count * (each == reason) for each in reasons}


@pytest.mark.parametrize("name", BACK)
@pytest.mark.parametrize("case", CASES)
def test_a_broken_frame(stack, name, case):
    (reason, data), before, pids = CASES[case], complaints(stack, name), stack.pids()
    with grows(stack, by=refusals(stack, name, reason, 1)):
        (how, _), = exchange(stack, stack.folder.socket(name), [data])
        assert how == "closed"
        wait_for(lambda: complaints(stack, name) == before + 1, what="one complaint in the log")
    assert stack.pids() == pids


@pytest.mark.parametrize("name", BACK)
def test_half_a_frame_and_gone(stack, name):
    """A peer that leaves in the middle harms nobody."""
    pids = stack.pids()
    path = str(stack.folder.socket(name))
    leave = "import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); " \
            "s.sendall(bytes.fromhex(sys.argv[2]))"
    for data in (b"", HELLO[:3], HELLO[:10], HELLO + b"\0\0", HELLO + frame(3, ID)):
        assert stack.run_as_owner([PYTHON, "-c", leave, path, data.hex()]).returncode == 0
    assert stack.client().get("/readyz").status_code == 200
    assert stack.pids() == pids


@pytest.mark.parametrize("name", [name for name in BACK if name != "registryd"])
def test_a_message_for_another_daemon(stack, name):
    """It is frontd's to send, but not to this daemon: it is told so, and may go on."""
    with grows(stack, by=refusals(stack, name, "unserved", 3)):
        (how, answer), = exchange(stack, stack.folder.socket(name), [HELLO + 3 * SERVED_ELSEWHERE + frame(3, ID)], 5)
    assert how == "enough"
    assert [message[0] for message in unframe(answer)] == [1, 2, 2, 2, 4]


@pytest.mark.parametrize("name", BACK)
def test_the_daemon_says_hello_and_answers_its_status(stack, name):
    """The control of this file: what is well formed is answered, on the same way in."""
    path = stack.folder.socket(name)
    (how, answer), = exchange(stack, path, [HELLO + frame(3, ID)], enough=2)
    assert how == "enough"
    messages = list(unframe(answer))
    assert len(messages) == 2 and (messages[0][0], messages[0][2:4]) == (1, [1, name])
    kind, request_id, ready, _, detail = messages[1]
    assert (kind, request_id, ready) == (4, ID, True)
    assert isinstance(json.loads(detail), dict)


@pytest.mark.parametrize("name", BACK)
def test_a_peer_of_another_user_is_refused(stack, name):
    """A second daemon that expects another uid: the stack's own user, which may open its socket, is a stranger there."""
    path, file = stack.folder.socket(f"{name}-other"), stack.folder.etc / f"{name}-other.conf"
    text = stack.folder.configuration(name).read_text()
    text = re.sub(r"(?m)^peer_users = .*$", f"peer_users = {STRANGER}", text)
    file.write_text(text.replace(str(stack.folder.socket(name)), str(path)))
    file.chmod(0o644)
    with open(stack.folder.log / f"{name}-other.log", "wb") as log:
        daemon = stack.spawn_as_owner([stack.folder.bin / name, "-c", file], stderr=log)
        try:
            wait_for(path.exists)
            assert exchange(stack, path, [HELLO + frame(3, ID)]) == [("closed", b"")]
            assert daemon.poll() is None
        finally:
            daemon.terminate()
            daemon.wait()
    uid = stack.owner().pw_uid
    assert re.search(rf"level=warn .*{uid}", stack.log(f"{name}-other"))
