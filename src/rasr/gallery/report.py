"""What adding photos did."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["AddReport"]


@dataclass(slots=True)
class AddReport:
    """What adding did with each file."""

    added: int = 0
    unchanged: int = 0
    updated: list[Path] = field(default_factory=list)
    """Known files with new content, or with another category or tag than before."""
    moved: list[tuple[Path, Path]] = field(default_factory=list)
    """(new path, old path): recognised by content, not embedded again."""
    duplicates: list[tuple[Path, Path]] = field(default_factory=list)
    """(file left out, photo with the same bytes)."""
    near_duplicates: list[tuple[Path, Path]] = field(default_factory=list)
    """(photo added and flagged, earlier photo that shows the same picture)."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    """(file skipped, reason)."""
    removed: int = 0
    """Photos dropped because their file is gone; only when a plain folder is searched."""
    embedded: int = 0
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Photos decoded and embedded per second; 0 when nothing had to be."""
        return self.embedded / self.seconds if self.embedded and self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """What ``rasr gallery add --json`` prints."""
        return {
            "added": self.added,
            "unchanged": self.unchanged,
            "updated": [str(path) for path in self.updated],
            "moved": [{"path": str(new), "from": str(old)} for new, old in self.moved],
            "duplicates": [{"path": str(path), "of": str(of)} for path, of in self.duplicates],
            "near_duplicates": [{"path": str(path), "of": str(of)} for path, of in self.near_duplicates],
            "failed": [{"path": str(path), "error": reason} for path, reason in self.failed],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
        }
