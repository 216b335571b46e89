"""The operator's signing key: Monocypher's EdDSA (Ed25519 with BLAKE2b), kept in a file apart from the store.

The key's file holds 64 hex digits on one line and must be readable by its owner only; the public key lies beside
it under the same name with ``.pub``. Nodes trust public keys by their settings page, so whoever takes a gateway, the
broker, or the server's store without this file cannot make a release.
"""

from __future__ import annotations

import os
import secrets
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import monocypher

from shared_models import container
from shared_models.configuration import ConfigurationError, read_secret

SEED_BYTES = 32


class KeyFileError(RuntimeError):
    """A key file that cannot be made or used; the text says why."""


@dataclass(frozen=True)
class SigningKey:
    """A private key, with what follows from it."""

    secret: bytes = field(repr=False)
    """Seed and public key, 64 bytes, as Monocypher signs with."""
    public: bytes
    key_id: int
    """The byte by which containers name it."""

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key that follows from 32 secret bytes."""
        with warnings.catch_warnings():
            # pymonocypher prefers its own 64-byte form, seed and public key, which is what we are about to make.
            warnings.simplefilter("ignore", DeprecationWarning)
            public = monocypher.compute_signing_public_key(seed)
        return cls(seed + public, public, container.key_id(public))

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a key file.

        Raises:
            KeyFileError: missing, readable by others, or not a key.
        """
        try:
            text = read_secret(path).get_secret_value()
        except ConfigurationError as error:
            raise KeyFileError(f"{error}; a new key is made with: noria server keygen") from error
        try:
            seed = bytes.fromhex(text)
        except ValueError:
            seed = b""
        if len(seed) != SEED_BYTES:
            raise KeyFileError(f"{path}: not a signing key of {SEED_BYTES} bytes in hex")
        return cls.from_seed(seed)


def public_key_path(path: Path) -> Path:
    """Where the public key of the key at ``path`` lies."""
    return path.with_name(path.name + ".pub")


def generate(path: Path, seed: bytes | None = None) -> SigningKey:
    """Make a key and write both files; an existing key is never replaced.

    Args:
        path: The private key's file, created with mode 0600.
        seed: 32 bytes to use instead of random ones: reproducible demos and tests only.

    Raises:
        KeyFileError: the file exists, or cannot be written.
    """
    key = SigningKey.from_seed(seed or secrets.token_bytes(SEED_BYTES))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key.secret[:SEED_BYTES].hex() + "\n")
        public_key_path(path).write_text(key.public.hex() + "\n", encoding="ascii")
    except FileExistsError:
        raise KeyFileError(f"{path} exists; nodes trust its public key, so it is not replaced") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot write the key: {error.strerror}") from error
    return key
