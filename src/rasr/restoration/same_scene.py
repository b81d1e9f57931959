"""Same scene: which of the proposed photos show what the picture shows, and their detail put into the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from rasr.errors import PictureError
from rasr.gallery import Gallery, Reference
from rasr.gallery.local_features import FeatureStore
from rasr.images import FloatImage, Limits, read_picture
from rasr.memory import LruCache
from rasr.progress import Progress
from rasr.registration import (
    Evidence,
    SceneMatch,
    SceneQuery,
    extract_reference,
    find_faces,
    fingerprint,
    fuse,
    pack,
    unpack,
)
from rasr.restoration.settings import Settings

FUSED = 3
"""Photos of the same scene that are fused at most, where not more are asked for: each costs a second."""
PHOTO_BYTES = 512 * 2**20
"""Of decoded photos held while a picture's candidates are looked through."""


def fuse_same_scene(
    pixels: FloatImage,
    lq: FloatImage,
    references: Sequence[Reference],
    settings: Settings,
    *,
    reads: bool,
    gallery: Path | None,
    limits: Limits | None = None,
) -> tuple[list[Reference], Evidence | None]:
    """Verify ``references`` by geometry, fuse those of the same scene into ``pixels``, in place.

    Returns the references with verdicts, those of the same scene first, and the evidence, None where nothing was fused.
    ``reads`` says that the generator was shown the accepted ones; where it was not, only the same scene is accepted.
    Features of photos are kept in the folder ``gallery``, in memory where it is None. Raises WeightsMissing or
    WeightsCorrupt.
    """
    features = FeatureStore(gallery)
    photos: LruCache[FloatImage] = LruCache(PHOTO_BYTES, lambda kept: kept.nbytes)
    query, picked = SceneQuery(pixels), settings.reference != "auto"

    def photo(reference: Reference) -> FloatImage:
        return photos.get(reference.path, partial(_read, reference.path, limits))

    found: list[tuple[Reference, SceneMatch]] = []
    others: list[Reference] = []
    for number, reference in enumerate(references):
        if not reference.usable or (number >= settings.candidates and not picked):
            others.append(_unverified(reference, reads=reads))
            continue
        try:
            key = reference.id or f"{reference.path}:{reference.path.stat().st_mtime_ns}"
            read = partial(photo, reference)
            seen = query.compare(unpack(_keep(features, key, read)), read)
        except (PictureError, OSError) as error:
            others.append(replace(reference, accepted=False, usable=False, why=f"Not used: {error}"))
            continue
        if seen.same_scene:
            found.append((reference, seen))
        else:
            others.append(_unverified(reference, reads=reads, seen=seen, picked=picked))
    found.sort(key=lambda one: (-one[1].covered, -one[1].matches))
    fused = found[: max(settings.k, FUSED)]
    evidence = None
    if fused and settings.strength > 0:
        photos_of = [(photo(one), seen) for one, seen in fused]
        evidence = fuse(pixels, lq, photos_of, strength=settings.strength, faces=find_faces(pixels))
    shares = evidence.shares if evidence else (0.0,) * len(fused)
    verified = [_verified(*one, share) for one, share in zip(fused, shares, strict=True)]
    verified += [
        replace(one, verdict="same scene", accepted=False, why=f"{seen.why} Not used: {len(fused)} are fused at most.")
        for one, seen in found[len(fused) :]
    ]
    ranked = [replace(one, rank=rank) for rank, one in enumerate([*verified, *others], 1)]
    return ranked, evidence


def _verified(reference: Reference, seen: SceneMatch, share: float) -> Reference:
    told = f"{seen.why} {share:.0%} of the result is detail from it."
    return replace(reference, verdict="same scene", accepted=True, why=told, share=share)


def _unverified(
    reference: Reference, *, reads: bool, seen: SceneMatch | None = None, picked: bool = False
) -> Reference:
    """The reference with its verdict by likeness; without a generator that reads it, it guides nothing.

    No likeness was measured of one that was ``picked`` by hand: of it only geometry speaks.
    """
    if not reference.usable:
        return reference
    facts = "" if seen is None else f" {seen.why}"
    if picked and seen is not None:
        facts = f" Not verified: {seen.matches or 'no'} places of the scene found again."
    told = replace(reference, accepted=reference.accepted and reads, why=f"{reference.why}{facts}")
    if picked:
        return replace(told, verdict="not verified")
    return replace(told, verdict="same kind") if reference.accepted else replace(told, verdict="unrelated")


def keep_features(gallery: Gallery, progress: Progress | None = None) -> int:
    """Make and keep the local features of a gallery's photos, so that no restoration waits for them; returns how many.

    A photo that cannot be read is passed over: ``rasr gallery verify`` names it. Raises GalleryError, WeightsMissing.
    """
    store, photos = FeatureStore(gallery.path), gallery.list()
    made = 0
    for number, photo in enumerate(photos, 1):
        with suppress(PictureError):
            _keep(store, photo.id, partial(_read, photo.path))
            made += 1
        if progress is not None:
            progress("features", number, len(photos))
    return made


def _read(path: Path, limits: Limits | None = None) -> FloatImage:
    return read_picture(path, limits=limits).opaque()


def _keep(features: FeatureStore, key: str, read: Callable[[], FloatImage]) -> bytes:
    """The features of the photo that ``read`` gives, packed: kept ones, or made and then kept."""
    return features.get(key, fingerprint(), lambda: pack(extract_reference(read())))
