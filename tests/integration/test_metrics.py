"""GET /metrics on the admin listener: what Prometheus takes, whole, true to the last request, whoever died meanwhile."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import threading
import time

import httpx
import pytest
from harness import BUILD, DAEMONS, Stack, request, wait_for
from scraping import GET_METRICS, Sample, ask, grows, is_answered, of, scrape

TYPE = re.compile(r"(?m)^# TYPE (\S+) (\S+)$")
REGISTER, HEARTBEAT = "POST /v1/mesh/register", "POST /v1/mesh/heartbeat"


def promtool(text):
    """What promtool has to say about a text: nothing, when all is well."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def tables():
    """Every metric of every daemon's table, by its own word: name to type."""
    found = {}
    for name in DAEMONS:
        done = subprocess.run([BUILD / "bin" / name, "-m"], capture_output=True, text=True, check=True)
        found.update(line.split("\t")[:2] for line in done.stdout.splitlines())
    return found


# ---- the text ------------------------------------------------------------------------------------


def test_prometheus_finds_nothing_to_complain_about(stack):
    agent = stack.agent()
    assert agent.register().status_code == 201
    assert promtool(scrape(stack).text) == (0, "")


def test_promtool_would_complain():
    assert promtool("# HELP caf_a_total A.\n# TYPE caf_a_total gauge\ncaf_a_total 1\n")[0] != 0
    assert promtool("caf_a 1\ncaf_b 1\ncaf_a 2\n")[0] != 0


def test_the_metrics_of_the_tables_and_no_others(stack):
    wanted = tables()
    assert len(wanted) > 40
    assert dict(TYPE.findall(scrape(stack).text)) == wanted


def test_every_daemon_tells_its_own(stack):
    sample = scrape(stack)
    assert [sample.value("up", daemon=name) for name in DAEMONS] == [1] * len(DAEMONS)
    version = re.search(r"\S+$", subprocess.run([BUILD / "bin" / "frontd", "-V"], capture_output=True, text=True,
                                                check=True).stdout.strip())[0]
    assert [sample.value("build_info", daemon=name, version=version) for name in DAEMONS] == [1] * len(DAEMONS)
    starts = [sample.value("process_start_time_seconds", daemon=name) for name in DAEMONS]
    assert all(time.time() - 3600 < start <= time.time() for start in starts)
    assert [sample.value("database_up", daemon=name) for name in ("registryd", "auditd", "eventd")] == [1, 1, 1]


# ---- counts --------------------------------------------------------------------------------------


def test_requests_are_counted_where_they_pass(stack):
    agents = [stack.agent() for _ in range(5)]
    with grows(stack, by={
        of("http_requests_total", route=REGISTER, code="OK"): 6,
        of("http_requests_total", route=REGISTER, code="VALIDATION"): 1,
        of("http_requests_total", route=REGISTER, code="MTLS_REQUIRED"): 1,
        of("http_requests_total", route=HEARTBEAT, code="OK"): 10,
        of("http_requests_total", route="none", code="NOT_FOUND"): 2,
        of("http_requests_total", route="none", code="METHOD_NOT_ALLOWED"): 1,
        of("http_request_duration_seconds_count", route=REGISTER): 8,
        of("http_request_duration_seconds_count", route=HEARTBEAT): 10,
        of("connections_accepted_total"): 6,
        of("tls_handshakes_total", result="accepted"): 5,
        of("tls_handshakes_total", result="anonymous"): 1,
        of("ipc_requests_total", daemon="registryd", message="mesh_register"): 6,
        of("ipc_requests_total", daemon="registryd", message="mesh_heartbeat"): 10,
        of("registry_registrations_total", outcome="created"): 5,
        of("registry_registrations_total", outcome="existing"): 1,
        of("registry_fingerprint_drifts_total"): 1,
        of("registry_heartbeats_total"): 10,
        of("registry_cache_hits_total"): 10,
        of("registry_cache_misses_total"): 0,
        of("database_batch_requests_sum", daemon="registryd", statement="register"): 6,
        of("keeper_signatures_total"): 6,
        of("keeper_refusals_total"): 0,
    }):
        for agent in agents:
            assert agent.register(machine_id_fingerprint="one").status_code == 201
            assert [agent.heartbeat().status_code for _ in range(2)] == [200, 200]
        assert agents[0].register(machine_id_fingerprint="another").json()["fingerprint_drift"] is True
        assert agents[0].register(hostname=7).status_code == 400
        assert agents[0].client.get("/nowhere").status_code == 404
        assert agents[0].client.delete("/livez").status_code == 405
        anonymous = stack.client()
        assert anonymous.get("/metrics").status_code == 404  # here it is answered on the admin listener alone
        assert anonymous.post("/v1/mesh/register").status_code == 403


def test_a_refused_handshake_is_counted_by_what_was_wrong(stack):
    stranger = stack.cert(stack.agent_id("acme", "someone") + "/more")
    with grows(stack, by={of("tls_handshakes_total", result="refused_certificate"): 1,
                          of("tls_handshakes_total", result="refused_protocol"): 1,
                          of("tls_handshakes_total", result="accepted"): 0}):
        with pytest.raises(httpx.TransportError):
            stack.client(*stranger).get("/livez")
        with socket.create_connection(("localhost", stack.port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while plain.recv(4096):
                pass


def test_events_are_counted_by_type(stack):
    agent = stack.agent()
    wait_for(lambda: stack.rows("SELECT count(*) FROM identity_outbox") == [(0,)])
    by = {of("events_noted_total", type="auth.mtls_success"): 1,
          of("events_noted_total", type="auth.mtls_failure"): 0,
          of("events_moved_total", type="identity.enrollment_success"): 2,
          of("events_moved_total", type="identity.fingerprint_drift"): 1,
          of("events_moved_total", type="identity.hostname_changed"): 1,
          of("events_moved_total", type="other"): 0}
    with grows(stack, by=by):
        assert agent.register(machine_id_fingerprint="one").status_code == 201
        assert agent.register(machine_id_fingerprint="two", hostname="elsewhere").status_code == 200
        wait_for(lambda: len(stack.events("acme", spiffe_id=agent.spiffe_id)) == 5)
    wait_for(lambda: scrape(stack).value("events_outbox_oldest_age_seconds") == 0)


def test_events_that_nobody_announced_are_counted_when_they_are_found(make_stack):
    """Announcements are lost while eventd is away and frontd ends; the outbox keeps the events, and grows old."""
    own = make_stack("--workers", "1", sets=("eventd.outbox.sweep_seconds=3600",))
    own.stop("eventd")
    for agent in [own.agent() for _ in range(3)]:
        assert agent.register().status_code == 201
    own.kill("frontd")
    own.start("eventd")  # sweeps once, and finds them too young

    def outbox():
        wait_for(lambda: scrape(own).value("database_statement_duration_seconds_count", daemon="eventd",
                                           statement="sweep") == 1)
        sample = scrape(own)
        return (sample.value("events_swept_total"), sample.value("events_moved_total", type="identity.enrollment_success"),
                sample.value("events_outbox_oldest_age_seconds"))

    swept, moved, age = outbox()
    assert (swept, moved) == (0, 0) and 0 < age < 600
    own.rows("UPDATE identity_outbox SET occurred_at = occurred_at - interval '2 hours' RETURNING 1")
    own.restart("eventd")
    swept, moved, age = outbox()
    assert (swept, moved) == (3, 3) and 7200 < age < 7800


def test_how_things_stand(stack):
    clients = [stack.client() for _ in range(3)]
    before = scrape(stack).value("connections")
    for client in clients:
        assert client.get("/livez").status_code == 200
    assert scrape(stack).value("connections") == before + 3
    for client in clients:
        client.close()
    wait_for(lambda: scrape(stack).value("connections") == before)


def test_what_a_worker_counted_outlives_it(stack):
    agents = [stack.agent() for _ in range(4)]
    workers = stack.workers()
    with grows(stack, by={of("http_requests_total", route=REGISTER, code="OK"): 8,
                          of("http_request_duration_seconds_count", route=REGISTER): 8,
                          of("registry_registrations_total", outcome="created"): 4,
                          of("worker_ends_total", how="killed"): len(workers),
                          of("worker_ends_total", how="exited"): 0,
                          of("worker_starts_total"): len(workers),
                          of("workers"): 0,
                          of("up", daemon="frontd"): 0}):
        assert {agent.register().status_code for agent in agents} == {201}
        assert scrape(stack).value("connections") >= len(agents)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(set(stack.workers()) - set(workers)) == len(workers))
        assert scrape(stack).value("connections") == 0  # of those that died with their worker none stands
        for agent in agents:
            with stack.connection(agent.crt, agent.key) as connection:
                assert connection.ask(request("POST", "/v1/mesh/register",
                                              b'{"hostname":"again"}')).status_code == 200


# ---- when something is missing -------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in DAEMONS if name != "frontd"])
def test_a_daemon_that_is_away_is_told_as_such(stack, name):
    with stack.without(name):
        began = time.monotonic()
        sample = scrape(stack)
        assert time.monotonic() - began < 5
        assert {daemon: sample.value("up", daemon=daemon) for daemon in DAEMONS} == \
            {daemon: float(daemon != name) for daemon in DAEMONS}
        assert not [key for key in sample if ("daemon", name) in key[1] and key[0] != "caf_up"]
        assert promtool(sample.text) == (0, "")
    wait_for(lambda: scrape(stack).value("up", daemon=name) == 1)


def test_beside_load_no_count_ever_falls(stack):
    agents, stopping, seen = [stack.agent() for _ in range(3)], threading.Event(), []

    def load(agent):
        while not stopping.is_set():
            seen.append(agent.register().status_code)

    before = scrape(stack)
    threads = [threading.Thread(target=load, args=[agent]) for agent in agents]
    for thread in threads:
        thread.start()
    try:
        samples = [scrape(stack) for _ in range(15)]
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    samples.append(scrape(stack))
    counters = [name for name, kind in TYPE.findall(before.text) if kind == "counter"]
    for old, new in zip([before, *samples], samples):
        fallen = [key for key in old if key[0] in counters and new[key] < old[key]]
        assert fallen == []
    assert set(seen) <= {200, 201}
    key = of("http_requests_total", route=REGISTER, code="OK")
    assert samples[-1].value(key[0], **dict(key[1])) - before.value(key[0], **dict(key[1])) == len(seen)


# ---- the admin socket ----------------------------------------------------------------------------


def test_the_socket_is_its_groups_and_no_one_elses(stack):
    status = os.stat(stack.env["CAF_METRICS_SOCKET"])
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert status.st_uid == stack.owner().pw_uid


@pytest.mark.parametrize("sent, status", [
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404 Not Found"),
    (b"GET /metrics/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404 Not Found"),
    (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404 Not Found"),
    (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", b"405 Method Not Allowed"),
    (b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405 Method Not Allowed"),
    (b"GET /metrics HTTP/1.1\r\n\r\n", b"400 Bad Request"),
    (b"GET /metrics\r\n\r\n", b"400 Bad Request"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"400 Bad Request"),
    (b"\n" * 100, b"400 Bad Request"),
    (b"G" * 300000, b"400 Bad Request"),
    (b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 5000, b"400 Bad Request"),
    (b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n", b"200 OK"),
    (b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200 OK"),
    (GET_METRICS + GET_METRICS + b"and more", b"200 OK"),
])
def test_anything_else_gets_one_answer_and_the_end(stack, sent, status):
    pids = stack.pids()
    answer = ask(stack.env["CAF_METRICS_SOCKET"], sent)
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert (b"\r\nAllow: GET\r\n" in answer) == status.startswith(b"405")
    assert stack.pids() == pids


@pytest.mark.parametrize("sent", [b"", b"GET /metr"])
def test_who_says_no_more_gets_no_answer(stack, sent):
    assert ask(stack.env["CAF_METRICS_SOCKET"], sent, half_close=True) == b""


def test_who_only_closes_its_half_is_answered(stack):
    assert ask(stack.env["CAF_METRICS_SOCKET"], half_close=True).startswith(b"HTTP/1.1 200 OK\r\n")


def test_those_who_leave_in_the_middle_leave_nothing(stack):
    pids, path = stack.pids(), stack.env["CAF_METRICS_SOCKET"]
    for sent in (b"", GET_METRICS[:10], GET_METRICS) * 20:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            with contextlib.suppress(BrokenPipeError):  # they come more quickly than they are found gone, to the bound
                client.sendall(sent)
    wait_for(lambda: is_answered(stack))
    assert stack.pids() == pids
    wait_for(lambda: scrape(stack).value("backend_requests_in_flight", backend="auditd") <= 1)


def test_a_crowd_that_says_nothing_is_bounded_and_no_client_notices(stack):
    path = stack.env["CAF_METRICS_SOCKET"]
    with contextlib.ExitStack() as held:
        for _ in range(100):
            client = held.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(path)
        assert stack.client().get("/readyz").status_code == 200
        open_files = [len(os.listdir(f"/proc/{pid}/fd")) for pid in stack.workers()]
        assert max(open_files) < 70
    wait_for(lambda: is_answered(stack))


@pytest.mark.long
def test_who_takes_its_time_is_cut_off(stack):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(stack.env["CAF_METRICS_SOCKET"])
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            for byte in GET_METRICS.decode() * 3:
                client.sendall(byte.encode()[:1].replace(b"\r", b"x").replace(b"\n", b"x"))
                time.sleep(0.2)
        assert 9 < time.monotonic() - began < 15


# ---- admin.listen --------------------------------------------------------------------------------


def check(listen, tmp_path, port=8443):
    """frontd -t with this admin.listen: exit status and what it printed."""
    path = tmp_path / "frontd.conf"
    path.write_text(f"[listen]\nport = {port}\n[admin]\nlisten = {listen}\n")
    done = subprocess.run([BUILD / "bin" / "frontd", "-t", "-c", path], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("listen", ["", "/run/x.sock", "127.0.0.1:9100", "127.1.2.3:1", "[::1]:9100"])
def test_where_it_may_listen(tmp_path, listen):
    assert check(listen, tmp_path) == (0, "")


@pytest.mark.parametrize("listen", ["0.0.0.0:9100", "192.0.2.1:9100", "[::]:9100", "[2001:db8::1]:9100", "localhost:9100",
                                    "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:+9",
                                    ":9100", "[::1", "[::1]9100", "::1:9100", "metrics.sock", "@abstract"])
def test_where_it_may_not(tmp_path, listen):
    status, text = check(listen, tmp_path)
    assert status == 2 and "admin.listen: neither a path nor ADDRESS:PORT with a loopback address" in text


def test_not_on_the_clients_port(tmp_path):
    status, text = check("127.0.0.1:8443", tmp_path)
    assert status == 2 and "admin.listen: its port is listen.port" in text


def test_on_loopback(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = Stack("--workers", "1", sets=(f"frontd.admin.listen=127.0.0.1:{port}",)).up()
    try:
        with httpx.Client(trust_env=False) as client:
            answer = client.get(f"http://127.0.0.1:{port}/metrics")
        assert answer.status_code == 200 and Sample(answer.text).value("up", daemon="frontd") == 1
        assert not os.path.exists(own.env["CAF_METRICS_SOCKET"])
    finally:
        own.close()


def test_who_has_connected_is_answered_though_frontd_is_told_to_stop(make_stack):
    stack = make_stack("--workers", "1")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(stack.env["CAF_METRICS_SOCKET"])
        assert is_answered(stack)  # and so the one before has been accepted
        os.kill(stack.pid("frontd"), signal.SIGTERM)
        wait_for(lambda: re.search("daemon=frontd-worker msg=draining", stack.log("frontd")))
        client.sendall(GET_METRICS)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    wait_for(lambda: not stack.runs("frontd"))
    stack.start("frontd")
