"""A plain folder of photos given where a gallery is expected: indexed once, kept fresh, and used like any gallery."""

from __future__ import annotations

from pathlib import Path

import xxhash

from rasr.errors import GalleryNotFound, PictureError
from rasr.gallery.encoders import DEFAULT_ENCODER, Encoder, load_encoder
from rasr.gallery.gallery import Gallery
from rasr.gallery.ingest import Progress
from rasr.gallery.pointer import NAME
from rasr.home import cache_dir

__all__ = ["is_gallery", "open_gallery_or_folder"]


def is_gallery(path: str | Path) -> bool:
    """True when ``path`` holds a gallery, whole or damaged."""
    folder = Path(path).expanduser()
    return (folder / NAME).exists() or (folder.is_dir() and any(folder.glob("photos-*.lance")))


def open_gallery_or_folder(
    path: str | Path,
    *,
    encoder: str | Encoder | None = None,
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """The gallery at ``path``, or one made of the photos below it.

    A plain folder is indexed into ``cache_dir("galleries")`` on first use, one index per folder and encoder; each
    later use adds what is new or changed and forgets what is gone; ``gallery.refreshed`` reports it. Nothing is written
    into the folder itself. Raises GalleryNotFound when there is neither, and
    what :class:`Gallery` raises.
    """
    folder = Path(path).expanduser()
    if "://" in str(path) or is_gallery(folder):
        return Gallery(path, encoder=encoder, device=device)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise GalleryNotFound(f"{path} {what}; give a gallery, or a folder of photos.")
    wanted = DEFAULT_ENCODER if encoder is None else encoder
    chosen = load_encoder(wanted, device=device) if isinstance(wanted, str) else wanted
    key = xxhash.xxh3_128_hexdigest(f"{folder.resolve()}\n{chosen.fingerprint}".encode("utf-8", "surrogateescape"))
    gallery = Gallery(cache_dir("galleries") / key, encoder=chosen)
    try:
        gallery.refresh(folder, workers=workers, progress=progress)
    except PictureError as error:
        raise GalleryNotFound(f"There is no gallery and no picture in {path}.") from error
    return gallery
