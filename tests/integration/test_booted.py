"""caf on a host of its own: installed as docs/INSTALL.md says, to the letter, and run by a booted systemd.

Takes minutes and root: CAF_TEST_ROOTS names a folder that keeps what is costly to make (see container.py).
"""

import json
import os
import re
import signal
import ssl
import subprocess
import time

import pytest
from caf_dev import processes
from caf_dev.authority import SERVER, Issuer, certificate_pem, new_key, server_names, uri, write_file, write_pair
from container import Container
from cryptography import x509
from harness import REPOSITORY, TlsConnection, request, unique, wait_for
from test_systemd import Load

pytestmark = pytest.mark.long

BACK = ("keeper", "registryd", "auditd", "eventd")
DAEMONS = (*BACK, "frontd")
SERVICES = tuple(f"caf-{name}.service" for name in DAEMONS)
SOCKETS = tuple(f"caf-{name}.socket" for name in (*DAEMONS, "metrics"))
SERVERS = ("postgresql.service", "redis-server.service")
PORT = 8443
STOP_SECONDS = 12  # service.stop_seconds, and a little
EXPOSURE = 0.5  # of 10, by systemd-analyze security
PRIORITIES = {"error": "3", "warn": "4", "info": "6", "debug": "7"}
PATIENCE_SECONDS = 30


def written_steps():
    """The commands of docs/INSTALL.md, block by block."""
    return re.findall(r"(?ms)^```sh\n(.*?)^```", (REPOSITORY / "docs" / "INSTALL.md").read_text())


def packages(step):
    """Those that a step of the page installs."""
    words = step.split()
    assert words[:2] == ["apt-get", "install"], step
    return [word for word in words[2:] if not word.startswith("-")]


class Agent:
    def __init__(self, name, crt, key):
        self.name, self.crt, self.key = name, crt, key


class Host:
    """The container with caf in it: its clients, and what its systemd says."""

    def __init__(self, container):
        self.container, self.run, self.ask, self.file = container, container.run, container.ask, container.file
        self.issuer = Issuer.root("a root")
        self.ca = container.folder / "ca.pem"
        write_file(self.ca, certificate_pem(self.issuer.certificate), 0o644)

    # -- its certificates, its clients

    def put_certificates(self):
        """What the page asks for: the server's pair, the clients' CAs, the trust domain."""
        key = new_key()
        write_pair(self.file("/etc/caf/tls/server"), self.server_chain(key), key)
        write_file(self.file("/etc/caf/tls/client-ca.pem"), certificate_pem(self.issuer.certificate), 0o644)
        sample = self.file("/etc/caf/frontd.conf")
        sample.write_text(sample.read_text().replace("trust_domain = caf.example", "trust_domain = caf.test"))
        self.key = key

    def server_chain(self, key):
        return self.issuer.issue(key, common_name="localhost", names=server_names(), uses=(SERVER,))

    def agent(self):
        name, key = unique("agent"), new_key()
        chain = self.issuer.issue(key, names=[uri(f"spiffe://caf.test/agent/acme/{name}")])
        return Agent(name, *write_pair(self.container.folder / name, chain, key))

    def connection(self, crt=None, key=None):
        context = ssl.create_default_context(cafile=self.ca)
        if crt:
            context.load_cert_chain(crt, key)
        with self.container.network():
            return TlsConnection(PORT, context)

    def is_ready(self):
        try:
            with self.connection() as connection:
                answer = connection.ask(request("GET", "/readyz"))
                return answer is not None and answer.status_code == 200
        except OSError:
            return False

    def wait_ready(self):
        wait_for(self.is_ready, PATIENCE_SECONDS, "/readyz")

    # -- its systemd

    def systemctl(self, *words):
        self.run(f"systemctl {' '.join(words)}")

    def show(self, unit, name):
        return self.ask(f"systemctl show -P {name} {unit}")

    def states(self, units):
        """The units by their state."""
        words = self.run(f"systemctl is-active {' '.join(units)}", check=False).stdout.split()
        return {state: [unit for unit, has in zip(units, words) if has == state] for state in words}

    def pid(self, name):
        """The main process of a service, as this host numbers it."""
        inside = self.show(f"caf-{name}", "MainPID")
        return next(pid for pid in processes.all_pids() if inside == number_inside(pid, self.container.init))

    def restarts(self):
        """How often systemd has brought each daemon back."""
        return {name: int(self.show(f"caf-{name}", "NRestarts")) for name in DAEMONS}

    def journal(self, name, since=0):
        """What a service has logged, oldest first: the entries behind the first `since`."""
        lines = self.ask(f"journalctl -q -o json --no-pager _SYSTEMD_UNIT=caf-{name}.service").splitlines()
        return [json.loads(line) for line in lines][since:]

    def wait_logged(self, name, words, since):
        """The entry behind `since` that has these words."""
        return wait_for(lambda: next((entry for entry in self.journal(name, since) if words in entry["MESSAGE"]), None),
                        what=words)


def number_inside(pid, init):
    """A process' number in the container; None where it is not in it."""
    try:
        if os.readlink(f"/proc/{pid}/ns/pid") != os.readlink(f"/proc/{init}/ns/pid"):
            return None
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            return re.search(r"(?m)^NSpid:.*\t(\d+)$", status.read())[1]
    except OSError:
        return None


def make_install(step, root):
    """The page's make install, into another host's file system."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "SAN")}
    subprocess.run([*step.split(), f"DESTDIR={root}"], cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def host():
    """A host on which caf was installed, and which was then switched off and on."""
    first, second, *rest = written_steps()
    with Container(packages(first)) as container:
        own = Host(container)
        make_install(second, container.root)
        own.put_certificates()
        for step in rest:
            own.run(step)
        own.wait_ready()
        container.power_off()
        container.power_on()
        yield own


@pytest.fixture(autouse=True)
def all_is_well(host):
    """Before and after each test; and nobody was ended by a refused system call."""
    host.wait_ready()
    yield
    host.wait_ready()
    assert host.states((*SERVICES, *SOCKETS)) == {"active": [*SERVICES, *SOCKETS]}
    assert "status=31/SYS" not in host.ask("journalctl -q --no-pager -u 'caf-*'")


# ---- up ------------------------------------------------------------------------------------------


def test_all_comes_up_with_the_host(host):
    assert host.ask("systemctl is-enabled caf.target") == "enabled"
    assert host.ask("systemctl list-units --failed --no-legend") == ""
    assert set(host.restarts().values()) == {0}
    assert host.ask("journalctl -q --no-pager -p warning -u 'caf-*'") == "", "a warning though nothing was wrong"


def test_the_keys_are_locked_in_memory(host):
    with open(f"/proc/{host.pid('keeper')}/status", encoding="ascii") as status:
        assert int(re.search(r"VmLck:\s+(\d+) kB", status.read())[1]) >= 1024


ORDERS = {
    "as one would": (*SERVERS, *SERVICES),
    "the other way round": (*reversed(SERVICES), *reversed(SERVERS)),
    "frontd between": ("caf-eventd.service", "redis-server.service", "caf-frontd.service", "caf-registryd.service",
                       "postgresql.service", "caf-keeper.service", "caf-auditd.service"),
    "frontd by its socket": (*SERVERS, *SOCKETS),
}


@pytest.mark.parametrize("order", ORDERS)
def test_all_come_up_in_whatever_order(host, order):
    host.systemctl("stop", "caf.target", *SERVERS)
    assert list(host.states((*SERVICES, *SOCKETS))) == ["inactive"]
    before = host.restarts()
    for unit in ORDERS[order]:
        host.systemctl("start", "--no-block", unit)
    wait_for(lambda: list(host.states(ORDERS[order])) == ["active"], PATIENCE_SECONDS, "the units")
    host.wait_ready()
    assert list(host.states(SERVICES)) == ["active"]
    assert host.restarts() == before, "some daemon ended, and was brought back, until others were there"
    host.systemctl("start", "caf.target")


# ---- reload --------------------------------------------------------------------------------------


def serial(host):
    with host.connection() as connection:
        der = connection.tls.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der).serial_number


def test_a_reload_takes_a_certificate_in_and_refuses_a_broken_one(host):
    agent, path = host.agent(), host.file("/etc/caf/tls/server.crt")
    pid, since = host.pid("frontd"), len(host.journal("frontd"))
    with host.connection(agent.crt, agent.key) as live:
        assert live.ask(request("GET", "/livez")).status_code == 200
        fresh = host.server_chain(host.key)
        write_file(path, certificate_pem(*fresh), 0o644)
        host.systemctl("reload", "caf-frontd")
        taken = host.wait_logged("frontd", "msg=reloaded", since)
        assert "certificates=new" in taken["MESSAGE"] and taken["PRIORITY"] == PRIORITIES["info"]
        wait_for(lambda: {serial(host) for _ in range(8)} == {fresh[0].serial_number}, what="the new certificate")
        assert live.is_open()
        write_file(path, b"-----BEGIN CERTIFICATE-----\nbroken\n", 0o644)
        host.systemctl("reload", "caf-frontd")
        refused = host.wait_logged("frontd", "reload refused", since)
        assert "server.crt" in refused["MESSAGE"] and refused["PRIORITY"] == PRIORITIES["error"]
        status = host.ask("systemctl status --no-pager caf-frontd")
        assert "active (running)" in status and "reload refused" in status
        assert {serial(host) for _ in range(8)} == {fresh[0].serial_number}
        assert live.is_open()
        write_file(path, certificate_pem(*fresh), 0o644)
        host.systemctl("reload", "caf-frontd")
        host.wait_logged("frontd", "msg=reloaded", since + host.journal("frontd", since).index(refused))
    assert host.pid("frontd") == pid


# ---- restarts and deaths -------------------------------------------------------------------------


@pytest.mark.parametrize("name", DAEMONS)
def test_a_restart_of_one_fails_no_request(host, name):
    others = {other: host.show(f"caf-{other}", "MainPID") for other in DAEMONS if other != name}
    with Load(host) as load:
        for _ in range(3):
            load.progress()
            host.systemctl("restart", f"caf-{name}")
        load.progress()
    assert set(load.seen) <= {200, 201}, load.seen
    assert others == {other: host.show(f"caf-{other}", "MainPID") for other in others}


@pytest.mark.parametrize("name", BACK)
def test_a_killed_daemon_is_brought_back_and_no_request_fails(host, name):
    before = host.restarts()[name]
    with Load(host) as load:
        for number in range(1, 3):
            load.progress()
            os.kill(host.pid(name), signal.SIGKILL)
            wait_for(lambda: host.restarts()[name] == before + number, what="a restart")
        load.progress()
    assert set(load.seen) <= {200, 201}, load.seen


def test_a_killed_worker_is_brought_back_by_the_supervisor(host):
    supervisor, before = host.pid("frontd"), host.restarts()
    workers = processes.children(supervisor)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    now = wait_for(lambda: len(found := processes.children(supervisor)) == 2 and workers[0] not in found and found)
    assert workers[1] in now
    host.wait_ready()
    assert (host.pid("frontd"), host.restarts()) == (supervisor, before)


def test_a_killed_supervisor_is_brought_back_by_systemd_and_its_workers_end(host):
    supervisor, before = host.pid("frontd"), host.restarts()["frontd"]
    workers = processes.children(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    assert processes.wait_gone([supervisor, *workers], PATIENCE_SECONDS) == []
    host.wait_ready()
    assert host.restarts()["frontd"] == before + 1
    assert len(processes.children(host.pid("frontd"))) == 2


# ---- stop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DAEMONS)
def test_a_stop_ends_in_order_and_in_time(host, name):
    """With an agent's connection open, and having answered."""
    agent = host.agent()
    with host.connection(agent.crt, agent.key) as live:
        body = json.dumps({"hostname": agent.name}).encode()
        assert live.ask(request("POST", "/v1/mesh/register", body)).status_code == 201
        began = time.monotonic()
        host.systemctl("stop", f"caf-{name}.socket", f"caf-{name}.service")
        taken = time.monotonic() - began
    assert taken < STOP_SECONDS
    assert [host.show(f"caf-{name}", what) for what in ("Result", "ExecMainStatus", "ActiveState")] == \
        ["success", "0", "inactive"]
    host.systemctl("start", "caf.target")


# ---- what systemd thinks of it -------------------------------------------------------------------


@pytest.mark.parametrize("name", DAEMONS)
def test_a_unit_exposes_little(host, name):
    told = host.ask(f"systemd-analyze security --no-pager caf-{name}.service")
    level = float(re.search(r"Overall exposure level for \S+: (\d+\.\d+)", told)[1])
    assert level <= EXPOSURE, told


@pytest.mark.parametrize("name", DAEMONS)
def test_the_journal_has_each_line_with_its_priority(host, name):
    entries = [entry for entry in host.journal(name) if "level=" in entry["MESSAGE"]]
    assert entries
    for entry in entries:
        level = re.search(r"\blevel=(\w+)", entry["MESSAGE"])[1]
        assert entry["PRIORITY"] == PRIORITIES[level] and not entry["MESSAGE"].startswith("<"), entry
