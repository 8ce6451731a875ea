"""A TLS connection whose every byte is in the test's hand, and what comes back on it."""

import socket
import ssl

import httpx


class Answer:
    """One HTTP answer, with the names that httpx gives its own."""

    def __init__(self, head, body):
        status, *lines = head.decode("latin-1").split("\r\n")
        self.version, code, self.reason = (status.split(" ", 2) + [""])[:3]
        self.status_code = int(code)
        pairs = [line.split(":", 1) for line in lines]
        self.headers = httpx.Headers([(name, value.strip()) for name, value in pairs])
        self.content = body

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return httpx.Response(200, content=self.content).json()


class TlsConnection:
    """TLS whose every byte is in the test's hand. Times out after 15 s wherever it waits. source: the address that it
    comes from; first: bytes that go out before TLS begins, in one piece with it."""

    def __init__(self, port, context, host="localhost", handshake=True, source=None, first=b""):
        self.socket = socket.create_connection((host, port), timeout=15, source_address=source and (source, 0))
        self.first = first
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.unread = b""
        if handshake:
            self.run(self.tls.do_handshake)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        waiting, self.first = self.first + self.outgoing.read(), b""
        if waiting:
            self.socket.sendall(waiting)

    def run(self, step, *values):
        """One step of TLS, with as much reading and writing as it asks for."""
        while True:
            try:
                result = step(*values)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                data = self.socket.recv(65536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            except ssl.SSLError:
                self.flush()
                raise

    def send(self, data):
        self.run(self.tls.write, data)

    def read(self):
        """Some bytes; none at the end."""
        try:
            return self.run(self.tls.read, 65536)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def receive(self, head_only=False):
        """The next answer; None when the connection ended before one."""
        while b"\r\n\r\n" not in self.unread:
            data = self.read()
            if not data:
                assert not self.unread, f"half an answer: {self.unread!r}"
                return None
            self.unread += data
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        answer = Answer(head, b"")
        length = 0 if head_only or answer.status_code < 200 else int(answer.headers["content-length"])
        while len(self.unread) < length:
            data = self.read()
            assert data, f"the answer ended after {len(self.unread)} of {length} bytes"
            self.unread += data
        answer.content, self.unread = self.unread[:length], self.unread[length:]
        return answer

    def ask(self, data):
        self.send(data)
        return self.receive()

    def is_open(self):
        """Whether another request is answered; what comes instead must be an orderly end."""
        try:
            self.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return self.receive() is not None
        except (ConnectionError, ssl.SSLError):
            return False

    def ends(self):
        """Whether the peer closes now, with nothing more to say."""
        return not self.unread and self.read() == b""

    def say_goodbye(self):
        """TLS' half-close: close_notify is sent, what the peer still says can be read."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()


def request(method, path, body=None, version="HTTP/1.1", **headers):
    """The bytes of a request. Header names are written with _ for -; Content-Length comes with a body."""
    lines = [f"{method} {path} {version}", "Host: localhost"]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")
