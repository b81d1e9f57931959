"""Matching by layout: a picture finds itself, shifted or blurred, however much is searched at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

from rasr.generator import matching
from rasr.generator.matching import CELL, GRID, _Match, find_matches, gaussian_blur, read_layout


def photo(top: int = 0, left: int = 0, height: int = 128, width: int = 160) -> torch.Tensor:
    pixels = data.coffee()[60 + top : 60 + top + height, 80 + left : 80 + left + width].astype(np.float32) / 127.5 - 1
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def found(match: _Match, height: int, width: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each cell's match lies relative to the cell itself, in pixels: rows, columns (h, w)."""
    places = match.places.view(height // CELL, width // CELL)
    rows, cols = torch.arange(height // CELL)[:, None] * CELL, torch.arange(width // CELL) * CELL
    return places // columns * GRID - rows, places % columns * GRID - cols


def test_the_blur_is_a_gaussian_with_repeated_edges() -> None:
    picture = photo()
    wanted = gaussian_filter(picture[0].numpy(), (0, 0.8, 0.8), truncate=3.75, mode="nearest")
    np.testing.assert_allclose(gaussian_blur(picture, 0.8)[0].numpy(), wanted, atol=1e-5)


def test_every_cell_of_a_photo_finds_itself() -> None:
    match = find_matches(photo(), read_layout(photo()))
    down, right = found(match, 128, 160, 160 // GRID)
    assert (down == 0).float().mean() > 0.99
    assert (right == 0).float().mean() > 0.99
    assert match.fine.median() > 0.999
    assert match.coarse.median() > 0.999


@pytest.mark.parametrize(("top", "left"), [(16, 32), (6, 10)])
def test_a_shift_is_found_to_the_grid(top: int, left: int) -> None:
    match = find_matches(photo(top, left, 192, 192), read_layout(photo(0, 0, 256, 256)))
    down, right = found(match, 192, 192, 256 // GRID)
    inner = (slice(12, -12), slice(12, -12))  # windows at the edge see mirrored pixels instead of what lies beyond
    assert ((down[inner] - top).abs() <= GRID).float().mean() > 0.9
    assert ((right[inner] - left).abs() <= GRID).float().mean() > 0.9


def test_blur_and_noise_do_not_hide_a_place() -> None:
    pixels = photo()[0].permute(1, 2, 0).numpy()
    spoilt = gaussian_filter(pixels, (2, 2, 0)) + np.random.default_rng(0).normal(0, 0.1, pixels.shape)
    match = find_matches(torch.from_numpy(spoilt.astype(np.float32)).permute(2, 0, 1)[None], read_layout(photo()))
    down, right = found(match, 128, 160, 160 // GRID)
    assert ((down.abs() <= 4) & (right.abs() <= 4)).float().mean() > 0.8
    assert match.fine.median() < 0.9995


def test_one_reference_serves_all_and_each_its_own() -> None:
    pictures = torch.cat((photo(0, 0, 64, 64), photo(32, 64, 64, 64)))
    shared = find_matches(pictures, read_layout(photo()))
    own = find_matches(pictures, read_layout(photo().repeat(2, 1, 1, 1)))
    assert torch.equal(shared.places, own.places)
    alone = find_matches(pictures[1:], read_layout(photo()))
    assert torch.equal(alone.places[0], shared.places[1])


def test_searching_in_portions_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = read_layout(photo())
    whole = find_matches(photo(4, 8, 64, 96), layout)
    monkeypatch.setattr(matching, "CHUNK", 2**16)
    parts = find_matches(photo(4, 8, 64, 96), layout)
    assert torch.equal(whole.places, parts.places)
    torch.testing.assert_close(whole.fine, parts.fine, atol=1e-5, rtol=0)


def test_places_lie_inside_and_flat_pictures_are_no_error() -> None:
    flat = torch.zeros(1, 3, 32, 48)
    match = find_matches(flat, read_layout(flat))
    assert match.places.min() >= 0
    assert match.places.max() < (32 // GRID) * (48 // GRID)
    assert torch.isfinite(match.fine).all()
    small = find_matches(torch.randn(1, 3, 16, 16), read_layout(torch.randn(1, 3, 16, 16)))
    assert small.places.shape == (1, 16)


def test_neighbours_found_as_neighbours_tell_the_same_scene_from_another() -> None:
    whole = photo(0, 0, 256, 320)
    spoilt = torch.nn.functional.avg_pool2d(whole, 3, 1, 1)
    same = find_matches(spoilt, read_layout(whole)).coherence
    other = torch.from_numpy(data.chelsea()[:256, :320].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    unlike = find_matches(spoilt, read_layout(other)).coherence
    assert same.min() >= 0
    assert same.max() <= 1
    assert same.quantile(0.1) > 0.8
    assert unlike.quantile(0.9) < 0.5
    moved = find_matches(photo(6, 10, 192, 192), read_layout(photo(0, 0, 256, 256))).coherence
    assert moved.median() > 0.9, "a movement of the whole is coherent"
