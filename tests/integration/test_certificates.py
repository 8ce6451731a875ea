"""Certificates that break a rule, each by itself and beside one that just keeps it (contract, Listening and identity,
and Details): the first kinds are in test_identity.py, revocation is in test_reload.py."""

import ssl

import pytest
from caf_dev.authority import CLIENT, uri
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from harness import request, unique, wait_for

SELF = request("GET", "/v1/mesh/self", Connection="close")
EMAIL, ANY = ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

LET_IN, NOBODY, REFUSED = "let in", "nobody", "refused"


def outcome(stack, crt, key, **versions):
    """What comes of a client that shows this certificate, if its own TLS lets it."""
    context = stack.context(crt, key, lax=True, **versions)
    try:
        with stack.raw_socket(context) as connection:
            connection.sendall(SELF)
            answer = connection.recv(65536)
    except (ssl.SSLError, ConnectionError):
        return REFUSED
    return NOBODY if b"MTLS_REQUIRED" in answer else LET_IN if b"NOT_REGISTERED" in answer else answer


def failures(stack):
    return sum(e["count"] for e in stack.events("_system", event_type="auth.mtls_failure"))


def below(stack, count, **rules):
    """An issuer below the stack's own, with this many intermediates between."""
    issuer = stack.issuer()
    for number in range(count):
        issuer = issuer.intermediate(f"below {number}", **(rules if number == 0 else {}))
    return issuer


def raw_uris(*uris):
    """A subject alternative name with URIs of any bytes."""
    def der(tag, content):
        return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content

    names = der(0x30, b"".join(der(0x86, uri_bytes) for uri_bytes in uris))
    return x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, names)


def many_names(stack, size):
    return [uri(stack.agent_id("acme", unique("agent"))), *(x509.DNSName("n" * 60 + ".example")
                                                             for _ in range(size // 70))]


def constrained(stack, **trees):
    return below(stack, 1, more=[x509.NameConstraints(
        trees.get("permitted"), trees.get("excluded"))])


def by(**rules):
    """A case of these rules for the leaf."""
    return lambda stack: rules


CASES = {
    # keys
    "Ed25519": (by(key_kind="ed25519"), LET_IN),
    "Ed448": (by(key_kind="ed448"), REFUSED),
    # whoever makes the intermediates
    "an Ed25519 intermediate": (lambda s: {"issuer": below(s, 1, key_kind="ed25519"), "digest": None}, LET_IN),
    "an intermediate of 1024 bits": (lambda s: {"issuer": below(s, 1, key_kind="rsa1024")}, REFUSED),
    "an intermediate of 2048 bits": (lambda s: {"issuer": below(s, 1, key_kind="rsa2048")}, LET_IN),
    "an intermediate signed with SHA-1": (lambda s: {"issuer": below(s, 1, digest=hashes.SHA1())}, REFUSED),
    "an intermediate that may not sign": (lambda s: {"issuer": below(s, 1, usage=("crl_sign",))}, REFUSED),
    "a chain as long as may be": (lambda s: {"issuer": below(s, 8)}, LET_IN),
    "a longer chain": (lambda s: {"issuer": below(s, 9)}, REFUSED),
    "a chain of 20": (lambda s: {"issuer": below(s, 20)}, REFUSED),
    "a path length that is kept": (lambda s: {"issuer": below(s, 2, path_length=1)}, LET_IN),
    "a path length that is broken": (lambda s: {"issuer": below(s, 2, path_length=0)}, REFUSED),
    "names that the CA may give": (lambda s: {"issuer": constrained(s, permitted=[uri("caf.test")])}, LET_IN),
    "names that the CA may not give": (lambda s: {"issuer": constrained(s, permitted=[uri("other.test")])}, REFUSED),
    "names that the CA must not give": (lambda s: {"issuer": constrained(s, excluded=[uri("caf.test")])}, REFUSED),
    # uses
    "clientAuth among others": (by(uses=(EMAIL, CLIENT)), LET_IN),
    "emailProtection alone": (by(uses=(EMAIL,)), REFUSED),
    "anyExtendedKeyUsage alone": (by(uses=(ANY,)), REFUSED),
    "digitalSignature and encipherment": (by(usage=("digital_signature", "data_encipherment")), LET_IN),
    "keyEncipherment alone": (by(usage=("key_encipherment",)), REFUSED),
    "an unknown critical extension": (
        by(more=[x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")]), REFUSED),
    # names
    "a SAN of 16 KiB": (lambda s: {"names": many_names(s, 16384)}, LET_IN),
    "a SAN of 64 KiB": (lambda s: {"names": many_names(s, 65536)}, REFUSED),
    "three URIs": (lambda s: {"names": [uri(s.agent_id("acme", str(n))) for n in range(3)]}, REFUSED),
    "raw, as it should be": (lambda s: {"names": (), "more": [raw_uris(b"spiffe://caf.test/agent/acme/raw")]}, LET_IN),
    "UTF-8": (lambda s: {"names": (), "more": [raw_uris("spiffe://caf.test/agent/acme/ä".encode())]}, REFUSED),
    "UTF-8 in the trust domain": (
        lambda s: {"names": (), "more": [raw_uris("spiffe://cäf.test/agent/acme/a".encode())]}, REFUSED),
    "half of a UTF-8 character": (
        lambda s: {"names": (), "more": [raw_uris(b"spiffe://caf.test/agent/acme/a\xc3")]}, REFUSED),
    "a NUL inside": (lambda s: {"names": (), "more": [raw_uris(b"spiffe://caf.test/agent/acme/a\0b")]}, REFUSED),
    "a NUL at the end": (lambda s: {"names": (), "more": [raw_uris(b"spiffe://caf.test/agent/acme/a\0")]}, REFUSED),
    "an empty URI beside the good one": (
        lambda s: {"names": (), "more": [raw_uris(b"spiffe://caf.test/agent/acme/a", b"")]}, REFUSED),
    "a tenant of 255": (lambda s: {"names": [uri(s.agent_id("t" * 255, "a"))]}, LET_IN),
    "a tenant of 256": (lambda s: {"names": [uri(s.agent_id("t" * 256, "a"))]}, REFUSED),
    "an agent of 255": (lambda s: {"names": [uri(s.agent_id("acme", "a" * 255))]}, LET_IN),
    "an agent of 256": (lambda s: {"names": [uri(s.agent_id("acme", "a" * 256))]}, REFUSED),
}


@pytest.mark.filterwarnings("ignore:SHA1")
@pytest.mark.parametrize("kind", CASES)
def test_a_certificate(stack, kind):
    rules, expected = CASES[kind]
    crt, key = stack.cert(stack.agent_id("acme", unique("agent")), **rules(stack))
    before = failures(stack) if expected == REFUSED else None
    assert outcome(stack, crt, key) == expected
    if expected == REFUSED:
        wait_for(lambda: failures(stack) > before, what="auth.mtls_failure")


@pytest.mark.parametrize("kind, expected", [("secp256k1", REFUSED), ("p521", REFUSED), ("p384", LET_IN),
                                            ("dsa2048", NOBODY)])
def test_a_key_that_only_older_tls_can_show(stack, kind, expected):
    """A client whose key has no signature that we take shows nothing."""
    crt, key = stack.cert(stack.agent_id("acme", unique("agent")), key_kind=kind)
    assert outcome(stack, crt, key, maximum_version=ssl.TLSVersion.TLSv1_2) == expected


@pytest.fixture(autouse=True, scope="module")
def nothing_dies(stack):
    before = stack.pids()
    yield
    assert stack.pids() == before
