"""Which store an address means, and copying a gallery from one store to another."""

from __future__ import annotations

from pathlib import Path

from rasr.errors import EncoderMismatch, GalleryNotFound, UsageError
from rasr.gallery.protocol import Store
from rasr.gallery.store import LocalStore
from rasr.object_path import expand
from rasr.objects import LOCAL, is_address
from rasr.progress import Progress

COPIED = 5000
"""Photos copied in one commit."""


def open_store(address: str | Path, *, lock_timeout: float = 60.0) -> Store:
    """The store that ``address`` means: of a folder, ``lance://FOLDER``, or a place on object storage.

    Nothing is read or created. Raises UsageError for an address of another kind.
    """
    text = str(address)
    if is_address(text) or text.startswith(LOCAL):
        from rasr.gallery.lance_store import LanceStore

        return LanceStore(text, timeout=lock_timeout)
    if "://" in text:
        raise UsageError(
            f"{text}: a gallery is a folder, lance://FOLDER, or a place on object storage (s3://, gs:// or az://)."
        )
    return LocalStore(expand(Path(text)).resolve(), lock_timeout=lock_timeout)


def is_gallery(path: str | Path) -> bool:
    """True when ``path``, a folder or an address, holds a gallery, whole or damaged."""
    return open_store(path).exists()


def copy_gallery(source: str | Path, target: str | Path, *, progress: Progress | None = None) -> int:
    """Copy photos, vectors and calibration of one gallery into another, embedding nothing; gives how many were new.

    ``target`` is created when it is missing; what it holds stays, so that an interrupted copy goes on. Photos keep
    their places. Raises UsageError when both are the same, EncoderMismatch when the target has another encoder, and
    what reading and writing galleries raise.
    """
    origin, goal = open_store(source), open_store(target)
    if origin.address == goal.address:
        raise UsageError(f"{source}: a gallery cannot be copied onto itself.")
    table = origin.read(vectors=True)
    assert table.vectors is not None  # noqa: S101  (narrowing: asked for)
    built = table.manifest.encoder
    try:
        there = goal.manifest().encoder
        known = {values[0] for values in goal.read(vectors=False).parse()}
    except GalleryNotFound:
        there, known = built, set[str]()
    if there.fingerprint != built.fingerprint:
        raise EncoderMismatch(
            f"The gallery {goal.address} was built with the encoder {there.name} {there.version}, and {origin.address} "
            f"with {built.name} {built.version}: they cannot be one. Copy to another place."
        )
    new = [row for row, values in enumerate(table.parse()) if values[0] not in known]
    done = 0
    with goal.writing(built) as writer:
        for start in range(0, len(new), COPIED):
            rows = new[start : start + COPIED]
            writer.commit(list(zip(table.photos(rows), table.vectors[rows], strict=True)))
            done += len(rows)
            if progress is not None:
                progress("copying", done, len(new))
        if table.manifest.calibration and not writer.manifest.calibration:
            writer.calibrate(table.manifest.calibration)
    return len(new)
