"""One answer of a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Reference"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A gallery photo proposed, or accepted, as reference for a query."""

    path: Path
    """The photo's file, where the user keeps it."""
    score: float
    """Cosine similarity of the L2-normalised embeddings, in [-1, 1]; 1.0 for a reference picked by hand."""
    rank: int
    """1 for the best match."""
    category: str = ""
    """Sub-folder or explicit category the photo was added under; empty when it has none."""
    tags: tuple[str, ...] = ()
    """Free tags given when the photo was added."""
    accepted: bool = True
    """Whether the retrieval policy lets this photo guide the restoration."""
    why: str = ""
    """One sentence: why it was accepted or turned down."""
