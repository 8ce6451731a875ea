"""A development certificate authority: keys, issuers and the certificates that they issue.

The defaults give what the contract asks of a client (an X509-SVID); every argument of Issuer.issue exists so that
a test can ask for a certificate that breaks one rule.
"""

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
DAY = datetime.timedelta(days=1)
BACKDATED = datetime.timedelta(minutes=5)

KEY_KINDS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "dsa2048": lambda: dsa.generate_private_key(2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
}
USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
          "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


def new_key(kind="p256"):
    """A new private key of one of KEY_KINDS."""
    return KEY_KINDS[kind]()


def uri(text):
    """A URI name for a certificate, as it stands."""
    return x509.UniformResourceIdentifier(text)


def server_names():
    """The names by which a stack's server is reached."""
    return [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1"))]


def certificate_pem(*certificates):
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def key_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())


def write_file(path, content, mode=0o600):
    """Writes a whole file with the mode given, never readable by more in between."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def write_pair(prefix, chain, key):
    """Writes PREFIX.crt (leaf first, then its chain) and PREFIX.key; returns both paths as text."""
    certificate_file, key_file = f"{prefix}.crt", f"{prefix}.key"
    write_file(certificate_file, certificate_pem(*chain), 0o644)
    write_file(key_file, key_pem(key))
    return certificate_file, key_file


def key_usage(*allowed):
    """The keyUsage extension with exactly these bits."""
    return x509.KeyUsage(**{usage: usage in allowed for usage in USAGES})


def subject_name(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[-64:])])


class Issuer:
    """A CA certificate with its key. `above` holds the certificates between it and its root, without the root."""

    def __init__(self, certificate, key, above=()):
        self.certificate = certificate
        self.key = key
        self.above = tuple(above)

    @classmethod
    def root(cls, name):
        """A new self-signed P-256 root."""
        key = new_key()
        certificate = build(key.public_key(), subject_name(name), subject_name(name), key, ca=True,
                            usage=("key_cert_sign", "crl_sign"), uses=(), ends=now() + 3650 * DAY)
        return cls(certificate, key)

    def intermediate(self, name, key_kind="p256", **rules):
        """A new CA below this one. For the rules see build()."""
        key = new_key(key_kind)
        rules = {"usage": ("key_cert_sign", "crl_sign"), "ends": now() + 3650 * DAY, **rules}
        certificate, *_ = self.issue(key, common_name=name, ca=True, uses=(), **rules)
        return Issuer(certificate, key, self.path())

    def path(self):
        """What a leaf of this issuer carries behind itself: every CA below the root."""
        if self.certificate.issuer == self.certificate.subject:
            return self.above
        return (self.certificate, *self.above)

    def issue(self, key, **rules):
        """Certifies a key; returns the chain, leaf first. For the rules see build()."""
        name = subject_name(rules.pop("common_name", "caf"))
        leaf = build(key.public_key(), name, self.certificate.subject, self.key, **rules)
        return [leaf, *self.path()]

    def crl(self, *revoked, starts=None, ends=None, digest=hashes.SHA256()):
        """A list of this issuer's revoked certificates, as PEM; starts, ends: its dates in UTC."""
        builder = (x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
                   .last_update(starts or now() - BACKDATED).next_update(ends or now() + 30 * DAY)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False))
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
                .revocation_date(now() - BACKDATED).build())
        return builder.sign(self.key, digest).public_bytes(serialization.Encoding.PEM)

    @classmethod
    def load(cls, certificate_file, key_file):
        """An issuer from its PEM files, directly below the root."""
        certificate = x509.load_pem_x509_certificate(Path(certificate_file).read_bytes())
        key = serialization.load_pem_private_key(Path(key_file).read_bytes(), None)
        return cls(certificate, key)


def now():
    return datetime.datetime.utcnow().replace(microsecond=0)


def build(public_key, subject, issuer, issuer_key, *, names=(), uses=(CLIENT,), usage=("digital_signature",), ca=False,
          path_length=None, starts=None, ends=None, digest=hashes.SHA256(), more=()):
    """Signs one certificate.

    names: subject alternative names; uses: extended key usages (none: no extension); usage: keyUsage bits (None: no
    extension); starts, ends: its dates in UTC (default: from a little ago, for a year); more: further extensions, each
    critical.
    """
    starts = starts or now() - BACKDATED
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
               .serial_number(x509.random_serial_number())
               .not_valid_before(starts).not_valid_after(ends or now() + 365 * DAY)
               .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
               .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                              critical=False))
    if usage is not None:
        builder = builder.add_extension(key_usage(*usage), critical=True)
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
    for extension in more:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(issuer_key, digest)
