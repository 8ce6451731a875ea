"""What the integration tests stand on: a running stack, agents and operators of it, and clients of every kind.

Everything here is real: dev/stack brings up PostgreSQL, Redis and the daemons of a build.
"""

import contextlib
import itertools
import os
import pwd
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psycopg2

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "dev"))

from caf_dev import authority, certificates, processes  # noqa: E402
from caf_dev.parts import all_parts  # noqa: E402
from caf_dev.settings import DAEMONS, Folder  # noqa: E402
from connection import Answer, TlsConnection, request  # noqa: E402, F401 (for the tests)

BUILD = Path(os.environ.get("CAF_BUILD", REPOSITORY / "build" / "san")).resolve()
PYTHON = "/usr/bin/python3"
FAST = ("registryd.mesh.write_behind_seconds=1", "eventd.outbox.sweep_seconds=1", "eventd.aggregate.seconds=1")
BROKEN = re.compile(r"AddressSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|runtime error:|SUMMARY: |"
                    r"stack smashing|buffer overflow detected|Assertion .* failed|free\(\)|double free|"
                    r"killed by signal|core dumped")
TRACE_ID = re.compile(r"[0-9a-f]{16}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
AGENT_MEMBERS = {"agent_id", "tenant_id", "spiffe_id", "hostname", "machine_id_fingerprint", "endpoint", "version",
                 "capabilities", "metadata", "state", "registered_at", "last_heartbeat", "last_heartbeat_via",
                 "heartbeat_status"}
EVENT_MEMBERS = {"event_id", "tenant_id", "event_type", "severity", "spiffe_id", "hostname", "source_ip", "trace_id",
                 "details", "count", "occurred_at", "recorded_at", "node"}
RECOVERY_MEMBERS = {"action", "method", "path", "hint"}
numbers = itertools.count(1)


def unique(prefix):
    """A name that no other test uses."""
    return f"{prefix}-{next(numbers)}-{secrets.token_hex(3)}"


def wait_for(look, seconds=15, what="it"):
    """Calls look() until it gives something true, which is returned."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < until, f"{what} did not come within {seconds} s; last: {found!r}"
        time.sleep(0.05)


# ---- a stack -------------------------------------------------------------------------------------


class Stack:
    """One system of dev/stack, in a folder of its own; join: the Stack that it joins as a second node."""

    def __init__(self, *options, sets=FAST, join=None, repo=REPOSITORY, build=BUILD):
        self.repo, self.build = repo, build
        self.dir = Path(tempfile.mkdtemp(prefix="caf-"))
        self.folder = Folder(self.dir)
        self.options = [*options, *(("--join", join.dir) if join else ()),
                        *(word for each in sets for word in ("--set", each))]
        self.env = {}
        self._clients = []
        self._prefix = Path(tempfile.mkdtemp(prefix="caf-certs-"))

    # -- its life

    def command(self, *words, check=True):
        """dev/stack with these words; the finished process, its output as text."""
        done = subprocess.run([PYTHON, self.repo / "dev" / "stack", *map(str, words)], capture_output=True, text=True,
                              check=False)
        assert not check or done.returncode == 0, f"dev/stack {' '.join(map(str, words))}: {done.stderr}"
        return done

    def up(self):
        self.command("up", self.dir, "--build", self.build, *self.options)
        lines = self.folder.env_file.read_text().splitlines()
        self.env = dict(line.split("=", 1) for line in lines)
        return self

    def down(self):
        self.command("down", self.dir)

    def stop(self, name):
        self.command("stop", self.dir, name)

    def start(self, name):
        self.command("start", self.dir, name)

    def restart(self, name):
        self.command("restart", self.dir, name)

    def kill(self, name):
        self.command("kill", self.dir, name)

    @contextlib.contextmanager
    def without(self, *names):
        """These parts are stopped meanwhile."""
        for name in names:
            self.stop(name)
        try:
            yield
        finally:
            for name in names:
                self.start(name)

    def close(self):
        """Ends it, and complains about every part that had died and every report in a log."""
        self.close_clients()
        dead = [name for name in all_parts(self.folder) if not self.runs(name)]
        try:
            self.down()
            broken = [f"{path.name}: {line}" for path in sorted(self.folder.log.iterdir())
                      for line in path.read_text(errors="replace").splitlines() if BROKEN.search(line)]
        finally:
            shutil.rmtree(self._prefix)
        assert not dead, f"died without being told to: {dead}; see {self.folder.log}"
        assert not broken, f"see {self.folder.log}:\n" + "\n".join(broken)
        shutil.rmtree(self.dir)

    def close_clients(self):
        """Ends the connections of all clients that were made here."""
        while self._clients:
            self._clients.pop().close()

    # -- its processes

    def pid(self, name):
        return int(self.folder.pid_file(name).read_text())

    def runs(self, name):
        return self.folder.pid_file(name).exists() and processes.is_alive(self.pid(name))

    def workers(self):
        """The process numbers of frontd's workers."""
        return processes.children(self.pid("frontd"))

    def pids(self):
        """Every process number of caf's own, by its name: what a test compares to see that nothing died."""
        return {**{name: self.pid(name) for name in DAEMONS}, "workers": sorted(self.workers())}

    def log(self, name):
        return self.folder.log_file(name).read_text(errors="replace")

    def owner(self):
        """The user that the stack runs as."""
        return pwd.getpwuid(self.dir.stat().st_uid)

    def identity(self):
        """What subprocess needs to run something as that user."""
        user = self.owner()
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}

    def run_as_owner(self, argv, **rest):
        """subprocess.run as the stack's user."""
        return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, cwd="/",
                              **self.identity(), **rest)

    def spawn_as_owner(self, argv, **rest):
        """subprocess.Popen as the stack's user."""
        return subprocess.Popen([str(word) for word in argv], cwd="/", **self.identity(), **rest)

    # -- its identities

    @property
    def trust_domain(self):
        return self.env["CAF_TRUST_DOMAIN"]

    @property
    def port(self):
        return int(self.env["CAF_URL"].rpartition(":")[2])

    def issuer(self):
        return certificates.issuing_authority(self.folder)

    def cert(self, spiffe_id, key_kind="p256", issuer=None, **rules):
        """A client certificate; its files. For the rules to break see caf_dev.authority.build."""
        rules.setdefault("names", [authority.uri(spiffe_id)])
        key = authority.new_key(key_kind)
        chain = (issuer or self.issuer()).issue(key, **rules)
        return authority.write_pair(self._prefix / unique("client"), chain, key)

    def agent_id(self, tenant, name):
        return f"spiffe://{self.trust_domain}/agent/{tenant}/{name}"

    def operator_id(self, tenant, name):
        return f"spiffe://{self.trust_domain}/operator/{tenant}/{name}"

    def agent(self, name=None, tenant="acme"):
        """A new agent with its own certificate and client."""
        return Agent(self, tenant, name or unique("agent"))

    def operator(self, role, tenant="acme"):
        """A client with an operator's certificate of this role."""
        return self.client(*self.cert(self.operator_id(tenant, role)))

    # -- its doors

    def context(self, crt=None, key=None, lax=False, **versions):
        """A client's TLS settings; lax: it does not mind to show a weak certificate; versions: minimum_version,
        maximum_version."""
        context = ssl.create_default_context(cafile=self.env["CAF_CA"])
        if lax:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
        for name, version in versions.items():
            setattr(context, name, version)
        if crt:
            context.load_cert_chain(crt, key)
        return context

    def client(self, crt=None, key=None, context=None):
        """An httpx.Client of this stack, with the certificate if one is given."""
        client = httpx.Client(base_url=self.env["CAF_URL"], verify=context or self.context(crt, key), trust_env=False,
                              timeout=40)
        self._clients.append(client)
        return client

    def connection(self, crt=None, key=None, lax=False, **rest):
        """A raw TLS connection, to send bytes of any kind on; rest: see TlsConnection."""
        return TlsConnection(self.port, self.context(crt, key, lax), **rest)

    def raw_socket(self, context, session=None):
        """A connected ssl.SSLSocket, for what only the standard library's own can do."""
        plain = socket.create_connection(("localhost", self.port), timeout=15)
        return context.wrap_socket(plain, server_hostname="localhost", session=session)

    def db(self, role=None, dbname=None):
        """A connection to PostgreSQL, as the owner role if no other is named; every statement commits at once."""
        link = psycopg2.connect(host=self.env["PGHOST"], dbname=dbname or self.env["PGDATABASE"],
                                user=role or self.env["PGUSER"])
        link.autocommit = True
        return link

    @contextlib.contextmanager
    def table_locked(self, table):
        """Nobody reads or writes the table meanwhile: what needs it is in flight until then."""
        link = self.db("postgres")
        link.autocommit = False
        try:
            with link.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
        finally:
            link.close()

    def rows(self, query, *values):
        """The rows of one query as the database's superuser."""
        link = self.db("postgres")
        try:
            with link.cursor() as cursor:
                cursor.execute(query, values)
                return cursor.fetchall()
        finally:
            link.close()

    def events(self, tenant, **filters):
        """Stored events of a tenant as the database has them, oldest first: dictionaries of their columns."""
        columns = sorted(EVENT_MEMBERS)
        where = "".join(f" AND {column} = %s" for column in filters)
        found = self.rows(f"SELECT {', '.join(columns)} FROM security_events WHERE tenant_id = %s{where} "
                          "ORDER BY occurred_at, event_id", tenant, *filters.values())
        return [dict(zip(columns, row)) for row in found]


class Agent:
    """An agent: its identity, its certificate's files, its client, and what it can ask."""

    def __init__(self, stack, tenant, name):
        self.tenant, self.name = tenant, name
        self.spiffe_id = stack.agent_id(tenant, name)
        self.crt, self.key = stack.cert(self.spiffe_id)
        self.client = stack.client(self.crt, self.key)

    def register(self, body=None, **members):
        """POST /v1/mesh/register with these members; a hostname is put in where none is given."""
        members.setdefault("hostname", self.name)
        return self.client.post("/v1/mesh/register", json=members if body is None else body)

    def heartbeat(self, **members):
        return self.client.post("/v1/mesh/heartbeat", json=members or None)

    def self(self):
        return self.client.get("/v1/mesh/self")

    def deregister(self):
        return self.client.post("/v1/mesh/deregister")


# ---- answers -------------------------------------------------------------------------------------


def check_error(answer, status, code, names=None, recovery=False):
    """An error has one shape everywhere (contract, Errors); returns its message."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    body = answer.json()
    assert set(body) == {"success", "error", "trace_id"} | ({"recovery"} if recovery else set())
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] == code
    assert TRACE_ID.fullmatch(body["trace_id"])
    assert answer.headers["content-type"].startswith("application/json")
    if recovery:
        assert set(body["recovery"]) == RECOVERY_MEMBERS
    if names:
        assert names in body["error"]["message"]
    return body["error"]["message"]


def check_registered(answer, status):
    """The reply of register, to the letter; returns its body."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    body = answer.json()
    assert set(body) == {"agent", "created", "fingerprint_drift", "heartbeat", "trace_id"}
    assert set(body["agent"]) == AGENT_MEMBERS
    assert body["created"] is (status == 201)
    assert set(body["heartbeat"]) == {"interval_seconds", "next_due_ms"}
    assert TRACE_ID.fullmatch(body["trace_id"])
    return body
