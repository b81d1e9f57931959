"""Train and judge the head of the ``effnet-lite0-robust`` encoder.

    python -m runs.retrieval_head [--photos DIR] [--folds] [--write src/rasr/gallery/encoders/effnet_lite0_robust]

From every photo of the splits train and extra, nine views are cut and degraded; EfficientNet-Lite0 embeds view and
degraded view (an hour of one core the first time, kept in --cache). One linear map, started from the principal
components of the clean photos, is then trained for a minute so that

- a degraded view finds its photo among all photos (cross-entropy over cosines), and
- its similarities to all the other photos are those of the clean view under the plain encoder (Kullback-Leibler).

Categories are not used: with them the map learns these categories and gains nothing on others (--folds shows it: a
third of the categories is left out of training, and its photos search among themselves).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rasr.degrade import crop_to_multiple, degrade
from rasr.files import hash_json, sha256_file
from rasr.gallery.encoders import Encoder, load_encoder
from rasr.gallery.encoders.efficientnet import Head
from rasr.images import FloatImage, resize
from rasr.weights import read_safetensors, write_safetensors
from runs import PACKAGE, machine, pin
from runs.retrieval_calibrate import QUERY_KINDS, Scores, figures, related, show, store
from runs.retrieval_set import Photo, arguments, embeddings, kept, photos, query

VIEWS = ("crop", "whole", "light", "crop", "mid", "crop", "whole", "mid", "crop")
MIRRORED = (1, 3, 7)
WHOLE, MID = (448, 800), (400, 900)
"""Long sides, in pixels, of views of a whole photo and of half or more of it."""
SEEDS = range(5)
Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def view(pixels: FloatImage, kind: str, random: np.random.Generator) -> FloatImage:
    """Cut a good picture: ``crop`` 512 px, ``mid`` half or more, ``whole`` and ``light`` all."""
    height, width = pixels.shape[:2]
    if kind == "crop":
        side = min(512, height // 4 * 4, width // 4 * 4)
        top, left = int(random.integers(0, height - side + 1)), int(random.integers(0, width - side + 1))
        return pixels[top : top + side, left : left + side]
    long_side = WHOLE
    if kind == "mid":
        part = float(random.uniform(0.5, 1))
        rows, columns = int(height * part), int(width * part)
        top, left = int(random.integers(0, height - rows + 1)), int(random.integers(0, width - columns + 1))
        pixels, long_side = pixels[top : top + rows, left : left + columns], MID
    scale = float(random.uniform(*long_side)) / max(pixels.shape[:2])
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    return resize(pixels, size, filter="lanczos").clip(0, 1)


def features(encoder: Encoder, index: int, photo: Photo) -> NDArray[np.float32]:
    """Embed (1 + 2·views, D): the photo, then every view clean and degraded."""
    random = np.random.default_rng(1234 + index)
    pixels = photo.read()
    pictures = [pixels]
    for number, kind in enumerate(VIEWS):
        good = view(pixels, kind, random)
        good = np.ascontiguousarray(crop_to_multiple(good[:, ::-1] if number in MIRRORED else good, 4))
        preset = "light" if kind == "light" else "realesrgan"
        pictures += [good, degrade(good, preset=preset, seed=9000 + number, name=photo.id)[0]]
    return encoder.embed(np.stack([encoder.preprocess(picture) for picture in pictures]))


def rooted(x: Tensor, mean: Tensor) -> Tensor:
    """Do what :class:`Head` does before its matrix."""
    return x.clamp_min(0).sqrt() - mean


def train(data: Tensor, options: argparse.Namespace) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Train a :class:`Head`'s mean and matrix on (photos, 1 + 2·views, D) features, by seed."""
    torch.manual_seed(options.seed)
    photo, good, bad = data[:, 0], data[:, 1::2], data[:, 2::2]
    mean = photo.sqrt().mean(dim=0)
    components = torch.linalg.svd(rooted(photo, mean), full_matrices=False).Vh[: options.dimension]
    matrix = components.clone().requires_grad_()
    optimiser = torch.optim.Adam([matrix], lr=options.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
    target_gallery = F.normalize(rooted(photo, mean), dim=1)

    def embed(x: Tensor) -> Tensor:
        return F.normalize(F.dropout(rooted(x, mean), 0.1) @ matrix.T, dim=1)

    for _ in range(options.steps):
        rows = torch.randperm(len(photo))[: options.batch]
        which = torch.randint(good.shape[1], (len(rows),))
        scores = embed(bad[rows, which]) @ embed(photo).T
        wanted = F.normalize(rooted(good[rows, which], mean), dim=1) @ target_gallery.T
        find = F.cross_entropy(scores / 0.07, rows) + F.cross_entropy(scores[:, rows].T / 0.07, torch.arange(len(rows)))
        own = F.one_hot(rows, len(photo)).bool()
        keep = F.kl_div(
            F.log_softmax(scores.masked_fill(own, -9.0) / 0.1, dim=1),
            F.softmax(wanted.masked_fill(own, -9.0) / 0.1, dim=1),
            reduction="batchmean",
        )
        near_start = (matrix - components).square().sum()
        loss = options.find * find / 2 + keep + 0.01 * near_start
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return mean.numpy(), np.ascontiguousarray(matrix.detach().numpy(), np.float16)


def hits(
    queries: NDArray[np.float32], rows: NDArray[np.intp], gallery: NDArray[np.float32], category: NDArray[np.str_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell if the best other photo has the query's category, and the best of all is itself."""
    scores = queries @ gallery.T
    itself = scores.argmax(axis=1) == rows
    scores[np.arange(len(rows)), rows] = -np.inf
    return category[scores.argmax(axis=1)] == category[rows], itself


def judge(title: str, embed: Embed, sets: dict[str, list[NDArray[np.float32]]], everything: list[Photo]) -> None:
    """Print P@1 and self-retrieval of the test split in the gallery train and extra."""
    category = np.array([photo.category for photo in everything])
    test = np.array([photo.split == "test" for photo in everything])
    gallery, rows = embed(sets["gallery"][0]), np.flatnonzero(test)
    line = [f"{title:14}"]
    for kind in ("clean", "crop", "whole"):
        found = []
        for vectors in sets[kind]:
            scores = embed(vectors) @ gallery.T
            itself = (scores.argmax(axis=1) == rows).mean()
            scores[:, test] = -np.inf
            found.append(((category[scores.argmax(axis=1)] == category[rows]).mean(), itself))
        mean, deviation = np.mean(found, axis=0), np.std(found, axis=0)
        line.append(f"{kind} P@1 {mean[0]:.3f} ± {deviation[0]:.3f}, itself {mean[1]:.3f}")
    print("; ".join(line))


def folds(data: Tensor, rows: list[Photo], options: argparse.Namespace) -> None:
    """Leave a third of the categories out of training; their views search their photos only."""
    category = np.array([photo.category for photo in rows])
    names = np.unique(category)
    group = np.random.default_rng(3).permutation(len(names)) % 3
    member = group[np.searchsorted(names, category)]
    found: dict[str, list[NDArray[np.float64]]] = {"plain": [], "head": []}
    for fold in range(3):
        inside, left_out = np.flatnonzero(member != fold), np.flatnonzero(member == fold)
        head = Head(*train(data[inside], options))
        test = data[left_out].numpy()
        for title, embed in (("plain", lambda x: x), ("head", head)):
            gallery = embed(test[:, 0])
            per_view = [
                hits(embed(test[:, 2 + 2 * v]), np.arange(len(test)), gallery, category[left_out])
                for v in range(len(VIEWS))
            ]
            found[title].append(np.mean(per_view, axis=0).T)
    for title, parts in found.items():
        mean = np.concatenate(parts).mean(axis=0)
        print(f"categories never seen, {title:6}P@1 {mean[0]:.3f}, itself {mean[1]:.3f}")


def calibrate(
    data: Tensor, learnt_from: list[Photo], everything: list[Photo], options: argparse.Namespace
) -> dict[str, Any]:
    """Compute the policy's figures by two heads, each judged on photos it has not seen."""
    plain = load_encoder("effnet-lite0")
    row = {photo.id: index for index, photo in enumerate(everything)}
    half = np.random.default_rng(5).permutation(len(learnt_from)) % 2
    vectors = {
        kind: embeddings(plain, key, everything, lambda p, k=kind: query(p, k, 0), options.cache)
        for kind, key in (("clean", "clean"), ("crop", "crop-0"), ("whole", "whole-0"), ("light", "light-0"))
    }
    parts = []
    for part in (0, 1):
        head = Head(*train(data[np.flatnonzero(half != part)], options))
        ids = {photo.id for photo, of in zip(learnt_from, half, strict=True) if of == part}
        ids |= {photo.id for photo in everything if photo.split == "test"} if part == 0 else set()
        unseen = np.array([row[photo.id] for photo in everything if photo.id in ids])
        categories = [everything[index].category for index in unseen]
        same = np.array([[a == b for b in categories] for a in categories])
        gallery = head(vectors["clean"][unseen])
        kinds = [Scores(head(vectors[kind][unseen]), gallery) for kind in QUERY_KINDS]
        parts.append((kinds, same, ~related(categories)))
    return {"photos": len(everything), **figures(parts)}


def write(mean: NDArray[np.float32], matrix: NDArray[np.float16], stem: Path, facts: dict[str, str]) -> None:
    """Store the head with its recipe; in the package, also its SHA-256 in the catalogue."""
    path = write_safetensors(stem.with_suffix(".safetensors"), {"mean": mean, "matrix": matrix}, facts)
    if path.resolve().is_relative_to(PACKAGE):
        pin(path)
    if not np.array_equal(read_safetensors(path, "numpy")[0]["matrix"], matrix):  # it writes memory as it lies
        raise SystemExit("safetensors stored another matrix")
    print(f"{path}: {path.stat().st_size} bytes, sha256 {sha256_file(path)}")


def main(given: Sequence[str] | None = None) -> None:
    """Make the features, train, judge, and store when asked."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--folds", action="store_true", help="also train without a third of the categories, three times"
    )
    parser.add_argument("--write", type=Path, help="where to store the head, without suffix")
    parser.add_argument("--calibrate", type=Path, help="calibration.toml for the policy's figures, after --write")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--find", type=float, default=0.2, help="weight of finding the photo itself")
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(given)
    encoder = load_encoder("effnet-lite0")
    learnt_from = [photo for photo in photos(options.photos, misc=True) if photo.split != "test"]

    def made() -> NDArray[np.float16]:
        return np.stack([features(encoder, index, photo) for index, photo in enumerate(learnt_from)]).astype(np.float16)

    stored = kept(
        made, f"head-features-{hash_json([VIEWS, MIRRORED, WHOLE, MID])[:8]}", encoder, learnt_from, options.cache
    )
    data = torch.from_numpy(stored.astype(np.float32))
    print(f"{encoder.fingerprint}\n{len(learnt_from)} photos, {data.shape[1] // 2} views each; {machine()}")
    learnt = train(data, options)
    head = Head(*learnt)

    everything = photos(options.photos)
    test = [photo for photo in everything if photo.split == "test"]
    clean = embeddings(encoder, "clean", everything, Photo.read, options.cache)
    sets = {"gallery": [clean], "clean": [clean[[photo.split == "test" for photo in everything]]]}
    for kind in ("crop", "whole"):
        sets[kind] = [
            embeddings(encoder, f"{kind}-{s}-test", test, lambda p, k=kind, s=s: query(p, k, s), options.cache)
            for s in SEEDS
        ]
    judge("plain", lambda x: x, sets, everything)
    judge("with the head", head, sets, everything)
    if options.folds:
        folds(data, learnt_from, options)
    if options.calibrate:
        table = calibrate(data, learnt_from, everything, options)
        show(table)
        robust = load_encoder("effnet-lite0-robust")
        store(options.calibrate, robust.name, robust.fingerprint, table)
    if options.write:
        recipe = {
            key: str(value)
            for key, value in vars(options).items()
            if key in {"steps", "batch", "rate", "dimension", "seed"}
        }
        facts = {"base": encoder.fingerprint, "date": f"{datetime.now(UTC):%Y-%m-%d}", "recipe": json.dumps(recipe)}
        write(*learnt, options.write, facts)


if __name__ == "__main__":
    main()
