"""Whether a gallery's own calibration is as good as the figures that come with its encoder.

    python -m benchmarks.gallery_calibrate [--photos ../shared/photos] [--queries 35] [--encoder NAME]

The gallery is all photos of the set, without their categories. Some photos ask, degraded (centre crop and whole,
``realesrgan`` ×4) and cleaned as by ``rasr restore``, never finding themselves. Every second of them calibrates, by the
rule of ``rasr gallery calibrate``; the others are judged. *Right*: the best match has the query's category. *Wrong*:
the query's own and all related categories (runs/retrieval_calibrate.py) are gone from the gallery, so whatever is found
is unrelated. Printed is how many right matches either rule accepts and how many wrong ones it turns down, by threshold,
and 95 % intervals by bootstrap over photos of the difference. Embeddings are kept in --cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rasr.gallery.calibrate import figures
from rasr.gallery.encoders import load_encoder
from rasr.gallery.retrieval import Calibration, calibration_of
from rasr.generator import clean_query
from runs import machine
from runs.retrieval_calibrate import related
from runs.retrieval_set import Photo, arguments, embeddings, photos, query

KINDS = ("crop", "whole")


def main() -> None:
    """Print a line for each rule, and their difference."""
    parser = arguments(__doc__)
    parser.add_argument("--queries", type=int, default=35, help="photos that ask, half of them to calibrate from")
    options = parser.parse_args()
    everything = photos(options.photos)
    encoder = load_encoder(options.encoder)
    gallery = embeddings(encoder, "clean", everything, Photo.read, options.cache)
    asking = np.random.default_rng(7).permutation(len(everything))[: options.queries]
    asked = [everything[i] for i in asking]

    def ask(kind: str):  # noqa: ANN202
        def pixels(photo: Photo):  # noqa: ANN202
            return clean_query(query(photo, kind, 0), encoder.input_size)

        return embeddings(encoder, f"{kind}-0-cleaned", asked, pixels, options.cache)

    scores = np.concatenate([ask(kind) for kind in KINDS]) @ gallery.T
    own = np.tile(asking, len(KINDS))
    halves = np.tile(np.arange(len(asking)) % 2, len(KINDS))
    first = halves == 0
    table = figures(scores[first], own[first], gallery, np.random.default_rng(0))
    pairs = tuple((int(size), float(value)) for size, value in table["thresholds"])  # type: ignore[attr-defined]
    rules = {"by hand": calibration_of(encoder.name)}
    rules["its own"] = Calibration(pairs, float(table["margin"]), float(table["sure"]))  # type: ignore[arg-type]
    categories = [photo.category for photo in everything]
    kin, same = related(categories), np.array([[a == b for b in categories] for a in categories])
    print(f"{encoder.name}: {len(everything)} photos, {first.sum()} queries to calibrate; {machine()}")
    judge(scores[~first], own[~first], rules, same, kin)


def judge(
    scores: np.ndarray, own: np.ndarray, rules: dict[str, Calibration], same: np.ndarray, kin: np.ndarray
) -> None:
    """Print what each rule makes of the matches of the other queries."""
    scores = scores.copy()
    scores[np.arange(len(own)), own] = -1
    best, unrelated = scores.argmax(axis=1), ~kin[own]
    right = same[own, best]
    far, counts = np.where(unrelated, scores, -1).max(axis=1), unrelated.sum(axis=1)
    verdicts = []
    for label, rule in rules.items():
        accepted = scores.max(axis=1) >= rule.threshold(scores.shape[1] - 1)
        refused = np.array([score < rule.threshold(int(n)) for score, n in zip(far, counts, strict=True)])
        verdicts.append((accepted, refused))
        shares = f"right accepted {accepted[right].mean():.2f}, wrong refused {refused.mean():.2f}"
        both = accepted[right].mean() + refused.mean()
        print(f"  {label}: needs {rule.threshold(scores.shape[1] - 1):.3f}; {shares}, together {both:.2f}")
    gains = [gain(verdicts, right, own, drawn) for drawn in _draws(own)]
    low, high = np.nanquantile(gains, [0.025, 0.975])
    print(f"  {right.sum()} right and {len(own)} wrong matches; together, its own against by hand: ", end="")
    print(f"{gain(verdicts, right, own, np.unique(own)):+.2f} [{low:+.2f}, {high:+.2f}]")


def gain(
    verdicts: Sequence[tuple[np.ndarray, np.ndarray]], right: np.ndarray, own: np.ndarray, drawn: np.ndarray
) -> float:
    """Difference of both shares' sum between the second rule and the first, over the photos drawn."""
    rows = np.concatenate([np.flatnonzero(own == photo) for photo in drawn])
    if not right[rows].any():
        return float("nan")
    by_hand, its_own = (accepted[rows][right[rows]].mean() + refused[rows].mean() for accepted, refused in verdicts)
    return float(its_own - by_hand)


def _draws(own: np.ndarray) -> list[np.ndarray]:
    rng, asked = np.random.default_rng(0), np.unique(own)
    return [rng.choice(asked, len(asked)) for _ in range(1000)]


if __name__ == "__main__":
    main()
