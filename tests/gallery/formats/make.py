"""Makes the gallery of the current format that later versions must still open: ``make.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
from standin import ColourLayout, make_picture

from rasr.gallery import Gallery

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    gallery = Gallery(folder, encoder=ColourLayout())
    for seed, name in enumerate(["cat/a", "cat/b", "dog/c", "d"]):
        make_picture(folder / "pictures" / f"{name}.png", seed, (24, 16))
    gallery.add(folder / "pictures", tags=["kept"])
    gallery.remove([folder / "pictures" / "d.png"])
    (folder / "pictures" / "d.png").unlink()
