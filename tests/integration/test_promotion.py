"""The primary dies and a real streaming standby is promoted. Where each commit waits for the standby, nothing that was
acknowledged is lost; where none does, nothing that only the dead server knew is believed.
"""

import concurrent.futures
import ssl

import psycopg2
import pytest
from caf_dev import processes
from caf_dev.parts import POSTGRES_BIN, environment
from harness import FAST, Stack, request, unique, wait_for
from nodes import CHANGE, metric, seconds_until, set_state, wait_for_reads
from test_systemd import Load

pytestmark = pytest.mark.long

AUTHORITY = 3  # seconds that states are believed without the database
LOADED = 8  # agents
BACK = ("registryd", "auditd", "eventd")


class Standby:
    """A second server beside a stack's own; the daemons know the sockets of both."""

    def __init__(self, stack):
        self.stack, self.data, self.run = stack, stack.dir / "standby", stack.dir / "standby-run"
        self.process = None

    def conninfo(self, daemon):
        role = {"registryd": "caf_registry", "auditd": "caf_audit", "eventd": "caf_event"}[daemon]
        return f"{daemon}.database.conninfo=host={self.stack.folder.run},{self.run} dbname=caf user={role}"

    def tool(self, name, *words):
        done = self.stack.run_as_owner([f"{POSTGRES_BIN}/{name}", *words], env=environment())
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        """Copies the primary and follows it."""
        primary = self.stack.folder.postgres
        (primary / "pg_hba.conf").write_text("local all all trust\nlocal replication all trust\n")
        self.stack.rows("SELECT pg_reload_conf()")
        self.tool("pg_basebackup", "-h", self.stack.folder.run, "-U", "postgres", "-D", self.data, "-R", "-c", "fast")
        self.stack.run_as_owner(["mkdir", "-p", self.run])
        argv = [f"{POSTGRES_BIN}/postgres", "-D", self.data, "-c", "listen_addresses=", "-c",
                f"unix_socket_directories={self.run}", "-c", "max_connections=200"]  # a primary's, or more
        with open(self.stack.folder.log / "standby.log", "ab") as log:
            self.process = self.stack.spawn_as_owner(argv, env=environment(), stdout=log, stderr=log)
        wait_for(lambda: self.stack.rows("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))

    def make_synchronous(self):
        """From here on each commit waits for it."""
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        wait_for(lambda: self.stack.rows("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"))

    def execute(self, *statements, host=None):
        """Runs statements at the primary, or where it is said."""
        link = psycopg2.connect(host=host or self.stack.env["PGHOST"], dbname="postgres", user="postgres")
        link.autocommit = True
        with link.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        link.close()

    def leave(self):
        """Follows no more: what the primary commits from here on, it will never have."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()", host=self.run)
        wait_for(lambda: not self.stack.rows("SELECT 1 FROM pg_stat_replication"))

    def promote(self):
        """Makes it the primary; the stack's own queries go to it from here on."""
        self.tool("pg_ctl", "promote", "-D", self.data, "-w")
        self.stack.env["PGHOST"] = str(self.run)
        self.execute("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")

    def close(self):
        if self.process:
            processes.destroy([self.process.pid, *processes.children(self.process.pid)])
            self.process.wait()


@pytest.fixture
def pair():
    """A stack whose daemons know both servers, and the second of them, which follows the first."""
    stack = Stack(sets=(*FAST, f"registryd.cache.authority_seconds={AUTHORITY}"))
    standby = Standby(stack)
    stack.options += [word for name in BACK for word in ("--set", standby.conninfo(name))]
    stack.up()
    try:
        standby.start()
        yield stack, standby
    finally:
        stack.start("postgres")  # or it would be taken for one that died by itself
        standby.execute("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()", host=stack.folder.run)
        stack.close()
        standby.close()


class Acknowledged(Load):
    """Agents that register; what each was last told that it is."""

    def __init__(self, stack):
        super().__init__(stack, LOADED)
        self.told = {}

    def run(self, agent):
        link = self.stack.connection(agent.crt, agent.key)
        with link:
            link.socket.settimeout(60)
            turn = 0
            while not self.stopping.is_set():
                turn += 1
                body = f'{{"hostname": "{agent.name}-{turn}"}}'.encode()
                answer = link.ask(request("POST", "/v1/mesh/register", body))
                self.seen[answer.status_code if answer else "cut"] += 1
                if answer is None:
                    return
                self.told.setdefault(agent.name, []).append((f"{agent.name}-{turn}", answer.json().get("trace_id")))


def kill_primary(stack):
    """Every process of it at once, as a host dies."""
    postmaster = stack.pid("postgres")
    processes.destroy([postmaster, *processes.children(postmaster)])


def code(agent):
    return agent.heartbeat().status_code


def state(agent):
    return agent.heartbeat().json().get("state")


def is_let_in(stack, agent):
    try:
        with stack.connection(agent.crt, agent.key) as link:
            return link.ask(request("GET", "/livez")) is not None
    except (ssl.SSLError, ConnectionError):
        return False


def change(stack, agent, to, statement=CHANGE):
    link = stack.db("postgres")
    with link.cursor() as cursor:
        cursor.execute(statement, (to, agent.spiffe_id))
        assert cursor.rowcount == 1
    link.close()


def change_unseen(stack, agent, to):
    """A change that no feed can tell."""
    change(stack, agent, to, "UPDATE agent_registry SET state = %s WHERE spiffe_id = %s")


def registered(stack, count):
    agents = [stack.agent() for _ in range(count)]
    for agent in agents:
        assert agent.register().status_code == 201
        assert state(agent) == "active"
    wait_for_reads(stack)
    return agents


def test_nothing_acknowledged_is_lost_and_nothing_is_believed_for_too_long(pair):
    stack, standby = pair
    standby.make_synchronous()
    known, changed, denied = registered(stack, 3)
    change_unseen(stack, changed, "quarantined")
    change_unseen(stack, denied, "revoked")
    wait_for_reads(stack)
    assert state(changed) == "active" and is_let_in(stack, denied)
    with concurrent.futures.ThreadPoolExecutor(1) as pool, Acknowledged(stack) as load:
        load.progress()
        standby.leave()
        wait_for(lambda: stack.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
        kill_primary(stack)
        assert state(changed) == "active", "what is known is believed for a while"
        wait_for(lambda: metric(stack, "feed_lag_seconds") > AUTHORITY)
        asked = pool.submit(state, changed)
        assert not concurrent.futures.wait([asked], 1).done, "a server that takes no writes was asked, or none"
        standby.promote()
        assert asked.result() == "quarantined"
        load.progress()
    assert set(load.seen) <= {200, 201}, load.seen
    assert "another history" in stack.log("registryd")
    wait_for(lambda: not any(is_let_in(stack, denied) for _ in range(8)))
    check_nothing_lost(stack, load)
    check_it_goes_on(stack, known)


def test_what_only_the_dead_server_knew_is_forgotten(pair):
    """Whatever the standby had not got: a quarantine, a revocation, an agent."""
    stack, standby = pair
    known, quarantined, revoked = registered(stack, 3)
    standby.leave()
    change(stack, quarantined, "quarantined")
    change(stack, revoked, "revoked")
    gone, = registered(stack, 1)
    wait_for(lambda: state(quarantined) == "quarantined" and not is_let_in(stack, revoked))
    kill_primary(stack)
    standby.promote()
    wait_for(lambda: "another history" in stack.log("registryd"))
    wait_for(lambda: (state(quarantined), code(gone)) == ("active", 404))
    wait_for(lambda: [is_let_in(stack, revoked) for _ in range(8)] == [True] * 8)
    assert (state(known), state(revoked)) == ("active", "active")
    assert gone.register().status_code == 201
    check_it_goes_on(stack, known)


def check_nothing_lost(stack, load):
    """Each agent is what it was last told that it is, and each answer has its event, once."""
    rows = dict(stack.rows("SELECT agent_id, hostname FROM agent_registry"))
    wait_for(lambda: stack.rows("SELECT count(*) FROM identity_outbox") == [(0,)])
    traces = [row[0] for row in stack.rows("SELECT trace_id FROM security_events WHERE tenant_id = 'acme' AND event_type = "
                                           "'identity.enrollment_success'")]
    assert len(load.told) == LOADED
    for name, answers in load.told.items():
        assert rows[name] == answers[-1][0]
        assert [traces.count(trace) for _, trace in answers] == [1] * len(answers)


def check_it_goes_on(stack, agent):
    """The feed of the new history works as the old one's did."""
    assert metric(stack, "feed_lag_seconds") < AUTHORITY
    set_state(stack, agent, "quarantined")
    assert seconds_until(lambda: state(agent) == "quarantined") < 1.5
    assert stack.client().get("/readyz").status_code == 200
    assert stack.agent(tenant=unique("new")).register().status_code == 201
