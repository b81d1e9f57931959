"""A photo set small enough for a test, in the layout of ``manifest.csv`` and ``SPLIT/CATEGORY/ID.png``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

SIDE = 72


@pytest.fixture(scope="session")
def photo_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three unrelated categories, one photo of each for the test split."""
    root = tmp_path_factory.mktemp("photo-set")
    sources = {"cat": (data.chelsea(), 24), "night-sky": (data.hubble_deep_field(), 6), "texture": (data.coffee(), 6)}
    with (root / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "category", "split"))
        for category, (picture, count) in sources.items():
            for index in range(count):
                split = "test" if index == 0 else "train"
                top, left = 9 * index, 15 * index
                name = f"{category}_{index:03}"
                path = root / split / category / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                crop = np.ascontiguousarray(picture[top : top + SIDE, left : left + SIDE])
                Image.fromarray(crop).save(path)
                rows.writerow((name, category, split))
    return root
