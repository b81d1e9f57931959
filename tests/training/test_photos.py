"""Photos: found by layout, left out by name, kept decoded within a budget, each with its neighbours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from rasr.errors import ConfigError, PictureError
from rasr.training.photos import DecodedPhotos, find_neighbours, find_photos
from tests.training.standin import make_photos, maker_for, tiny_config


def test_layouts(tmp_path: Path) -> None:
    make_photos(tmp_path / "birds" / "owl", 2)
    make_photos(tmp_path / "fish", 1)
    found = find_photos([tmp_path], "folder", smallest=32)
    assert [photo.category for photo in found.targets] == ["birds/owl", "birds/owl", "fish"]
    assert len(found.gallery) == 3

    lsdir = tmp_path / "lsdir"
    make_photos(lsdir / "0001000", 2)
    make_photos(lsdir / "X4" / "0001000", 2)
    make_photos(lsdir / "val1" / "HR", 1)
    assert [photo.path.parent.name for photo in find_photos([lsdir], "lsdir", smallest=32).targets] == ["0001000"] * 2

    flickr = tmp_path / "flickr"
    for split in ("train", "test", "reference"):
        make_photos(flickr / "okapi" / split, 2)
    found = find_photos([flickr], "flickr30", smallest=32)
    assert {photo.path.parent.name for photo in found.targets} == {"train"}
    assert {path.parent.name for path in found.gallery} == {"reference"}
    assert {photo.category for photo in found.targets} == {"okapi"}


def test_what_cannot_serve_is_left_out_by_name(tmp_path: Path) -> None:
    make_photos(tmp_path, 2)
    Image.fromarray(data.coffee()[:31, :200]).save(tmp_path / "thin.png")
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    for _ in range(2):  # the second time from the remembered sizes
        found = find_photos([tmp_path], "folder", smallest=32)
        assert len(found.targets) == 2
        assert any("thin.png: 200x31 pixels, smaller than the 32-pixel crop" in line for line in found.left_out)
        assert any("torn.jpg" in line for line in found.left_out)
    with pytest.raises(ConfigError, match="no usable photo"):
        find_photos([tmp_path], "folder", smallest=1000)
    with pytest.raises(ConfigError, match="is not a folder"):
        find_photos([tmp_path / "nowhere"], "folder", smallest=32)


def test_decoded_photos_survive_in_the_cache(tmp_path: Path, photos: Path) -> None:
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    photo = find_photos([copy], "folder", smallest=32).targets[0]
    with Image.open(photo.path) as picture:
        expected = np.asarray(picture)
    first = DecodedPhotos(gigabytes=1, folder=tmp_path / "cache")
    assert np.array_equal(first.read(photo), expected)
    photo.path.unlink()
    again = DecodedPhotos(gigabytes=1, folder=tmp_path / "cache")
    assert np.array_equal(again.read(photo), expected), "from the cache, since the file is gone"

    (entry,) = (tmp_path / "cache").glob("*.npy")
    entry.write_bytes(entry.read_bytes()[:200])
    with pytest.raises(PictureError):
        again.read(photo)  # the damaged entry is not believed
    assert not entry.exists()


def test_the_cache_stays_within_its_budget(tmp_path: Path, photos: Path) -> None:
    found = find_photos([photos], "folder", smallest=32).targets
    one = 140 * 140 * 3
    cache = DecodedPhotos(gigabytes=2.5 * one / 1e9, folder=tmp_path / "cache")
    for photo in found:
        cache.read(photo)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2
    none = DecodedPhotos(gigabytes=0, folder=tmp_path / "none")
    none.read(found[0])
    assert not (tmp_path / "none").exists()
    reduced = DecodedPhotos(gigabytes=1, long_side=70, folder=tmp_path / "cache2").read(found[0])
    assert reduced.shape == (70, 70, 3)


def test_photos_held_out_are_neither_targets_nor_references(photos: Path) -> None:
    found = find_photos([photos], "folder", smallest=32)
    held = found.spread(2)
    assert [photo.path.name for photo in held] == ["0.png", "4.png"], "the first and the last"
    assert [photo.path.name for photo in found.spread(9)] == [f"{number}.png" for number in range(5)]
    rest = find_photos([photos], "folder", smallest=32, held_out=held)
    assert [photo.path.name for photo in rest.targets] == ["1.png", "2.png", "3.png"]
    assert list(rest.gallery) == [photo.path for photo in rest.targets]
    with pytest.raises(ConfigError, match="every training photo is used for validation"):
        find_photos([photos], "folder", smallest=32, held_out=found.targets)


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
    assert {maker[n].kind for n in range(6)} == {"retrieved"}
    with pytest.raises(ConfigError, match="1 photos to retrieve from"):
        find_neighbours(found.targets[:1], found.gallery[:1], **options)
