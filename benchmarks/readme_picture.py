"""The README's picture: the demo's input, its result, where its detail is from, and the photo that gave it.

rasr demo --out demo-out && python benchmarks/readme_picture.py demo-out docs/images/demo.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

GAP = 12
WIDTH = 1200


def compose(demo: Path) -> Image.Image:
    """Four pictures of one size on white, two by two; the input is enlarged without filtering it."""
    with Image.open(demo / "degraded.png") as query, Image.open(demo / "restored.png") as restored:
        panels = [query.convert("RGB").resize(restored.size, Image.Resampling.NEAREST), restored.convert("RGB")]
    width, height = panels[0].size
    for name in ("evidence.png", "gallery-photos/motorcycle_right.png"):
        with Image.open(demo / name) as image:
            panels.append(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (2 * width + GAP, 2 * height + GAP), "white")
    for index, panel in enumerate(panels):
        sheet.paste(panel, ((index % 2) * (width + GAP), (index // 2) * (height + GAP)))
    return sheet.resize((WIDTH, round(WIDTH * sheet.height / sheet.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    compose(source).save(target, quality=85)
    print(target, f"{target.stat().st_size / 1000:.0f} kB")
