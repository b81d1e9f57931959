"""Photos in a gallery: the hash that tells pictures apart."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image
from skimage import data

from rasr.gallery.photo import perceptual_hash


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket", "noise", "flat", "ramp", "black"])
def test_the_perceptual_hash_is_imagehashs(name: str) -> None:
    """On the same 32×32 levels: hashes stand in galleries and manifests."""
    made = {
        "noise": np.random.default_rng(0).random((70, 40, 3), np.float32),
        "flat": np.full((9, 9, 3), 0.3, np.float32),
        "ramp": np.repeat(np.linspace(0, 1, 120, dtype=np.float32)[None, :, None], 40, 0).repeat(3, 2),
        "black": np.zeros((50, 50, 3), np.float32),
    }
    pixels = made[name] if name in made else getattr(data, name)().astype(np.float32) / 255
    luma = Image.fromarray(pixels @ np.array([0.299, 0.587, 0.114], np.float32))
    small = np.asarray(luma.resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=3.0))
    expected = imagehash.phash(Image.fromarray(np.clip(small * 255 + 0.5, 0, 255).astype(np.uint8)))
    assert f"{perceptual_hash(pixels):016x}" == str(expected)
