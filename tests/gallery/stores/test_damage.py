"""A flipped byte in a Lance table: `verify` reports it, and no search answers with it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from rasr.errors import GalleryError
from rasr.gallery import Gallery
from tests.gallery.standin import ColourLayout

pytest.importorskip("lancedb")


def content(gallery: Gallery) -> dict[str, bytes]:
    photos, vectors = gallery.embeddings()
    return {repr(photo): np.asarray(vector).tobytes() for photo, vector in zip(photos, vectors, strict=True)}


def flips(tmp_path: Path, photos: Path, count: int, seed: int) -> tuple[int, int]:
    """Flip one bit at a time: (reported, without any effect)."""
    sound = tmp_path / "sound"
    gallery = Gallery(f"lance://{sound}", encoder=ColourLayout())
    gallery.add(photos)
    expected = content(gallery)
    files = [path.relative_to(sound) for path in sorted(sound.rglob("*")) if path.suffix == ".lance" and path.is_file()]
    newest = min((sound / "photos.lance" / "_versions").iterdir()).relative_to(sound)
    rng = random.Random(seed)
    reported = harmless = 0
    for number in range(count):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(sound, copy)
        file = copy / (newest if number % 4 == 3 else rng.choice(files))
        data = bytearray(file.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        damaged = Gallery(f"lance://{copy}", encoder=ColourLayout())
        try:
            report = damaged.verify()
        except GalleryError:
            reported += 1
        else:
            if report.ok:
                assert content(damaged) == expected, f"{file}: another content, and nothing was said"
                harmless += 1
            else:
                reported += 1
                with pytest.raises(GalleryError):
                    content(damaged)
        shutil.rmtree(copy)
    return reported, harmless


def test_a_flipped_bit_is_reported_or_without_effect(tmp_path: Path, photos: Path) -> None:
    reported, _ = flips(tmp_path, photos, 24, 1)
    assert reported >= 6


@pytest.mark.large
@pytest.mark.timeout(1800)
def test_400_flipped_bits(tmp_path: Path, photos: Path) -> None:
    reported, harmless = flips(tmp_path, photos, 400, 2)
    assert reported + harmless == 400
    assert reported >= 200


def test_every_byte_of_a_vector_and_of_an_entry_counts(tmp_path: Path, photos: Path) -> None:
    place = tmp_path / "gallery"
    gallery = Gallery(f"lance://{place}", encoder=ColourLayout())
    gallery.add(photos)
    (file,) = (place / "photos.lance" / "data").iterdir()
    data = file.read_bytes()
    stored = np.asarray(gallery.embeddings()[1])[5].tobytes()
    where = data.index(stored)
    for offset in range(0, len(stored), 37):
        changed = bytearray(data)
        changed[where + offset] ^= 1
        file.write_bytes(changed)
        opened = Gallery(f"lance://{place}", encoder=ColourLayout())
        report = opened.verify()
        assert not report.ok
        with pytest.raises(GalleryError, match="checksum"):
            opened.search(photos / "07.png", 1)
    file.write_bytes(data)
    assert Gallery(f"lance://{place}", encoder=ColourLayout()).verify().ok
