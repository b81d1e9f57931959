"""Neighbours: the most similar other photos, never the photo itself or its duplicates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rasr.errors import ConfigError
from rasr.training.neighbours import find_neighbours
from rasr.training.photos import find_photos
from tests.training.standin import maker_for, tiny_config


def test_retrieved_references_exclude_the_target_and_its_duplicates(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    with Image.open(folder / "0.png") as picture:
        picture.save(folder / "0-again.jpg", quality=92)
    found = find_photos([folder], "folder", smallest=32)
    options: dict[str, Any] = {"gallery": None, "encoder": None, "top_k": 3}
    rows = find_neighbours(found.targets, found.gallery, **options)
    for photo, row in zip(found.targets, rows, strict=True):
        names = [Path(path).name for path, _ in row]
        assert len(names) == 3
        assert photo.path.name not in names
        if photo.path.name in {"0.png", "0-again.jpg"}:
            assert not {"0.png", "0-again.jpg"} & set(names)
        assert [score for _, score in row] == sorted((score for _, score in row), reverse=True)
    assert find_neighbours(found.targets, found.gallery, **options) == rows

    config = tiny_config(folder, references__phases=[{"mix": {"retrieved": 1.0}}])
    maker = maker_for(config, neighbours=rows)
    assert {maker.make(n).kind for n in range(6)} == {"retrieved"}
    with pytest.raises(ConfigError, match="1 photos to retrieve from"):
        find_neighbours(found.targets[:1], found.gallery[:1], **options)
