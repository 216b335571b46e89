"""Draws the dashboard's icon: a drop above a field's furrows. ``python -m dashboards.icon`` rewrites it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

ICON = Path(__file__).with_name("icon.png")
_SCALE = 4


def draw(size: int = 128) -> Image.Image:
    """The icon, drawn large and scaled down so that edges are smooth."""
    side = size * _SCALE
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    unit = side / 32
    pen.rounded_rectangle((0, 0, side - 1, side - 1), radius=round(7 * unit), fill="#16324a")
    for furrow, colour in enumerate(("#7fb069", "#5f9150", "#43723a")):
        top = (20.5 + 3.4 * furrow) * unit
        pen.rounded_rectangle((4 * unit, top, 28 * unit, top + 2.2 * unit), radius=round(unit), fill=colour)
    pen.polygon(((16 * unit, 3 * unit), (20.6 * unit, 10.4 * unit), (11.4 * unit, 10.4 * unit)), fill="#6fb1f2")
    pen.ellipse((10.8 * unit, 7.6 * unit, 21.2 * unit, 18 * unit), fill="#6fb1f2")
    pen.ellipse((13 * unit, 12 * unit, 15.4 * unit, 15.4 * unit), fill="#d7ebff")
    return image.resize((size, size), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    draw().save(ICON, optimize=True)
