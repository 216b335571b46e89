"""The C header says what Python says, and a stale one is noticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared_models import codegen, codes
from shared_models.layout import Field, Layout, LayoutError


def test_the_header_in_the_tree_is_current() -> None:
    assert codegen.is_current(), "run python -m shared_models.codegen"


def test_a_stale_or_missing_header_is_noticed(tmp_path: Path) -> None:
    header = tmp_path / "noria_shared.h"
    assert not codegen.is_current(header)
    header.write_text(codegen.render().replace("NORIA_REFUSAL_BASE = 6", "NORIA_REFUSAL_BASE = 7"))
    assert not codegen.is_current(header)


def test_no_name_is_defined_twice() -> None:
    text = codegen.render()
    names = re.findall(r"^#define (\w+)", text, re.MULTILINE) + re.findall(r"^    (NORIA_\w+) =", text, re.MULTILINE)
    assert sorted(names) == sorted(set(names) | {name for name in names if name in {"NORIA_SHARED_H"}})


@pytest.mark.parametrize("name", codegen.CODES)
def test_every_code_has_its_number_in_c(name: str) -> None:
    text = codegen.render()
    for label, member in codegen.CODES[name].__members__.items():
        assert f"NORIA_{name.upper()}_{label} = {member.value}," in text


def test_no_code_that_travels_is_forgotten() -> None:
    from enum import IntEnum

    numbers = {item for item in vars(codes).values() if isinstance(item, type) and issubclass(item, IntEnum)}
    assert numbers - {IntEnum} == set(codegen.CODES.values())


def test_a_record_c_could_not_read_in_place_is_refused() -> None:
    with pytest.raises(LayoutError, match="multiple of 4"):
        Layout("crooked", [Field("a", "u8"), Field("b", "u32")]).c_struct()
    with pytest.raises(LayoutError, match="multiple of 4"):
        Layout("short", [Field("a", "u32"), Field("b", "u8")]).c_struct()


def test_the_documentation_shows_every_layout_as_it_is() -> None:
    from shared_models.container import HEADER_LAYOUT
    from shared_models.frames import (
        EVENT_LAYOUT,
        OVERRIDE_LAYOUT,
        SETTINGS_ENTRY_LAYOUT,
        STATISTICS_LAYOUT,
        TELEMETRY_LAYOUT,
    )
    from shared_models.settings import SETTINGS_LAYOUT, Setting

    text = (codegen.HEADER.parents[4] / "docs/formats.md").read_text(encoding="utf-8")
    for layout in (
        SETTINGS_LAYOUT, TELEMETRY_LAYOUT, EVENT_LAYOUT, STATISTICS_LAYOUT, OVERRIDE_LAYOUT, HEADER_LAYOUT,
        SETTINGS_ENTRY_LAYOUT,
    ):  # fmt: skip
        assert layout.markdown() in text, f"docs/formats.md: table of {layout.name} is stale"
    assert ", ".join(f"{setting.value} {setting.name.lower()}" for setting in Setting) in text
