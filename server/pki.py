"""Certificates of the published fleet API: a CA of its own, and what the proxy and the SuperLink show.

Gateways trust this CA and nothing else for the fleet API, so no public CA can be talked into vouching for the server.
Its key is needed to issue, never to run: keep it offline. The SuperLink shows its certificate to the proxy and to
Flower's own tools on the loopback; whoever takes the port while the SuperLink is down cannot.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared_models.configuration import create_file

CA_LIFETIME = timedelta(days=3653)
"""Ten years: every gateway has to be given the next one by hand."""
SERVER_LIFETIME = timedelta(days=825)
RENEWAL = timedelta(days=60)
"""Before the end, from when on the server warns."""
BACKDATED = timedelta(days=1)
"""A gateway whose clock is hours behind should hear of its clock, not of a certificate that is not valid yet."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1")


class PkiError(RuntimeError):
    """Certificates that cannot be made or used; the text says why."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Pki:
    """Where everything lies."""

    folder: Path

    @property
    def ca(self) -> Pair:
        """What gateways trust; the key belongs offline."""
        return self._pair("ca")

    @property
    def proxy(self) -> Pair:
        """What the proxy shows to gateways."""
        return self._pair("proxy")

    @property
    def superlink(self) -> Pair:
        """What the SuperLink shows on the loopback."""
        return self._pair("superlink")

    def _pair(self, name: str) -> Pair:
        return Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")


def create(folder: Path, names: Sequence[str], now: datetime | None = None) -> Pki:
    """Make a CA and both server certificates.

    Args:
        folder: Where to; made with mode 0700 if it is not there.
        names: DNS names and addresses gateways reach the proxy by.
        now: The present; lifetimes begin a day earlier.

    Raises:
        PkiError: any of the files exists, or cannot be written; none is ever replaced.
    """
    pki = Pki(folder)
    for pair in (pki.ca, pki.proxy, pki.superlink):
        for path in (pair.certificate, pair.key):
            if path.exists():
                raise PkiError(f"{path} exists and is not replaced; new server certificates from the same CA: --renew")
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name("Noria fleet CA")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA384())
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(pki.ca, certificate, key, replace=False)
        _issue(pki, names, certificate, key, now, replace=False)
    except OSError as error:
        raise PkiError(f"{error.filename or folder}: cannot write: {error.strerror}") from error
    return pki


def renew(folder: Path, names: Sequence[str], now: datetime | None = None) -> Pki:
    """Replace both server certificates, with new keys; the CA stays, so gateways notice nothing.

    Raises:
        PkiError: the CA is not there, not a CA, ends too early, or something cannot be written.
    """
    pki, now = Pki(folder), now or datetime.now(UTC)
    certificate = load_certificate(pki.ca.certificate)
    try:
        key = serialization.load_pem_private_key(pki.ca.key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise PkiError(f"{pki.ca.key}: the CA's key cannot be read; bring it back from where it is kept") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise PkiError(f"{pki.ca.key} is not the key of {pki.ca.certificate}")
    if certificate.not_valid_after_utc < now + RENEWAL:
        raise PkiError(f"{pki.ca.certificate} ends on {certificate.not_valid_after_utc:%Y-%m-%d}: make a new CA")
    try:
        _issue(pki, names, certificate, key, now, replace=True)
    except OSError as error:
        raise PkiError(f"{error.filename or folder}: cannot write: {error.strerror}") from error
    return pki


def ends(pki: Pki) -> datetime:
    """When the first of the certificates in use ends.

    Raises:
        PkiError: one of them is missing or unreadable.
    """
    pairs = (pki.ca, pki.proxy, pki.superlink)
    return min(load_certificate(pair.certificate).not_valid_after_utc for pair in pairs)


def load_certificate(path: Path) -> x509.Certificate:
    """Read a PEM certificate.

    Raises:
        PkiError: it is missing or none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise PkiError(f"{path}: {error.strerror}; certificates are made with: noria server fleet-ca") from error
    except ValueError as error:
        raise PkiError(f"{path}: not a certificate") from error


def _issue(
    pki: Pki,
    names: Sequence[str],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    *,
    replace: bool,
) -> None:
    for pair, shown in ((pki.proxy, names), (pki.superlink, LOOPBACK_NAMES)):
        key = ec.generate_private_key(ec.SECP384R1())
        lifetime = min(SERVER_LIFETIME, ca.not_valid_after_utc - now)
        certificate = (
            _builder(_name(pair.certificate.stem), ca.subject, key.public_key(), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in shown]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                critical=False,
            )
            .sign(ca_key, hashes.SHA384())
        )
        _write(pair, certificate, key, replace=replace)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, *, replace: bool) -> None:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    for path, content, mode in ((pair.key, secret, 0o600), (pair.certificate, public, 0o644)):
        # Written beside and moved into place: whoever reads meanwhile finds the old file or the new one, whole.
        target = path.with_name(path.name + ".new") if replace else path
        if replace:
            target.unlink(missing_ok=True)
        create_file(target, content, mode)
        if replace:
            if path.exists():
                # The proxy runs as another user, whom the old key's file was given to.
                old = path.stat()
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.chown(target, old.st_uid, old.st_gid)
            target.replace(path)
