"""Equation (1) put to work: I_HR = G(I_LR, R(I_LR, D)), from a picture to a Result."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rasr.errors import OutOfMemory
from rasr.gallery import Reference, retrieve
from rasr.generator import DEFAULT_PRESET, Generator, load_generator
from rasr.generator.query import QUERY_CLEANER, QueryRestore, clean_query
from rasr.images import FloatImage, Limits, Picture, read_picture, resize
from rasr.memory import free_memory
from rasr.restoration.alpha import bleed_colour, resize_alpha
from rasr.restoration.cleaned import CleanedPictures
from rasr.restoration.colour import ColourMethod, match_colour
from rasr.restoration.context import context_options
from rasr.restoration.memory import choose_tile
from rasr.restoration.references import load_guides, picked_references
from rasr.restoration.result import Result
from rasr.restoration.settings import Settings
from rasr.restoration.size import TargetSize
from rasr.restoration.tile_runner import generate_tiled

if TYPE_CHECKING:
    from rasr.gallery import Gallery

__all__ = ["Restorer", "restore"]

Progress = Callable[[float], None]
Choice = Literal["auto", "none"] | str | Path | Sequence[str | Path]

BYTES_PER_PIXEL = 24
"""Peak cost of one output pixel beside the tile: float32 canvas, strips of the colour match, and what is encoded."""


class Restorer:
    """Restores pictures, guided by a gallery. Build once, call often: weights and gallery load on first use.

    ``preset`` names a generator (:data:`rasr.generator.PRESETS`) or is one; ``gallery`` is a :class:`rasr.Gallery`, the
    path of one, or a folder of photos, which is indexed once; without it there are no references. ``device``, ``dtype``
    and ``options`` go to the generator.
    """

    def __init__(
        self,
        preset: str | Generator = DEFAULT_PRESET,
        gallery: Gallery | str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        **options: Any,
    ) -> None:
        if isinstance(preset, str):
            self.preset = preset
            options = context_options(preset) | options
            self.generator = load_generator(preset, device=device, dtype=dtype, **options)
        else:
            self.preset = preset.info.name
            self.generator = preset
        self._gallery = gallery
        self._cleaned = CleanedPictures()

    @cached_property
    def gallery(self) -> Gallery | None:
        """The opened gallery, or None."""
        if isinstance(self._gallery, str | Path):
            from rasr.gallery import open_gallery_or_folder

            return open_gallery_or_folder(self._gallery)
        return self._gallery

    def __call__(
        self,
        picture: Picture | str | Path,
        *,
        reference: Choice = "auto",
        k: int = 1,
        strength: float = 1.0,
        size: TargetSize | None = None,
        tile: int | Literal["auto"] = "auto",
        colour: ColourMethod | Literal["auto"] = "auto",
        seed: int = 0,
        query_restore: QueryRestore = "auto",
        prompt: str | None = None,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """Restore one picture; options as in :class:`Settings`. ``reference`` also takes a photo, or several.

        ``progress`` is called with 0..1. Raises PictureError, GalleryError, WeightsError, UsageError or OutOfMemory.
        """
        settings = Settings(
            reference=_as_choice(reference),
            k=k,
            strength=strength,
            size=size or TargetSize(),
            tile=tile,
            colour=colour,
            seed=seed,
            query_restore=query_restore,
            prompt=prompt,
        )
        return self.run(picture, settings, limits=limits, progress=progress)

    def run(
        self,
        picture: Picture | str | Path,
        settings: Settings,
        *,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """As calling, with the options in one object."""
        timings: dict[str, float] = {}
        with _timed(timings, "read"):
            source = picture if isinstance(picture, Picture) else read_picture(picture, limits=limits)
        width, height = size = settings.size.of(source.width, source.height)
        self._check_memory(size)
        colour = self.generator.info.colour if settings.colour == "auto" else settings.colour
        lq = source.pixels if source.alpha is None else bleed_colour(source.pixels, source.alpha)
        base = self._clean(lq, size, settings, timings, progress)
        with _timed(timings, "search"):
            references = self._references(source, settings, base)
        notes = [*source.notes, *self._remarks(references, settings)]
        pixels, tile = self._restore(lq, size, base, references, settings, timings, notes, progress)
        with _timed(timings, "colour"):
            match_colour(pixels, lq, colour)
            if source.origin.gray:
                pixels[:] = pixels.mean(axis=2, keepdims=True)
            alpha = None if source.alpha is None else resize_alpha(source.alpha, size)
        facts = {
            **self._facts(),
            **settings.to_json(),
            "colour": colour,
            "tile": tile,
            "width": width,
            "height": height,
        }
        return Result(source.with_pixels(pixels, alpha), source, references, facts, timings, tuple(notes))

    def _references(self, source: Picture, settings: Settings, base: FloatImage | None) -> list[Reference]:
        if isinstance(settings.reference, tuple):
            return picked_references(settings.reference)
        if settings.reference == "none" or self.gallery is None:
            return []
        cleaner = self.generator.cleaner
        reusable = base is not None and cleaner is not None and cleaner.info.name == QUERY_CLEANER
        return retrieve(
            self.gallery,
            source,
            k=settings.k,
            clean=partial(clean_query, mode=settings.query_restore, cleaned=base if reusable else None),
            exclude=[source.path] if source.path is not None else [],
        )

    def _clean(
        self,
        lq: FloatImage,
        size: tuple[int, int],
        settings: Settings,
        timings: dict[str, float],
        progress: Progress | None,
    ) -> FloatImage | None:
        """What the cleaner makes of the picture, on the generator's grid; None without a cleaner."""
        cleaner = self.generator.cleaner
        if cleaner is None:
            return None
        with _timed(timings, "clean"):
            lq = self._reduced(lq, size, cleaner.info.grid)
            grid = size if self.generator.info.grid == "output" else (lq.shape[1], lq.shape[0])

            def clean() -> FloatImage:
                conditioning, tile = cleaner.prepare(lq, [], settings.generation), choose_tile("auto", cleaner.info)
                half = _part(progress, 0.0, 0.5)
                return generate_tiled(cleaner, conditioning, lq, grid, tile=tile, progress=half)[0]

            base, saved = self._cleaned.get(lq, grid, clean)
        if saved:
            timings["clean_saved"] = saved
        return base

    @staticmethod
    def _reduced(lq: FloatImage, size: tuple[int, int], grid: str) -> FloatImage:
        """The picture at the result's size where that is smaller: there would be no room for the enlarged pixels."""
        if grid == "input" and (size[0] < lq.shape[1] or size[1] < lq.shape[0]):
            return np.clip(resize(lq, size), 0.0, 1.0)
        return lq

    def _restore(
        self,
        lq: FloatImage,
        size: tuple[int, int],
        base: FloatImage | None,
        references: Sequence[Reference],
        settings: Settings,
        timings: dict[str, float],
        notes: list[str],
        progress: Progress | None,
    ) -> tuple[FloatImage, int]:
        generator, info = self.generator, self.generator.info
        lq = self._reduced(lq, size, info.grid)
        guided = info.uses_reference and settings.strength > 0
        with _timed(timings, "prepare"):
            guides = load_guides(references) if guided else []
            conditioning = generator.prepare(lq, guides, replace(settings.generation, size=size))
        first = 0.0 if base is None else 0.5
        side = choose_tile(settings.tile, info)
        with _timed(timings, "restore"):
            pixels, used = generate_tiled(
                generator, conditioning, lq, size, base=base, tile=side, progress=_part(progress, first, 1.0)
            )
        if used < side:
            notes.append(f"Memory ran out with tiles of {side} pixels: finished with {used}.")
        return pixels, used

    def _remarks(self, references: Sequence[Reference], settings: Settings) -> Iterator[str]:
        """What a user must know about how references were used, or not."""
        info = self.generator.info
        accepted = any(reference.accepted for reference in references)
        if not info.trained:
            yield f"{info.name} has untrained weights: its result means nothing."
        if references and not info.uses_reference:
            yield f"{info.name} does not use references; they are shown for you."
        elif references and not accepted:
            yield "No suitable reference in the gallery: restored without one."
        elif accepted and settings.strength == 0:
            yield "Strength 0: the reference was not used."
        elif info.uses_reference and self._gallery is None and settings.reference == "auto":
            yield "No gallery was given: restored without a reference."

    def _facts(self) -> dict[str, Any]:
        info = self.generator.info
        facts: dict[str, Any] = {
            "preset": self.preset,
            "generator": _generator_facts(self.generator),
            "cleaner": None if self.generator.cleaner is None else _generator_facts(self.generator.cleaner),
            "device": info.device,
            "gallery": None,
            "encoder": None,
            "versions": _versions(),
        }
        if self.gallery is not None:
            facts |= {"gallery": str(self.gallery.path), "encoder": self.gallery.encoder.fingerprint}
        return facts

    def _check_memory(self, size: tuple[int, int]) -> None:
        canvases = 1 if self.generator.cleaner is None else 1.5
        needed = size[0] * size[1] * BYTES_PER_PIXEL * canvases
        if needed > (free := free_memory()):
            raise OutOfMemory(
                f"A result of {size[0]}×{size[1]} pixels needs about {needed / 2**30:.1f} GiB of memory and "
                f"{free / 2**30:.1f} GiB are free. Ask for a smaller --scale or --long-side."
            )


def restore(
    picture: Picture | str | Path,
    gallery: Gallery | str | Path | None = None,
    *,
    preset: str = DEFAULT_PRESET,
    device: str = "auto",
    **options: Any,
) -> Result:
    """Restore one picture in one line; ``options`` as in calling a :class:`Restorer`."""
    return Restorer(preset, gallery, device=device)(picture, **options)


def _as_choice(reference: Choice) -> Literal["auto", "none"] | tuple[Path, ...]:
    if reference == "auto":
        return "auto"
    if reference == "none":
        return "none"
    return (Path(reference),) if isinstance(reference, str | Path) else tuple(Path(path) for path in reference)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    timings[stage] = round(time.perf_counter() - begun, 3)


def _part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    return None if progress is None else lambda done: progress(begin + (end - begin) * done)


def _generator_facts(generator: Generator) -> dict[str, Any]:
    info = generator.info
    return {
        "name": info.name,
        "weights": info.weights,
        "licence": info.licence,
        "trained": info.trained,
        "uses_reference": info.uses_reference,
    }


def _versions() -> dict[str, str]:
    """Versions of what computes: python, this package, and the numerical packages that are loaded."""
    loaded = [name for name in ("numpy", "pillow", "ncnn", "torch", "diffusers") if _module(name) in sys.modules]
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in ("rasr", *loaded)
    }


def _module(package: str) -> str:
    return {"pillow": "PIL"}.get(package, package)
