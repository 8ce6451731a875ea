"""frontd reads certificates, CA bundle, CRLs and roles again, on SIGHUP and at an interval: what is whole is in force
for all workers, what is broken is refused whole, and no connection drops that need not."""

import os
import re
import signal
import ssl
import time
from datetime import timedelta

import pytest
from caf_dev.authority import (BACKDATED, DAY, SERVER, Issuer, certificate_pem, key_pem, new_key, now, server_names,
                               uri, write_file)
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from harness import Stack, request, unique, wait_for
from resuming import VERSIONS, Client

LIVEZ = request("GET", "/livez")
EVENTS = request("GET", "/v1/security/events")
ENDED = re.compile(r'msg=reloaded|msg="reload refused')


class Frontd:
    """A stack's frontd and its files."""

    def __init__(self, stack):
        self.stack, folder = stack, stack.folder
        self.conf, self.bundle, self.crl = folder.configuration("frontd"), folder.ca_bundle, stack.dir / "crl.pem"
        self.server = {kind: folder.tls / f"server-{kind}.crt" for kind in ("p256", "rsa")}
        self.kept = {path: path.read_bytes() for path in (self.conf, self.bundle, *self.server.values())}

    def restore(self):
        for path, content in self.kept.items():
            path.write_bytes(content)

    def set(self, section, line):
        """Puts a line into a section of frontd.conf."""
        self.conf.write_text(self.conf.read_text().replace(f"[{section}]\n", f"[{section}]\n{line}\n"))

    def use_crl(self, *lists):
        write_file(self.crl, b"".join(lists), 0o644)
        if "crl = " not in self.conf.read_text():
            self.set("tls", f"crl = {self.crl}")

    def lines(self):
        return self.stack.log("frontd").splitlines()

    def reload(self):
        """SIGHUP; the log line that tells how it ended."""
        before = len(self.lines())
        os.kill(self.stack.pid("frontd"), signal.SIGHUP)
        return wait_for(lambda: [line for line in self.lines()[before:] if ENDED.search(line)], what="a reload's end")[0]

    def take(self):
        line = self.reload()
        assert "msg=reloaded" in line, line
        return line

    def refuse(self, *names):
        """A reload that must be refused, with these words in its line; nothing else is logged."""
        before, pids = len(self.lines()), self.stack.pids()
        line = self.reload()
        assert "refused" in line and all(str(name) in line for name in names), line
        assert len(self.lines()) == before + 1
        assert self.stack.pids() == pids
        return line


@pytest.fixture(scope="module")
def shared():
    own = Stack(sets=["frontd.tls.reload_seconds=0"]).up()
    yield own
    own.close()


@pytest.fixture
def frontd(shared):
    """The frontd of this file's stack; afterwards it is as it was."""
    own = Frontd(shared)
    yield own
    own.restore()
    own.take()


def server_certificate(stack):
    with stack.raw_socket(stack.context()) as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))


def lets_in(stack, crt, key):
    """Whether a client with this certificate is accepted, by how its first request ends."""
    try:
        with stack.connection(crt, key) as connection:
            return connection.ask(LIVEZ) is not None
    except (ssl.SSLError, ConnectionError):
        return False


def let_in_by_all(stack, crt, key, expected):
    """Both workers agree, soon."""
    wait_for(lambda: [lets_in(stack, crt, key) for _ in range(12)] == [expected] * 12)


def new_server_certificate(stack, path, key_path, key=None):
    """Another certificate, of the key that is there or of another; returns it."""
    key = key or serialization.load_pem_private_key(key_path.read_bytes(), None)
    chain = stack.issuer().issue(key, common_name="localhost", names=server_names(), uses=(SERVER,))
    path.write_bytes(certificate_pem(*chain))
    return chain[0]


# ---- what is whole -------------------------------------------------------------------------------


def test_a_new_certificate_is_served_and_no_connection_drops(shared, frontd):
    agent = shared.agent()
    with shared.connection(agent.crt, agent.key) as live:
        assert live.ask(LIVEZ).status_code == 200
        fresh = new_server_certificate(shared, frontd.server["p256"], shared.folder.tls / "server-p256.key")
        assert "certificates=new" in frontd.take()
        wait_for(lambda: {server_certificate(shared).serial_number for _ in range(12)} == {fresh.serial_number})
        assert live.ask(LIVEZ).status_code == 200


def test_what_has_not_changed_does_nothing(shared, frontd):
    line = frontd.take()
    assert "certificates=unchanged" in line and "ca_and_crls=unchanged" in line and "roles=unchanged" in line


def test_a_signal_during_a_reload_is_not_lost(shared, frontd):
    """The keeper, who is asked about a new certificate, does not answer: another signal comes, with news of its own."""
    new_server_certificate(shared, frontd.server["p256"], shared.folder.tls / "server-p256.key")
    before = len(frontd.lines())
    os.kill(shared.pid("keeper"), signal.SIGSTOP)
    try:
        os.kill(shared.pid("frontd"), signal.SIGHUP)
        time.sleep(0.3)
        frontd.use_crl(shared.issuer().crl())
        os.kill(shared.pid("frontd"), signal.SIGHUP)
        time.sleep(0.3)
        assert not [line for line in frontd.lines()[before:] if ENDED.search(line)]
    finally:
        os.kill(shared.pid("keeper"), signal.SIGCONT)
    ended = wait_for(lambda: (lines := [line for line in frontd.lines()[before:] if ENDED.search(line)])[1:] and lines)
    assert "certificates=new ca_and_crls=unchanged" in ended[0] and "certificates=unchanged ca_and_crls=new" in ended[1]


def test_a_revoked_client_is_cut_and_the_others_stay(shared, frontd):
    good, bad = shared.agent(), shared.agent()
    revoked = x509.load_pem_x509_certificate(open(bad.crt, "rb").read())
    frontd.use_crl(shared.issuer().crl())
    assert "ca_and_crls=new" in frontd.take()
    let_in_by_all(shared, bad.crt, bad.key, True)
    with shared.connection(good.crt, good.key) as stays, shared.connection(bad.crt, bad.key) as goes, \
            shared.connection() as nobody:
        assert [c.ask(LIVEZ).status_code for c in (stays, goes, nobody)] == [200] * 3
        frontd.use_crl(shared.issuer().crl(revoked))
        frontd.take()
        assert goes.ends()
        assert [c.ask(LIVEZ).status_code for c in (stays, nobody)] == [200] * 2
    let_in_by_all(shared, bad.crt, bad.key, False)
    let_in_by_all(shared, good.crt, good.key, True)
    wait_for(lambda: [e for e in shared.events("_system", event_type="auth.mtls_failure")
                      if e["details"]["reason"] == "certificate revoked"])


def test_clients_of_a_ca_come_and_go_with_it(shared, frontd):
    other = Issuer.root("another root")
    crt, key = shared.cert(shared.agent_id("acme", unique("agent")), issuer=other)
    let_in_by_all(shared, crt, key, False)
    frontd.bundle.write_bytes(frontd.bundle.read_bytes() + certificate_pem(other.certificate))
    frontd.take()
    let_in_by_all(shared, crt, key, True)
    with shared.connection(crt, key) as live:
        assert live.ask(LIVEZ).status_code == 200
        frontd.bundle.write_bytes(frontd.kept[frontd.bundle])
        frontd.take()
        assert live.ends()
    let_in_by_all(shared, crt, key, False)


def test_an_operator_loses_its_role_on_the_open_connection(shared, frontd):
    name = unique("auditor")
    crt, key = shared.cert(shared.operator_id("acme", name))
    with shared.connection(crt, key) as live:
        assert live.ask(EVENTS).status_code == 200
        frontd.set("operators", f"zzz/{name} = admin")
        frontd.conf.write_text(re.sub(r"(?m)^\*/auditor.*\n", "", frontd.conf.read_text()))
        assert "roles=new" in frontd.take()
        wait_for(lambda: live.ask(EVENTS).status_code == 403)
        frontd.restore()
        frontd.take()
        wait_for(lambda: live.ask(EVENTS).status_code == 200)


def test_what_needs_a_restart_is_named_once(shared, frontd):
    frontd.conf.write_text(re.sub(r"(?m)^count = .*$", "count = 3", frontd.conf.read_text()))
    frontd.conf.write_text(frontd.conf.read_text() + "\n[limits]\nconnections = 99\n")
    before = len(frontd.lines())
    frontd.take()
    named = [line for line in frontd.lines()[before:] if "need a restart" in line]
    assert len(named) == 1 and "workers.count" in named[0] and "limits.connections" in named[0], named
    assert len(shared.workers()) == 2


def reasons(stack):
    return {e["details"]["reason"] for e in stack.events("_system", event_type="auth.mtls_failure")}


UNUSABLE = {
    "of another CA alone": lambda issuer: Issuer.root("another").crl(),
    "signed by somebody else": lambda issuer: Issuer(issuer.certificate, new_key()).crl(),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_without_a_list_of_its_issuer_no_client_is_let_in(shared, frontd, kind):
    agent = shared.agent()
    frontd.use_crl(UNUSABLE[kind](shared.issuer()))
    frontd.take()
    let_in_by_all(shared, agent.crt, agent.key, False)
    wait_for(lambda: "unable to get certificate CRL" in reasons(shared))


def test_a_list_that_runs_out_lets_nobody_in(shared, frontd):
    agent, end = shared.agent(), now() + timedelta(seconds=4)
    frontd.use_crl(shared.issuer().crl(ends=end))
    frontd.take()
    let_in_by_all(shared, agent.crt, agent.key, True)
    wait_for(lambda: now() > end)
    let_in_by_all(shared, agent.crt, agent.key, False)
    wait_for(lambda: "CRL has expired" in reasons(shared))


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_end_with_the_cas_and_crls_and_not_with_the_rest(shared, frontd, version):
    crt, key = shared.cert(shared.operator_id("acme", unique("auditor")))
    client, events = Client(shared, crt, key, version), EVENTS.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert [client.ask(events) for _ in range(2)] == [(200, False), (200, True)]
    new_server_certificate(shared, frontd.server["p256"], shared.folder.tls / "server-p256.key")
    frontd.conf.write_text(re.sub(r"(?m)^\*/auditor.*\n", "", frontd.conf.read_text()))
    frontd.take()
    wait_for(lambda: client.ask(events) == (403, True))  # with the role that it has now
    frontd.use_crl(shared.issuer().crl())
    frontd.take()
    wait_for(lambda: Client(shared, crt, key, version).ask(events) == (403, False))
    assert client.ask(events) == (403, False)


# ---- what is broken ------------------------------------------------------------------------------


def leaf_alone(stack):
    return certificate_pem(stack.issuer().issue(new_key(), names=[uri(stack.agent_id("acme", "a"))])[0])


BROKEN = {
    "no CA bundle": lambda f: (f.bundle, None, "No such file"),
    "an empty CA bundle": lambda f: (f.bundle, b"", "object 1"),
    "half a CA bundle": lambda f: (f.bundle, f.bundle.read_bytes()[:-200], "malformed"),
    "a CA bundle with a leaf in it": lambda f: (f.bundle, f.bundle.read_bytes() + leaf_alone(f.stack), "no CA's"),
    "no certificate": lambda f: (f.server["p256"], None, "No such file"),
    "a malformed certificate": lambda f: (f.server["rsa"], f.server["rsa"].read_bytes().replace(b"M", b"N", 9), ""),
    "a chain without its leaf": lambda f: (f.server["p256"], certificate_pem(f.stack.issuer().certificate), "leaf"),
    "a certificate with its key": lambda f: (
        f.server["p256"], f.server["p256"].read_bytes() + key_pem(new_key()), "private key"),
    "a certificate of a kind of key that cannot serve": lambda f: (
        f.server["p256"], certificate_pem(*f.stack.issuer().issue(new_key("p384"), names=server_names(),
                                                                  uses=(SERVER,))), "P-256"),
    "a certificate whose key the keeper does not hold": lambda f: (
        f.server["p256"], certificate_pem(*f.stack.issuer().issue(new_key(), names=server_names(), uses=(SERVER,))),
        "keeper"),
    "a role that there is not": lambda f: (f.conf, f.conf.read_bytes() + b"\n[operators]\na/b = emperor\n", "role"),
    "an option that there is not": lambda f: (f.conf, f.conf.read_bytes() + b"\n[tls]\nx = y\n", "not an option"),
    "no configuration": lambda f: (f.conf, None, "No such file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_set_is_refused_whole(shared, frontd, kind):
    """Whatever else changes with it: here, the CRLs, which would revoke a client."""
    agent = shared.agent()
    serial = server_certificate(shared).serial_number
    path, content, why = BROKEN[kind](frontd)
    if path != frontd.conf:
        frontd.use_crl(shared.issuer().crl(x509.load_pem_x509_certificate(open(agent.crt, "rb").read())))
    with shared.connection(agent.crt, agent.key) as live:
        assert live.ask(LIVEZ).status_code == 200
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        frontd.refuse(path.name, why)
        path.write_bytes(frontd.kept[path])
        assert live.ask(LIVEZ).status_code == 200
    assert [lets_in(shared, agent.crt, agent.key) for _ in range(6)] == [True] * 6
    assert server_certificate(shared).serial_number == serial


@pytest.mark.parametrize("content, why", [(b"", "object 1"), (b"-----BEGIN X509 CRL-----\nAAAA\n", "malformed")])
def test_a_broken_crl_is_refused(frontd, content, why):
    frontd.use_crl(content)
    frontd.refuse("crl.pem", why)


def test_an_expired_crl_is_refused(shared, frontd):
    frontd.use_crl(shared.issuer().crl(starts=now() - 9 * DAY, ends=now() - BACKDATED))
    frontd.refuse("crl.pem", "expired")


DATES = {
    "expired": {"starts": now() - 9 * DAY, "ends": now() - BACKDATED},
    "not yet valid": {"starts": now() + DAY, "ends": now() + 9 * DAY},
}


def put_dated_certificate(frontd, kind, **dates):
    """A certificate of the key that is there, with these dates."""
    key = serialization.load_pem_private_key((frontd.stack.folder.tls / f"server-{kind}.key").read_bytes(), None)
    frontd.server[kind].write_bytes(certificate_pem(*frontd.stack.issuer().issue(
        key, common_name="localhost", names=server_names(), uses=(SERVER,), **dates)))


@pytest.mark.parametrize("kind", ["p256", "rsa"])
@pytest.mark.parametrize("dates", DATES)
def test_a_certificate_out_of_date_is_refused(shared, frontd, kind, dates):
    serial = server_certificate(shared).serial_number
    put_dated_certificate(frontd, kind, **DATES[dates])
    frontd.refuse(frontd.server[kind], "a certificate has expired or is not valid yet")
    assert server_certificate(shared).serial_number == serial


def test_so_is_one_whose_chain_holds_such_a_ca(shared, frontd):
    key = serialization.load_pem_private_key((shared.folder.tls / "server-p256.key").read_bytes(), None)
    short = shared.issuer().intermediate("short", **DATES["expired"])
    frontd.server["p256"].write_bytes(certificate_pem(*short.issue(key, names=server_names(), uses=(SERVER,))))
    frontd.refuse(frontd.server["p256"], "a certificate has expired or is not valid yet")


# ---- without being told --------------------------------------------------------------------------


def test_changes_are_found_at_an_interval_and_said_once(make_stack):
    stack = make_stack(sets=["frontd.tls.reload_seconds=1"])
    frontd = Frontd(stack)
    other = Issuer.root("another root")
    crt, key = stack.cert(stack.agent_id("acme", "a"), issuer=other)
    frontd.bundle.write_bytes(frontd.bundle.read_bytes() + certificate_pem(other.certificate))
    let_in_by_all(stack, crt, key, True)
    reloaded = len([line for line in frontd.lines() if "msg=reloaded" in line])
    assert reloaded == 1
    frontd.conf.unlink()
    wait_for(lambda: "reload refused" in stack.log("frontd"))
    time.sleep(2.5)  # in which it would be said twice more
    assert stack.log("frontd").count("reload refused") == 1
