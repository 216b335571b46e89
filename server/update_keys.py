"""The keys by which nodes know that a personal head is for them alone.

Each node has an update key of its own on its settings page. They all follow from one secret, kept in a file like the
signing key, so that the server need not keep a list: a node's key is BLAKE2b-128 of its DevEUI under the secret. It is
on the server because personal heads are made often and by themselves; whoever steals it can send heads, within what a
node's probation lets pass, but no backbone, no keys, and nothing to nodes provisioned under another secret.
"""

from __future__ import annotations

import csv
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from server import secret_files
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
        return cls(secret_files.read(path, SECRET_BYTES, "secret", "made by: noria server keygen"))


def generate(path: Path, secret: bytes | None = None) -> UpdateKeys:
    """Make the secret; an existing one is never replaced, for nodes in the field have keys from it.

    Args:
        path: Its file, created with mode 0600.
        secret: 32 bytes to use instead of random ones: reproducible demos and tests only.

    Raises:
        KeyFileError: the file exists, or cannot be written.
    """
    keys = UpdateKeys(secret or secrets.token_bytes(SECRET_BYTES))
    secret_files.create(path, keys.secret, "secret", "nodes have keys from it")
    return keys


def write_table(keys: UpdateKeys, devices: Iterable[str], file: TextIO) -> None:
    """What ``noria node provision --update-keys`` reads: a row per node, dev_eui and update_key."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["dev_eui", "update_key"])
    writer.writerows([device, keys.of(device).hex()] for device in devices)
