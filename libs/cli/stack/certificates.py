"""The gateway's certificate: one that the operator brings, or one for this machine that nobody else vouches for."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from libs.cli.stack.paths import write_private

if TYPE_CHECKING:
    from cryptography import x509

_LIFE = timedelta(days=365)
_RENEWED_BEFORE = timedelta(days=30)
# Clocks of phones go wrong.
_VALID_SINCE = timedelta(hours=1)
# Browsers lead every name below localhost to this machine; a certificate cannot stand for `*.localhost` itself.
PREVIEW_HOST = "*.preview.localhost"
_LOCAL_NAMES = ("localhost", PREVIEW_HOST, "127.0.0.1", "::1")


class CertificateError(Exception):
    """A certificate or its key cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files that belong together. `host` is the name in it by which this machine reaches itself, if there is one,
    else its first; `fingerprint` is the SHA-256 that browsers show."""

    certificate: Path
    key: Path
    names: tuple[str, ...]
    fingerprint: str
    expires_at: datetime
    is_self_signed: bool

    @property
    def host(self) -> str:
        """For URLs."""
        local = [name for name in ("127.0.0.1", "localhost") if name in self.names]
        plain = [name for name in self.names if not name.startswith("*.")]
        return next(iter([*local, *plain]), "localhost")

    def __str__(self) -> str:
        kind = "self-signed certificate" if self.is_self_signed else "certificate"
        until = f"{self.expires_at:%Y-%m-%d}"
        names = ", ".join(self.names)
        return f"{kind} {self.certificate} for {names}, good until {until}, SHA-256 {self.fingerprint}"


def read_certificate(certificate: Path, key: Path) -> Certificate:
    """Raises CertificateError when nginx could not use them."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        # Reads the whole chain and checks that the key fits. Without a password, it would ask a person for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise CertificateError(f"certificate {certificate} with key {key}: {error}") from error
    return Certificate(
        certificate=certificate,
        key=key,
        names=_names(parsed),
        fingerprint=parsed.fingerprint(SHA256()).hex(":").upper(),
        expires_at=parsed.not_valid_after_utc,
        is_self_signed=parsed.issuer == parsed.subject,
    )


def stack_certificate(
    operator: Mapping[str, str], own: Path, host_name: str, *, self_signed: bool
) -> Certificate | None:
    """What GATEWAY_TLS_CERT and GATEWAY_TLS_KEY name, else with `self_signed` our own; None for plain HTTP.

    Raises CertificateError, OSError.
    """
    brought, its_key = operator.get("GATEWAY_TLS_CERT"), operator.get("GATEWAY_TLS_KEY")
    if brought and its_key:
        return read_certificate(Path(brought).expanduser().absolute(), Path(its_key).expanduser().absolute())
    if brought or its_key:
        raise CertificateError("GATEWAY_TLS_CERT and GATEWAY_TLS_KEY belong together: set both or none")
    return own_certificate(own, host_name) if self_signed else None


def own_certificate(certificate: Path, host_name: str, now: datetime | None = None) -> Certificate:
    """The self-signed one at that path, its key beside it; made when there is none, it ends soon or has other names.

    Raises CertificateError, OSError.
    """
    moment = now or datetime.now(UTC)
    names = tuple(dict.fromkeys((*_LOCAL_NAMES, host_name.lower())))
    certificate.parent.mkdir(mode=0o700, exist_ok=True)
    key = certificate.with_suffix(".key")
    try:
        known = read_certificate(certificate, key)
    except CertificateError:
        known = None
    if known is None or set(known.names) != set(names) or known.expires_at - moment < _RENEWED_BEFORE:
        certificate_pem, key_pem = _make(names, moment)
        write_private(key, key_pem)
        write_private(certificate, certificate_pem)
        return read_certificate(certificate, key)
    return known


def _make(names: Sequence[str], now: datetime) -> tuple[str, str]:
    """Certificate and key. It may sign nothing: who trusts it trusts these names and no others."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "DevPocket on this machine")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _VALID_SINCE)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_digital_signature(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    certificate = builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _digital_signature() -> x509.KeyUsage:
    from cryptography import x509

    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
    more = ("crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(digital_signature=True, **dict.fromkeys((*others, *more), False))


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses: list[IPv4Address | IPv6Address] = [
        a for a in names.get_values_for_type(x509.IPAddress) if isinstance(a, IPv4Address | IPv6Address)
    ]
    return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))
