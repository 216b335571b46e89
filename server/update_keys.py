"""The keys by which nodes know that a personal head is for them alone.

Each node has an update key of its own on its settings page. They all follow from one secret, kept in a file like the
signing key, so that the server need not keep a list: a node's key is BLAKE2b-128 of its DevEUI under the secret. It is
on the server because personal heads are made often and by themselves; whoever steals it can send heads, within what a
node's probation lets pass, but no backbone, no keys, and nothing to nodes provisioned under another secret.
"""

from __future__ import annotations

import csv
import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from server.signing import KeyFileError
from shared_models.configuration import ConfigurationError, read_secret
from shared_models.settings import UPDATE_KEY_SIZE

SECRET_BYTES = 32
_PURPOSE = b"noria update key"


@dataclass(frozen=True)
class UpdateKeys:
    """The secret, and what follows from it."""

    secret: bytes = field(repr=False)

    def of(self, dev_eui: str) -> bytes:
        """The update key of a node, 16 bytes."""
        device = bytes.fromhex(dev_eui)
        return hashlib.blake2b(device, digest_size=UPDATE_KEY_SIZE, key=self.secret, person=_PURPOSE).digest()

    @classmethod
    def load(cls, path: Path) -> UpdateKeys:
        """Read the secret's file.

        Raises:
            KeyFileError: missing, readable by others, or not such a secret.
        """
        try:
            text = read_secret(path).get_secret_value()
        except ConfigurationError as error:
            raise KeyFileError(f"{error}; made by: noria server keygen") from error
        try:
            secret = bytes.fromhex(text)
        except ValueError:
            secret = b""
        if len(secret) != SECRET_BYTES:
            raise KeyFileError(f"{path}: not a secret of {SECRET_BYTES} bytes in hex")
        return cls(secret)


def generate(path: Path, secret: bytes | None = None) -> UpdateKeys:
    """Make the secret; an existing one is never replaced, for nodes in the field have keys from it.

    Args:
        path: Its file, created with mode 0600.
        secret: 32 bytes to use instead of random ones: reproducible demos and tests only.

    Raises:
        KeyFileError: the file exists, or cannot be written.
    """
    keys = UpdateKeys(secret or secrets.token_bytes(SECRET_BYTES))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(keys.secret.hex() + "\n")
    except FileExistsError:
        raise KeyFileError(f"{path} exists; nodes have keys from it, so it is not replaced") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot write the secret: {error.strerror}") from error
    return keys


def write_table(keys: UpdateKeys, devices: Iterable[str], file: TextIO) -> None:
    """What ``noria node provision --update-keys`` reads: a row per node, dev_eui and update_key."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["dev_eui", "update_key"])
    writer.writerows([device, keys.of(device).hex()] for device in devices)
