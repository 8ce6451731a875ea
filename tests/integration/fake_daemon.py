"""Somebody who stands between frontd and a daemon behind it: hands everything on, or plays a broken daemon himself."""

import json
import struct
import subprocess

import msgpack
from harness import PYTHON, wait_for

ID = b"the request's id"  # in an answer it stands for the id of the request that is answered

# Its arguments: the socket to listen at, the daemon's own, and a user to become before that, 0 for none. Each line of its
# input is what to do from now on, with new connections. It says "cut" when the old ones have ended, "taken" when the first
# new one has come.
FAKE = """
import json, os, socket, sys, threading
path, real, user = sys.argv[1], sys.argv[2], int(sys.argv[3])
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
if user:
    os.chmod(path, 0o666); os.setgroups([]); os.setgid(user); os.setuid(user)
listener.listen(64)
lock, role, peers, told = threading.Lock(), None, [], False
def end(peer):
    try: peer.shutdown(socket.SHUT_RDWR)
    except OSError: pass
def pump(source, target):
    try:
        while data := source.recv(65536): target.sendall(data)
    except OSError: pass
    end(source); end(target)
def exactly(peer, count):
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more: raise ConnectionError
        data += more
    return data
def frame(peer): return exactly(peer, int.from_bytes(exactly(peer, 4), "big"))
def play(peer, hello, answer, close):
    try:
        peer.sendall(bytes.fromhex(hello))
        if close == "at once": return end(peer)
        frame(peer)
        while True:
            payload = frame(peer)
            at = payload.index(bytes([0xc4, 16])) + 2
            peer.sendall(bytes.fromhex(answer).replace(b"the request's id", payload[at:at + 16]))
            if close: return end(peer)
    except OSError: pass
def serve(peer, role):
    if role: return play(peer, **role)
    own = socket.socket(socket.AF_UNIX)
    try: own.connect(real)
    except OSError: return end(peer)
    threading.Thread(target=pump, args=[own, peer], daemon=True).start()
    pump(peer, own)
def accept():
    global told
    while True:
        peer, _ = listener.accept()
        with lock:
            peers.append(peer); mine = role
            if not told: print("taken", flush=True)
            told = True
        threading.Thread(target=serve, args=[peer, mine], daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
for line in sys.stdin:
    with lock:
        role, told = json.loads(line), False
        for peer in peers: end(peer)
        peers.clear()
        print("cut", flush=True)
"""


def framed(payload):
    return struct.pack(">I", len(payload)) + payload


def frame(*values):
    return framed(msgpack.packb(values, use_bin_type=True))


def hello(name, version=1):
    """A daemon's HELLO."""
    return frame(1, bytes(16), version, name, "fake")


class FakeDaemon:
    """In the place of one daemon of a stack, or of its fake, from the next connection on. user: whose process it is, 0 for
    the stack's (another's only for root)."""

    def __init__(self, stack, name, user=0):
        self.name, self.path = name, stack.folder.socket(name)
        self.real = self.path.with_name(f"{name}{'-stranger' if user else ''}.real")
        self.path.rename(self.real)
        words = [PYTHON, "-c", FAKE, self.path, self.real, str(user)]
        spawn = subprocess.Popen if user else stack.spawn_as_owner
        self.process = spawn([str(word) for word in words], stdin=-1, stdout=-1, text=True)
        wait_for(self.path.exists)

    def begin(self, role):
        self.process.stdin.write(json.dumps(role) + "\n")
        self.process.stdin.flush()
        self.read_until("cut")

    def read_until(self, word):
        for line in self.process.stdout:
            if line == f"{word}\n":
                return
        raise AssertionError("the fake has ended")

    def wait_taken(self):
        """Until somebody has come since the last change."""
        self.read_until("taken")

    def play(self, hello, answer=b"", close=""):
        """From now on: this HELLO, and this answer to each request; close: "at once" behind HELLO, or "then" behind the
        first answer."""
        self.begin({"hello": hello.hex(), "answer": answer.hex(), "close": close})

    def hand_on(self):
        """From now on the daemon itself is heard."""
        self.begin(None)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.real.rename(self.path)
