"""The file of keys by which farms know one another is read in full or refused by line."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.peers import PeersError, read_peers, sign


def line(key, site):
    return f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {site}"


GOOD = line(generate_private_key(SECP384R1()), "a")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD + "\n" + GOOD, "line 2: a is there twice"),
        (GOOD.rsplit(" ", 1)[0], "line 1: not an OpenSSH public key and a site"),
        (GOOD + " b", "line 1: not an OpenSSH public key and a site"),
        (GOOD.rsplit(" ", 1)[0] + " ../a", "line 1: not an OpenSSH public key and a site"),
        ("# a comment\n\necdsa-sha2-nistp384 AAAA a", "line 3"),
        (line(generate_private_key(SECP256R1()), "a"), "line 1: not an EC P-384 key"),
        (line(Ed25519PrivateKey.generate(), "a"), "line 1: not an EC P-384 key"),
    ],
    ids=["twice", "no site", "too much", "no site's name", "no key", "another curve", "another kind"],
)
def test_a_line_that_is_no_key_and_site_is_named(tmp_path, text, complaint):
    (tmp_path / "peers").write_text(text, encoding="utf-8")
    with pytest.raises(PeersError, match=complaint):
        read_peers(tmp_path / "peers")


def test_a_key_that_is_none_signs_nothing(tmp_path):
    (tmp_path / "key").write_text("secret", encoding="utf-8")
    for path in (tmp_path / "key", tmp_path / "missing"):
        with pytest.raises(PeersError):
            sign(path, b"statement")
    with pytest.raises(PeersError, match="cannot be read"):
        read_peers(tmp_path / "missing")
