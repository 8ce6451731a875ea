"""dev/stack itself: a system in a folder, that demo, tests and bench rely on."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness import BUILD, PYTHON, REPOSITORY, Stack, processes

PARTS = ("keeper", "frontd", "registryd", "auditd", "eventd", "postgres", "redis")
KEYS = {"CAF_URL", "CAF_NODE", "CAF_CA", "CAF_CA_KEY", "CAF_TRUST_DOMAIN", "CAF_AGENT_CERT", "CAF_AGENT_KEY", "CAF_AGENTS",
        "CAF_ADMIN_CERT", "CAF_ADMIN_KEY", "CAF_AUDITOR_CERT", "CAF_AUDITOR_KEY", "PGHOST", "PGDATABASE", "PGUSER",
        "REDIS_SOCKET", "CAF_METRICS_SOCKET"}


@pytest.fixture(scope="module")
def own():
    """A stack of this module's own, with options of each kind."""
    made = Stack("--workers", 3, "--agents", 2).up()
    yield made
    made.close()


def complaint(stack, *words):
    done = stack.command(*words, check=False)
    assert done.returncode == 1 and done.stderr.startswith("dev/stack: "), done
    return done.stderr


def running_in(folder):
    """Every process that has the folder in its command line."""
    return [pid for pid in processes.all_pids() if f"{folder}/" in " ".join(processes.command_line(pid))
            and processes.is_alive(pid)]


def test_env_can_be_sourced(own):
    shown = subprocess.run(["sh", "-c", f"set -a; . {own.folder.env_file}; env"], capture_output=True, text=True,
                           check=True, env={}).stdout
    seen = dict(line.split("=", 1) for line in shown.splitlines())
    assert set(own.env) == KEYS
    assert {key: seen[key] for key in KEYS} == own.env
    assert own.env["CAF_AGENT_CERT"].endswith("/agent-1.crt")


def test_options_are_kept(own):
    assert len(own.workers()) == 3
    assert sorted(path.name for path in Path(own.env["CAF_AGENTS"]).iterdir()) == [
        "agent-1.crt", "agent-1.key", "agent-2.crt", "agent-2.key"]


def test_every_part_runs_as_one_plain_user(own):
    pids = [own.pid(name) for name in PARTS] + own.workers()
    uids = {int(line.split()[1]) for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("Uid:")}
    assert uids == {own.owner().pw_uid} and 0 not in uids


def test_psql_and_redis_answer_on_their_sockets(own):
    psql = subprocess.run(["psql", "-AtXc", "SELECT current_user"], capture_output=True, text=True, check=True,
                          env={**os.environ, **own.env, "PGPORT": "5432"})
    assert psql.stdout.strip() == "caf"
    with socket.socket(socket.AF_UNIX) as redis:
        redis.connect(own.env["REDIS_SOCKET"])
        redis.sendall(b"PING\r\n")
        assert redis.recv(16) == b"+PONG\r\n"


def test_the_owner_role_is_no_superuser(own):
    assert own.rows("SELECT rolsuper FROM pg_roles WHERE rolname = 'caf'") == [(False,)]


def test_the_ca_bundle_verifies_every_certificate(own):
    certificates = [own.env[key] for key in KEYS if key.endswith("_CERT")]
    certificates += [own.folder.tls / "server-p256.crt", own.folder.tls / "server-rsa.crt"]
    done = subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", own.env["CAF_CA"], *certificates],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert own.folder.ca_bundle.read_text().count("BEGIN CERTIFICATE") == 2
    assert Path(own.env["CAF_AGENT_CERT"]).read_text().count("BEGIN CERTIFICATE") == 2


def test_cert_issues_one_more(own):
    prefix = own.dir / "more"
    own.command("cert", own.dir, own.agent_id("acme", "more"), prefix)
    client = own.client(f"{prefix}.crt", f"{prefix}.key")
    assert client.post("/v1/mesh/register", json={"hostname": "h"}).json()["agent"]["agent_id"] == "more"
    assert os.stat(f"{prefix}.key").st_mode & 0o077 == 0


@pytest.mark.parametrize("name", PARTS)
def test_a_part_stops_starts_restarts_and_is_killed(own, name):
    first = own.pid(name)
    own.start(name)
    assert own.pid(name) == first
    own.stop(name)
    assert not own.runs(name) and not processes.is_alive(first)
    own.stop(name)
    own.start(name)
    second = own.pid(name)
    own.restart(name)
    third = own.pid(name)
    own.kill(name)
    assert len({first, second, third, own.pid(name)}) == 4
    assert own.runs(name)


def test_a_part_that_died_by_itself_is_started_again(own):
    processes.destroy([own.pid("auditd")])
    assert not own.runs("auditd")
    own.start("auditd")
    assert own.runs("auditd")


def test_a_number_that_is_anothers_now_is_left_alone(own):
    """The pid file of a part that is down names a process that is not ours."""
    own.stop("redis")
    stranger = own.spawn_as_owner(["/usr/bin/sleep", "60"])
    try:
        own.folder.pid_file("redis").write_text(f"{stranger.pid}\n")
        own.stop("redis")
        assert stranger.poll() is None
        own.folder.pid_file("redis").write_text(f"{stranger.pid}\n")
        own.start("redis")
        assert stranger.poll() is None and own.pid("redis") != stranger.pid
    finally:
        stranger.terminate()
        stranger.wait()


def test_wrong_words(own):
    assert "up already" in complaint(own, "up", own.dir, "--build", BUILD)
    nowhere = tempfile.mkdtemp(prefix="caf-")
    try:
        assert "not a stack" in complaint(own, "down", nowhere)
        assert "not a stack" in complaint(own, "kill", nowhere, "redis")
        assert "run make" in complaint(own, "up", nowhere, "--build", nowhere)
        assert "not DAEMON.SECTION.KEY=VALUE" in complaint(own, "up", nowhere, "--build", BUILD, "--set", "a.b=c")
        assert "too long" in complaint(own, "up", f"{nowhere}/{'x' * 100}", "--build", BUILD)
        assert "only letters" in complaint(own, "up", f"{nowhere}/a b", "--build", BUILD)
        os.chmod(nowhere, 0o755)
        Path(nowhere, "something").touch()
        assert "not empty" in complaint(own, "up", nowhere, "--build", BUILD)
    finally:
        shutil.rmtree(nowhere)
    assert own.command("kill", own.dir, "nobody", check=False).returncode == 2


def test_two_stacks_do_not_meet(own, make_stack):
    other = make_stack("--agents", 1)
    assert other.port != own.port
    agent = own.agent("here")
    agent.register()
    assert other.rows("SELECT count(*) FROM agent_registry") == [(0,)]
    with pytest.raises(OSError):
        other.context().load_verify_locations(own.env["CAF_CA"] + ".none")
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        other.client(context=own.context()).get("/livez")
    other.down()
    assert agent.heartbeat().status_code == 200
    other.up()


def test_down_leaves_nothing_and_up_keeps_everything(make_stack):
    kept = make_stack("--agents", 1)
    agent = kept.agent()
    agent.register(version="kept")
    ca, port = kept.folder.ca_bundle.read_bytes(), kept.port
    kept.down()
    assert running_in(kept.dir) == []
    kept.down()
    kept.up()
    assert (kept.folder.ca_bundle.read_bytes(), kept.port) == (ca, port)
    assert agent.self().json()["agent"]["version"] == "kept"
    assert len(list(Path(kept.env["CAF_AGENTS"]).iterdir())) == 2


def test_down_after_a_crash_of_everything(make_stack):
    kept = make_stack()
    agent = kept.agent()
    agent.register()
    processes.destroy([kept.pid(name) for name in PARTS])
    kept.down()
    assert running_in(kept.dir) == []
    kept.up()
    assert agent.self().status_code == 200


def test_a_port_of_ones_choice(make_stack):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert make_stack("--port", port).env["CAF_URL"] == f"https://localhost:{port}"


@pytest.fixture
def folder():
    """An empty folder for a stack that will not come up."""
    path = Path(tempfile.mkdtemp(prefix="caf-"))
    yield path
    assert running_in(path) == []
    shutil.rmtree(path)


def test_a_port_that_is_taken(own, folder):
    text = complaint(own, "up", folder, "--build", BUILD, "--port", own.port)
    assert "frontd" in text and "in use" in text


@pytest.mark.parametrize("setting, part", [("registryd.mesh.nonsense=1", "registryd"),
                                           ("eventd.outbox.sweep_seconds=often", "eventd"),
                                           ("frontd.tls.client_ca=/nonexistent", "frontd"),
                                           ("keeper.keys.files=/nonexistent", "keeper")])
def test_what_is_misconfigured_says_so_and_leaves_nothing(own, folder, setting, part):
    key = setting.split("=")[0].rpartition(".")[2]
    text = complaint(own, "up", folder, "--build", BUILD, "--set", setting)
    assert f"{part} ended at its start" in text
    assert key in text or "/nonexistent" in text


def test_a_plain_user_brings_up_a_stack_of_its_own(own, folder):
    """From a copy of the clone, as the user that root's stacks run as: no right of root is needed."""
    for name in ("dev", "sql"):
        shutil.copytree(REPOSITORY / name, folder / "clone" / name)
    shutil.copytree(BUILD / "bin", folder / "clone" / "build" / "bin")
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    if os.getuid() == 0:
        os.chown(home, own.owner().pw_uid, own.owner().pw_gid)
    stack = [PYTHON, folder / "clone" / "dev" / "stack"]
    up = own.run_as_owner([*stack, "up", home / "s", "--agents", "1", "--build", folder / "clone" / "build"])
    assert up.returncode == 0, up.stderr
    try:
        assert {Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[0] for pid in running_in(home)} == {
            str(own.owner().pw_uid)}
    finally:
        assert own.run_as_owner([*stack, "down", home / "s"]).returncode == 0


def test_from_a_folder_that_its_user_may_not_enter(folder):
    """As in a clone in root's home: what runs as the stack's user must not need the folder it was called from."""
    barred = folder / "barred"
    barred.mkdir()
    folder.chmod(0o755)

    def enter():
        os.chdir(barred)
        os.chmod(barred, 0)

    def stack(*words):
        return subprocess.run([PYTHON, REPOSITORY / "dev" / "stack", *words], preexec_fn=enter, capture_output=True,
                              text=True, check=False)

    try:
        up = stack("up", folder / "s", "--build", BUILD, "--agents", "1")
        assert up.returncode == 0, up.stderr
    finally:
        barred.chmod(0o700)
        assert stack("down", folder / "s").returncode == 0
        barred.chmod(0o700)
