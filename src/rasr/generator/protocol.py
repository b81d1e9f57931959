"""Generator protocol: equation (1)'s G, I_HR = G(I_LR, R(I_LR, D)), to the rest of RASR.

The restore room cuts a picture into tiles, calls a generator on each and blends the answers; it knows nothing of
networks. A generator knows nothing of files, tiles or galleries. Everything that crosses the line is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage

DEFAULT_DETAIL = 0.5
"""Place of the dial at which weights are as they were tuned."""
SURE = 0.25
"""Confidence in a registered reference from which a place is altogether the reference's."""
Batch = NDArray[np.float32]
"""Tiles of one size: (N, H, W, 3), RGB, float32 in [0, 1], sRGB-encoded."""


@dataclass(frozen=True, slots=True)
class TileHints:
    """Tiles that suit a generator, in pixels of its input; also [tile] of a preset's TOML."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    default: int
    """Side of a square tile that fits an ordinary machine."""
    minimum: int
    """Smallest side worth running; below it, running out of memory is final."""
    multiple: int = 1
    """Tile sides are rounded up to a multiple of this (latent stride times UNet stride)."""
    overlap: int = 16
    """Pixels that neighbouring tiles share, at least the reach of what the network sees."""
    bytes_per_pixel: int = 0
    """Rough peak working memory for one input pixel of a tile, for ``--tile auto``; 0 when unknown."""
    fixed: bool = False
    """True for a network that draws best at the size it was trained on: no tile is made smaller to fit a picture."""


@dataclass(frozen=True, slots=True)
class GeneratorInfo:
    """Facts of a generator: printed by ``doctor`` and stored with every result."""

    name: str
    uses_reference: bool
    """False for single-image restorers: references are then found and shown, and the result says they were not used."""
    grid: Literal["input", "output"]
    """``input``: takes tiles of the low-quality picture and returns them ``scale`` times larger.
    ``output``: takes tiles of the low-quality picture already resampled to the output size and returns that size."""
    scale: int
    """Enlargement of one call: 4 for Real-ESRGAN x4, 1 for every generator on the output grid."""
    tile: TileHints
    trained: bool = True
    """False for seeded, untrained weights: the name then carries the word 'untrained' wherever it is shown."""
    weights: str = ""
    """Where the weights come from, with version or hash; empty when there are none (bicubic)."""
    colour: Literal["lowest", "wavelet", "adain", "none"] = "wavelet"
    """Colour match that suits its results, where the user asks for no other."""
    licence: str = ""
    """Licence of the weights (SPDX where one exists)."""
    device: str = "cpu"
    """Where it runs and why, in words ('cpu, fp32: no GPU found')."""
    registered: bool = False
    """True where photos of the same scene are to be brought onto the picture before it is shown them."""
    reads_text: bool = False
    """True where a prompt says what to draw."""
    has_detail: bool = False
    """True where a dial leads from smooth and close to the input to crisp and drawn."""
    smooth_weights: str = ""
    """Where the weights of that dial's smooth end come from; empty where it has none of its own."""
    needs: tuple[str, ...] = ()
    """Entries of the weights' catalogue that it cannot do without and that may not be on this machine."""
    remark: str = ""
    """What a user has to know of it, one sentence; said with every result."""
    context_encoder: str = ""
    """Gallery encoder whose embedding of the LQ picture it reads as semantic context; empty for none."""

    def weights_at(self, detail: float) -> str:
        """Say where the weights come from that a picture is made with at a place of the dial."""
        smooth = self.smooth_weights if detail < DEFAULT_DETAIL else ""
        return " + ".join(filter(None, (self.weights, smooth)))


@dataclass(frozen=True, slots=True)
class ReferencePicture:
    """Pixels and score of a reference, as a generator reads it."""

    pixels: FloatImage
    score: float
    """Cosine similarity to the query in [-1, 1]; 1.0 for a reference the user picked by hand."""
    path: Path | None = None
    confidence: NDArray[np.float32] | None = None
    """(H, W), 0 to 1, of a registered reference, whose pixels are the photo brought onto the picture at the result's
    size: how sure each place of it is, 0 where it shows nothing of the picture. None for a photo as it is."""

    @property
    def covers(self) -> float:
        """Share of the picture, 0 to 1, in which it says something: all of it for a photo as it is."""
        return 1.0 if self.confidence is None else float((self.confidence > 0).mean())


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Choices that reach into the network. The same ones give the same bytes on one device."""

    strength: float = 1.0
    """0..1, scales what the reference adds; 0 gives exactly the no-reference result."""
    seed: int = 0
    prompt: str | None = None
    """Text for backbones that read text; None means the preset's own default."""
    detail: float = DEFAULT_DETAIL
    """0..1, for generators with that dial: 0 draws least, 1 is crispest."""
    embedding: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """(D,) embedding of the whole LQ picture by :attr:`GeneratorInfo.context_encoder`; None stands for no context."""


class Conditioning(Protocol):
    """State computed once for a whole picture (encoded references, context). Opaque."""


@runtime_checkable
class Cuttable(Protocol):
    """Conditioning that is tied to places: each tile takes its own part of it."""

    def cut(self, part: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Conditioning:
        """The tile's conditioning; ``part`` cuts an (H, W, C) array of the result's size as the tile was cut."""


@dataclass(frozen=True, slots=True)
class Unconditioned:
    """Conditioning of generators that need none."""

    settings: GenerationSettings = field(default_factory=GenerationSettings)


@runtime_checkable
class Generator(Protocol):
    """Restorer of tiles. Cheap to build: weights are loaded on the first :meth:`prepare`."""

    @property
    def info(self) -> GeneratorInfo:
        """Facts of this generator."""

    @property
    def cleaner(self) -> Generator | None:
        """Generator that first runs over the whole picture, to give ``base`` (DiffBIR's two stages)."""

    def prepare(
        self, lq: FloatImage, references: Sequence[ReferencePicture], settings: GenerationSettings
    ) -> Conditioning:
        """Compute once what all tiles of one picture share.

        ``lq`` is the whole low-quality picture at its own size; ``references`` are ordered best first and may be empty.
        Raises WeightsMissing or WeightsCorrupt when the weights cannot be loaded.
        """

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """Restore tiles of one size: (N, H, W, 3) → (N, H·scale, W·scale, 3), float32 in [0, 1].

        ``base`` holds the cleaner's output for the same tiles (same shape as ``tiles``) or None without a cleaner.
        Raises MemoryError (or torch's out-of-memory error) when the tile does not fit: the caller halves it.
        """
