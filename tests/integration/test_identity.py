"""Who is let in: certificates, SPIFFE IDs, roles, TLS versions (contract, Listening and identity, and Details)."""

import ssl
import subprocess
import time

import pytest
from caf_dev.authority import CLIENT, DAY, SERVER, Issuer, new_key, now, uri
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from harness import check_error, check_registered, unique, wait_for

AGENT = "agent/acme/someone"


def refused(stack, crt, key):
    """Shows a certificate; true when the handshake ends with an alert, and nothing else is said."""
    with stack.connection(crt, key, lax=True) as connection:
        try:
            data = connection.read()
        except ssl.SSLError as error:
            assert "ALERT" in error.reason, error
            return True
    raise AssertionError(f"no alert, but {data!r}")


def accepted(stack, crt, key):
    return stack.client(crt, key).get("/v1/mesh/self").status_code == 404


# ---- the chain and the certificate ---------------------------------------------------------------


def stranger():
    """An issuer below another root, with the names of the stack's own."""
    return Issuer.root("caf development root").intermediate("caf development issuing CA")


BROKEN = {
    "other CA": lambda s: {"issuer": stranger()},
    "self-signed CA": lambda s: {"issuer": Issuer.root("somebody")},
    "expired": lambda s: {"starts": now() - 9 * DAY, "ends": now() - DAY / 86400},
    "not yet valid": lambda s: {"starts": now() + DAY / 24},
    "a CA as leaf": lambda s: {"ca": True},
    "a CA by usage": lambda s: {"usage": ("digital_signature", "key_cert_sign")},
    "a CRL signer by usage": lambda s: {"usage": ("digital_signature", "crl_sign")},
    "no digitalSignature": lambda s: {"usage": ("key_agreement",)},
    "serverAuth only": lambda s: {"uses": (SERVER,)},
    "SHA-1": lambda s: {"digest": hashes.SHA1()},
    "RSA of 1024 bits": lambda s: {"key_kind": "rsa1024"},
    "P-521": lambda s: {"key_kind": "p521"},
    "no SAN": lambda s: {"names": []},
    "a DNS name alone": lambda s: {"names": [x509.DNSName("localhost")]},
    "two URI SANs": lambda s: {"names": [uri(f"spiffe://{s.trust_domain}/{AGENT}")] * 2},
    "a second URI that is no SPIFFE ID": lambda s: {
        "names": [uri(f"spiffe://{s.trust_domain}/{AGENT}"), uri("https://example.org/")]},
    "other trust domain": lambda s: {"names": [uri(f"spiffe://other.test/{AGENT}")]},
    "a trust domain that begins with ours": lambda s: {"names": [uri(f"spiffe://{s.trust_domain}.evil/{AGENT}")]},
}


@pytest.mark.filterwarnings("ignore:SHA1")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_certificate_ends_the_handshake(stack, kind):
    crt, key = stack.cert(f"spiffe://{stack.trust_domain}/{AGENT}", **BROKEN[kind](stack))
    assert refused(stack, crt, key)


GOOD = {
    "RSA of 2048 bits": {"key_kind": "rsa2048"},
    "P-384": {"key_kind": "p384"},
    "Ed25519": {"key_kind": "ed25519"},
    "no EKU": {"uses": ()},
    "both EKUs": {"uses": (SERVER, CLIENT)},
    "no keyUsage": {"usage": None},
    "more usages": {"usage": ("digital_signature", "key_agreement", "key_encipherment")},
    "SHA-384": {"digest": hashes.SHA384()},
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_certificate_is_let_in(stack, kind):
    assert accepted(stack, *stack.cert(stack.agent_id("acme", unique("agent")), **GOOD[kind]))


def test_other_names_beside_the_one_uri_do_no_harm(stack):
    names = [x509.DNSName("a.example"), uri(stack.agent_id("acme", unique("agent"))), x509.RFC822Name("a@example.org")]
    assert accepted(stack, *stack.cert("", names=names))


def test_a_longer_chain_is_let_in(stack):
    below = stack.issuer().intermediate("one").intermediate("two")
    assert accepted(stack, *stack.cert(stack.agent_id("acme", unique("agent")), issuer=below))


def test_a_leaf_issues_nothing(stack):
    """A client's own key signs another name: the chain holds no CA there."""
    key = new_key()
    chain = stack.issuer().issue(key, common_name="leaf", names=[uri(stack.agent_id("acme", "leaf"))])
    crt, key = stack.cert(stack.agent_id("acme", "forged"), issuer=Issuer(chain[0], key, chain[1:]))
    assert refused(stack, crt, key)


def test_a_certificate_without_its_intermediate(stack):
    """The bundle that the server verifies with holds the issuing intermediate."""
    crt, key = stack.cert(stack.agent_id("acme", unique("agent")))
    leaf = open(crt, encoding="ascii").read().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    open(crt, "w", encoding="ascii").write(leaf)
    assert accepted(stack, crt, key)


def test_skew_is_an_option(make_stack):
    own = make_stack(sets=["frontd.identity.clock_skew_seconds=120"])
    name = own.agent_id("acme", "a")
    assert accepted(own, *own.cert(name, starts=now() - 9 * DAY, ends=now() - DAY / 24 / 60))
    assert accepted(own, *own.cert(name, starts=now() + DAY / 24 / 60))
    assert refused(own, *own.cert(name, starts=now() - 9 * DAY, ends=now() - DAY / 24 / 20))


# ---- SPIFFE IDs ----------------------------------------------------------------------------------

SEGMENT = "a" * 254
BAD_IDS = [
    "", "spiffe://", "https://{td}/agent/acme/a", "SPIFFE://{td}/agent/acme/a", "spiffe:/{td}/agent/acme/a",
    "spiffe://{TD}/agent/acme/a", "spiffe://{td}", "spiffe://{td}/", "spiffe://{td}/agent/acme/a/",
    "spiffe://{td}/agent//a", "spiffe://{td}//agent/acme/a", "spiffe://{td}/agent/acme/.", "spiffe://{td}/agent/../a",
    "spiffe://{td}/agent/./a", "spiffe://{td}:443/agent/acme/a", "spiffe://user@{td}/agent/acme/a",
    "spiffe://{td}/agent/acme/a?x=1", "spiffe://{td}/agent/acme/a#x", "spiffe://{td}/agent/acme/a%41",
    "spiffe://{td}/agent/acme/a b", "spiffe://{td}/agent/acme/a~b", "spiffe://{td}/agent/acme/a:b",
    "spiffe://{td}/agent/acme/a*", " spiffe://{td}/agent/acme/a", "spiffe://{td}/agent/acme/a\n",
    "spiffe://{td}/agent/acme/a\0", "spiffe://{td}\0.evil/agent/acme/a",
    "spiffe://{td}/agent/acme", "spiffe://{td}/agent/acme/a/b", "spiffe://{td}/agents/acme/a", "spiffe://{td}/acme/a",
    "spiffe://{td}/Agent/acme/a", "spiffe://{td}/agent/_acme/a", "spiffe://{td}/agent/_system/a",
    "spiffe://{td}/agent/acme/" + "a" * 2048, "spiffe:///agent/acme/a",
]


@pytest.mark.parametrize("text", BAD_IDS, ids=lambda t: repr(t)[:40])
def test_a_bad_spiffe_id_ends_the_handshake(stack, text):
    name = text.replace("{td}", stack.trust_domain).replace("{TD}", stack.trust_domain.upper())
    assert refused(stack, *stack.cert(name))


@pytest.mark.parametrize("tenant, agent", [("acme", "a"), ("ACME", "A"), ("a.b-c_d", "..."), ("0", "-"), ("acme", "_x"),
                                           ("acme", SEGMENT)], ids=lambda t: t[:12])
def test_a_good_spiffe_id_is_let_in(stack, tenant, agent):
    assert accepted(stack, *stack.cert(stack.agent_id(tenant, agent)))


def test_case_tells_agents_apart(stack):
    lower, upper = stack.agent("case", "acme"), stack.agent("CASE", "acme")
    lower.register()
    check_error(upper.self(), 404, "NOT_REGISTERED", recovery=True)


# ---- no certificate, and whose is it -------------------------------------------------------------

MESH = [("POST", "/v1/mesh/register"), ("POST", "/v1/mesh/heartbeat"), ("GET", "/v1/mesh/self"),
        ("POST", "/api/v1/mesh/register"), ("POST", "/api/v1/mesh/heartbeat"), ("GET", "/api/v1/mesh/self")]


@pytest.mark.parametrize("method, path", MESH)
def test_no_certificate_on_a_mesh_route(stack, method, path):
    answer = stack.client().request(method, path, json={"hostname": "h"} if method == "POST" else None)
    check_error(answer, 403, "MTLS_REQUIRED", recovery=True)


@pytest.mark.parametrize("method, path", MESH)
@pytest.mark.parametrize("name", ["admin", "auditor", "janitor"])
def test_an_operator_on_a_mesh_route(stack, name, method, path):
    answer = stack.operator(name).request(method, path, json={"hostname": "h"} if method == "POST" else None)
    check_error(answer, 403, "FORBIDDEN")


def test_open_routes_need_no_certificate(stack):
    client = stack.client()
    assert [client.get(path).status_code for path in ("/livez", "/readyz", "/health")] == [200, 200, 200]


def test_the_stacks_own_certificates(stack):
    agent = stack.client(stack.env["CAF_AGENT_CERT"], stack.env["CAF_AGENT_KEY"])
    assert agent.get("/v1/mesh/self").status_code in (200, 404)
    for role in ("ADMIN", "AUDITOR"):
        client = stack.client(stack.env[f"CAF_{role}_CERT"], stack.env[f"CAF_{role}_KEY"])
        assert client.get("/v1/security/events").status_code == 200


def test_a_required_certificate(make_stack):
    own = make_stack(sets=["frontd.listen.client_cert=required"])
    assert own.agent().register().status_code == 201
    with own.connection() as connection, pytest.raises(ssl.SSLError, match="ALERT"):
        connection.read()


# ---- TLS -----------------------------------------------------------------------------------------


def s_client(stack, *options, crt=None, key=None):
    """One GET /livez by openssl s_client; its output."""
    words = ["openssl", "s_client", "-connect", f"localhost:{stack.port}", "-servername", "localhost",
             "-CAfile", stack.env["CAF_CA"], "-verify_return_error", "-ign_eof", *options]
    if crt:
        words += ["-cert", crt, "-key", key, "-cert_chain", crt]
    question = b"GET /v1/mesh/self HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    done = subprocess.run(words, input=question, capture_output=True, check=False, timeout=30)
    return (done.stdout + done.stderr).decode(errors="replace")


@pytest.fixture(scope="module")
def rsa_agent(stack):
    return stack.cert(stack.agent_id("acme", unique("rsa")), key_kind="rsa2048")


@pytest.mark.parametrize("options, shown", [
    (["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "Peer signature type: RSA-PSS"),
    (["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha384:rsa_pkcs1_sha256"], "Peer signature type: RSA-PSS"),
    (["-tls1_2", "-sigalgs", "rsa_pss_rsae_sha256"], "Peer signature type: RSA-PSS"),
    (["-tls1_2", "-sigalgs", "rsa_pkcs1_sha256"], "Peer signature type: RSA"),
    (["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "ECDHE-RSA-AES128-GCM-SHA256"),
    (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], "ECDHE-ECDSA-CHACHA20-POLY1305"),
    (["-tls1_3"], "Peer signature type: ECDSA"),
], ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_both_server_keys_and_both_versions_work(stack, rsa_agent, options, shown):
    crt, key = rsa_agent
    output = s_client(stack, *options, crt=crt, key=key)
    assert shown in output, output
    assert "HTTP/1.1 404" in output and "NOT_REGISTERED" in output, output


@pytest.mark.parametrize("options", [
    ["-tls1", "-cipher", "ALL:@SECLEVEL=0"], ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
    ["-tls1_2", "-cipher", "AES128-GCM-SHA256"], ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA"], ["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
    ["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"],
], ids=" ".join)
def test_weak_tls_is_refused(stack, options):
    output = s_client(stack, *options)
    assert "HTTP/1.1" not in output and "alert" in output, output


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_client_of_one_version(stack, version):
    agent = stack.agent()
    context = stack.context(agent.crt, agent.key, minimum_version=version, maximum_version=version)
    check_registered(stack.client(context=context).post("/v1/mesh/register", json={"hostname": "h"}), 201)


def test_a_resumed_session_is_the_same_identity(stack):
    """A client that brings a session again is who it was; one that shows nothing is nobody."""
    agent = stack.agent()
    agent.register()
    context = stack.context(agent.crt, agent.key, maximum_version=ssl.TLSVersion.TLSv1_2)
    question = b"GET /v1/mesh/self HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    session = None
    for _ in range(3):
        with stack.raw_socket(context, session) as connection:
            connection.sendall(question)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            session = connection.session


# ---- events of handshakes ------------------------------------------------------------------------


def handshakes(stack, spiffe_id):
    return sum(e["count"] for e in stack.events("acme", event_type="auth.mtls_success", spiffe_id=spiffe_id))


def test_every_accepted_handshake_is_an_event(stack):
    agent = stack.agent()
    for _ in range(3):
        with stack.connection(agent.crt, agent.key) as connection:
            assert connection.is_open()
    wait_for(lambda: handshakes(stack, agent.spiffe_id) == 3, what="three handshakes")
    event = stack.events("acme", event_type="auth.mtls_success", spiffe_id=agent.spiffe_id)[0]
    assert (event["severity"], event["source_ip"]) == ("info", "127.0.0.1")
    time.sleep(1)
    assert handshakes(stack, agent.spiffe_id) == 3


def test_an_operators_handshake_is_an_event(stack):
    tenant = unique("tenant")
    stack.operator("auditor", tenant).get("/livez")
    wait_for(lambda: stack.events(tenant, event_type="auth.mtls_success",
                                  spiffe_id=stack.operator_id(tenant, "auditor")))


def failures(stack):
    """How many refused handshakes are stored, by tenant and reason."""
    rows = stack.rows("SELECT tenant_id, details->>'reason', severity, source_ip, sum(count)::int FROM security_events "
                      "WHERE event_type = 'auth.mtls_failure' GROUP BY 1, 2, 3, 4")
    return {row[:4]: row[4] for row in rows}


def reason_of(stack, crt, key):
    """Shows a certificate that is refused; the reason that the event gives, which it gives once."""
    before = failures(stack)
    assert refused(stack, crt, key)
    after = wait_for(lambda: (found := failures(stack)) != before and found, what="auth.mtls_failure")
    (row, count), = [(row, count) for row, count in after.items() if count != before.get(row)]
    tenant, reason, severity, address = row
    assert count == before.get(row, 0) + 1
    assert (tenant, severity, address) == ("_system", "warn", "127.0.0.1")
    assert reason
    return reason


REASONED = ["other CA", "expired", "not yet valid", "a CA as leaf", "serverAuth only", "no SAN", "two URI SANs",
            "other trust domain"]


def test_every_refused_handshake_is_an_event_with_its_reason(stack):
    reasons = {kind: reason_of(stack, *stack.cert(f"spiffe://{stack.trust_domain}/{AGENT}", **BROKEN[kind](stack)))
               for kind in REASONED}
    assert "expired" in reasons["expired"]
    assert "not yet valid" in reasons["not yet valid"]
    assert len(set(reasons.values())) >= 6, reasons


def test_the_system_tenant_reads_failures(stack):
    tenant = unique("tenant")
    reason_of(stack, *stack.cert(stack.agent_id(tenant, "a"), **BROKEN["other CA"](stack)))  # which proves nothing
    page = stack.operator("auditor", "_system").get("/v1/security/events", params={"type": "auth.mtls_failure"}).json()
    assert page["count"] >= 1
    assert {e["event_type"] for e in page["events"]} == {"auth.mtls_failure"}
    others = stack.operator("auditor", tenant).get("/v1/security/events", params={"type": "auth.mtls_failure"}).json()
    assert others["count"] == 0


def test_no_certificate_is_no_failure(stack):
    before = failures(stack)
    assert stack.client().get("/livez").status_code == 200
    time.sleep(1)
    assert failures(stack) == before


@pytest.fixture(autouse=True, scope="module")
def nothing_dies(stack):
    before = stack.pids()
    yield
    assert stack.pids() == before
