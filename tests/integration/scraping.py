"""What the admin listener answers, and what is counted while something happens."""

import contextlib
import re
import socket

SAMPLE = re.compile(r'(?m)^(caf_\w+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
GET_METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Sample(dict):
    """A scrape's values by name and labels; what is not there is an error, so that no typing mistake counts as 0."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        for name, labels, value in SAMPLE.findall(text):
            key = (name, frozenset(LABEL.findall(labels)))
            assert key not in self, f"{key} twice"
            self[key] = float(value)

    def value(self, name, **labels):
        return self[(f"caf_{name}", frozenset(labels.items()))]

    def values_of(self, name, label, **labels):
        """The values of a metric with these labels, by its other label's value."""
        return {dict(key)[label]: value for (each, key), value in self.items()
                if each == f"caf_{name}" and dict(key).items() >= labels.items()}


def ask(path, sent=GET_METRICS, half_close=False):
    """All that the admin socket answers to these bytes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(15)
        client.connect(str(path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(sent)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65536):
                answer += data
        return answer


def is_answered(stack):
    """Whether there is room for one who asks: not at once when many have just left."""
    return ask(stack.env["CAF_METRICS_SOCKET"]).startswith(b"HTTP/1.1 200 OK\r\n")


def scrape(stack):
    head, _, body = ask(stack.env["CAF_METRICS_SOCKET"]).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head + b"\r\n"
    return Sample(body.decode())


@contextlib.contextmanager
def grows(stack, **by):
    """What is counted while this lasts: name or name with labels (made by of) to how much more."""
    before = scrape(stack)
    yield
    after = scrape(stack)
    grown = {key: after.value(*key[:1], **dict(key[1])) - before.value(*key[:1], **dict(key[1])) for key in by["by"]}
    assert grown == by["by"]


def of(name, **labels):
    return name, tuple(sorted(labels.items()))
