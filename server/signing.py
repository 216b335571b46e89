"""The operator's signature: Monocypher's EdDSA (Ed25519 with BLAKE2b), made apart from the store.

By default the key is in a file: 64 hex digits on one line, readable by its owner only, the public key beside it under
the same name with ``.pub``. Nodes trust public keys by their settings page, so whoever takes a gateway, the broker, or
the server's store without this file cannot make a release.

Where not even the server's machine shall hold the key, a command signs (``signing_command``): it is given what is to be
signed, in hex on its standard input, and answers with the signature in hex. ``noria server sign`` is such a command,
to be called by way of ssh on a machine that does nothing else; a hardware token's own tool can be wrapped likewise.
The server checks each signature before it uses it.
"""

from __future__ import annotations

import secrets
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import monocypher

from server import secret_files
from server.secret_files import KeyFileError
from shared_models import container
from shared_models.container import Container
from shared_models.settings import KEY_SIZE

SEED_BYTES = 32
COMMAND_TIMEOUT_S = 60.0


class SigningError(RuntimeError):
    """A signature that could not be had; the text says why."""


class Signer(Protocol):
    """Whoever signs releases."""

    @property
    def public(self) -> bytes:
        """The public key that nodes trust."""
        ...

    @property
    def key_id(self) -> int:
        """The byte by which containers name it."""
        ...

    def sign(self, entry: Container) -> bytes:
        """The container's bytes for the air.

        Raises:
            SigningError: there is no signature to be had.
        """
        ...


@dataclass(frozen=True)
class SigningKey:
    """A private key, with what follows from it."""

    secret: bytes = field(repr=False)
    """Seed and public key, 64 bytes, as Monocypher signs with."""
    public: bytes
    key_id: int
    """The byte by which containers name it."""

    def sign(self, entry: Container) -> bytes:
        """The container's bytes for the air."""
        return container.sign(entry, self.secret)

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
        remedy = "a new key is made with: noria server keygen"
        return cls.from_seed(secret_files.read(path, SEED_BYTES, "signing key", remedy))


@dataclass(frozen=True)
class CommandSigner:
    """A command that signs, and the public key it signs for."""

    command: tuple[str, ...]
    public: bytes
    key_id: int

    @classmethod
    def load(cls, command: Sequence[str], key_file: Path) -> CommandSigner:
        """Read the public key beside where the private one would be.

        Raises:
            KeyFileError: missing, or not a public key.
        """
        public = load_public(public_key_path(key_file))
        return cls(tuple(command), public, container.key_id(public))

    def sign(self, entry: Container) -> bytes:
        """The container's bytes for the air.

        Raises:
            SigningError: the command fails, or its signature is not this key's.
        """
        message = container.signed_bytes(entry, self.public)
        try:
            answer = subprocess.run(
                self.command,
                input=message.hex() + "\n",
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SigningError(f"{self.command[0]}: {error}") from error
        if answer.returncode:
            raise SigningError(f"{self.command[0]} ended with {answer.returncode}: {answer.stderr.strip()[-300:]}")
        try:
            signature = bytes.fromhex(answer.stdout.strip())
        except ValueError:
            signature = b""
        if len(signature) != container.SIGNATURE_SIZE or not monocypher.signature_check(
            signature, self.public, message
        ):
            raise SigningError(f"{self.command[0]} answered with no signature of the key {self.public.hex()}")
        return message + signature


def load(key_file: Path, command: Sequence[str] | None = None) -> Signer:
    """The key in its file, or the command that signs instead.

    Raises:
        KeyFileError: there is no usable key.
    """
    return CommandSigner.load(command, key_file) if command else SigningKey.load(key_file)


def load_public(path: Path) -> bytes:
    """Read a public key's file.

    Raises:
        KeyFileError: missing, or not a public key.
    """
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise KeyFileError(f"{path}: cannot read the public key: {error.strerror}") from error
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE or not any(key):
        raise KeyFileError(f"{path}: not a public key of {KEY_SIZE} bytes in hex")
    return key


def answer_to(message: str, key: SigningKey) -> str:
    """What ``noria server sign`` says: the signature, in hex.

    Raises:
        SigningError: not something that goes to nodes.
    """
    try:
        data = bytes.fromhex(message.strip())
        # Only what a node would read as a container of this key is signed: nobody's letters.
        entry = container.read_container(data + bytes(container.SIGNATURE_SIZE))
    except ValueError as error:
        raise SigningError(f"not a container: {error}") from error
    if entry.key_id != key.key_id or entry.kind is container.ContainerKind.PERSONAL:
        raise SigningError("not a container for this key to sign")
    return key.sign(entry)[-container.SIGNATURE_SIZE :].hex()


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
    secret_files.create(path, key.secret[:SEED_BYTES], "key", "nodes trust its public key")
    try:
        public_key_path(path).write_text(key.public.hex() + "\n", encoding="ascii")
    except OSError as error:
        raise secret_files.unwritable(path, "key", error) from error
    return key
