"""The LanceDB table inside a gallery: reached, created, listed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["HINT", "create_table", "damaged", "import_lancedb", "table_files"]

HINT = "latest_version_hint.json"
"""Lance rewrites this file in place; it falls back to listing without it, and it cannot be checksummed."""


def import_lancedb() -> Any:
    """The lancedb package, imported on first use."""
    # Read once, when lancedb is first imported; its warnings speak of tables that are about to be created.
    os.environ.setdefault("LANCEDB_LOG", "error")
    import lancedb

    return lancedb


def create_table(folder: Path, name: str, data: Any) -> Any:
    """A new table in the gallery ``folder``, holding ``data`` (an Arrow table or batches)."""
    return import_lancedb().connect(folder).create_table(name, data=data)


def table_files(root: Path, folder: Path) -> list[str]:
    """All files of the table in ``folder``, as paths relative to the gallery's ``root``; the hint is left out."""
    base = str(root)
    return [
        os.path.relpath(Path(where, name), base)
        for where, _, names in os.walk(folder)
        for name in names
        if name != HINT
    ]


def damaged(path: Path, what: str, error: BaseException | None = None) -> str:
    """The message for a gallery file that fails a check."""
    detail = f" ({str(error).splitlines()[0]})" if error is not None and str(error) else ""
    return (
        f"Gallery file {path} {what}{detail}; searching could give wrong answers. See what is damaged with: "
        f"rasr gallery verify {path.parents[0] if path.suffix == '.lance' else _gallery_of(path)}. Photos are not "
        "stored in a gallery: delete it and rebuild it with 'rasr gallery add'."
    )


def _gallery_of(path: Path) -> Path:
    return next((p.parent for p in path.parents if p.suffix == ".lance"), path.parent)
