"""The README's picture: the demo's input (enlarged without filtering it), its result, and the reference it found.

rasr demo --out demo-out && python benchmarks/readme_picture.py demo-out docs/images/demo.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

GAP = 12


def compose(demo: Path) -> Image.Image:
    """Three pictures of one height side by side on white."""
    with Image.open(demo / "degraded.png") as query, Image.open(demo / "restored.png") as restored:
        panels = [query.convert("RGB").resize(restored.size, Image.Resampling.NEAREST), restored.convert("RGB")]
    with Image.open(demo / "gallery-photos" / "motorcycle_right.png") as reference:
        panels.append(reference.convert("RGB").resize(panels[1].size, Image.Resampling.LANCZOS))
    width, height = panels[0].size
    sheet = Image.new("RGB", (3 * width + 2 * GAP, height), "white")
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index * (width + GAP), 0))
    return sheet


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    compose(source).save(target, quality=88)
    print(target, f"{target.stat().st_size / 1000:.0f} kB")
