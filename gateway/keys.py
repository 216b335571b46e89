"""The SuperNode's key: EC P-384, in OpenSSH's private format, the only one Flower reads (1.41 refuses PKCS8)."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared_models.configuration import create_file

MAX_BYTES = 4096


class KeyFileError(ValueError):
    """A key file that cannot be made or used; the text says why."""


def generate(path: Path, comment: str) -> str:
    """Make a key; the public half lies beside it under the same name with ``.pub``. Nothing is ever replaced.

    Returns:
        The public key's line, for the fleet's operator.

    Raises:
        KeyFileError: a file exists, or cannot be written.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    line = f"{public_line(key)} {comment}"
    public_path = path.with_name(path.name + ".pub")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, content, mode in ((path, private, 0o600), (public_path, f"{line}\n".encode("ascii"), 0o644)):
            create_file(target, content, mode)
    except FileExistsError as error:
        raise KeyFileError(f"{error.filename} exists; the server may know its public key, so it is kept") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot write the key: {error.strerror}") from error
    return line


def load(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a key file.

    Raises:
        KeyFileError: missing, readable by others, or not what Flower reads.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path}: a private key must not be readable by others: chmod 600 {path}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}; a key is made with: noria gateway keygen") from error
    try:
        key = serialization.load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: not an unencrypted private key in OpenSSH's format ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise KeyFileError(f"{path}: not an EC P-384 key; one is made with: noria gateway keygen")
    return key


def public_line(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key in OpenSSH's format, without a comment."""
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode("ascii")


def fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    """``SHA256:…``, as ``ssh-keygen -l`` prints it."""
    digest = hashlib.sha256(base64.b64decode(public_line(key).split(" ")[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")
