"""Retrieval, the R of equation (1): clean the query, embed it once, search the gallery, accept what may guide.

A photo is accepted when its similarity to the query passes two tests.

- **Threshold**: it must be higher than what the best *unrelated* photo of a gallery this large reaches. A flat cut-off
  would be wrong at both ends: the best of 10 000 unrelated photos looks more like the query than the best of three.
- **Margin**: it must stand out from the query's own scores over the whole gallery. A dark or featureless query looks a
  little like everything. The margin is not asked of a similarity so high that it is sure, nor of a gallery too small
  to have a distribution: a gallery that holds a single species is alike throughout, and rightly so.

Both are calibrated per encoder, on degraded queries (``calibration.toml``, docs/retrieval.md).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import pairwise
from math import log10
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from rasr.errors import ConfigError, GalleryError
from rasr.files import home, parse_object, parse_toml, read_text
from rasr.gallery.gallery import Gallery
from rasr.gallery.photo import Reference
from rasr.gallery.search import CleanQuery, Filters, Queryable

SHOWN = 5
"""Matches looked at and reported, used or not, so that a user can pick another one."""
SMALL_GALLERY = 20
"""Below this many photos the spread of a query's scores says nothing and only the threshold counts."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the policy knows about one encoder's similarities."""

    thresholds: tuple[tuple[int, float], ...]
    """(gallery size, similarity) pairs, sizes rising: the best unrelated photo stays below in 9 of 10 queries."""
    margin: float
    """How far an accepted photo must stand above the median of the query's scores over the gallery."""
    sure: float
    """Similarity that is always enough: unrelated photos reach it once in 100 queries, in the largest gallery tried."""
    measured: bool = True
    """False for the conservative values that stand in for an encoder nobody has calibrated."""

    def threshold(self, photos: int) -> float:
        """The similarity to reach among ``photos``: linear in log(size) between, and beyond, what was measured.

        Never more than ``sure``, or no match would be good enough for a gallery of millions.
        """
        sizes = [size for size, _ in self.thresholds]
        if len(sizes) == 1 or photos <= sizes[0]:
            return self.thresholds[0][1]
        upper = min(bisect_left(sizes, photos), len(sizes) - 1)
        (small, low), (large, high) = self.thresholds[upper - 1], self.thresholds[upper]
        return min(self.sure, low + (high - low) * log10(photos / small) / log10(large / small))


UNMEASURED = Calibration(thresholds=((1, 0.5),), margin=0.05, sure=0.8, measured=False)
"""For encoders without calibration. High enough that what passes is a good match with any encoder of this kind; some
good matches are turned down."""


def retrieve(
    gallery: Gallery,
    query: Queryable,
    *,
    k: int = 1,
    shown: int = SHOWN,
    clean: CleanQuery | None = None,
    **filters: Unpack[Filters],
) -> list[Reference]:
    """Find the photos most similar to ``query``, best first, and mark up to ``k`` that may guide its restoration.

    ``max(k, shown)`` are looked at. ``clean`` is applied to a picture before it is embedded; an embedding or a
    :class:`Query` is taken as it is. ``filters`` are those of :meth:`Gallery.search`, which also names the errors
    raised; ConfigError for a broken calibration file.
    """
    guard = filters.get("exclude_near_duplicates", False)
    asked = gallery.prepare([query], clean=clean, guard=guard)[0]
    proposals = gallery.search(asked, max(k, shown), **filters)
    if not proposals:
        return []
    scores, own = gallery.scores(asked), calibration_of_gallery(gallery)
    return accept(proposals, scores, gallery.encoder.name, k=k, calibration=own, photos=len(gallery))


def accept(
    references: Sequence[Reference],
    scores: NDArray[np.float32] | Sequence[float],
    encoder: str,
    *,
    k: int = 1,
    calibration: Calibration | None = None,
    photos: int | None = None,
) -> list[Reference]:
    """Mark which of ``references`` may guide the restoration: the best ``k`` that pass, each with its reason.

    ``references`` are a search's answer, best first; ones already turned down (a missing file) stay so. ``scores`` are
    the query's cosine similarities to the gallery's photos, or to some of its ``photos``. ``encoder`` is its encoder's
    name, whose calibration counts where the gallery has none of its own (``calibration``). Raises ValueError for k
    below 1 and ConfigError for a broken calibration file.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    calibration = calibration or calibration_of(encoder)
    spread = np.asarray(scores, np.float32)
    judged: list[Reference] = []
    for reference in references:
        if reference.accepted:
            full = sum(done.accepted for done in judged) >= k
            passed, why = _judge(reference.score, spread, calibration, encoder, photos or spread.size)
            if passed and full:
                why = f"Not used: it would do, but {'only the best was' if k == 1 else f'the best {k} were'} asked for."
            judged.append(replace(reference, accepted=passed and not full, why=why))
        else:
            judged.append(reference)
    return judged


def _judge(
    score: float, spread: NDArray[np.float32], calibration: Calibration, encoder: str, photos: int
) -> tuple[bool, str]:
    threshold = calibration.threshold(max(1, photos))
    typical = float(np.median(spread)) if spread.size else 0.0
    margin = min(calibration.sure, typical + calibration.margin) if spread.size >= SMALL_GALLERY else 0.0
    needed = max(threshold, margin)
    among = f"in a gallery of {photos}" if photos > 1 else "of one photo"
    reach = f"unrelated photos reach it {among}" if threshold >= margin else f"half of the gallery has {typical:.2f}"
    basis = "" if calibration.measured else f"; {encoder} has no calibration: cautious defaults"
    scores = f"{score:.2f}, needs {needed:.2f} here ({reach}{basis})."
    return (True, f"Matches well: {scores}") if score >= needed else (False, f"Turned down: matches {scores}")


def calibration_of(encoder: str) -> Calibration:
    """The encoder's calibration: the user's own (``calibration.toml`` in :func:`rasr.files.home`) or the one shipped.

    Encoders in neither get cautious values, marked ``measured=False``. Raises ConfigError for a broken file.
    """
    own = home() / "calibration.toml"
    if own.is_file():
        found = _read(read_text(own, "calibration", ConfigError), str(own)).get(encoder)
        if found is not None:
            return found
    return _shipped().get(encoder, UNMEASURED)


def calibration_of_gallery(gallery: Gallery) -> Calibration | None:
    """The gallery's own calibration for the encoder it has now, or None. Raises GalleryError for a broken one."""
    text = gallery.calibration
    if not text:
        return None
    try:
        table = parse_object(text)
        return _calibration(table) if table["encoder"] == gallery.encoder.fingerprint else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GalleryError(
            f"The calibration in {gallery.address} is broken. Make it anew: rasr gallery calibrate {gallery.address}"
        ) from error


@cache
def _shipped() -> dict[str, Calibration]:
    file = files("rasr.gallery") / "calibration.toml"
    return _read(file.read_text(encoding="utf-8"), str(file))


def _read(text: str, name: str) -> dict[str, Calibration]:
    try:
        return {encoder: _calibration(table) for encoder, table in parse_toml(text).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{name} is not a calibration that runs/retrieval_calibrate.py wrote: {error!r}") from error


def _calibration(table: dict[str, object]) -> Calibration:
    pairs = tuple((int(size), float(value)) for size, value in table["thresholds"])  # type: ignore[attr-defined]  # from TOML
    if not pairs or any(a[0] >= b[0] for a, b in pairwise(pairs)) or pairs[0][0] < 1:
        raise ValueError("thresholds must be pairs of rising gallery sizes and similarities")
    return Calibration(pairs, float(table["margin"]), float(table["sure"]))  # type: ignore[arg-type]  # from TOML
