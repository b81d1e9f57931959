"""Samples and batches: the pictures of a training step, from the data loaders to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rasr.training.views import Confidence, Pixels


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """Sample of a data-loading process, 8-bit to keep the way to the main process short."""

    index: int
    """Position in the endless sequence of the run."""
    name: str
    lq: Pixels
    """(h, w, 3)."""
    hr: Pixels
    """(H, W, 3)."""
    reference: Pixels | None
    kind: str
    """Of the reference: retrieved, other_crop, warped, random or null."""
    score: float = 0.0
    """Cosine similarity of the reference photo to the target photo; 1 for the same photo."""
    base: Pixels | None = None
    """The cleaner's picture, (H, W, 3)."""
    confidence: Confidence | None = None
    """(H, W, 1) of a registered reference; None for one as it is."""
    embedder_input: NDArray[np.float32] | None = None
    """(3, S, S), the LQ as the retrieval encoder reads it."""
    embedding: NDArray[np.float32] | None = None
    """(D,), when the LQ has been embedded beforehand."""
    skipped: tuple[str, ...] = ()
    """Files that could not be used on the way here, one sentence each."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Batch of N samples; pictures are float32 RGB in [0, 1]."""

    indices: tuple[int, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    lq: Tensor
    """(N, 3, h, w)."""
    hr: Tensor
    """(N, 3, H, W)."""
    reference: Tensor
    """(N, 3, H, W); zeros where there is none."""
    has_reference: Tensor
    """(N,) bool."""
    score: Tensor
    """(N,)."""
    base: Tensor | None
    """(N, 3, H, W) or None without a cleaner."""
    confidence: Tensor | None = None
    """(N, 1, H, W), 0 to 1: how sure the places of registered references are, 1 for references as they are; None where
    no reference is registered."""
    embedder_input: NDArray[np.float32] | None = None
    """(N, 3, S, S), the LQ pictures as the retrieval encoder reads them, for models with a semantic context."""
    embedding: Tensor | None = None
    """(N, D), when they have been embedded beforehand."""
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> TrainingBatch:
        """Return the batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def without_reference(self) -> TrainingBatch:
        """Return the same pictures with every reference taken away."""
        return replace(
            self,
            reference=torch.zeros_like(self.reference),
            has_reference=torch.zeros_like(self.has_reference),
            confidence=None,
            kinds=("null",) * len(self.kinds),
        )

    def pin_memory(self) -> TrainingBatch:
        """Copy to page-locked memory, which a GPU reads beside its work; torch's loader calls it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        changed: dict[str, Any] = {
            name: change(value)
            for name in ("lq", "hr", "reference", "has_reference", "score", "base", "confidence", "embedding")
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **changed)


def collate(samples: Sequence[TrainingSample]) -> TrainingBatch:
    """Stack samples of one size into a batch."""
    blank = np.zeros_like(samples[0].hr)
    has_base = samples[0].base is not None
    whole = np.full((*blank.shape[:2], 1), 255, np.uint8)
    sure = [whole if sample.confidence is None else sample.confidence for sample in samples]
    embeddings = [torch.from_numpy(sample.embedding) for sample in samples if sample.embedding is not None]
    inputs = [sample.embedder_input for sample in samples if sample.embedder_input is not None]
    return TrainingBatch(
        indices=tuple(sample.index for sample in samples),
        names=tuple(sample.name for sample in samples),
        kinds=tuple(sample.kind for sample in samples),
        lq=_tensor([sample.lq for sample in samples]),
        hr=_tensor([sample.hr for sample in samples]),
        reference=_tensor([blank if sample.reference is None else sample.reference for sample in samples]),
        has_reference=torch.tensor([sample.reference is not None for sample in samples]),
        score=torch.tensor([sample.score for sample in samples], dtype=torch.float32),
        base=_tensor([sample.base for sample in samples if sample.base is not None]) if has_base else None,
        confidence=_tensor(sure) if any(sample.confidence is not None for sample in samples) else None,
        embedder_input=np.stack(inputs) if inputs else None,
        embedding=torch.stack(embeddings) if embeddings else None,
        skipped=tuple(sentence for sample in samples for sentence in sample.skipped),
    )


def _tensor(pictures: Sequence[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().float().div_(255)
