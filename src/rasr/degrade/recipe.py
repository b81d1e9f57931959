"""Recipe of one picture's degradation: every random choice, drawn before it is applied.

A recipe is plain data. Applying it twice to the same pixels gives the same bytes: the noise planes come from seeds that
are part of the recipe, so a stored recipe rebuilds a test set without the generator that drew it.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import Field

from rasr.config import Table
from rasr.degrade.presets import (
    KERNEL_KINDS,
    KERNEL_PROBABILITIES,
    KERNEL_SIZES,
    PRESETS,
    RESIZE_KINDS,
    KernelKind,
    Range,
    StageTable,
)
from rasr.errors import UsageError

T = TypeVar("T")
Mode = Literal["area", "bilinear", "bicubic"]
MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")


class GaussianKernel(Table):
    """A Gaussian-like blur; the isotropic kinds have ``sigma_x == sigma_y`` and ``angle == 0``."""

    kind: KernelKind
    size: Annotated[int, Field(ge=1, le=101)]
    sigma_x: Annotated[float, Field(gt=0)]
    sigma_y: Annotated[float, Field(gt=0)]
    angle: float = 0.0
    """Radians."""
    beta: float = 1.0
    """Shape exponent of the generalized and plateau kinds."""


class SincKernel(Table):
    """A circular low-pass filter, which makes ringing and overshoot."""

    kind: Literal["sinc"] = "sinc"
    size: Annotated[int, Field(ge=1, le=101)]
    cutoff: Annotated[float, Field(gt=0, le=math.pi)]
    """Radians per pixel."""


Kernel = Annotated[GaussianKernel | SincKernel, Field(discriminator="kind")]


class Resize(Table):
    """A change of size by ``factor``; bilinear and bicubic without antialiasing, as Real-ESRGAN."""

    factor: Annotated[float, Field(gt=0, le=16)]
    mode: Mode


class Noise(Table):
    """Gaussian noise (``level``: sigma in grey levels) or Poisson (``level`` multiplies it)."""

    kind: Literal["gaussian", "poisson"]
    level: Annotated[float, Field(ge=0)]
    gray: bool
    """One plane for the three channels."""
    seed: Annotated[int, Field(ge=0)]


class Stage(Table):
    """Blur (or none), resize, noise, JPEG; the last JPEG is before or after the final filter."""

    blur: Kernel | None
    resize: Resize
    noise: Noise
    jpeg_quality: Annotated[float, Field(ge=1, le=100)]
    """As drawn; the codec takes it rounded to the nearest integer."""


class Recipe(Table):
    """The whole degradation of one picture, independent of the picture's size."""

    preset: str
    scale: Annotated[int, Field(ge=1, le=16)]
    """HR side divided by LQ side."""
    usm: bool = False
    """Sharpen the HR with an unsharp mask before anything else."""
    stages: tuple[Stage, Stage] | None
    """None: the picture is only resized."""
    final_mode: Mode
    """Resampling to the LQ size."""
    final_filter: SincKernel | None
    filter_before_jpeg: bool
    """Order of the last two steps: [resize, sinc filter], JPEG or the other way round."""


def draw(preset: str = "realesrgan", *, scale: int = 4, seed: int, name: str, usm: bool = False) -> Recipe:
    """Draw the recipe of picture ``name``.

    The random stream is keyed by (seed, name), so a recipe depends neither on the order of the pictures nor on the
    process that draws it. Raises UsageError for an unknown preset or an impossible scale.
    """
    if not 1 <= scale <= 16:
        raise UsageError(f"Degradation scale {scale} is not between 1 and 16.")
    if preset not in PRESETS:
        raise UsageError(f"Unknown degradation preset '{preset}'. Choose one of: {', '.join(PRESETS)}.")
    table = PRESETS[preset]
    random = _Random(seed, name)
    final_mode: Mode = random.choice(MODES)
    stages, final_filter = None, None
    if not random.happens(table.untouched_probability):
        stages = (_draw_stage(random, table.first), _draw_stage(random, table.second))
        if random.happens(table.final_sinc_probability):
            final_filter = SincKernel(size=random.choice(KERNEL_SIZES), cutoff=random.between((math.pi / 3, math.pi)))
    return Recipe(
        preset=preset,
        scale=scale,
        usm=usm,
        stages=stages,
        final_mode=final_mode,
        final_filter=final_filter,
        filter_before_jpeg=random.happens(0.5),
    )


class _Random:
    """Uniform draws from a counter-based stream keyed by (seed, name)."""

    def __init__(self, seed: int, name: str) -> None:
        key = hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))

    def between(self, limits: Range) -> float:
        low, high = limits
        return low + (high - low) * float(self._generator.random())

    def happens(self, probability: float) -> bool:
        return float(self._generator.random()) < probability

    def choice(self, items: Sequence[T], probabilities: Sequence[float] | None = None) -> T:
        position = float(self._generator.random())
        weights = probabilities or [1 / len(items)] * len(items)
        edges = np.cumsum(weights)
        return items[min(int(np.searchsorted(edges, position, side="right")), len(items) - 1)]

    def seed(self) -> int:
        return int(self._generator.integers(0, 2**53))  # survives readers that hold JSON numbers as doubles


def _draw_stage(random: _Random, table: StageTable) -> Stage:
    blurred = random.happens(table.blur_probability)
    kernel = _draw_kernel(random, table)
    gaussian = random.happens(table.gaussian_probability)
    return Stage(
        blur=kernel if blurred else None,
        resize=_draw_resize(random, table),
        noise=Noise(
            kind="gaussian" if gaussian else "poisson",
            level=random.between(table.gaussian_sigma if gaussian else table.poisson_scale),
            gray=random.happens(table.gray_probability),
            seed=random.seed(),
        ),
        jpeg_quality=random.between(table.jpeg_quality),
    )


def _draw_kernel(random: _Random, table: StageTable) -> GaussianKernel | SincKernel:
    size = random.choice(table.kernel_sizes)
    if random.happens(table.sinc_probability):
        lowest = math.pi / 3 if size < 13 else math.pi / 5
        return SincKernel(size=size, cutoff=random.between((lowest, math.pi)))
    kind = random.choice(KERNEL_KINDS, KERNEL_PROBABILITIES)
    sigma_x = random.between(table.sigma)
    isotropic = "aniso" not in kind
    beta = 1.0
    if kind.startswith("generalized"):
        beta = _draw_beta(random, table.generalized_beta)
    elif kind.startswith("plateau"):
        beta = _draw_beta(random, table.plateau_beta)
    sigma_y = sigma_x if isotropic else random.between(table.sigma)
    angle = 0.0 if isotropic else random.between((-math.pi, math.pi))
    return GaussianKernel(kind=kind, size=size, sigma_x=sigma_x, sigma_y=sigma_y, angle=angle, beta=beta)


def _draw_beta(random: _Random, limits: Range) -> float:
    """Draw half of the exponents below 1, half above; a range from 1 gives 1 half the time."""
    return random.between((limits[0], 1.0) if random.happens(0.5) else (1.0, limits[1]))


def _draw_resize(random: _Random, table: StageTable) -> Resize:
    direction = random.choice(RESIZE_KINDS, table.resize_probabilities)
    smallest, largest = table.resize
    limits = {"up": (1.0, largest), "down": (smallest, 1.0), "keep": (1.0, 1.0)}[direction]
    return Resize(factor=random.between(limits), mode=random.choice(MODES))
