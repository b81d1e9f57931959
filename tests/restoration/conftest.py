"""Generators whose answers are known, and photographs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter
from skimage import data

from rasr.generator import (
    Batch,
    Conditioning,
    GenerationSettings,
    GeneratorInfo,
    ReferencePicture,
    TileHints,
    Unconditioned,
)
from rasr.images import FloatImage, resize


class Local:
    """Blurs over ``2 · reach + 1`` pixels and enlarges by repeating: every pixel depends on its surroundings only."""

    def __init__(
        self,
        *,
        scale: int = 1,
        grid: Literal["input", "output"] = "output",
        reach: int = 0,
        overlap: int = 16,
        minimum: int = 8,
        multiple: int = 1,
        bytes_per_pixel: int = 0,
        uses_reference: bool = False,
        cleaner: Local | None = None,
        fail: Callable[[int, Batch], BaseException | None] = lambda call, tiles: None,
    ) -> None:
        self.info = GeneratorInfo(
            name="local",
            uses_reference=uses_reference,
            grid=grid,
            scale=scale,
            tile=TileHints(64, minimum, multiple, overlap, bytes_per_pixel),
        )
        self.cleaner = cleaner
        self.reach = reach
        self.fail = fail
        self.shapes: list[tuple[int, ...]] = []
        self.bases: list[NDArray[np.float32] | None] = []
        self.references: list[ReferencePicture] = []
        self.settings = GenerationSettings()

    def prepare(
        self, lq: FloatImage, references: Sequence[ReferencePicture], settings: GenerationSettings
    ) -> Conditioning:
        self.references, self.settings = list(references), settings
        return Unconditioned(settings)

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        assert tiles.ndim == 4
        assert tiles.dtype == np.float32
        assert base is None or base.shape == tiles.shape
        self.shapes.append(tiles.shape)
        self.bases.append(base)
        error = self.fail(len(self.shapes) - 1, tiles)
        if error is not None:
            raise error
        answer = tiles if base is None else base
        if self.reach:
            size = (1, 2 * self.reach + 1, 2 * self.reach + 1, 1)
            answer = uniform_filter(answer, size, mode="reflect").astype(np.float32)
        if self.references and isinstance(conditioning, Unconditioned):
            mean = self.references[0].pixels.mean(axis=(0, 1)) - np.float32(0.5)
            answer = answer + np.float32(conditioning.settings.strength) * mean
        return np.clip(answer.repeat(self.info.scale, 1).repeat(self.info.scale, 2), 0, 1)


@pytest.fixture(scope="session")
def local() -> Callable[..., Local]:
    return Local


@pytest.fixture(scope="session")
def whole() -> Callable[..., FloatImage]:
    """What an untiled run gives."""

    def run(generator: Any, lq: FloatImage, size: tuple[int, int]) -> FloatImage:
        if generator.info.grid == "output":
            lq = np.clip(resize(lq, size), 0, 1)
        answer: FloatImage = generator.generate(lq[None], None, Unconditioned(GenerationSettings()))[0]
        return answer if generator.info.grid == "output" else resize(answer, size)

    return run


@pytest.fixture(scope="session")
def photo() -> FloatImage:
    """A cat, (300, 451, 3)."""
    return (data.chelsea() / 255).astype(np.float32)


@pytest.fixture(scope="session")
def traced_peak() -> Callable[[Callable[[], object]], int]:
    """Largest number of bytes that numpy held at once during a call, beyond what it held before."""

    def peak(work: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return peak


@dataclass(frozen=True, slots=True)
class Scene:
    """A low-quality picture, what it shows, another view of it, and a photo of something else."""

    query: Path
    """160×160."""
    truth: FloatImage
    """(320, 320, 3)."""
    same: Path
    other: Path


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """scikit-image's motorcycle: the middle of the left view, reduced, and the right view; beside it a cat."""
    folder = tmp_path_factory.mktemp("scene")
    photos = folder / "photos"
    photos.mkdir()
    left, right, _ = data.stereo_motorcycle()
    truth = np.ascontiguousarray(left[90:410, 210:530])
    Image.fromarray(truth).resize((160, 160), Image.Resampling.BOX).save(folder / "query.png")
    Image.fromarray(right).save(photos / "right.png")
    Image.fromarray(data.chelsea()).save(photos / "cat.png")
    pixels = (truth / 255).astype(np.float32)
    return Scene(folder / "query.png", pixels, photos / "right.png", photos / "cat.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with six small photos, half of them further down, and two files that are broken."""
    noise = np.random.default_rng(0)
    (tmp_path / "in/sub").mkdir(parents=True)
    for number in range(6):
        pixels = noise.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"in/{'sub/' * (number % 2)}{number}.png")
    (tmp_path / "in/bad.png").write_bytes(b"none")
    (tmp_path / "in/cut.png").write_bytes((tmp_path / "in/0.png").read_bytes()[:200])
    return tmp_path / "in"
