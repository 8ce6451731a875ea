"""HTTP as it comes off the wire: what is malformed, what is too long, what is kept open (contract, Details)."""

import json
import socket

import httpx
import pytest
from harness import TlsConnection, check_error, request

HOST = b"Host: localhost\r\n"
LIVEZ = request("GET", "/livez")
KIB = 1024


@pytest.fixture(scope="module")
def agent(stack):
    registered = stack.agent()
    registered.register()
    return registered


@pytest.fixture
def connection(stack, agent):
    with stack.connection(agent.crt, agent.key) as opened:
        yield opened


@pytest.fixture(autouse=True, scope="module")
def nothing_dies(stack):
    before = stack.pids()
    yield
    assert stack.pids() == before


def field(name, value):
    return b"GET /livez HTTP/1.1\r\n" + HOST + name + b": " + value + b"\r\n\r\n"


def post(*fields, body=b"{}"):
    """A heartbeat with just these header fields."""
    return b"POST /v1/mesh/heartbeat HTTP/1.1\r\n" + HOST + b"".join(f + b"\r\n" for f in fields) + b"\r\n" + body


# ---- malformed: 400, and the connection ends -----------------------------------------------------

MALFORMED = {
    "no HTTP": b"GARBAGE\r\n\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/2": b"GET /livez HTTP/2.0\r\n" + HOST + b"\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lower-case version": b"GET /livez http/1.1\r\n" + HOST + b"\r\n",
    "version with more": b"GET /livez HTTP/1.1x\r\n" + HOST + b"\r\n",
    "version HTTP/1.": b"GET /livez HTTP/1.\r\n" + HOST + b"\r\n",
    "two spaces": b"GET  /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "space at the end": b"GET /livez HTTP/1.1 \r\n" + HOST + b"\r\n",
    "space at the start": b" GET /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "tab": b"GET\t/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT with a body": b"CONNECT /livez HTTP/1.1\r\nContent-Length: 2\r\n" + HOST + b"\r\n{}",
    "CONNECT with an authority": b"CONNECT localhost:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "no method": b" /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "method with a delimiter": b"G(T /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "target without a slash": b"GET livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /livez#top HTTP/1.1\r\n" + HOST + b"\r\n",
    "control in the target": b"GET /li\x01vez HTTP/1.1\r\n" + HOST + b"\r\n",
    "8 bits in the target": b"GET /li\xffvez HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the target": b"GET /livez\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "bare LF": b"GET /livez HTTP/1.1\nHost: localhost\n\n",
    "one bare LF": b"GET /livez HTTP/1.1\r\nA: b\nHost: localhost\r\n\r\n",
    "bare CR": b"GET /livez HTTP/1.1\r\nA: b\rc\r\n" + HOST + b"\r\n",
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /livez HTTP/1.1\r\n" + HOST * 2 + b"\r\n",
    "folded field": b"GET /livez HTTP/1.1\r\nA: b\r\n c\r\n" + HOST + b"\r\n",
    "first field folded": b"GET /livez HTTP/1.1\r\n A: b\r\n" + HOST + b"\r\n",
    "space before the colon": b"GET /livez HTTP/1.1\r\nA : b\r\n" + HOST + b"\r\n",
    "no colon": b"GET /livez HTTP/1.1\r\nAb\r\n" + HOST + b"\r\n",
    "no field name": b"GET /livez HTTP/1.1\r\n: b\r\n" + HOST + b"\r\n",
    "delimiter in a name": field(b"A(b", b"c"),
    "8 bits in a name": field(b"A\xe4", b"c"),
    "NUL in a value": field(b"A", b"b\0c"),
    "control in a value": field(b"A", b"b\x01c"),
    "DEL in a value": field(b"A", b"b\x7fc"),
    "two lengths, equal": post(b"Content-Length: 2", b"Content-Length: 2"),
    "two lengths, unequal": post(b"Content-Length: 2", b"Content-Length: 3"),
    "two lengths in one": post(b"Content-Length: 2, 2"),
    "length with a sign": post(b"Content-Length: +2"),
    "negative length": post(b"Content-Length: -2"),
    "hexadecimal length": post(b"Content-Length: 0x2"),
    "length with more": post(b"Content-Length: 2 2"),
    "empty length": post(b"Content-Length:"),
    "no number": post(b"Content-Length: two"),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(connection, data):
    check_error(connection.ask(data), 400, "VALIDATION")
    assert connection.ends()


def test_what_follows_a_malformed_request_is_not_read(connection):
    check_error(connection.ask(b"GARBAGE\r\n\r\n" + LIVEZ), 400, "VALIDATION")
    assert connection.ends()


@pytest.mark.parametrize("fields", [
    [b"Transfer-Encoding: chunked"], [b"transfer-encoding:chunked"], [b"Transfer-Encoding: gzip, chunked"],
    [b"Transfer-Encoding: identity"], [b"Transfer-Encoding: xchunked"],
], ids=lambda f: f[0].decode())
def test_chunked(connection, fields):
    check_error(connection.ask(post(*fields, body=b"2\r\n{}\r\n0\r\n\r\n")), 411, "LENGTH_REQUIRED")
    assert connection.ends()


@pytest.mark.parametrize("order", [1, -1])
def test_chunked_with_a_length_is_never_a_second_request(connection, order):
    """The classic smuggle: whoever believes the length sees one request, whoever believes the chunks sees two."""
    fields = [b"Content-Length: 4", b"Transfer-Encoding: chunked"][::order]
    answer = connection.ask(post(*fields, body=b"0\r\n\r\n" + LIVEZ))
    assert answer.status_code in (400, 411)
    assert connection.ends()


# ---- too long ------------------------------------------------------------------------------------


def test_the_longest_request_line(connection):
    line = b"GET /" + b"x" * (8 * KIB - 18) + b" HTTP/1.1\r\n"
    assert len(line) == 8 * KIB - 2
    check_error(connection.ask(line + HOST + b"\r\n"), 404, "NOT_FOUND")
    assert connection.is_open()


@pytest.mark.parametrize("length", [8 * KIB, 9 * KIB, 100 * KIB])
def test_a_longer_request_line(connection, length):
    check_error(connection.ask(b"GET /" + b"x" * length + b" HTTP/1.1\r\n" + HOST + b"\r\n"), 414, "URI_TOO_LONG")
    assert connection.ends()


def test_an_endless_request_line_is_refused_before_its_end(connection):
    check_error(connection.ask(b"GET /" + b"x" * 20 * KIB), 414, "URI_TOO_LONG")
    assert connection.ends()


def test_a_hundred_fields(connection):
    fields = HOST + b"".join(b"X-%d: y\r\n" % n for n in range(99))
    assert connection.ask(b"GET /livez HTTP/1.1\r\n" + fields + b"\r\n").status_code == 200
    assert connection.is_open()


def test_one_field_more(connection):
    fields = HOST + b"".join(b"X-%d: y\r\n" % n for n in range(100))
    check_error(connection.ask(b"GET /livez HTTP/1.1\r\n" + fields + b"\r\n"), 431, "HEADERS_TOO_LARGE")
    assert connection.ends()


def test_the_longest_fields(connection):
    assert connection.ask(field(b"X", b"y" * (16 * KIB - 40))).status_code == 200
    assert connection.is_open()


@pytest.mark.parametrize("length", [16 * KIB, 17 * KIB, 100 * KIB])
def test_longer_fields(connection, length):
    check_error(connection.ask(field(b"X", b"y" * length)), 431, "HEADERS_TOO_LARGE")
    assert connection.ends()


def test_endless_fields_are_refused_before_their_end(connection):
    check_error(connection.ask(b"GET /livez HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 30 * KIB), 431, "HEADERS_TOO_LARGE")
    assert connection.ends()


def padded(length):
    head = b'{"hostname":"h","pad":"'
    return head + b"x" * (length - len(head) - 2) + b'"}'


def test_the_longest_body(connection):
    body = padded(64 * KIB)
    assert connection.ask(request("POST", "/v1/mesh/register", body)).status_code == 200
    assert connection.is_open()


@pytest.mark.parametrize("length", [64 * KIB + 1, 200 * KIB, 1024 * KIB])
def test_a_longer_body_gets_a_readable_answer(connection, length):
    check_error(connection.ask(request("POST", "/v1/mesh/register", padded(length))), 413, "TOO_LARGE")


@pytest.mark.parametrize("length", [b"65537", b"99999999999", b"99999999999999999999999999"])
def test_a_long_body_is_refused_before_it_comes(connection, length):
    check_error(connection.ask(post(b"Content-Length: " + length, body=b"")), 413, "TOO_LARGE")


# ---- routes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/nowhere", "/livez/", "//livez", "/./livez", "/../livez", "/%6civez", "/LIVEZ",
                                  "/v1", "/v1/", "/v1/mesh", "/v1/mesh/self/", "/v1//mesh/self", "/v1/mesh/../mesh/self",
                                  "/api/livez", "/api/api/v1/mesh/self", "/v2/mesh/self", "/v1/mesh/self;x",
                                  "/v1/mesh/self%00"])
def test_no_route(connection, path):
    check_error(connection.ask(request("GET", path)), 404, "NOT_FOUND")
    assert connection.is_open()


@pytest.mark.parametrize("method", ["GET", "POST", "BREW", "get"])
def test_no_route_whatever_the_method(connection, method):
    check_error(connection.ask(request(method, "/nowhere")), 404, "NOT_FOUND")


@pytest.mark.parametrize("method, path, allow", [
    ("GET", "/v1/mesh/register", "POST"), ("PUT", "/v1/mesh/heartbeat", "POST"), ("POST", "/v1/mesh/self", "GET"),
    ("DELETE", "/api/v1/mesh/self", "GET"), ("POST", "/livez", "GET"), ("OPTIONS", "/health", "GET"),
    ("BREW", "/readyz", "GET"), ("get", "/livez", "GET"), ("PATCH", "/v1/security/events", "GET"),
    ("TRACE", "/livez", "GET"),
])
def test_another_method(connection, method, path, allow):
    answer = connection.ask(request(method, path, b"" if method in ("POST", "PUT", "PATCH") else None))
    check_error(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allow
    assert connection.is_open()


@pytest.mark.parametrize("path", ["/livez", "/v1/mesh/self"])
def test_head(connection, path):
    connection.send(request("HEAD", path))
    answer = connection.receive(head_only=True)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert connection.is_open()


def test_head_of_nothing(connection):
    connection.send(request("HEAD", "/nowhere"))
    assert connection.receive(head_only=True).status_code == 404
    assert connection.is_open()


ROUTES_WITHOUT_QUERY = [
    ("POST", "/v1/mesh/register"), ("POST", "/v1/mesh/heartbeat"), ("POST", "/v1/mesh/deregister"),
    ("GET", "/v1/mesh/self"), ("GET", "/api/v1/mesh/self"),
]


@pytest.mark.parametrize("method, path", ROUTES_WITHOUT_QUERY)
def test_a_parameter_that_a_route_does_not_have_is_refused(stack, method, path):
    agent = stack.agent()
    answer = agent.client.request(method, f"{path}?limit=5", json={"hostname": "h"} if method == "POST" else None)
    check_error(answer, 400, "VALIDATION", names="limit: not a parameter of this route")
    check_error(agent.self(), 404, "NOT_REGISTERED", recovery=True)  # and nothing was done


def test_so_is_one_of_a_single_agents(stack):
    auditor, agent = stack.operator("auditor"), stack.agent()
    agent.register()
    path = f"/v1/mesh/agents/{agent.name}"
    assert auditor.get(path).status_code == 200
    check_error(auditor.get(path, params={"total": "true"}), 400, "VALIDATION", names="total")


def test_who_may_not_call_a_route_learns_nothing_of_its_parameters(stack):
    check_error(stack.client().get("/v1/mesh/self?limit=5"), 403, "MTLS_REQUIRED", recovery=True)


@pytest.mark.parametrize("path", ["/livez?", "/livez?a=b&c", "/readyz?verbose", "/health?limit=5"])
def test_what_a_probe_adds_is_ignored(connection, path):
    assert connection.ask(request("GET", path)).status_code == 200


# ---- content types -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON",
                                  "application/json;charset=UTF-8", None])
def test_json(connection, kind):
    headers = {"Content_Type": kind} if kind else {}
    assert connection.ask(request("POST", "/v1/mesh/heartbeat", b"{}", **headers)).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json",
                                  "application/xml", "multipart/form-data; boundary=x", "text/json"])
def test_no_json(connection, kind):
    answer = connection.ask(request("POST", "/v1/mesh/heartbeat", b"{}", Content_Type=kind))
    check_error(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert connection.is_open()


# ---- connections ---------------------------------------------------------------------------------


def test_keep_alive(connection):
    for number in range(20):
        answer = connection.ask(request("POST", "/v1/mesh/heartbeat", b'{"status":"%d"}' % number))
        assert answer.status_code == 200
    assert connection.is_open()


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close"])
def test_connection_close(connection, value):
    answer = connection.ask(request("GET", "/livez", Connection=value))
    assert (answer.status_code, answer.headers["connection"].lower()) == (200, "close")
    assert connection.ends()


@pytest.mark.parametrize("headers", [{}, {"Connection": "keep-alive"}], ids=["plain", "keep-alive"])
def test_http_1_0_is_answered_and_closed(connection, headers):
    answer = connection.ask(request("GET", "/livez", version="HTTP/1.0", **headers))
    assert answer.status_code == 200
    assert connection.ends()


def test_http_1_0_needs_no_host(connection):
    assert connection.ask(b"GET /livez HTTP/1.0\r\n\r\n").status_code == 200
    assert connection.ends()


def test_pipelining_keeps_the_order(connection, agent):
    connection.send(LIVEZ + request("POST", "/v1/mesh/register", json.dumps({"hostname": "piped"}).encode())
                    + request("GET", "/v1/mesh/self") + request("GET", "/nowhere")
                    + request("POST", "/v1/mesh/heartbeat", b"{}") + request("GET", "/v1/mesh/register") + LIVEZ)
    answers = [connection.receive() for _ in range(7)]
    assert [a.status_code for a in answers] == [200, 200, 200, 404, 200, 405, 200]
    assert answers[1].json()["agent"]["hostname"] == answers[2].json()["agent"]["hostname"] == "piped"
    assert answers[4].json()["agent_id"] == agent.name
    assert connection.is_open()


def test_pipelining_many(connection):
    connection.send(request("POST", "/v1/mesh/heartbeat", b"{}") * 200)
    assert {connection.receive().status_code for _ in range(200)} == {200}


def test_pipelining_ends_with_what_is_malformed(connection):
    connection.send(LIVEZ + request("GET", "/v1/mesh/self") + b"GARBAGE\r\n\r\n" + LIVEZ)
    assert [connection.receive().status_code for _ in range(3)] == [200, 200, 400]
    assert connection.ends()


def test_byte_by_byte(connection):
    for byte in request("POST", "/v1/mesh/heartbeat", b'{"status":"slow"}'):
        connection.send(bytes([byte]))
    assert connection.receive().status_code == 200


def test_expect_continue(connection):
    data = request("POST", "/v1/mesh/heartbeat", b"{}", Expect="100-continue")
    head, body = data[:-2], data[-2:]
    connection.send(head)
    assert connection.receive().status_code == 100
    connection.send(body)
    assert connection.receive().status_code == 200
    assert connection.is_open()


def test_expect_continue_of_what_is_refused(connection):
    answer = connection.ask(post(b"Content-Length: 70000", b"Expect: 100-continue", body=b""))
    check_error(answer, 413, "TOO_LARGE")


@pytest.mark.parametrize("headers", [{"Expect": "the-unexpected"}, {"Upgrade": "h2c", "Connection": "Upgrade"},
                                     {"Upgrade": "websocket", "Connection": "upgrade"}], ids=str)
def test_other_expectations_and_upgrades_are_ignored(connection, headers):
    assert connection.ask(request("POST", "/v1/mesh/heartbeat", b"{}", **headers)).status_code == 200
    assert connection.is_open()


@pytest.mark.parametrize("data", [request("GET", "/v1/mesh/self"), request("POST", "/v1/mesh/heartbeat", b"{}"),
                                  request("GET", "/v1/mesh/self") * 3], ids=["get", "post", "three"])
@pytest.mark.parametrize("layer", ["TLS", "TCP"])
def test_half_close_gets_its_answer(connection, data, layer):
    connection.send(data)
    if layer == "TLS":
        connection.say_goodbye()
    connection.socket.shutdown(socket.SHUT_WR)
    for _ in range(data.count(b"HTTP/1.1")):
        assert connection.receive().status_code == 200
    assert connection.ends()


def test_half_a_request_and_gone(stack, agent):
    for data in (b"GET /liv", b"POST /v1/mesh/register HTTP/1.1\r\n" + HOST + b"Content-Length: 50\r\n\r\n{"):
        with stack.connection(agent.crt, agent.key) as connection:
            connection.send(data)
    assert agent.heartbeat().status_code == 200


def test_a_slow_head_is_cut(make_stack):
    own = make_stack(sets=["frontd.timeouts.header_seconds=1", "frontd.timeouts.body_seconds=1",
                           "frontd.timeouts.handshake_seconds=1", "frontd.timeouts.idle_seconds=2"])
    agent = own.agent()
    for data in (b"GET /liv", post(b"Content-Length: 50", body=b"{"), b""):
        with own.connection(agent.crt, agent.key) as connection:
            connection.send(data) if data else None
            while connection.receive() is not None:
                pass
    with socket.create_connection(("localhost", own.port), timeout=15) as silent:
        assert silent.recv(1) == b""


@pytest.mark.parametrize("data", [LIVEZ, b"\x16\x03\x01\xff\xff" + b"\xff" * 70000, b"\0" * 100, b"SSH-2.0-x\r\n"],
                         ids=["HTTP", "long record", "zeros", "SSH"])
def test_no_tls(stack, data):
    with socket.create_connection(("localhost", stack.port), timeout=15) as plain:
        try:
            plain.sendall(data)
            while (answer := plain.recv(4096)):
                assert not answer.startswith(b"HTTP")
        except ConnectionError:
            pass
    assert stack.client().get("/livez").status_code == 200


def test_a_handshake_that_stops_halfway(stack):
    for _ in range(20):
        TlsConnection(stack.port, stack.context(), handshake=False).socket.close()
    assert stack.client().get("/livez").status_code == 200


# ---- state -----------------------------------------------------------------------------------


def test_health(stack):
    answer = stack.client().get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"status", "version", "product", "uptime_seconds", "checks"}
    assert (body["status"], body["product"]) == ("healthy", "caf")
    assert isinstance(body["checks"], dict) and body["checks"]
    assert body["uptime_seconds"] >= 0
    assert httpx.Headers(answer.headers)["content-type"].startswith("application/json")


def test_every_answer_says_its_length_and_type(connection):
    for path in ("/livez", "/readyz", "/health", "/v1/mesh/self", "/nowhere"):
        answer = connection.ask(request("GET", path))
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert answer.headers["content-type"].startswith("application/json")
        assert isinstance(answer.json(), dict)
