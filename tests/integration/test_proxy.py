"""Where a request comes from: the PROXY protocol's header and the proxies' HTTP fields, from those who are trusted."""

import json
import socket
import ssl
import struct
import subprocess

import pytest
from connection import request
from harness import BUILD, FAST, Stack, wait_for

PROXY, PROXY_TOO, STRANGER = "127.0.0.2", "127.0.0.3", "127.0.0.9"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TCP4, UDP4, TCP6, UNIX = 0x11, 0x12, 0x21, 0x31
LIVEZ = request("GET", "/livez")


def header(source="203.0.113.7", family=TCP4, command=0x21, rest=b""):
    """A PROXY header of version 2."""
    if family in (TCP4, UDP4):
        block = socket.inet_aton(source) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 40000, 443)
    elif family == TCP6:
        block = socket.inet_pton(socket.AF_INET6, source) * 2 + struct.pack("!HH", 40000, 443)
    else:
        block = source.encode().ljust(216, b"\0") if family else b""
    return SIGNATURE + struct.pack("!BBH", command, family, len(block + rest)) + block + rest


@pytest.fixture(scope="module")
def behind():
    """A stack behind a proxy, whose clients may have three connections each."""
    own = Stack("--workers", "1", sets=(*FAST, f"frontd.listen.trusted_proxies={PROXY}/31",
                                        "frontd.limits.connections_per_address=3",
                                        "frontd.timeouts.handshake_seconds=3")).up()
    yield own
    own.close()


def recorded_source(stack, source, first=b"", **headers):
    """Registers a new agent over such a connection; source_ip and source_ip_claimed of what is on record."""
    agent = stack.agent()
    body = json.dumps({"hostname": agent.name}).encode()
    with stack.connection(agent.crt, agent.key, source=source, first=first) as connection:
        assert connection.ask(request("POST", "/v1/mesh/register", body, **headers)).status_code == 201
    event, = wait_for(lambda: stack.events("acme", event_type="identity.enrollment_success",
                                           spiffe_id=agent.spiffe_id), what="the registration's event")
    return event["source_ip"], event["details"].get("source_ip_claimed")


@pytest.mark.parametrize("first, source", [
    (header(), "203.0.113.7"),
    (header("2001:db8::7", TCP6), "2001:db8::7"),
    (header("::ffff:203.0.113.7", TCP6), "203.0.113.7"),
    (header(rest=b"\x04\x00\x02\0\0\xee" + b"x" * 3000), "203.0.113.7"),
    (header(command=0x20), PROXY),
    (header(family=0), PROXY),
    (header(family=UDP4), PROXY),
    (header("/run/x", UNIX), PROXY),
    (b"", PROXY),
], ids=["IPv4", "IPv6", "mapped", "TLVs", "LOCAL", "unspecified", "UDP", "Unix", "none"])
def test_the_header_of_a_trusted_proxy(behind, first, source):
    assert recorded_source(behind, PROXY, first) == (source, None)


def test_a_handshake_has_the_same_source(behind):
    agent = behind.agent()
    with behind.connection(agent.crt, agent.key, source=PROXY, first=header("198.51.100.4")) as connection:
        assert connection.ask(LIVEZ).status_code == 200
    event, = wait_for(lambda: behind.events("acme", event_type="auth.mtls_success", spiffe_id=agent.spiffe_id))
    assert event["source_ip"] == "198.51.100.4"


def test_byte_by_byte(behind):
    """Not a byte of what follows the header is taken with it."""
    with behind.connection(source=PROXY, handshake=False) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header(rest=b"\x04\x00\x01\0"):
            connection.socket.sendall(bytes([byte]))
        connection.run(connection.tls.do_handshake)
        assert connection.ask(LIVEZ).status_code == 200


@pytest.mark.parametrize("first", [
    b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\n",
    header(command=0x22),
    header(command=0x11),
    header(family=TCP4)[:14] + b"\0\4" + b"abcd",
    SIGNATURE + b"\x21\x11\xff\xff",
    SIGNATURE + b"\x21\x77\0\0",
    b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
    LIVEZ,
], ids=["text", "command", "version", "short", "long", "family", "signature", "HTTP"])
def test_a_malformed_header_ends_the_connection(behind, first):
    with pytest.raises((ssl.SSLEOFError, ConnectionError)):
        behind.connection(source=PROXY, first=first)
    assert "malformed PROXY protocol header" in behind.log("frontd")
    with behind.connection(source=PROXY) as connection:
        assert connection.ask(LIVEZ).status_code == 200


def test_half_a_header_is_not_waited_for(behind):
    with behind.connection(source=PROXY, handshake=False) as connection:
        connection.socket.sendall(header()[:20])
        assert connection.socket.recv(1) == b""


def test_anyone_elses_header_is_garbage(behind):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        behind.connection(source=STRANGER, first=header())
    assert recorded_source(behind, STRANGER) == (STRANGER, None)


@pytest.mark.parametrize("first, headers, source", [
    (b"", {"CF_Connecting_IP": "203.0.113.9"}, "203.0.113.9"),
    (b"", {"X_Forwarded_For": f"6.6.6.6, 203.0.113.9, {PROXY_TOO}"}, "203.0.113.9"),
    (b"", {"X_Forwarded_For": "6.6.6.6, nonsense"}, PROXY),
    (header(PROXY_TOO), {"CF_Connecting_IP": "203.0.113.9"}, "203.0.113.9"),
], ids=["cf-connecting-ip", "x-forwarded-for", "nonsense", "two proxies"])
def test_the_fields_of_a_trusted_proxy(behind, first, headers, source):
    assert recorded_source(behind, PROXY, first, **headers) == (source, None)


def test_anyone_elses_fields_are_claims(behind):
    fields = {"X_Forwarded_For": "203.0.113.9, <x>", "CF_Connecting_IP": "203.0.113.8"}
    claimed = "203.0.113.8, 203.0.113.9, <x>"
    assert recorded_source(behind, STRANGER, **fields) == (STRANGER, claimed)
    assert recorded_source(behind, PROXY, header("198.51.100.4"), **fields) == ("198.51.100.4", claimed)
    assert recorded_source(behind, STRANGER, X_Forwarded_For="1" * 9000) == (STRANGER, "1" * 256)


def test_limits_count_the_client_and_not_the_proxy(behind):
    held = [behind.connection(source=PROXY, first=header("198.51.100.9")) for _ in range(3)]
    others = [behind.connection(source=PROXY, first=header(f"198.51.100.{last}")) for last in range(20, 26)]
    others += [behind.connection(source=PROXY) for _ in range(6)]
    with pytest.raises(ssl.SSLError, match="ALERT_INTERNAL_ERROR"):
        behind.connection(source=PROXY, first=header("198.51.100.9"))
    with pytest.raises(ssl.SSLError, match="ALERT_INTERNAL_ERROR"):
        behind.connection(source=PROXY, first=header("::ffff:198.51.100.9", TCP6))
    for connection in held + others:
        assert connection.ask(LIVEZ).status_code == 200
        connection.socket.close()


@pytest.mark.parametrize("value", ["10.0.0.1/8", "localhost", "10.0.0.0/33", "::1/64", "10.0.0.0/8, nobody"])
def test_a_network_that_is_none_is_refused(tmp_path, value):
    configuration = tmp_path / "frontd.conf"
    configuration.write_text(f"[listen]\ntrusted_proxies = {value}\n")
    done = subprocess.run([BUILD / "bin" / "frontd", "-t", "-c", configuration], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2
    assert "listen.trusted_proxies" in done.stderr
