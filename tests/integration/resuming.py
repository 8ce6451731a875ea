"""Clients that bring their TLS session again: well-behaved ones, and ones that changed it."""

import ssl
import subprocess

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
SELF = b"GET /v1/mesh/self HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

class Client:
    """A client that brings its last session again."""

    def __init__(self, stack, crt=None, key=None, version="1.3"):
        self.stack, self.session = stack, None
        self.context = stack.context(crt, key, minimum_version=VERSIONS[version], maximum_version=VERSIONS[version])

    def ask(self, question=SELF):
        """One request on a new connection: the answer's status, and whether the session was resumed."""
        with self.stack.raw_socket(self.context, self.session) as connection:
            connection.sendall(question)
            status = int(connection.recv(65536).split()[1])
            self.session = connection.session
            return status, connection.session_reused

# ---- sessions by the byte ------------------------------------------------------------------------

MASTER_KEY, TICKET, MAX_EARLY_DATA = 4, 0xAA, 0xAF  # OpenSSL's SSL_SESSION: a place, and two tags

def der(tag, content):
    length = len(content)
    head = bytes([length]) if length < 128 else bytes([0x82]) + length.to_bytes(2, "big")
    return bytes([tag]) + head + content

def elements(content):
    """The elements of a DER sequence's content: tags and contents."""
    found = []
    while content:
        tag, length, at = content[0], content[1], 2
        if length & 0x80:
            at += length & 0x7F
            length = int.from_bytes(content[2:at], "big")
        found.append((tag, content[at:at + length]))
        content = content[at + length:]
    return found

class Session:
    """A session as `openssl s_client` keeps it, to be changed by the byte."""

    def __init__(self, pem):
        self.fields = elements(elements(ssl.PEM_cert_to_DER_cert(
            pem.replace("SSL SESSION PARAMETERS", "CERTIFICATE")))[0][1])

    def write(self, path):
        text = ssl.DER_cert_to_PEM_cert(der(0x30, b"".join(der(*field) for field in self.fields)))
        path.write_text(text.replace("CERTIFICATE", "SSL SESSION PARAMETERS"))
        return path

    @property
    def ticket(self):
        return elements(dict(self.fields)[TICKET])[0][1]

    @ticket.setter
    def ticket(self, ticket):
        self.fields = [(tag, der(4, ticket) if tag == TICKET else content) for tag, content in self.fields]

    def flip_master_key(self):
        tag, content = self.fields[MASTER_KEY]
        self.fields[MASTER_KEY] = (tag, bytes([content[0] ^ 1]) + content[1:])

    def allow_early_data(self):
        """As if the server had said that it takes some."""
        self.fields = [field for field in self.fields if field[0] != MAX_EARLY_DATA]
        at = next((i for i, (tag, _) in enumerate(self.fields) if tag > MAX_EARLY_DATA), len(self.fields))
        self.fields.insert(at, (MAX_EARLY_DATA, der(2, (16384).to_bytes(2, "big"))))

def s_client(stack, *options, crt=None, key=None, question=SELF):
    """One request by `openssl s_client`; all that it says."""
    words = ["openssl", "s_client", "-connect", f"localhost:{stack.port}", "-servername", "localhost",
             "-CAfile", stack.env["CAF_CA"], "-ign_eof", *map(str, options)]
    if crt:
        words += ["-cert", crt, "-key", key, "-cert_chain", crt]
    done = subprocess.run(words, input=question, capture_output=True, check=False, timeout=30)
    return (done.stdout + done.stderr).decode(errors="replace")
