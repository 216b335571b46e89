"""The import rules of docs/architecture.md hold: everything points inward to shared_models."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"dashboards", "gateway", "nodes", "noria", "server", "shared_models"}
MAY_IMPORT = {
    "shared_models": {"shared_models"},
    "nodes": {"nodes", "shared_models"},
    "gateway": {"gateway", "shared_models"},
    "server": {"server", "shared_models"},
    "dashboards": {"dashboards", "shared_models"},
    "noria": PARTS,
}


def imports(path: Path) -> set[str]:
    """Top-level names of every absolute import in a file, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


@pytest.mark.parametrize("part", sorted(PARTS))
def test_imports_point_inward(part):
    offenders = {}
    for path in (ROOT / part).rglob("*.py"):
        if ".pio" in path.parts or "platform" in path.relative_to(ROOT).parts:
            continue
        outside = {name for name in imports(path) if name.split(".")[0] in PARTS - MAY_IMPORT[part]}
        if outside:
            offenders[str(path.relative_to(ROOT))] = outside
    assert not offenders


def test_training_never_sees_the_judge():
    names = {name for path in (ROOT / "server").rglob("*.py") for name in imports(path)}
    assert not {name for name in names if name.split(".")[0] in {"aquacrop", "nodes"}}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("gateway.service", {"tensorflow", "streamlit", "aquacrop", "unicorn"}),
        ("server.service", {"tensorflow", "streamlit", "aquacrop", "unicorn"}),
        ("dashboards.access", {"tensorflow", "flwr", "aquacrop", "unicorn"}),
        ("noria.cli", {"tensorflow", "flwr", "streamlit", "aquacrop", "unicorn"}),
    ],
)
def test_a_role_loads_only_what_its_extra_installs(module, forbidden):
    script = f"import sys, {module}; print(*sorted(name.split('.')[0] for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not forbidden & set(loaded.stdout.split())


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_files_that_the_documentation_names_exist(page):
    named = re.findall(r"`((?:nodes|gateway|server|shared_models|dashboards|noria|tests)/[\w./-]+)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("part", sorted(PARTS | {"benchmarks", "docs", "tests"}))
def test_every_top_folder_says_what_it_is(part):
    assert (ROOT / part / "README.md").read_text(encoding="utf-8").startswith(f"# {part}")
