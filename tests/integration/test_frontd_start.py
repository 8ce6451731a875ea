"""At its start frontd asks the keeper whether it can sign for every certificate, as at a reload, and waits for it: the
daemons start in any order. One stack, whose frontd each test finds stopped and leaves so."""

import os
import signal
import ssl

import pytest
from caf_dev.authority import BACKDATED, DAY, SERVER, certificate_pem, new_key, now, server_names
from cryptography.hazmat.primitives import serialization
from harness import Stack, request, wait_for

WAIT_SECONDS = 3
LIVEZ = request("GET", "/livez", Connection="close")


@pytest.fixture(scope="module")
def shared():
    own = Stack("--workers", "1", sets=(f"frontd.timeouts.read_deadline_seconds={WAIT_SECONDS}",)).up()
    own.stop("frontd")
    yield own
    own.start("frontd")
    own.close()


class Start:
    """A start of frontd: what it writes, and how it ends."""

    def __init__(self, stack):
        self.stack, self.before = stack, len(stack.log("frontd"))
        log = open(stack.folder.log_file("frontd"), "ab")
        words = [stack.folder.bin / "frontd", "-c", stack.folder.configuration("frontd")]
        self.process = stack.spawn_as_owner(words, stdout=log, stderr=log)
        log.close()

    def log(self):
        return self.stack.log("frontd")[self.before:]

    def wait_for(self, words):
        wait_for(lambda: words in self.log(), what=words)

    def ends(self):
        """Its exit status, which comes soon."""
        return self.process.wait(timeout=WAIT_SECONDS + 10)

    def reload(self):
        before = self.log().count("msg=reloaded")
        os.kill(self.process.pid, signal.SIGHUP)
        wait_for(lambda: self.log().count("msg=reloaded") > before, what="a reload")

    def stop(self):
        self.process.terminate()
        assert self.ends() == 0


@pytest.fixture
def start(shared):
    made = []

    def begin():
        made.append(Start(shared))
        return made[-1]

    yield begin
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def serves(stack):
    with stack.connection() as connection:
        return connection.ask(LIVEZ).status_code == 200


def test_a_certificate_that_the_keeper_cannot_sign_for_is_named_and_not_served(shared, start):
    path = shared.folder.tls / "server-rsa.crt"
    kept = path.read_bytes()
    path.write_bytes(certificate_pem(*shared.issuer().issue(new_key(), names=server_names(), uses=(SERVER,))))
    try:
        refused = start()
        assert refused.ends() != 0
    finally:
        path.write_bytes(kept)
    assert f'msg="TLS material refused" reason="{path}: the keeper does not hold the key' in refused.log()
    assert "worker started" not in refused.log()


def test_a_keeper_that_comes_later_is_waited_for(shared, start):
    with shared.without("keeper"):
        waiting = start()
        waiting.wait_for("msg=started")
        os.kill(waiting.process.pid, signal.SIGHUP)
    waiting.wait_for("msg=accepting")
    waiting.wait_for("msg=reloaded")
    assert waiting.log().index('"worker started"') < waiting.log().index("msg=reloaded")
    assert serves(shared)
    waiting.stop()


def test_a_keeper_that_does_not_come_is_given_up(shared, start):
    with shared.without("keeper"):
        waiting = start()
        assert waiting.ends() != 0
    assert "the keeper does not say which keys it holds" in waiting.log()
    assert "worker started" not in waiting.log()


def test_who_waits_can_be_stopped(shared, start):
    with shared.without("keeper"):
        waiting = start()
        waiting.wait_for("msg=started")
        waiting.stop()
    assert "refused" not in waiting.log()


def is_trusted(stack):
    try:
        return serves(stack)
    except ssl.SSLCertVerificationError:
        return False


def put_expired(stack, path):
    """In the certificate's place one of the same key that has expired; what was there."""
    kept = path.read_bytes()
    key = serialization.load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
    chain = stack.issuer().issue(key, names=server_names(), uses=(SERVER,), starts=now() - 9 * DAY,
                                 ends=now() - BACKDATED)
    path.write_bytes(certificate_pem(*chain))
    return kept


def test_certificates_out_of_date_serve_and_are_told_until_each_is_renewed(shared, start):
    """With nothing better in force; who trusts none of them goes away by itself."""
    told = 'msg="a server certificate is out of date: clients will refuse it" file='
    paths = [shared.folder.tls / f"server-{kind}.crt" for kind in ("p256", "rsa")]
    kept = [put_expired(shared, path) for path in paths]
    started = start()
    started.wait_for("msg=accepting")
    assert started.log().count(f"{told}{paths[0]}") == 1
    assert not is_trusted(shared)
    paths[0].write_bytes(kept[0])
    started.reload()
    assert started.log().count(f"{told}{paths[1]}") == 1
    paths[1].write_bytes(kept[1])
    started.reload()
    assert started.log().count(told) == 2
    wait_for(lambda: is_trusted(shared))
    started.stop()
