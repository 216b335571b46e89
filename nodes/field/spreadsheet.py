"""Reads the first sheet of an Office Open XML workbook: a row of headings, then numbers."""

from __future__ import annotations

import re
import zipfile
from io import BytesIO
from xml.etree import ElementTree

_NAMESPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def first_sheet(workbook: bytes) -> list[dict[str, float]]:
    """The rows under the headings, each by heading; cells that are empty or hold no number are left out.

    Args:
        workbook: an ``.xlsx`` file that is trusted, since XML is not parsed defensively.
    """
    with zipfile.ZipFile(BytesIO(workbook)) as parts:
        strings = ElementTree.fromstring(parts.read("xl/sharedStrings.xml"))  # noqa: S314 (trusted, see above)
        sheet = ElementTree.fromstring(parts.read("xl/worksheets/sheet1.xml"))  # noqa: S314
    texts = ["".join(item.itertext()) for item in strings.iter(f"{_NAMESPACE}si")]
    headings: dict[str, str] = {}
    rows = []
    for row in sheet.iter(f"{_NAMESPACE}row"):
        numbers = {}
        for cell in row.iter(f"{_NAMESPACE}c"):
            column = re.sub(r"\d", "", cell.get("r", ""))
            value = cell.findtext(f"{_NAMESPACE}v")
            if value is None:
                continue
            if cell.get("t") == "s":
                headings.setdefault(column, texts[int(value)])
            elif cell.get("t", "n") == "n" and column in headings:
                numbers[headings[column]] = float(value)
        if numbers:
            rows.append(numbers)
    return rows
