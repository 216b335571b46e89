"""Pairwise masks: a cohort of sites adds its sums so that the server sees the total and no part of it.

Numbers are words modulo 2⁶⁴. Each site *i* of a cohort publishes a fresh X25519 key and sends

    y_i = x_i + self(s_i) + Σ_{j > i} pair(i, j) − Σ_{j < i} pair(j, i)        (sites in order of their names)

where pair(i, j) is a ChaCha20 keystream keyed by HKDF-SHA256 of the two sites' shared secret and self(s_i) one keyed by
32 random bytes. In Σ y_i the pairs cancel exactly; the seeds s_i are sent, in a message of their own, once every member
has answered, and what is left is Σ x_i, bit for bit. While one seed is missing nothing can be told of any x.

Both keys are salted with the cohort's digest, over backbone, attempt and every member's name, key, noise and rules:
members that were shown different lists make masks that do not cancel.

After K. Bonawitz et al., *Practical Secure Aggregation for Privacy-Preserving Machine Learning*, CCS 2017: its double
mask, with sending a seed instead of sharing it, so that a member lost before the seeds are asked for costs an attempt,
and one lost afterwards the cohort.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from shared_models.messages import SITE_PATTERN
from shared_models.moments import LIMIT, PARTS, Sums

Words = NDArray[np.uint64]

MINIMUM_COHORT = 3
"""Of two, each knows the other's sums from the total."""
MAXIMUM_COHORT = 4096
"""So many times :data:`shared_models.moments.LIMIT` stays below 2⁶³: no total wraps."""
ATTEMPT_BYTES = 16
KEY_BYTES = 32

WORDS = sum(int(np.prod(shape)) for _, shape in PARTS) + 1
"""The arrays of :class:`shared_models.moments.Sums` one after the other, and the number of contributing nodes."""


class Rule(IntFlag):
    """What a site says of its own rules, because the others' secrecy hangs on it."""

    MASKED_ONLY = 1
    """It never answers in the clear: a total less the parts known in the clear is the rest."""
    ACCEPTS_CHANGES = 2
    """It answers in cohorts that one or two sites have left or joined: two totals tell their difference."""


class MaskError(ValueError):
    """A cohort, key or number that masks must not be made with; the text says why."""


@dataclass(frozen=True, order=True)
class Member:
    """A site and the key it made for one attempt."""

    site: str
    public_key: bytes
    noise: int = 0
    """Variance of the noise it adds, in the weighted units of :mod:`gateway.noise`; 0 for none."""
    rules: int = 0
    """:class:`Rule` bits."""

    def packed(self) -> bytes:
        """All of it, unmistakably."""
        name = self.site.encode()
        numbers = self.noise.to_bytes(8, "little") + self.rules.to_bytes(1, "little")
        return len(name).to_bytes(1, "little") + name + self.public_key + numbers


@dataclass(frozen=True)
class Cohort:
    """Who adds up together, in one attempt."""

    backbone_id: int
    attempt: bytes
    """Fresh random bytes, so that no two attempts share masks."""
    members: tuple[Member, ...]
    """In order of their sites."""

    @classmethod
    def of(cls, backbone_id: int, attempt: bytes, members: Iterable[Member]) -> Cohort:
        """A cohort of ``members`` in any order.

        Raises:
            MaskError: too few or too many members, one named twice, or bytes of a wrong length.
        """
        ordered = tuple(sorted(members))
        if not MINIMUM_COHORT <= len(ordered) <= MAXIMUM_COHORT:
            raise MaskError(f"a cohort has {MINIMUM_COHORT} to {MAXIMUM_COHORT} sites, not {len(ordered)}")
        if any(not re.fullmatch(SITE_PATTERN, member.site) for member in ordered):
            raise MaskError("a member's name is not a site's")
        if len({member.site for member in ordered}) < len(ordered):
            raise MaskError("a site is in the cohort twice")
        if len({member.public_key for member in ordered}) < len(ordered):
            raise MaskError("two members have one key")
        if len(attempt) != ATTEMPT_BYTES or any(len(member.public_key) != KEY_BYTES for member in ordered):
            raise MaskError("an attempt or a key is of the wrong length")
        if any(not 0 <= member.noise < 1 << 63 for member in ordered):
            raise MaskError("a variance is out of range")
        if any(not 0 <= member.rules < 1 << len(Rule) for member in ordered):
            raise MaskError("a member's rules are unknown")
        if not 0 <= backbone_id < 1 << 32:
            raise MaskError("the backbone's identity does not fit 32 bits")
        return cls(backbone_id, attempt, ordered)

    @property
    def sites(self) -> frozenset[str]:
        """The members' names."""
        return frozenset(member.site for member in self.members)

    def digest(self) -> bytes:
        """What every member must agree on, in 32 bytes."""
        digest = hashlib.sha256(b"noria cohort 1")
        digest.update(self.backbone_id.to_bytes(4, "little") + self.attempt)
        for member in self.members:
            digest.update(member.packed())
        return digest.digest()


def key_statement(backbone_id: int, attempt: bytes, member: Member) -> bytes:
    """What a site signs to say that a cohort key is its own."""
    return b"noria cohort key 1" + backbone_id.to_bytes(4, "little") + attempt + member.packed()


def new_key() -> tuple[bytes, bytes]:
    """A fresh private key and its public key."""
    key = X25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


def new_seed() -> bytes:
    """A fresh seed of a self mask."""
    return secrets.token_bytes(KEY_BYTES)


def pair_masks(private_key: bytes, site: str, cohort: Cohort) -> Words:
    """All masks of one member, signed so that they cancel over the cohort.

    Raises:
        MaskError: the cohort does not hold this very key under this name, or another member's key is no key.
    """
    key = X25519PrivateKey.from_private_bytes(private_key)
    mine = key.public_key().public_bytes_raw()
    if all((member.site, member.public_key) != (site, mine) for member in cohort.members):
        raise MaskError(f"the cohort does not hold the key that {site} made for it")
    salt = cohort.digest()
    masks = np.zeros(WORDS, np.uint64)
    for member in cohort.members:
        if member.site == site:
            continue
        try:
            shared = key.exchange(X25519PublicKey.from_public_bytes(member.public_key))
        except ValueError as error:
            raise MaskError(f"the key of {member.site} is not usable") from error
        words = _keystream(shared, salt, b"pair")
        masks = masks + words if site < member.site else masks - words
    return masks


def self_mask(seed: bytes, cohort: Cohort) -> Words:
    """The mask that goes when its seed is told.

    Raises:
        MaskError: the seed is of the wrong length.
    """
    if len(seed) != KEY_BYTES:
        raise MaskError("a seed is of the wrong length")
    return _keystream(seed, cohort.digest(), b"self")


def _keystream(secret: bytes, salt: bytes, purpose: bytes) -> Words:
    key = HKDF(hashes.SHA256(), KEY_BYTES, salt, b"noria mask 1 " + purpose).derive(secret)
    # Each key makes one keystream, so its nonce may be zero.
    cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None)
    return np.frombuffer(cipher.encryptor().update(bytes(8 * WORDS)), "<u8").astype(np.uint64)


def to_words(sums: Sums, contributors: int) -> Words:
    """One site's numbers as words.

    Raises:
        MaskError: a number so large that a cohort's total might wrap.
    """
    numbers = np.concatenate([*(getattr(sums, name).ravel() for name, _ in PARTS), [contributors]]).astype(np.int64)
    if np.any(numbers >= LIMIT) or np.any(numbers <= -LIMIT):
        raise MaskError("a sum is too large to be added under masks")
    return numbers.view(np.uint64)


def from_words(words: Words) -> tuple[Sums, int]:
    """A total as sums, and the contributing nodes behind it."""
    numbers = words.view(np.int64)
    arrays, at = {}, 0
    for name, shape in PARTS:
        size = int(np.prod(shape))
        arrays[name] = numbers[at : at + size].reshape(shape).copy()
        at += size
    return Sums(**arrays), int(numbers[at])


def unmask(masked: Sequence[Words], seeds: Sequence[bytes], cohort: Cohort) -> Words:
    """The exact total of a cohort all of whose members have answered and told their seeds, both in any order."""
    total = np.zeros(WORDS, np.uint64)
    for words in masked:
        total = total + words
    for seed in seeds:
        total = total - self_mask(seed, cohort)
    return total
