"""What is measured on photos, on photos whose answer is known."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from rasr.dataset.measure import _jpeg_quality, blockiness, blur, measure
from rasr.errors import PictureError

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _luma(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), np.float32) / 255 @ LUMA


def _saved(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


@pytest.fixture(scope="module", params=["astronaut", "coffee", "chelsea"])
def photo(request: pytest.FixtureRequest) -> Image.Image:
    return Image.fromarray(getattr(data, request.param)())


@pytest.mark.parametrize("quality", [20, 35, 50, 60, 75, 90, 95])
def test_jpeg_quality_is_read_from_the_tables(tmp_path: Path, photo: Image.Image, quality: int) -> None:
    photo.save(tmp_path / "a.jpg", quality=quality)
    assert _jpeg_quality(tmp_path / "a.jpg") == pytest.approx(quality, abs=1)


def test_blocks_are_seen_also_after_saving_again_at_high_quality(photo: Image.Image) -> None:
    clean = blockiness(_luma(photo))
    assert clean < 1.5
    assert blockiness(_luma(_saved(photo, 15))) > clean + 0.4
    assert blockiness(_luma(_saved(_saved(photo, 15), 95))) > clean + 0.4


def test_blur_grows_with_the_blur_and_one_sharp_part_is_enough(photo: Image.Image) -> None:
    levels = [blur(_luma(photo.filter(ImageFilter.GaussianBlur(radius)) if radius else photo)) for radius in (0, 2, 5)]
    assert levels == sorted(levels)
    assert levels[2] > levels[0] + 0.2
    soft = photo.filter(ImageFilter.GaussianBlur(6))
    box = (0, 0, photo.width // 2, photo.height // 2)
    soft.paste(photo.crop(box), box)
    assert blur(_luma(soft)) < levels[2] - 0.1


def test_flat_pictures_are_blurred_not_an_error() -> None:
    assert blur(np.zeros((64, 64), np.float32)) == 1.0
    assert blockiness(np.zeros((64, 64), np.float32)) == pytest.approx(1.0)


def test_small_files_are_refused_by_their_header(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "a.png")
    with pytest.raises(PictureError, match=f"{photo.width}x{photo.height}"):
        measure(tmp_path / "a.png", 5000)


def test_extremely_thin_pictures_are_measured(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1, 900, 3), np.uint8)).save(tmp_path / "a.png")
    measures, _ = measure(tmp_path / "a.png", 1)
    assert 0 <= measures.blur <= 1
