"""Takes pictures of a running dashboard: ``python -m dashboards.screenshot --url URL --output DIR``.

Farmer overview, a field and the operators' pages, each 1280 and 390 pixels wide, light and dark. Requests to
any other machine are refused and make the command fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = {1280: 900, 390: 844}
FARMER_PAGES = {"overview": "", "field": "field"}
OPERATOR_PAGES = {"fleet": "fleet", "releases": "releases", "campaigns": "campaigns"}


@dataclass
class Visitor:
    """A browser at a dashboard, and every address elsewhere that a page tried to reach."""

    browser: Any
    url: str
    outside: list[str] = field(default_factory=list)

    @contextmanager
    def page(self, width: int = 1280, *, dark: bool = False) -> Iterator[Any]:
        """A fresh page that cannot reach other machines."""
        context = self.browser.new_context(
            viewport={"width": width, "height": WIDTHS.get(width, 900)},
            color_scheme="dark" if dark else "light",
            device_scale_factor=2 if width < 600 else 1,
            is_mobile=width < 600,
            has_touch=width < 600,
        )
        host = urlsplit(self.url).netloc

        def only_here(route: Any) -> None:  # noqa: ANN401
            target = urlsplit(route.request.url)
            if target.scheme in {"data", "blob"} or target.netloc == host:
                route.continue_()
            else:
                self.outside.append(route.request.url)
                route.abort()

        context.route("**/*", only_here)
        try:
            yield context.new_page()
        finally:
            context.close()

    def open(self, page: Any, path: str, timeout_s: float = 30.0) -> None:  # noqa: ANN401
        """Go to a page and wait until Streamlit has drawn all of it."""
        page.goto(f"{self.url.rstrip('/')}/{path}")
        self.settle(page, timeout_s)

    def settle(self, page: Any, timeout_s: float = 30.0) -> None:  # noqa: ANN401
        """Wait until the script has run and every chart has its canvas."""
        milliseconds = timeout_s * 1000
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=milliseconds)
        page.wait_for_function(
            "[...document.querySelectorAll('[data-testid=stVegaLiteChart]')].every(c => c.querySelector('canvas, svg'))"
            " && !document.querySelector('[data-testid=stSkeleton]')",
            timeout=milliseconds,
        )


@contextmanager
def visiting(url: str) -> Iterator[Visitor]:
    """Chromium at ``url``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield Visitor(browser, url)
        finally:
            browser.close()


def take(url: str, output: Path, *, operator: bool = True, dark: bool = True) -> list[Path]:
    """Write the pictures and return their paths.

    Raises:
        RuntimeError: a page tried to reach another machine.
    """
    with visiting(url) as visitor:
        return picture(visitor, output, operator=operator, dark=dark)


def picture(
    visitor: Visitor, output: Path, *, operator: bool, dark: bool, widths: Iterable[int] = tuple(WIDTHS)
) -> list[Path]:
    """:func:`take` with a browser that is already there."""
    output.mkdir(parents=True, exist_ok=True)
    pages = FARMER_PAGES | (OPERATOR_PAGES if operator else {})
    taken = []
    for width in widths:
        for shade in (False, True) if dark else (False,):
            with visitor.page(width, dark=shade) as page:
                for name, path in pages.items():
                    visitor.open(page, path)
                    # Charts ease in; the picture is taken after the last frame.
                    page.wait_for_timeout(600)
                    target = output / f"{name}-{width}{'-dark' if shade else ''}.png"
                    _whole(page, target, width)
                    taken.append(target)
    if visitor.outside:
        raise RuntimeError(f"pages asked other machines: {sorted(set(visitor.outside))}")
    return taken


def _whole(page: Any, target: Path, width: int) -> None:  # noqa: ANN401
    """The page in full: Streamlit scrolls inside a container, so the window is made as tall as its content."""
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": width, "height": max(WIDTHS[width], min(int(height), 6000))})
    page.wait_for_timeout(400)
    page.screenshot(path=str(target))
    page.set_viewport_size({"width": width, "height": WIDTHS[width]})


def main(
    url: Annotated[str, typer.Option(help="Where the dashboard runs.")],
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    operator: Annotated[bool, typer.Option(help="Operators' pages too.")] = True,
    dark: Annotated[bool, typer.Option(help="Dark pictures too.")] = True,
) -> None:
    """Take pictures of every page."""
    for path in take(url, output, operator=operator, dark=dark):
        typer.echo(str(path))


if __name__ == "__main__":
    typer.run(main)
