"""Pixels: every operation against a plain re-computation, exact sizes, and the same bytes everywhere."""

from __future__ import annotations

import hashlib
import io
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.special import jv
from skimage import data

from rasr.degrade import Recipe, apply_recipe, crop_to_multiple, degrade, degrade_array, degrade_batch, draw
from rasr.degrade import apply as operations
from rasr.degrade.apply import _kernel_array, _usm_kernel
from rasr.degrade.presets import KERNEL_KINDS
from rasr.degrade.recipe import GaussianKernel, Noise, SincKernel
from rasr.errors import PictureError
from rasr.images import FloatImage


@pytest.fixture(scope="module")
def photo() -> Any:
    return (data.astronaut()[:256, :192] / 255).astype(np.float32)


def tensor(pixels: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def array(pixels: Any) -> Any:
    return pixels.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [7, 13, 21])
def test_filtering_is_correlation_with_mirrored_borders(photo: FloatImage, size: int) -> None:
    kernel = _kernel_array(GaussianKernel(kind="aniso", size=size, sigma_x=3, sigma_y=1, angle=0.4))
    got = array(operations._filter(tensor(photo), kernel))
    for channel in range(3):
        expected = ndimage.correlate(photo[..., channel].astype(np.float64), kernel, mode="mirror")
        np.testing.assert_allclose(got[..., channel], expected, atol=2e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (4, 3), (10, 11)])
def test_filtering_survives_pictures_smaller_than_the_kernel(shape: Any) -> None:
    pixels = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    kernel = _kernel_array(SincKernel(size=21, cutoff=1.2))
    got = array(operations._filter(tensor(pixels), kernel))
    expected = ndimage.correlate(pixels[..., 0].astype(np.float64), kernel, mode="mirror")
    np.testing.assert_allclose(got[..., 0], expected, atol=2e-6)


@pytest.mark.parametrize("gray", [True, False])
def test_gaussian_noise_has_the_recipes_level(gray: bool) -> None:
    flat = torch.full((3, 200, 200), 0.5)
    noise = operations._add_noise(flat, Noise(kind="gaussian", level=12.0, gray=gray, seed=5)).numpy() - 0.5
    assert abs(noise.std() * 255 - 12) < 0.2
    assert abs(noise.mean() * 255) < 0.2
    assert np.array_equal(noise[0], noise[1]) == gray


@pytest.mark.parametrize("gray", [True, False])
def test_poisson_noise_has_the_variance_of_shot_noise(gray: bool) -> None:
    """Two grey levels → 2^⌈log₂ 2⌉ = 2 counts at full white: variance level²·x/2."""
    half = torch.full((3, 300, 300), 128 / 255)
    half[:, :, 150:] = 64 / 255
    noise = Noise(kind="poisson", level=0.1, gray=gray, seed=9)
    drawn = (operations._add_noise(half, noise) - half).numpy()
    assert abs(drawn[..., :150].std() - 0.1 * np.sqrt(128 / 255 / 2)) < 2e-3
    assert abs(drawn[..., 150:].std() - 0.1 * np.sqrt(64 / 255 / 2)) < 2e-3
    assert np.allclose(drawn[0], drawn[2], atol=1e-6) == gray


def test_noise_is_drawn_from_its_own_seed(photo: FloatImage) -> None:
    noise = Noise(kind="gaussian", level=10, gray=False, seed=1)
    again = operations._add_noise(tensor(photo), noise)
    assert torch.equal(operations._add_noise(tensor(photo), noise), again)
    assert not torch.equal(operations._add_noise(tensor(photo), noise.model_copy(update={"seed": 2})), again)


def test_jpeg_is_the_real_codec(photo: FloatImage) -> None:
    got = array(operations._jpeg(tensor(photo), 40.4))
    file = io.BytesIO()
    Image.fromarray(np.rint(photo * 255).astype(np.uint8)).save(file, "JPEG", quality=40, subsampling=2)
    expected = np.asarray(Image.open(file))
    assert np.array_equal(np.rint(got * 255).astype(np.uint8), expected)
    worse = array(operations._jpeg(tensor(photo), 10))
    assert np.mean((worse - photo) ** 2) > np.mean((got - photo) ** 2)


def test_the_unsharp_mask_matches_its_definition(photo: FloatImage) -> None:
    got = array(operations._sharpen(tensor(photo)))
    plane = photo[..., 1].astype(np.float64)
    residual = plane - ndimage.correlate(plane, _usm_kernel(), mode="mirror")
    mask = ndimage.correlate((np.abs(residual) * 255 > 10).astype(np.float64), _usm_kernel(), mode="mirror")
    expected = mask * np.clip(plane + 0.5 * residual, 0, 1) + (1 - mask) * plane
    assert np.quantile(np.abs(got[..., 1] - expected), 0.999) < 1e-4  # a pixel on the threshold may fall either way
    assert got.std() > photo.std()


def test_usm_changes_the_lq_and_nothing_else_in_the_recipe(photo: FloatImage) -> None:
    plain, recipe = degrade(photo, seed=3, name="a")
    sharp, sharp_recipe = degrade(photo, seed=3, name="a", usm=True)
    assert {**recipe, "usm": True} == sharp_recipe
    assert not np.array_equal(plain, sharp)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    scale=st.sampled_from([1, 2, 3, 4, 8]),
    seed=st.integers(0, 10**6),
    preset=st.sampled_from(["realesrgan", "light"]),
)
def test_lq_sizes_are_exact_and_values_are_8_bit_levels(
    height: int, width: int, scale: int, seed: int, preset: str
) -> None:
    hr = np.random.default_rng(seed).random((height * scale, width * scale, 3), dtype=np.float32)
    lq, _ = degrade(hr, preset=preset, scale=scale, seed=seed, name="x")
    assert lq.shape == (height, width, 3)
    assert lq.dtype == np.float32
    assert lq.min() >= 0
    assert lq.max() <= 1
    np.testing.assert_allclose(lq * 255, np.rint(lq * 255), atol=1e-4)


@given(height=st.integers(4, 60), width=st.integers(4, 60), scale=st.sampled_from([1, 2, 3, 4]))
@settings(max_examples=30, deadline=None)
def test_crop_to_multiple_keeps_the_top_left(height: int, width: int, scale: int) -> None:
    pixels = np.arange(height * width * 3, dtype=np.float32).reshape(height, width, 3)
    cropped = crop_to_multiple(pixels, scale)
    assert cropped.shape[0] % scale == cropped.shape[1] % scale == 0
    assert height - cropped.shape[0] < scale
    assert np.array_equal(cropped, pixels[: cropped.shape[0], : cropped.shape[1]])


def test_sizes_that_do_not_divide_are_refused_with_the_size() -> None:
    with pytest.raises(PictureError, match="10x9"):
        degrade(np.zeros((9, 10, 3), np.float32), seed=0, name="a")
    with pytest.raises(PictureError, match="3x2"):
        crop_to_multiple(np.zeros((2, 3, 3), np.float32), 4)


def test_a_batch_equals_its_pictures_one_by_one(photo: FloatImage) -> None:
    crops = [photo[:128, :128], photo[64:192, :128], photo[128:, 64:]]
    recipes = [draw("light", seed=1, name=str(i)) for i in range(3)]
    batch = degrade_batch(torch.stack([tensor(crop) for crop in crops]), recipes)
    assert batch.shape == (3, 3, 32, 32)
    for lq, crop, recipe in zip(batch, crops, recipes, strict=True):
        assert np.array_equal(array(lq), degrade_array(crop, recipe))
    with pytest.raises(ValueError, match="3 pictures"):
        degrade_batch(torch.zeros(3, 3, 8, 8), recipes[:2])


def test_a_stored_manifest_rebuilds_the_same_pixels(photo: FloatImage) -> None:
    lq, manifest = degrade(photo, seed=11, name="owl.jpg")
    assert np.array_equal(degrade_array(photo, Recipe.model_validate(manifest)), lq)


def test_degradation_loses_detail_and_keeps_brightness(photo: FloatImage) -> None:
    """The mean over many recipes, so that no single draw decides."""
    plain = photo.reshape(64, 4, 48, 4, 3).mean((1, 3))
    errors = {"realesrgan": [], "light": []}
    for preset, values in errors.items():
        for i in range(12):
            lq, _ = degrade(photo, preset=preset, seed=i, name="a")
            assert abs(lq.mean() - photo.mean()) < 0.06
            values.append(np.mean((lq - plain) ** 2))
    assert np.mean(errors["realesrgan"]) > 1.3 * np.mean(errors["light"]) > 0


def test_no_gradient_passes() -> None:
    hr = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert not degrade_batch(hr, [draw(seed=0, name="a")]).requires_grad
    assert apply_recipe(hr.detach()[0], draw(seed=0, name="a")).shape == (3, 8, 8)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_fresh_process_gives_the_same_bytes_whatever_its_threads(photo: FloatImage, threads: str) -> None:
    digest = hashlib.sha256()
    for i in range(6):
        digest.update(degrade(photo, seed=4, name=f"{i}")[0].tobytes())
    script = (
        "import hashlib, numpy as np\n"
        "from skimage import data\n"
        "from rasr.degrade import degrade\n"
        "photo = (data.astronaut()[:256, :192] / 255).astype(np.float32)\n"
        "digest = hashlib.sha256()\n"
        "for i in range(6): digest.update(degrade(photo, seed=4, name=str(i))[0].tobytes())\n"
        "print(digest.hexdigest())"
    )
    import os

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
    )
    assert done.stdout.strip() == digest.hexdigest()


@pytest.mark.parametrize("kind", KERNEL_KINDS)
def test_gaussian_families_match_the_matrix_form(kind: str) -> None:
    kernel = GaussianKernel(kind=kind, size=9, sigma_x=2.0, sigma_y=0.7, angle=0.6, beta=1.7)
    rotation = np.array([[math.cos(0.6), -math.sin(0.6)], [math.sin(0.6), math.cos(0.6)]])
    inverse = np.linalg.inv(rotation @ np.diag([4.0, 0.49]) @ rotation.T)
    expected = np.zeros((9, 9))
    for row in range(9):
        for column in range(9):
            point = np.array([column - 4, row - 4])
            q = point @ inverse @ point
            expected[row, column] = 1 / (1 + q**1.7) if "plateau" in kind else math.exp(-0.5 * q**1.7)
    np.testing.assert_allclose(_kernel_array(kernel), expected / expected.sum(), rtol=1e-10)


def test_beta_one_is_the_ordinary_gaussian() -> None:
    plain = GaussianKernel(kind="iso", size=21, sigma_x=1.3, sigma_y=1.3)
    axis = np.exp(-0.5 * (np.arange(-10, 11) / 1.3) ** 2)
    np.testing.assert_allclose(_kernel_array(plain), np.outer(axis, axis) / axis.sum() ** 2, rtol=1e-12)


def test_sinc_matches_the_formula_and_passes_low_frequencies_only() -> None:
    cutoff = math.pi / 3
    weights = _kernel_array(SincKernel(size=21, cutoff=cutoff))
    expected = np.zeros((21, 21))
    for row in range(21):
        for column in range(21):
            r = math.hypot(row - 10, column - 10)
            expected[row, column] = (
                cutoff**2 / (4 * math.pi) if r == 0 else cutoff * jv(1, cutoff * r) / (2 * math.pi * r)
            )
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-9, atol=1e-15)
    response = np.abs(np.fft.fft2(weights, (128, 128)))
    assert abs(response[0, 4] - 1) < 0.1
    assert response[0, 40] < 0.1


@pytest.mark.parametrize("size", [7, 21])
@pytest.mark.parametrize("sigma", [0.2, 3.0])
def test_every_kernel_sums_to_one_and_is_symmetric(size: int, sigma: float) -> None:
    for kind in KERNEL_KINDS:
        weights = _kernel_array(
            GaussianKernel(kind=kind, size=size, sigma_x=sigma, sigma_y=3.2 - sigma, angle=1, beta=0.5)
        )
        assert np.isfinite(weights).all()
        assert math.isclose(weights.sum(), 1, rel_tol=1e-12)
        np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-15)


def test_the_unsharp_mask_is_51_pixels_wide() -> None:
    assert _usm_kernel().shape == (51, 51)
    assert math.isclose(_usm_kernel()[25, 25] / _usm_kernel()[25, 33], math.exp(0.5))
