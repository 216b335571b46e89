"""Fetches Monocypher's C source, pinned by hash, from the source distribution of its Python package.

The repository holds no third-party C. ``python -m nodes.firmware.monocypher`` (and the build, through
:func:`ensure`) downloads the sdist with pip, which refuses any byte that does not match ``requirements.lock``,
and extracts exactly two files. Nothing is built or run from it.
"""

from __future__ import annotations

import re
import sys
import tarfile
import tempfile
from pathlib import Path

from nodes import pinned

ROOT = Path(__file__).resolve().parents[2]
DESTINATION = ROOT / "nodes/firmware/third_party/monocypher"
SDIST_SHA256 = "5e56e3d3eb770a53e0b9f6274146663c11a11f3d0de5cd48e3be0428d1b07a4a"
"""The sdist of the version in ``requirements.lock``, where it is listed too."""
FILES = ("monocypher.c", "monocypher.h", "LICENSE.txt")
_STAMP = "sha256"


class MonocypherError(RuntimeError):
    """The source could not be had; the text says why and what to do."""


def pinned_version(lock: Path = ROOT / "requirements.lock") -> str:
    """The version of pymonocypher in the lock, checked to list our hash.

    Raises:
        MonocypherError: the lock names no version, or its hashes do not include the sdist we trust.
    """
    text = lock.read_text(encoding="utf-8")
    match = re.search(r"^pymonocypher==(\S+)((?:\s*\\\n\s+--hash=\S+)+)", text, re.MULTILINE)
    if not match or f"sha256:{SDIST_SHA256}" not in match[2]:
        raise MonocypherError(f"{lock}: pymonocypher is not pinned to the source distribution this build trusts")
    return match[1]


def ensure(destination: Path = DESTINATION) -> Path:
    """Make sure the sources are there; downloads only when they are not.

    Returns:
        The folder that holds ``monocypher.c`` and ``monocypher.h``.

    Raises:
        MonocypherError: not pinned, no network, or the archive is not what we trust.
    """
    stamp = destination / _STAMP
    if stamp.is_file() and stamp.read_text(encoding="ascii") == SDIST_SHA256:
        return destination
    with tempfile.TemporaryDirectory(prefix="noria-monocypher-") as folder:
        archive = _download(pinned_version(), Path(folder))
        destination.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as sdist:
            for name in FILES:
                member = next((m for m in sdist.getmembers() if m.isfile() and m.name.split("/")[1:] == [name]), None)
                source = sdist.extractfile(member) if member else None
                if source is None:
                    raise MonocypherError(f"{archive.name}: holds no {name}")
                (destination / name).write_bytes(source.read())
    stamp.write_text(SDIST_SHA256, encoding="ascii")
    return destination


def _download(version: str, folder: Path) -> Path:
    # Without build isolation pip fetches no build tools.
    kind = (*pinned.sdist("pymonocypher"), "--no-build-isolation")
    try:
        return pinned.download("pymonocypher", version, SDIST_SHA256, kind, folder)
    except pinned.PinnedError as error:
        raise MonocypherError(f"cannot download pymonocypher {version}: {error}") from error


if __name__ == "__main__":
    sys.stdout.write(f"{ensure()}\n")
