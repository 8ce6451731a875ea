"""A worker that asks a back daemon without end and listens to nothing: soon no more is taken from it, so that it costs
little memory, and all is answered once it listens."""

import pytest
from harness import PYTHON

QUESTIONS = 300000

# Asks as fast as it can, until nothing more is taken; then listens until the last question is answered.
DEAF = """
import select, socket, sys
import msgpack
path, questions = sys.argv[1], int(sys.argv[2])
def frame(*values):
    payload = msgpack.packb(values, use_bin_type=True)
    return len(payload).to_bytes(4, "big") + payload
peer = socket.socket(socket.AF_UNIX)
peer.connect(path)
data = frame(1, bytes(16), 1, "frontd", "test")
data += b"".join(frame(3, bytes(12) + number.to_bytes(4, "big")) for number in range(questions))
view, sent = memoryview(data), 0
peer.settimeout(2)
try:
    while sent < len(view):
        sent += peer.send(view[sent:sent + 65536])
except TimeoutError:
    pass
print(sent < len(view), flush=True)
sys.stdin.readline()
peer.setblocking(False)
answers, count = b"", -1
while count < questions:
    readable, writable, _ = select.select([peer], [peer] if sent < len(view) else [], [], 10)
    assert readable or writable, f"no more after {count} answers"
    if writable:
        sent += peer.send(view[sent:sent + 65536])
    if readable:
        answers += peer.recv(1 << 20)
        at = 0
        while len(answers) - at >= 4 and len(answers) - at >= 4 + (length := int.from_bytes(answers[at:at + 4], "big")):
            at, count = at + 4 + length, count + 1
        answers = answers[at:]
print(count)
"""


@pytest.mark.parametrize("name", ["registryd", "auditd", "eventd", "keeper"])
def test_a_peer_that_does_not_listen(stack, name):
    process = stack.spawn_as_owner([PYTHON, "-c", DEAF, stack.folder.socket(name), str(QUESTIONS)], stdin=-1, stdout=-1,
                                   text=True)
    assert process.stdout.readline() == "True\n", "it took all the questions"
    heard, _ = process.communicate("listen\n", timeout=60)
    assert heard == f"{QUESTIONS}\n"
