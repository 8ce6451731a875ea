"""The certificates of a stack: its CA, its server's, its agents' and its operators'."""

from caf_dev.authority import SERVER, Issuer, certificate_pem, key_pem, new_key, server_names, uri, write_file, write_pair

TENANT = "acme"
SERVER_KEYS = {"server-p256": "p256", "server-rsa": "rsa2048"}
OPERATORS = ("admin", "auditor")


def make_authority(folder):
    """A root and the intermediate that issues; the root's key is kept beside it."""
    root = Issuer.root("caf development root")
    issuing = root.intermediate("caf development issuing CA")
    write_pair(folder.ca / "root", [root.certificate], root.key)
    write_file(folder.ca_key, key_pem(issuing.key))
    write_file(folder.ca_bundle, certificate_pem(issuing.certificate, root.certificate), 0o644)


def issuing_authority(folder):
    return Issuer.load(folder.ca_bundle, folder.ca_key)


def issue_client(issuer, spiffe_id, prefix):
    """A client certificate for a SPIFFE ID, as PREFIX.crt and PREFIX.key."""
    key = new_key()
    chain = issuer.issue(key, common_name=spiffe_id.rsplit("/", 1)[-1] or "caf", names=[uri(spiffe_id)])
    return write_pair(prefix, chain, key)


def issue_server(issuer, kind, prefix):
    key = new_key(kind)
    write_pair(prefix, issuer.issue(key, common_name="localhost", names=server_names(), uses=(SERVER,)), key)


def wanted_clients(folder, settings):
    """Every client certificate that a stack has: file prefix and SPIFFE ID."""
    domain = settings.trust_domain
    for number in range(1, settings.agents + 1):
        yield folder.agents / f"agent-{number}", f"spiffe://{domain}/agent/{TENANT}/agent-{number}"
    for name in OPERATORS:
        yield folder.operators / name, f"spiffe://{domain}/operator/{TENANT}/{name}"


def make_missing(folder, settings):
    """Issues what is not there yet; a stack that comes up again keeps its CA and its certificates."""
    if not folder.ca_bundle.exists():
        make_authority(folder)
    issuer = issuing_authority(folder)
    for name, kind in SERVER_KEYS.items():
        if not (folder.tls / f"{name}.key").exists():
            issue_server(issuer, kind, folder.tls / name)
    for prefix, spiffe_id in wanted_clients(folder, settings):
        if not prefix.with_name(prefix.name + ".key").exists():
            issue_client(issuer, spiffe_id, prefix)
