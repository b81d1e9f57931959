"""A reference photo with its score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Reference"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A photo proposed, or accepted, to guide a restoration: found in a gallery, paired, or picked by hand."""

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
    id: str = ""
    """Content hash of a gallery photo: results may be kept for the picture and not for its place."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``--json`` prints a reference."""
        return {
            "path": str(self.path),
            "score": round(float(self.score), 6),
            "rank": self.rank,
            "category": self.category,
            "tags": list(self.tags),
            "accepted": self.accepted,
            "why": self.why,
        }
