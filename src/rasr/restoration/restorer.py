"""Restorer, equation (1) put to work: I_HR = G(I_LR, R(I_LR, D)), from a picture to a Result that can be saved."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import OutOfMemory, UsageError
from rasr.gallery import Gallery, Reference, gallery_address, open_gallery_or_folder, retrieve
from rasr.gallery.encoders import Encoder, load_encoder
from rasr.gallery.retrieval import SHOWN
from rasr.generator import (
    DEFAULT_DETAIL,
    DEFAULT_PRESET,
    QUERY_CLEANER,
    Generator,
    ReferencePicture,
    clean_query,
    load_generator,
)
from rasr.images import FloatImage, Limits, Picture, read_header, resize
from rasr.memory import LruCache, free_memory, memory_errors_told
from rasr.options import takes_options
from rasr.progress import Progress, timed
from rasr.restoration.colour import bleed_colour, match_colour, resize_alpha
from rasr.restoration.exchange import take_picture
from rasr.restoration.references import read_references, tell_changed
from rasr.restoration.resolution import put_back, reduce_blurred, tell_reduced
from rasr.restoration.result import Result, installed_version
from rasr.restoration.settings import Settings
from rasr.restoration.tiles import choose_tile, generate_tiled
from rasr.weights import require

if TYPE_CHECKING:
    from rasr.restoration.same_scene import Looked

BYTES_PER_PIXEL = 24
"""Peak cost of one output pixel beside the tile: float32 canvas, strips of the colour match, and what is encoded."""
CLEANED_BYTES = 128 * 2**20
"""Of cleaned pictures kept: trying another reference or strength on a picture need not clean it again."""


class Restorer:
    """Restores pictures, guided by a gallery. Build once, call often: weights and gallery load on first use.

    ``preset`` names a generator (:data:`rasr.generator.PRESETS`) or is one; ``gallery`` is a :class:`rasr.Gallery`, the
    path of one, or a folder of photos, which is indexed once; without it there are no references. ``device``, ``dtype``
    and ``options`` go to the generator; ``cleaned_bytes`` bounds what is kept of cleaned pictures.
    """

    def __init__(
        self,
        preset: str | Generator = DEFAULT_PRESET,
        gallery: Gallery | str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        cleaned_bytes: int = CLEANED_BYTES,
        **options: Any,
    ) -> None:
        self.made_of: dict[str, Any] | None = None
        """What another process makes the same generator of: preset, device, dtype and its options."""
        if isinstance(preset, str):
            self.preset = preset
            self.made_of = {"preset": preset, "device": device, "dtype": dtype, **options}
            self.generator = load_generator(preset, device=device, dtype=dtype, **options)
        else:
            self.preset = preset.info.name
            self.generator = preset
        self._gallery = gallery
        self._cleaned: LruCache[tuple[FloatImage, float]] = LruCache(cleaned_bytes, lambda kept: kept[0].nbytes)

    @property
    def gallery(self) -> Gallery | None:
        """The gallery, opened when first asked for, or None."""
        return self.open_gallery()

    @property
    def gallery_address(self) -> str | None:
        """The address of the gallery, without opening it, or None. Raises GalleryNotFound."""
        if self._gallery is None or isinstance(self._gallery, Gallery):
            return None if self._gallery is None else self._gallery.address
        return gallery_address(self._gallery)

    def open_gallery(self, progress: Progress | None = None) -> Gallery | None:
        """Open the gallery, whose folder of photos is indexed if it is one. Raises GalleryError."""
        if isinstance(self._gallery, str | Path):
            self._gallery = open_gallery_or_folder(self._gallery, progress=progress)
        return self._gallery

    def check(self, settings: Settings) -> None:
        """Refuse settings that this generator cannot take, before any network is loaded.

        Raises UsageError, and WeightsMissing where weights that it needs are not on this machine.
        """
        info = self.generator.info
        if settings.prompt and not info.reads_text:
            raise UsageError(f"{info.name} reads no text: leave out the prompt.")
        if settings.detail != DEFAULT_DETAIL and not any(one.info.has_detail for one in self._networks):
            raise UsageError(f"{info.name} has no dial for detail: leave it out, or use the preset {DEFAULT_PRESET}.")
        if settings.tile != "auto":
            choose_tile(settings.tile, info)
        for name in info.needs:
            require(name)

    @takes_options(Settings)
    @memory_errors_told("Not enough memory to restore the picture. Ask for a smaller --scale, --long-side or --tile.")
    def __call__(
        self,
        picture: Picture | str | Path | bytes | Image.Image | NDArray[Any],
        settings: Settings | None = None,
        *,
        limits: Limits | None = None,
        progress: Progress | None = None,
        **changes: Any,
    ) -> Result:
        """Restore one picture; ``changes`` are fields of :class:`Settings`, put in place of those of ``settings``.

        ``picture`` is a path, the bytes of a file, a Picture, a Pillow image, or an array in RGB: uint8 from 0 to 255
        or float from 0 to 1, of shape (H, W, 3), (H, W, 4) with alpha last, or (H, W).
        ``progress`` is called with the stages "clean", where a cleaner runs, and "restore". Raises PictureError,
        GalleryError, WeightsError, UsageError or OutOfMemory.
        """
        settings, info = replace(settings or Settings(), **changes), self.generator.info
        self.check(settings)
        timings: dict[str, float] = {}
        with timed(timings, "read"):
            source = take_picture(picture, limits)
        width, height = size = settings.size.of(source.width, source.height)
        self._check_memory(size)
        colour = info.colour if settings.colour == "auto" else settings.colour
        whole = source.pixels if source.alpha is None else bleed_colour(source.pixels, source.alpha)
        lq, blur = self._resolved(whole, size, settings, timings)
        base = self._clean(self.generator.cleaner, lq, size, settings, timings, progress)
        with timed(timings, "search"):
            references = self._references(source, settings, base)
        notes = list(source.notes)
        reduced = self._reduced(lq, size, info.grid)
        looked, pictures = self._registered(lq, size, base, references, settings, limits, timings, progress)
        with timed(timings, "prepare"):
            reads = info.uses_reference and not pictures
            accepted = [one for one in references if one.accepted and reads and settings.strength > 0]
            pictures += read_references(accepted, limits, held=reduced.shape[0] * reduced.shape[1])
            generation = replace(settings.generation, embedding=self._embedding(reduced))
            conditioning = self.generator.prepare(reduced, pictures, generation)
        side = choose_tile(settings.tile, info)
        with timed(timings, "restore"):
            pixels, tile = generate_tiled(
                self.generator, conditioning, reduced, size, base=base, tile=side, progress=progress
            )
        if tile < side:
            notes.append(f"Memory ran out with tiles of {side} pixels: finished with {tile}.")
        with timed(timings, "colour"):
            put_back(pixels, whole, blur)
            if colour != "none":
                match_colour(pixels, whole, colour)
        evidence = None
        if settings.candidates and references:
            with timed(timings, "same scene"):
                from rasr.restoration.same_scene import fuse_same_scene

                looked = looked or self._look(pixels, references, settings, limits)
                references, evidence = fuse_same_scene(pixels, lq, looked, settings, reads=reads)
        references = tell_changed(references, {one.path: one.covers for one in pictures if one.path is not None})
        notes += [*tell_reduced(whole, lq), *self._remarks(references, settings)]
        with timed(timings, "colour"):
            if source.origin.gray:
                pixels[:] = pixels.mean(axis=2, keepdims=True)
            alpha = None if source.alpha is None else resize_alpha(source.alpha, size)
        chosen: dict[str, Any] = {"colour": colour, "tile": tile, "width": width, "height": height}
        chosen["reduced_to"] = None if lq is whole else [lq.shape[1], lq.shape[0]]
        facts = {**self._facts(settings), **settings.to_json(), **chosen}
        restored = source.with_pixels(pixels, alpha)
        return Result(restored, source, references, facts, timings, tuple(notes), evidence=evidence)

    @property
    def _networks(self) -> list[Generator]:
        """The generator, and what cleans before it."""
        return [one for one in (self.generator, self.generator.cleaner) if one is not None]

    def _resolved(
        self, lq: FloatImage, size: tuple[int, int], settings: Settings, timings: dict[str, float]
    ) -> tuple[FloatImage, float]:
        """The picture and 0; or a blurred one where it is sharp, for a network that enlarges, and its blur."""
        if not settings.reduce or not any(one.info.grid == "input" and one.info.scale > 1 for one in self._networks):
            return lq, 0.0
        with timed(timings, "resolution"):
            return reduce_blurred(lq, scale=size[0] / lq.shape[1])

    def _references(self, source: Picture, settings: Settings, base: FloatImage | None) -> list[Reference]:
        if isinstance(settings.reference, tuple):
            return pick_references(settings.reference)
        if settings.reference == "none" or self.gallery is None:
            return []
        cleaner = self.generator.cleaner
        reusable = base is not None and cleaner is not None and cleaner.info.name == QUERY_CLEANER
        return retrieve(
            self.gallery,
            source,
            k=settings.k,
            shown=max(SHOWN, settings.candidates),
            clean=partial(clean_query, mode=settings.query_restore, cleaned=base if reusable else None),
            exclude=[source.path] if source.path is not None else [],
        )

    def _look(
        self, pixels: FloatImage, references: Sequence[Reference], settings: Settings, limits: Limits | None
    ) -> Looked:
        from rasr.restoration.same_scene import look  # OpenCV and kornia take a second to load

        folder = None if self.gallery is None else self.gallery.path
        return look(pixels, references, settings, gallery=folder, limits=limits)

    def _registered(
        self,
        lq: FloatImage,
        size: tuple[int, int],
        base: FloatImage | None,
        references: Sequence[Reference],
        settings: Settings,
        limits: Limits | None,
        timings: dict[str, float],
        progress: Progress | None,
    ) -> tuple[Looked | None, list[ReferencePicture]]:
        """Photos of the same scene brought onto the picture, for a generator that is to be shown them so.

        They are looked for in what a cleaner makes of the picture, and not in what the generator would draw.
        """
        if not (self.generator.info.registered and references and settings.candidates and settings.strength):
            return None, []
        guide = self._clean(self._guide, lq, size, settings, timings, progress) if base is None else base
        if guide is None:
            raise ValueError("a guide without a cleaner")
        with timed(timings, "same scene"):
            looked = self._look(guide, references, settings, limits)
            return looked, looked.place(guide, lq, settings)

    @cached_property
    def _guide(self) -> Generator:
        """What cleans where the generator has no cleaner of its own."""
        return load_generator(QUERY_CLEANER)

    def _clean(
        self,
        cleaner: Generator | None,
        lq: FloatImage,
        size: tuple[int, int],
        settings: Settings,
        timings: dict[str, float],
        progress: Progress | None,
    ) -> FloatImage | None:
        """Clean the picture, to (H, W, 3) on the generator's grid, read-only; None without a cleaner."""
        if cleaner is None:
            return None
        with timed(timings, "clean"):
            lq = self._reduced(lq, size, cleaner.info.grid)
            grid = size if self.generator.info.grid == "output" else (lq.shape[1], lq.shape[0])

            def clean() -> tuple[FloatImage, float]:
                begun = time.perf_counter()
                conditioning, tile = cleaner.prepare(lq, [], settings.generation), choose_tile("auto", cleaner.info)
                cleaned, _ = generate_tiled(
                    cleaner, conditioning, lq, grid, tile=tile, progress=progress, stage="clean"
                )
                cleaned.flags.writeable = False
                return cleaned, time.perf_counter() - begun

            key = (xxhash.xxh3_128_hexdigest(np.ascontiguousarray(lq).data), lq.shape, grid, settings.detail)
            known = key in self._cleaned
            base, seconds = self._cleaned.get(key, clean)
        if known:
            timings["clean_saved"] = seconds
        return base

    @staticmethod
    def _reduced(lq: FloatImage, size: tuple[int, int], grid: str) -> FloatImage:
        """The picture at the result's size where that is smaller: there would be no room for the enlarged pixels."""
        if grid == "input" and (size[0] < lq.shape[1] or size[1] < lq.shape[0]):
            return np.clip(resize(lq, size), 0.0, 1.0)
        return lq

    def _embedding(self, lq: FloatImage) -> NDArray[np.float32] | None:
        """The semantic context that the generator asks for; its encoder is its own, whatever the gallery's is."""
        if not self.generator.info.context_encoder:
            return None
        embedding: NDArray[np.float32] = self._context_encoder.embed(self._context_encoder.preprocess(lq)[None])[0]
        return embedding

    @cached_property
    def _context_encoder(self) -> Encoder:
        return load_encoder(self.generator.info.context_encoder)

    def _remarks(self, references: Sequence[Reference], settings: Settings) -> Iterator[str]:
        """Yield what a user must know about how references were used, or not."""
        info = self.generator.info
        accepted = any(reference.accepted for reference in references)
        reads = info.uses_reference
        if not info.trained:
            yield f"{info.name} has untrained weights: its result means nothing."
        cleaner = self.generator.cleaner
        yield from filter(None, (info.remark, "" if cleaner is None else cleaner.info.remark))
        if references and not accepted:
            yield (
                "No photo of the same scene: restored without a reference."
                if settings.candidates and not reads
                else "No suitable reference in the gallery: restored without one."
            )
        elif accepted and not reads and not settings.candidates:
            yield f"{info.name} does not use references; they are shown for you."
        elif accepted and settings.strength == 0:
            yield "Strength 0: the reference was not used."
        elif (reads or settings.candidates) and self._gallery is None and settings.reference == "auto":
            yield "No gallery was given: restored without a reference."

    def _facts(self, settings: Settings) -> dict[str, Any]:
        info, cleaner = self.generator.info, self.generator.cleaner
        facts: dict[str, Any] = {
            "preset": self.preset,
            "generator": _generator_facts(self.generator, settings),
            "cleaner": None if cleaner is None else _generator_facts(cleaner, settings),
            "device": info.device,
            "gallery": None,
            "encoder": None,
            "versions": _versions(),
        }
        if self.gallery is not None:
            facts |= {"gallery": self.gallery.address, "encoder": self.gallery.encoder.fingerprint}
        return facts

    def _check_memory(self, size: tuple[int, int]) -> None:
        canvases = 1 if self.generator.cleaner is None else 1.5
        needed = size[0] * size[1] * BYTES_PER_PIXEL * canvases
        if needed > (free := free_memory()):
            raise OutOfMemory(
                f"A result of {size[0]}×{size[1]} pixels needs about {needed / 2**30:.1f} GiB of memory and "
                f"{free / 2**30:.1f} GiB are free. Ask for a smaller --scale or --long-side."
            )


@takes_options(Settings)
def restore(
    picture: Picture | str | Path | bytes | Image.Image | NDArray[Any],
    gallery: Gallery | str | Path | None = None,
    *,
    preset: str = DEFAULT_PRESET,
    device: str = "auto",
    limits: Limits | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Result:
    """Restore one picture in one line, as :class:`Restorer` does; to restore several, build one of those."""
    return Restorer(preset, gallery, device=device)(picture, limits=limits, progress=progress, **settings)


def pick_references(paths: Sequence[Path]) -> list[Reference]:
    """Accept photos picked by hand, best first, without question, with score 1.

    Raises PictureError for a file that is no picture, whether or not the generator will look at it.
    """
    for path in paths:
        read_header(path)
    return [Reference(path, 1.0, rank, why="Picked by hand.") for rank, path in enumerate(paths, 1)]


def _generator_facts(generator: Generator, settings: Settings) -> dict[str, Any]:
    names = ("name", "weights", "licence", "trained", "uses_reference")
    facts = {name: getattr(generator.info, name) for name in names}
    registered = {"registered": True} if generator.info.registered else {}
    return facts | registered | {"weights": generator.info.weights_at(settings.detail)}


def _versions() -> dict[str, str]:
    """Versions of what can compute: the same whatever was loaded before, so that results are the same to the byte."""
    packages = ("rasr", "numpy", "pillow", "ncnn", "torch", "diffusers")
    found = {name: version for name in packages if (version := installed_version(name)) is not None}
    return {"python": platform.python_version(), **found}
