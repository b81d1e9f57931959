"""Small photos, a benchmark made of them, and methods that need no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from rasr.evaluation import EvalJob, EvalOutcome, MethodInfo
from rasr.images import FloatImage, Picture, read_picture, resize, write_picture

SAMPLES = Path(skimage.data.__file__).parent
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "ihc.png")


def photo(name: str, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of one of scikit-image's installed photos."""
    return Image.open(SAMPLES / name).convert("RGB").crop(box)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine test pictures of 128×128 in three categories."""
    root = tmp_path / "photos"
    for number in range(9):
        name = PHOTOS[number % len(PHOTOS)]
        left, top = 10 + 60 * (number // len(PHOTOS)), 20 + 7 * number
        path = root / ("cat", "dog", "owl")[number % 3] / f"p{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(name, (left, top, left + 128, top + 128)).save(path)
    return root


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """Six other parts of the same photos, far enough from the test pictures to be no near-duplicates."""
    root = tmp_path / "references"
    for number, name in enumerate(PHOTOS):
        path = root / ("cat", "dog", "owl")[number % 3] / f"r{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(name, (230, 120, 410, 290)).save(path)
    return root


@dataclass
class Enlarger:
    """A method that enlarges by bicubic and adds what a reference's mean colour would; it can be told to fail."""

    name: str = "enlarger"
    uses_reference: bool = False
    strength: float = 0.02
    skip: frozenset[str] = frozenset()
    wrong_size: frozenset[str] = frozenset()
    interrupt_after: int | None = None
    done: list[str] = field(default_factory=list)

    @property
    def info(self) -> MethodInfo:
        return MethodInfo(self.name, "Other", "a stand-in", self.uses_reference, settings={"strength": self.strength})

    def run(self, jobs: Sequence[EvalJob], folder: Path) -> Iterator[EvalOutcome]:
        for job in jobs:
            if self.interrupt_after is not None and len(self.done) >= self.interrupt_after:
                raise KeyboardInterrupt
            self.done.append(f"{job.output.parent.name}/{job.name}")
            if job.name not in self.skip:
                write_picture(Picture(self._restore(job)), job.output, overwrite=True)
            yield EvalOutcome(job.name, 0.5, 1_000_000)

    def _restore(self, job: EvalJob) -> FloatImage:
        size = (job.width // 2, job.height // 2) if job.name in self.wrong_size else (job.width, job.height)
        pixels = resize(read_picture(job.low).pixels, size)
        for choice in job.references:
            pixels = pixels + self.strength * (read_picture(choice.path).pixels.mean((0, 1)) - 0.5)
        return np.clip(pixels, 0, 1).astype(np.float32)


@pytest.fixture(autouse=True)
def queries(monkeypatch: pytest.MonkeyPatch) -> list[FloatImage]:
    """Queries are searched as they are, without Real-ESRGAN before; returns those that would have been cleaned."""
    seen: list[FloatImage] = []

    def unchanged(pixels: FloatImage, input_size: int) -> FloatImage:
        assert input_size == 224
        seen.append(pixels)
        return pixels

    monkeypatch.setattr("rasr.evaluation.references.clean_query", unchanged)
    return seen
