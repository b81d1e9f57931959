"""Whether a gallery's own calibration is as good as the figures that come with its encoder.

    python -m benchmarks.gallery_calibrate [--photos ../shared/photos] [--encoder NAME ...] [--sample 25]

The gallery holds all photos of the set, without their categories; ``rasr gallery calibrate`` samples some of them. Then
photos that it did not sample ask, degraded (centre crop and whole, ``realesrgan`` ×4) and cleaned as by ``rasr
restore``, never finding themselves. *Right*: the best match has the query's category. *Wrong*: the query's own and all
related categories (runs/retrieval_calibrate.py) are gone from the gallery, so whatever is found is unrelated. Both
rules judge the same matches by threshold; printed is how many right ones each accepts and how many wrong ones it turns
down.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rasr.cli.gallery import _low_quality
from rasr.gallery import Gallery
from rasr.gallery.calibrate import calibrate
from rasr.gallery.retrieval import calibration_of
from rasr.generator import clean_query
from rasr.images import Picture
from runs import machine
from runs.retrieval_calibrate import related
from runs.retrieval_set import photos, query

KINDS = ("crop", "whole")


def main() -> None:
    """Print a line for each encoder and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--encoder", action="append")
    parser.add_argument("--sample", type=int, default=25, help="photos that calibrate from")
    parser.add_argument("--queries", type=int, default=35, help="other photos, each asking in two ways")
    options = parser.parse_args()
    everything = photos(options.photos)
    print(f"{len(everything)} photos; {machine()}")
    with TemporaryDirectory() as folder:
        for encoder in options.encoder or ("effnet-lite0", "effnet-lite0-robust"):
            gallery = Gallery(Path(folder) / encoder, encoder=encoder)
            gallery.add([photo.path for photo in everything], category="")
            judge(gallery, options, everything)


def judge(gallery: Gallery, options: argparse.Namespace, everything: list) -> None:  # type: ignore[type-arg]
    """Calibrate the gallery, ask, and print what either rule makes of the answers."""
    asked: list[str] = []

    def low_quality(pixels, name):  # noqa: ANN001, ANN202
        asked.append(name)
        return _low_quality(pixels, name, seed=0)

    own = calibrate(gallery, low_quality, clean=clean_query, sample=options.sample)
    rows, vectors = gallery.embeddings()
    place = {photo.path: row for row, photo in enumerate(rows)}
    held = [photo for photo in everything if photo.path.resolve() in place]
    order = [place[photo.path.resolve()] for photo in held]
    vectors = vectors[order]
    categories = [photo.category for photo in held]
    kin, same = related(categories), np.array([[a == b for b in categories] for a in categories])
    others = [i for i, row in enumerate(order) if rows[row].id not in {*asked}]
    chosen = np.random.default_rng(1).permutation(others)[: options.queries]
    right, wrong, missed = [], [], 0
    for i in chosen:
        pictures = [Picture(query(held[i], kind, 0)) for kind in KINDS]
        for embedded in gallery.prepare(pictures, clean=partial(clean_query)):
            scores = vectors @ embedded.embedding
            scores[i] = -1
            best = int(scores.argmax())
            if same[i, best]:
                right.append(float(scores[best]))
            else:
                missed += 1
            wrong.append((float(scores[~kin[i]].max()), int((~kin[i]).sum())))
    name = gallery.encoder.name
    print(f"{name}: {len(right)} right best matches of {len(right) + missed} queries, {len(wrong)} wrong ones")
    for label, rule in (("by hand", calibration_of(name)), ("its own", own)):
        accepted = np.array([score >= rule.threshold(len(held) - 1) for score in right])
        refused = np.array([score < rule.threshold(count) for score, count in wrong])
        needed, both = rule.threshold(len(held) - 1), accepted.mean() + refused.mean()
        shares = f"right accepted {accepted.mean():.2f}, wrong refused {refused.mean():.2f}, together {both:.2f}"
        print(f"  {label}: needs {needed:.3f}; {shares}")


if __name__ == "__main__":
    main()
