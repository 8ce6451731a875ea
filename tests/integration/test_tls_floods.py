"""TLS records that bring no data, as many as one connection can send: the others are served beside it."""

import subprocess
import time

from harness import PYTHON

# A client that speaks TLS 1.3 through OpenSSL itself, and after the handshake only ever changes its keys (RFC 8446
# 4.6.3), for some seconds.
FLOOD = """
import ctypes, socket, sys, time
tls = ctypes.CDLL("libssl.so.3")
for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
    getattr(tls, name).restype = ctypes.c_void_p
context = ctypes.c_void_p(tls.SSL_CTX_new(ctypes.c_void_p(tls.TLS_client_method())))
plain = socket.create_connection(("localhost", int(sys.argv[1])))
session = ctypes.c_void_p(tls.SSL_new(context))
tls.SSL_set_fd(session, plain.fileno())
assert tls.SSL_connect(session) == 1
print("connected", flush=True)
until, count = time.monotonic() + 4, 0
while time.monotonic() < until:
    assert tls.SSL_key_update(session, 0) == 1 and tls.SSL_do_handshake(session) == 1
    count += 1
print(count)
"""


def test_nobody_holds_the_loop(make_stack):
    stack = make_stack("--workers", "1")
    client = stack.client()
    assert client.get("/livez").status_code == 200
    flood = subprocess.Popen([PYTHON, "-c", FLOOD, str(stack.port)], stdout=subprocess.PIPE, text=True)
    assert flood.stdout.readline() == "connected\n"
    slowest = 0.0
    while flood.poll() is None:
        start = time.monotonic()
        assert client.get("/livez").status_code == 200
        slowest = max(slowest, time.monotonic() - start)
    assert int(flood.stdout.read()) > 1000
    assert slowest < 1
