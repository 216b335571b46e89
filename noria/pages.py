"""Pages of the documentation whose tables are measured: each stands between two marks and is replaced whole."""

from __future__ import annotations

import re


def with_table(page: str, name: str, table: str) -> str:
    """The page with what stands between a table's two marks replaced.

    Raises:
        ValueError: the marks are not there.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no marks of the table {name}")
    return pattern.sub(lambda match: f"{match[1]}{table}\n{match[2]}", page)
