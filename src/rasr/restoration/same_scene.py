"""Same scene: which of the proposed photos show what the picture shows, and their detail put into the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rasr.errors import PictureError
from rasr.gallery import Gallery, Reference
from rasr.gallery.local_features import FeatureStore
from rasr.generator import ReferencePicture
from rasr.images import FloatImage, Limits, read_picture
from rasr.memory import LruCache
from rasr.progress import Progress
from rasr.registration import (
    Evidence,
    Face,
    SceneMatch,
    SceneQuery,
    extract_reference,
    find_faces,
    find_faces_seen,
    fingerprint,
    fuse,
    pack,
    place,
    unpack,
)
from rasr.restoration.settings import Settings

FUSED = 3
"""Photos of the same scene that are fused at most, where not more are asked for: each costs a second."""
PHOTO_BYTES = 512 * 2**20
"""Of decoded photos held while a picture's candidates are looked through."""


@dataclass(slots=True)
class Looked:
    """References of one picture that were looked at."""

    found: list[tuple[Reference, SceneMatch]]
    """Those of the same scene, the one that covers most first."""
    others: list[tuple[Reference, SceneMatch | None]]
    photo: Callable[[Reference], FloatImage]
    """Reads one; they are kept for a while."""

    def best(self, settings: Settings) -> list[tuple[Reference, SceneMatch]]:
        """Those of the same scene that are used."""
        return self.found[: max(settings.k, FUSED)]

    def faces(self, picture: FloatImage, lq: FloatImage, settings: Settings) -> list[Face]:
        """Faces of the picture, as it shows them and as the photos that are used do."""
        size, scale = (picture.shape[1], picture.shape[0]), lq.shape[1] / picture.shape[1]
        faces = find_faces(picture) if self.found else []
        for one, seen in self.best(settings):
            faces += find_faces_seen(self.photo(one), seen.to_reference, size, input_scale=scale)
        return faces

    def place(self, picture: FloatImage, lq: FloatImage, settings: Settings) -> list[ReferencePicture]:
        """The photos of the same scene as ``picture``, in which they were found, sees them; empty where there is none.

        ``lq`` is the low-quality picture, of any size.
        """
        faces, placed = self.faces(picture, lq, settings), []
        for one, seen in self.best(settings):
            there = place(picture, lq, self.photo(one), seen, faces=faces)
            placed.append(ReferencePicture(there.pixels, one.score, one.path, there.confidence))
        return placed


def look(
    pixels: FloatImage,
    references: Sequence[Reference],
    settings: Settings,
    *,
    gallery: Path | None,
    limits: Limits | None = None,
) -> Looked:
    """Verify ``references`` by geometry against a restored picture, (H, W, 3) in [0, 1].

    Features of photos are kept in the folder ``gallery``, in memory where it is None. Raises WeightsMissing or
    WeightsCorrupt.
    """
    features = FeatureStore(gallery)
    photos: LruCache[FloatImage] = LruCache(PHOTO_BYTES, lambda kept: kept.nbytes)
    query, picked = SceneQuery(pixels), settings.reference != "auto"

    def photo(reference: Reference) -> FloatImage:
        return photos.get(reference.path, partial(_read, reference.path, limits))

    looked = Looked([], [], photo)
    for number, reference in enumerate(references):
        if not reference.usable or (number >= settings.candidates and not picked):
            looked.others.append((reference, None))
            continue
        try:
            key = reference.id or f"{reference.path}:{reference.path.stat().st_mtime_ns}"
            read = partial(photo, reference)
            seen = query.compare(unpack(_keep(features, key, read)), read)
        except (PictureError, OSError) as error:
            fault = replace(reference, accepted=False, usable=False, why=f"Not used: {error}")
            looked.others.append((fault, None))
            continue
        if seen.same_scene:
            looked.found.append((reference, seen))
        else:
            looked.others.append((reference, seen))
    looked.found.sort(key=lambda one: (-one[1].covered, -one[1].matches))
    return looked


def fuse_same_scene(
    pixels: FloatImage, lq: FloatImage, looked: Looked, settings: Settings, *, reads: bool
) -> tuple[list[Reference], Evidence | None]:
    """Fuse the photos of the same scene into ``pixels``, in place.

    Returns the references with verdicts, those of the same scene first, and the evidence, None where nothing was fused.
    ``reads`` says that the generator was shown the accepted ones; where it was not, only the same scene is accepted.
    """
    fused = looked.best(settings)
    evidence = None
    if fused and settings.strength > 0:
        photos_of = [(looked.photo(one), seen) for one, seen in fused]
        evidence = fuse(pixels, lq, photos_of, strength=settings.strength, faces=looked.faces(pixels, lq, settings))
    shares = evidence.shares if evidence else (0.0,) * len(fused)
    verified = [_verified(*one, share) for one, share in zip(fused, shares, strict=True)]
    verified += [
        replace(one, verdict="same scene", accepted=False, why=f"{seen.why} Not used: {len(fused)} are fused at most.")
        for one, seen in looked.found[len(fused) :]
    ]
    picked = settings.reference != "auto"
    others = [_unverified(one, reads=reads, seen=seen, picked=picked) for one, seen in looked.others]
    return [replace(one, rank=rank) for rank, one in enumerate([*verified, *others], 1)], evidence


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
        facts = f" Not verified: {seen.found_again}."
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
