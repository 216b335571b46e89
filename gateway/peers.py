"""Who made a cohort key: sites sign theirs with their SuperNode's key, and know one another's public halves.

The server carries all messages between sites. Without signatures it could put keys of its own in the place of the other
members' and take every mask off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from shared_models.masking import Cohort, key_statement
from shared_models.messages import SITE_PATTERN

ALGORITHM = ECDSA(hashes.SHA384())
MAX_SIGNATURE_BYTES = 104
"""DER of two 384-bit numbers."""
FIELDS = 3
"""Of a line: type, key, site."""


class PeersError(ValueError):
    """A file of keys that cannot be used; the text says why."""


Peers = Mapping[str, EllipticCurvePublicKey]


def read_peers(path: Path) -> Peers:
    """Public keys by site; empty lines and lines that begin with # are skipped.

    Raises:
        PeersError: a line is not an EC P-384 key and a site, or a site is there twice.
    """
    peers: dict[str, EllipticCurvePublicKey] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PeersError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        site = fields[-1]
        if len(fields) != FIELDS or not re.fullmatch(SITE_PATTERN, site):
            raise PeersError(f"{path}, line {number}: not an OpenSSH public key and a site")
        try:
            key = load_ssh_public_key(" ".join(fields[:2]).encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise PeersError(f"{path}, line {number}: {error}") from error
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
            raise PeersError(f"{path}, line {number}: not an EC P-384 key")
        if site in peers:
            raise PeersError(f"{path}, line {number}: {site} is there twice")
        peers[site] = key
    return peers


def sign(private_key: Path, statement: bytes) -> bytes:
    """Sign with this farm's SuperNode key.

    Raises:
        PeersError: it is not an EC P-384 key in OpenSSH format.
    """
    try:
        key = load_ssh_private_key(private_key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PeersError(f"{private_key}: {error}") from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP384R1):
        raise PeersError(f"{private_key}: not an EC P-384 key")
    return key.sign(statement, ALGORITHM)


def known_members(peers: Peers, site: str, cohort: Cohort, signatures: Mapping[str, bytes]) -> frozenset[str]:
    """This site, and the members whose keys were signed by the peers they are named after."""
    known = {site}
    for member in cohort.members:
        key, signature = peers.get(member.site), signatures.get(member.site, b"")
        if member.site == site or key is None or len(signature) > MAX_SIGNATURE_BYTES:
            continue
        try:
            key.verify(signature, key_statement(cohort.backbone_id, cohort.attempt, member), ALGORITHM)
        except InvalidSignature:
            continue
        known.add(member.site)
    return frozenset(known)
