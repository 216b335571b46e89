"""Secrets in files of their own: hex on one line, readable by their owner only, never replaced."""

from __future__ import annotations

from pathlib import Path

from shared_models.configuration import ConfigurationError, create_file, read_secret


class KeyFileError(RuntimeError):
    """A key file that cannot be made or used; the text says why."""


def read(path: Path, length: int, what: str, remedy: str) -> bytes:
    """The secret's bytes.

    Args:
        path: Its file.
        length: How many bytes it must have.
        what: Its name for people.
        remedy: What makes one.

    Raises:
        KeyFileError: missing, readable by others, or not such a secret.
    """
    try:
        text = read_secret(path).get_secret_value()
    except ConfigurationError as error:
        raise KeyFileError(f"{error}; {remedy}") from error
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != length:
        raise KeyFileError(f"{path}: not a {what} of {length} bytes in hex")
    return secret


def create(path: Path, secret: bytes, what: str, because: str) -> None:
    """Write a new secret's file.

    Args:
        path: Its file, created with mode 0600.
        secret: Its bytes.
        what: Its name for people.
        because: Why one that is there is not replaced.

    Raises:
        KeyFileError: the file exists, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        create_file(path, f"{secret.hex()}\n".encode("ascii"), 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path} exists; {because}, so it is not replaced") from None
    except OSError as error:
        raise unwritable(path, what, error) from error


def unwritable(path: Path, what: str, error: OSError) -> KeyFileError:
    """What to say of a file that could not be written."""
    return KeyFileError(f"{path}: cannot write the {what}: {error.strerror}")
