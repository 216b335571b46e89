"""Builds the fuzz targets: one executable each, with address and undefined-behaviour sanitizers.

``python -m nodes.firmware.fuzz.build [--libfuzzer]`` prints their paths. By default gcc builds them with ``driver.c``,
which mutates a corpus without looking at coverage; with ``libfuzzer`` clang builds them for its coverage-guided engine.
The firmware's variables are moved into sections of their own, so that ``bench.c`` can put a node back to its reset.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nodes.firmware import monocypher
from nodes.firmware.fuzz.seeds import START_S, provisioned_header
from nodes.firmware.host.build import CORE, FLAGS, OUTPUT, WARNINGS, HostBuildError, digest, includes, run, sources

FUZZ = Path(__file__).parent
SANITIZERS = ("-O2", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COVERAGE_GUIDED = ("-fsanitize=fuzzer-no-link",)


@dataclass(frozen=True, slots=True)
class Target:
    """One parser to feed."""

    name: str
    source: str
    options: tuple[str, ...] = ()
    longest: int = 1024
    """Input bytes beyond which nothing new can happen."""
    costly: bool = False
    """A signature is made and checked for each input: a tenth of the executions must do."""


TARGETS = (
    Target("settings_downlinks", "downlinks.c", ("-DNORIA_FUZZ_PORT=13",), 512),
    Target("fragmentation_downlinks", "downlinks.c", ("-DNORIA_FUZZ_PORT=201",), 2048),
    Target("container_downlinks", "downlinks.c", ("-DNORIA_FUZZ_PORT=14",), 2048),
    Target("at_lines", "at_lines.c", (), 2048),
    Target("container", "container.c", (), 1170),
    Target("signed_container", "container.c", ("-DNORIA_FUZZ_SIGNS",), 1106, costly=True),
    Target("decoder", "decoder.c", (), 800),
    Target("engine", "engine.c", (), 700),
    Target("settings_page", "settings_page.c", (), 176),
    Target("data_region", "region.c", (), 2048),
)


def clang() -> str | None:
    """Its name on this machine."""
    return next((name for name in ("clang", "clang-14", "clang-15", "clang-16") if shutil.which(name)), None)


def build(*, libfuzzer: bool = False) -> dict[str, Path]:
    """Every target's executable by its name, built when it is not there yet.

    Raises:
        HostBuildError: no compiler, or it refused.
    """
    compiler = (clang() or "clang") if libfuzzer else "gcc"
    flags = [*FLAGS, *SANITIZERS, *(COVERAGE_GUIDED if libfuzzer else ())]
    header = provisioned_header()
    own = [*sorted(FUZZ.glob("*.c")), *sorted(FUZZ.glob("*.h"))]
    state = hashlib.blake2b((digest([compiler, *flags], own) + header + repr(TARGETS)).encode(), digest_size=8)
    folder = OUTPUT / f"fuzz-{state.hexdigest()}"
    paths = {target.name: folder / target.name for target in TARGETS}
    if all(path.is_file() for path in paths.values()):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUTPUT) as scratch_name:
        scratch = Path(scratch_name)
        (scratch / "provisioned.h").write_text(header, encoding="ascii")
        searched = [*includes(), f"-I{FUZZ}", f"-I{scratch}", f"-DNORIA_FUZZ_START_S={START_S}u"]

        def compiled(source: Path, name: str, *options: str) -> Path:
            result = scratch / f"{name}.o"
            run([compiler, *flags, *options, *searched, "-c", str(source), "-o", str(result)])
            return result

        shared = [compiled(monocypher.ensure() / "monocypher.c", "monocypher")]
        for source in sources():
            shared.append(compiled(source, source.stem, *WARNINGS))
            if source.parent == CORE:
                _move_variables(shared[-1])
        shared.append(compiled(FUZZ / "bench.c", "bench", *WARNINGS))
        if not libfuzzer:
            shared.append(compiled(FUZZ / "driver.c", "driver", *WARNINGS, "-D_DEFAULT_SOURCE"))
        engine = ["-fsanitize=fuzzer"] if libfuzzer else []
        for target in TARGETS:
            own_object = compiled(FUZZ / target.source, f"target-{target.name}", *WARNINGS, *target.options)
            result = scratch / target.name
            run([compiler, *SANITIZERS, *engine, *map(str, shared), str(own_object), "-o", str(result)])
            result.replace(paths[target.name])
    return paths


def _move_variables(compiled: Path) -> None:
    kinds = [f"--rename-section=.{kind}=noria_{kind},alloc,load,data,contents" for kind in ("data", "bss")]
    run(["objcopy", *kinds, str(compiled)])


def main() -> None:
    """Build and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libfuzzer", action="store_true", help="coverage-guided, with clang")
    try:
        paths = build(libfuzzer=parser.parse_args().libfuzzer)
    except HostBuildError as error:
        sys.exit(str(error))
    for path in paths.values():
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
