"""Resolution that a picture really has: told by its edges, whatever noise, grain, JPEG or sharpening lie over them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

import rasr.restoration.resolution as module
from rasr.images import FloatImage, Picture, resize
from rasr.restoration import Restorer, TargetSize, tiles
from rasr.restoration.resolution import estimate_blur, put_back, reduce_blurred, sharp_size, tell_reduced
from tests.restoration.conftest import Local, Scene


@pytest.fixture(scope="module")
def sharp() -> FloatImage:
    """An astronaut, (512, 512, 3)."""
    return (data.astronaut() / 255).astype(np.float32)


def blurred(pixels: FloatImage, sigma: float) -> FloatImage:
    return gaussian_filter(pixels, (sigma, sigma, 0), mode="reflect")


def noisy(pixels: FloatImage, levels: float) -> FloatImage:
    noise = np.random.default_rng(0).normal(0, levels / 255, pixels.shape)
    return np.clip(pixels + noise, 0, 1).astype(np.float32)


def jpeg(pixels: FloatImage, quality: int) -> FloatImage:
    file = io.BytesIO()
    Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / np.float32(255)


def grain(pixels: FloatImage) -> FloatImage:
    """That of film: coarser than a pixel, the same in all colours."""
    clumps = gaussian_filter(np.random.default_rng(1).normal(0, 1, pixels.shape[:2]), 0.7)
    return np.clip(pixels + 12 / 255 * clumps[..., None] / clumps.std(), 0, 1).astype(np.float32)


def sharpened(pixels: FloatImage, radius: float) -> FloatImage:
    return np.clip(2 * pixels - blurred(pixels, radius), 0, 1)


@pytest.mark.parametrize("sigma", [2, 3, 4, 6])
@pytest.mark.parametrize(
    "spoil",
    [lambda p: p, lambda p: noisy(p, 8), lambda p: jpeg(noisy(p, 4), 75), lambda p: jpeg(p, 50)],
    ids=["clean", "noise", "noise and jpeg", "jpeg"],
)
def test_the_blur_of_a_photo_is_told_whatever_lies_over_it(
    sharp: FloatImage, sigma: float, spoil: Callable[[FloatImage], FloatImage]
) -> None:
    assert 0.5 * sigma <= estimate_blur(spoil(blurred(sharp, sigma))) <= 1.5 * sigma


def test_more_blur_is_never_told_as_less(sharp: FloatImage) -> None:
    told = [estimate_blur(blurred(sharp, sigma)) for sigma in (0.5, 1, 1.5, 2, 3, 4, 5, 6)]
    assert told == sorted(told)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p, lambda p: noisy(p, 15), grain, lambda p: jpeg(p, 40), lambda p: sharpened(p, 1.0),
        lambda p: sharpened(p, 3.0), lambda p: blurred(p, 0.8),
        lambda p: np.where(np.arange(512)[:, None, None] < 200, p, blurred(p, 8)),
    ],
    ids=["photo", "noise", "grain", "jpeg", "oversharpened", "halos", "a little soft", "background out of focus"],
)  # fmt: skip
def test_a_sharp_photo_stays_as_it_is(sharp: FloatImage, spoil: Callable[[FloatImage], FloatImage]) -> None:
    pixels = spoil(sharp)
    assert sharp_size(pixels) is None
    kept, blur = reduce_blurred(pixels)
    assert kept is pixels
    assert blur == 0
    assert tell_reduced(pixels, kept) == []


def test_where_there_are_no_edges_nothing_is_said() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 400, dtype=np.float32)[:, None, None], (400, 300, 3))
    for pixels in (np.full((300, 300, 3), 0.4, np.float32), ramp, noisy(np.full((300, 300, 3), 0.5, np.float32), 10)):
        assert sharp_size(np.ascontiguousarray(pixels)) is None


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 260), width=st.integers(1, 260), seed=st.integers(0, 9))
def test_any_picture_keeps_its_shape_or_is_reduced_to_no_less_than_the_smallest(
    height: int, width: int, seed: int
) -> None:
    pixels = blurred(np.random.default_rng(seed).random((height, width, 3), np.float32), 3) * 6 - 2.5
    reduced, blur = reduce_blurred(np.clip(pixels, 0, 1))
    assert (blur > 0) == (reduced.shape != pixels.shape)
    assert reduced.dtype == np.float32
    assert 0 <= reduced.min() <= reduced.max() <= 1
    if min(height, width) < module.LARGE:
        assert reduced.shape == pixels.shape
    assert reduced.shape[0] <= height
    assert reduced.shape[1] <= width
    assert min(reduced.shape[:2]) >= min(height, width, module.SMALLEST)


def test_the_more_a_picture_is_to_be_enlarged_the_blurrier_it_must_be(sharp: FloatImage) -> None:
    soft = blurred(sharp, 2)
    assert sharp_size(soft) is not None
    assert sharp_size(soft, 2) == sharp_size(soft)
    assert sharp_size(soft, 4) is None
    assert sharp_size(blurred(sharp, 6), 4) is not None


def test_windows_do_not_show(sharp: FloatImage, monkeypatch: pytest.MonkeyPatch) -> None:
    soft = blurred(sharp, 3)
    whole = estimate_blur(soft)
    monkeypatch.setattr(module, "WINDOW", 100)
    assert estimate_blur(soft) == pytest.approx(whole, rel=0.02)


@pytest.fixture
def moss(sharp: FloatImage) -> tuple[FloatImage, FloatImage, FloatImage]:
    """A photo; it blurred; and a result that drew leaves of a few pixels larger than they are."""
    leaves = gaussian_filter(np.random.default_rng(3).random((512, 512, 1), np.float32), (2, 2, 0))
    photo = np.clip(0.5 * sharp + 2 * (leaves - 0.5) + 0.25, 0, 1)
    result = np.clip(0.5 * sharp + 2 * (np.roll(leaves, 9, 0) - 0.5) + 0.25, 0, 1)
    return photo, blurred(photo, 2), result


def test_what_the_picture_plainly_shows_is_put_back(moss: tuple[FloatImage, FloatImage, FloatImage]) -> None:
    photo, shown, result = moss

    def off(pixels: FloatImage, truth: FloatImage) -> float:
        return float(np.square(pixels - truth).mean())

    mended = result.copy()
    put_back(mended, shown, 2 / module.TOLD)
    assert mended.dtype == np.float32
    assert 0 <= mended.min() <= mended.max() <= 1
    assert off(blurred(mended, 2), shown) < 0.15 * off(blurred(result, 2), shown)
    assert off(mended, photo) < 0.3 * off(result, photo)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_wide_blur_is_computed_on_a_coarser_grid_with_the_same_result(
    moss: tuple[FloatImage, FloatImage, FloatImage], scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, _, result = moss
    fine = np.clip(resize(result, (512 * scale, 512 * scale)), 0, 1)
    coarse, before = fine.copy(), fine.copy()
    shown = blurred(photo, 8)
    put_back(coarse, shown, 8 / module.TOLD)
    monkeypatch.setattr(module, "COARSE", 1000)
    put_back(fine, shown, 8 / module.TOLD)
    assert np.abs(coarse - fine).max() < 0.05 * np.abs(fine - before).max()


def test_a_result_that_agrees_with_the_picture_keeps_its_detail(sharp: FloatImage) -> None:
    mended = sharp.copy()
    put_back(mended, blurred(sharp, 2), 2 / module.TOLD)
    assert np.abs(mended - sharp).max() < 2e-3
    untouched = sharp.copy()
    put_back(untouched, 1 - sharp, 0)
    assert np.array_equal(untouched, sharp)


def test_noise_is_not_put_back_with_it(sharp: FloatImage) -> None:
    mended = sharp.copy()
    put_back(mended, noisy(blurred(sharp, 2), 4), 2 / module.TOLD)
    assert (mended - sharp).std() < 0.5 * 4 / 255


@pytest.mark.parametrize("size", [(512, 512), (300, 451), (700, 613)])
def test_strips_do_not_show_in_what_is_put_back(
    moss: tuple[FloatImage, FloatImage, FloatImage], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, shown, result = moss
    one = np.clip(resize(result, size), 0, 1)
    many = one.copy()
    monkeypatch.setattr(tiles, "ROWS", 2000)
    put_back(one, shown, 2)
    monkeypatch.setattr(tiles, "ROWS", 37)
    put_back(many, shown, 2)
    assert np.abs(one - many).max() < 1e-6


def test_a_blurred_picture_is_restored_where_it_is_sharp_and_comes_back_in_the_size_asked_for(
    sharp: FloatImage,
) -> None:
    generator = Local(scale=4, grid="input")
    soft = blurred(sharp, 4)[:400]
    result = Restorer(generator)(Picture(soft), size=TargetSize(scale=1))
    width, height = result.settings["reduced_to"]
    assert 1 / 5 < width / 512 < 1 / 2
    assert abs(width / height - 512 / 400) < 0.02
    assert (result.picture.width, result.picture.height) == (512, 400)
    assert sum(shape[1] * shape[2] for shape in generator.shapes) < 2 * width * height
    assert any(f"restored at the {width}×{height} pixels" in note and "--no-reduce" in note for note in result.notes)
    assert result.to_json()["settings"]["reduced_to"] == [width, height]
    assert result.timings["resolution"] > 0


def test_without_the_step_all_pixels_are_restored(sharp: FloatImage) -> None:
    generator = Local(scale=4, grid="input")
    result = Restorer(generator)(Picture(blurred(sharp, 4)), size=TargetSize(scale=1), reduce=False)
    assert result.settings["reduced_to"] is None
    assert not any("blurred" in note for note in result.notes)
    assert sum(shape[1] * shape[2] for shape in generator.shapes) >= 512 * 512


def test_a_sharp_picture_is_bit_equal_with_and_without_the_step(sharp: FloatImage) -> None:
    restorer = Restorer(Local(scale=4, grid="input", reach=2))
    with_it, without = (restorer(Picture(sharp), size=TargetSize(scale=1), reduce=on) for on in (True, False))
    assert np.array_equal(with_it.picture.pixels, without.picture.pixels)
    assert with_it.settings["reduced_to"] is None


def test_what_does_not_enlarge_is_given_all_pixels(sharp: FloatImage) -> None:
    soft = Picture(blurred(sharp, 4))
    for generator in (Local(grid="output"), Local(grid="input", scale=1)):
        assert Restorer(generator)(soft, size=TargetSize(scale=1)).settings["reduced_to"] is None
    cleaned = Restorer(Local(cleaner=Local(scale=4, grid="input")))(soft, size=TargetSize(scale=1))
    assert cleaned.settings["reduced_to"] is not None, "what cleans first enlarges"


def test_photos_of_the_same_scene_give_their_detail_to_a_blurred_picture(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = TargetSize(scale=1)
    soft = Picture(noisy(blurred(scene.truth, 2.5), 1))
    restorer = Restorer(Local(scale=4, grid="input"))
    result = restorer(soft, reference=[scene.other, scene.same], size=size)
    plain = restorer(soft, reference="none", size=size)
    assert result.settings["reduced_to"] is not None
    assert result.references[0].path == scene.same
    assert result.references[0].verdict == "same scene"
    assert result.evidence is not None
    assert result.evidence.maps.shape == (1, 320, 320)
    assert (result.references[0].share or 0) > 0.15
    errors = [np.square(one.picture.pixels - scene.truth).mean() for one in (result, plain)]
    assert errors[0] < 0.9 * errors[1], "its detail is that of the scene"
    assert errors[0] < 0.006, "and what the picture shows was put back before: without, it is 0.0061"
    with monkeypatch.context() as patch:
        patch.setattr("rasr.restoration.restorer.put_back", lambda *_: None)
        reduced = restorer(soft, reference="none", size=size).picture.pixels
    assert errors[0] < 0.8 * np.square(reduced - scene.truth).mean(), "both together"
    assert np.array_equal(
        result.picture.pixels[result.evidence.total == 0], plain.picture.pixels[result.evidence.total == 0]
    )
