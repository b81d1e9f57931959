"""References of a restoration: read for a generator, and told what it drew because of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rasr.gallery import Reference
from rasr.generator import ReferencePicture
from rasr.images import Limits, read_picture
from rasr.restoration.result import CHANGED


def read_references(references: Sequence[Reference], limits: Limits | None, held: int) -> list[ReferencePicture]:
    """Read references, best first. Raises PictureError naming the one that cannot be read.

    The limit on pixels holds for all of them together, and for the ``held`` ones of the input.
    """
    limits, pictures = limits or Limits.from_memory(), []
    for one in references:
        picture = read_picture(one.path, limits=replace(limits, held_pixels=held))
        held += picture.width * picture.height
        pictures.append(ReferencePicture(picture.opaque(), one.score, one.path))
    return pictures


def tell_changed(references: Sequence[Reference], shares: Mapping[Path, float]) -> list[Reference]:
    """The references, of those that a generator drew with in view the share of the picture in which it did."""
    told = []
    for one in references:
        if (share := shares.get(one.path)) is None:
            told.append(one)
            continue
        where = "" if share == 1 else f" in {share:.0%} of the picture"
        told.append(replace(one, changed=share, why=f"{one.why} The generator saw it{where}: {CHANGED} it."))
    return told
