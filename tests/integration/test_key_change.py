"""The keeper restarts, dies and gets a new key while clients shake hands without a pause: none fails (docs/ARCHITECTURE.md,
Reload)."""

import contextlib
import os
import signal
import subprocess

from caf_dev.authority import SERVER, certificate_pem, key_pem, new_key, server_names, write_file
from cryptography import x509
from harness import PYTHON, wait_for

CLIENTS = 3

# Full handshakes, one after the other, until standard input ends, and some in any case: how many, and what went wrong.
CLIENT = """
import collections, select, socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
context.load_cert_chain(sys.argv[3], sys.argv[4])
good, bad, seen = 0, [], collections.Counter()
print("ready", flush=True)
while good + len(bad) < 20 or not select.select([sys.stdin], [], [], 0)[0]:
    try:
        with socket.create_connection(("localhost", int(sys.argv[1])), timeout=30) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                tls.sendall(b"GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
                assert tls.recv(65536).startswith(b"HTTP/1.1 200"), "no answer"
                assert not tls.session_reused
                good += 1
    except Exception as error:
        bad.append(repr(error))
print(good, bad)
"""


@contextlib.contextmanager
def handshakes(stack):
    """Several clients beside what is done meanwhile; not one handshake of theirs fails."""
    agents = [stack.agent() for _ in range(CLIENTS)]
    clients = [subprocess.Popen([PYTHON, "-c", CLIENT, str(stack.port), stack.env["CAF_CA"], agent.crt, agent.key],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for agent in agents]
    try:
        assert [client.stdout.readline() for client in clients] == ["ready\n"] * CLIENTS
        yield
    finally:
        answers = [client.communicate()[0] for client in clients]
    for answer in answers:
        count, _, bad = answer.strip().partition(" ")
        assert bad == "[]" and int(count) >= 20, answer


def served(stack):
    """The serial number of the certificate that a new client is shown."""
    with stack.raw_socket(stack.context()) as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)).serial_number


def set_keys(stack, *names):
    path = stack.folder.configuration("keeper")
    lines = [f"files = {', '.join(str(stack.folder.tls / name) for name in names)}" if line.startswith("files") else line
             for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")


def reload(stack, ending):
    before = stack.log("frontd").count(ending)
    os.kill(stack.pid("frontd"), signal.SIGHUP)
    wait_for(lambda: stack.log("frontd").count(ending) > before, what=ending)


def put_new_key(stack):
    """A new key beside the old one, owned by the keeper's user; the certificate that will take the old one's place."""
    key, path = new_key(), stack.folder.tls / "server-next.key"
    write_file(path, key_pem(key))
    os.chown(path, stack.owner().pw_uid, stack.owner().pw_gid)
    return stack.issuer().issue(key, common_name="localhost", names=server_names(), uses=(SERVER,))


def test_no_handshake_fails(make_stack):
    stack = make_stack()
    with handshakes(stack):
        stack.restart("keeper")
    with handshakes(stack):
        stack.kill("keeper")
    old = served(stack)
    with handshakes(stack):
        chain = put_new_key(stack)
        (stack.folder.tls / "server-p256.crt").write_bytes(certificate_pem(*chain))
        reload(stack, "reload refused")  # the keeper does not hold that key: what is served goes on
        assert served(stack) == old
        set_keys(stack, "server-p256.key", "server-rsa.key", "server-next.key")
        stack.restart("keeper")
        reload(stack, "msg=reloaded")
        wait_for(lambda: {served(stack) for _ in range(8)} == {chain[0].serial_number})
        set_keys(stack, "server-next.key", "server-rsa.key")
        stack.restart("keeper")
    assert served(stack) == chain[0].serial_number
