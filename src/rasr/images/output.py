"""Saving: atomically, never over an input, never over anything else unless asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rasr.errors import OutputError
from rasr.files import check_writable, os_errors_as_output, write_bytes
from rasr.images.encode import Encoding, check_format, encode_picture, output_format
from rasr.images.picture import Metadata, Origin, Picture
from rasr.object_path import place


def write_picture(
    picture: Picture,
    path: str | Path,
    *,
    format: str | None = None,
    quality: int | Literal["lossless"] | None = None,
    bits: int | None = None,
    metadata: Metadata = "keep",
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    software: str | None = None,
    description: str | None = None,
    overwrite: bool = False,
    placing: Callable[[bytes], None] | None = None,
) -> Path:
    """Save a picture in the format of ``path``'s extension, or in ``format``; returns the path.

    The choices are those of :class:`Encoding`; :func:`losses` tells beforehand what a format gives up. The file appears
    whole or not at all: it is written beside its place, synced, and moved there; ``placing`` is called with its bytes
    before anything is written. Raises OutputExists when something is
    there and ``overwrite`` is false (also when it appeared meanwhile), OutputError when the place is the picture's own
    input, the folder is missing or not writable, the disk is full or the format cannot hold the size.
    """
    path = place(path)
    chosen = output_format(path, format)
    check_output(
        path,
        picture.width,
        picture.height,
        overwrite=overwrite,
        source=picture.path,
        format=format,
        bits=bits,
        origin=picture.origin,
    )
    encoding = Encoding(quality, bits, metadata, background, software, description)
    content = encode_picture(picture, chosen, encoding)
    if placing is not None:
        placing(content)
    return write_bytes(content, path, overwrite=overwrite)


def check_output(
    path: str | Path,
    width: int,
    height: int,
    *,
    overwrite: bool = False,
    source: str | Path | None = None,
    format: str | None = None,
    bits: int | None = None,
    origin: Origin | None = None,
) -> None:
    """Check before any work that a result of this size can be saved at ``path``.

    ``source`` is the input, which a result never replaces. Checks the extension, the format's size and depth, the
    folder (by making and removing a file in it) and what is at the path already. Raises OutputError or OutputExists.
    """
    path = place(path)
    chosen = output_format(path, format)
    check_format(path, chosen, width, height, origin or Origin(), bits)
    with os_errors_as_output(path):
        own = source is not None and path.exists() and place(source).exists() and path.samefile(place(source))
    if own:
        raise OutputError(f"{path}: this is the input itself, which is never replaced. Choose another name.")
    check_writable(path, overwrite=overwrite)
