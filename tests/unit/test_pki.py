"""The fleet's certificates: what they allow, who may read them, and that nothing is replaced by mistake."""

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from server import pki

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = ["noria.example.org", "192.0.2.7"]


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


def test_gateways_can_verify_the_proxy_by_each_of_its_names_and_the_ca_can_do_nothing_else(tmp_path):
    made = pki.create(tmp_path / "fleet", NAMES, NOW)
    ca = pki.load_certificate(made.ca.certificate)
    assert extension(ca, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    for pair, names in ((made.proxy, NAMES), (made.superlink, ["localhost", "127.0.0.1"])):
        certificate = pki.load_certificate(pair.certificate)
        certificate.verify_directly_issued_by(ca)
        shown = extension(certificate, x509.SubjectAlternativeName)
        assert shown.get_values_for_type(x509.DNSName) == [name for name in names if name[0].isalpha()]
        assert shown.get_values_for_type(x509.IPAddress) == [ip_address(name) for name in names if name[0].isdigit()]
        assert extension(certificate, x509.BasicConstraints).ca is False
        assert not extension(certificate, x509.KeyUsage).key_cert_sign
        assert list(extension(certificate, x509.ExtendedKeyUsage)) == [x509.ExtendedKeyUsageOID.SERVER_AUTH]
        assert certificate.not_valid_after_utc - NOW == timedelta(days=825)
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        assert key.public_key() == certificate.public_key()
    assert pki.ends(made) == NOW + timedelta(days=825)


def test_private_keys_are_their_owners_alone(tmp_path):
    made = pki.create(tmp_path / "fleet", NAMES, NOW)
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700
    for pair in (made.ca, made.proxy, made.superlink):
        assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600


@pytest.mark.parametrize("file", ["ca.key", "ca.pem", "proxy.key", "superlink.pem"])
def test_no_file_that_exists_is_replaced(tmp_path, file):
    (tmp_path / file).write_text("precious")
    with pytest.raises(pki.PkiError, match="exists and is not replaced"):
        pki.create(tmp_path, NAMES, NOW)
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert (tmp_path / file).read_text() == "precious"


def test_renewing_keeps_the_ca_and_makes_new_keys(tmp_path):
    made = pki.create(tmp_path, NAMES, NOW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    later = NOW + timedelta(days=800)
    pki.renew(tmp_path, ["other.example.org"], later)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(after) == set(before), "nothing half-written is left"
    assert {name for name in before if before[name] == after[name]} == {"ca.pem", "ca.key"}
    proxy = pki.load_certificate(made.proxy.certificate)
    proxy.verify_directly_issued_by(pki.load_certificate(made.ca.certificate))
    assert proxy.not_valid_after_utc == later + timedelta(days=825)
    assert stat.S_IMODE(made.proxy.key.stat().st_mode) == 0o600


def test_a_certificate_never_outlives_its_ca(tmp_path):
    made = pki.create(tmp_path, NAMES, NOW)
    end = pki.load_certificate(made.ca.certificate).not_valid_after_utc
    pki.renew(tmp_path, NAMES, end - timedelta(days=100))
    assert pki.load_certificate(made.proxy.certificate).not_valid_after_utc == end
    with pytest.raises(pki.PkiError, match="make a new CA"):
        pki.renew(tmp_path, NAMES, end - timedelta(days=10))


def test_what_is_missing_or_foreign_is_named(tmp_path):
    made = pki.create(tmp_path / "one", NAMES, NOW)
    other = pki.create(tmp_path / "two", NAMES, NOW)
    made.ca.key.write_bytes(other.ca.key.read_bytes())
    with pytest.raises(pki.PkiError, match="is not the key of"):
        pki.renew(made.folder, NAMES, NOW)
    made.ca.key.unlink()
    with pytest.raises(pki.PkiError, match="bring it back from where it is kept"):
        pki.renew(made.folder, NAMES, NOW)
    made.superlink.certificate.unlink()
    with pytest.raises(pki.PkiError, match="noria server fleet-ca"):
        pki.ends(made)
