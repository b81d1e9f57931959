"""Photos of the same scene: what they give, how often they are found, and how often another scene is taken for it.

    python benchmarks/same_scene.py effect --pairs DIR          # restored with each scene's own references
    python benchmarks/same_scene.py false --photos DIR [DIR …]  # pictures against photos of other scenes
    python benchmarks/same_scene.py find --pairs DIR --photos DIR  # each scene's photos among all others
    python benchmarks/same_scene.py beside --photos DIR  # parts of photos against other parts of the same photo
    python benchmarks/same_scene.py cost    # CPU seconds of a photo at 512 × 512; exit 1 above the bars

``effect``: ``DIR/SCENE/truth.png`` (its centre, 384 pixels) is degraded (seed 0; ``--degradation``, ``--scale``:
realesrgan, 4) and restored by the default generator without a reference, with the scene's own photos, with all of them,
with a photo of another scene and with the truth. scikit-image's stereo pair is one more scene. Differences to no
reference with bootstrap intervals.
``false``: centres of photos, restored, against the features of all other photos; exact (Clopper-Pearson) intervals.
``beside``: 384 pixels left of the middle of each photo, restored from ``realesrgan`` and from ``bicubic``, against all
that lies right of them, upright and upside down: fronts and piers that repeat. First scikit-image's wall of
bricks against the whole of itself, upside down, which counts as wrong where it is found in another place.
``find``: a gallery of every scene's photos and of ``--photos``; is a scene's own photo the first reference?
Results are kept as JSON in ``--out``, so that a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image
from scipy.stats import beta

import rasr
from rasr.degrade import degrade
from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.files import write_bytes
from rasr.images import FloatImage, read_picture, resize
from rasr.registration import LocalFeatures, SceneQuery, extract_reference
from rasr.restoration import Result
from rasr.restoration.settings import TargetSize

SIDE = 384
METRICS = ("EPD", "PSNR")


def centre(pixels: FloatImage, side: int = SIDE) -> FloatImage:
    """The square of ``side`` pixels in the middle."""
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def scenes(pairs: Path, work: Path) -> dict[str, tuple[FloatImage, list[Path]]]:
    """Truth and references of each scene, scikit-image's stereo pair among them."""
    found = {
        folder.name: (centre(read_picture(folder / "truth.png").pixels), sorted((folder / "refs").iterdir()))
        for folder in sorted(pairs.iterdir())
        if (folder / "truth.png").is_file()
    }
    left, right, _ = skimage.data.stereo_motorcycle()
    partner = work / "motorcycle-right.png"
    Image.fromarray(right).save(partner)
    found["motorcycle"] = centre((left / 255).astype(np.float32)), [partner]
    return found


def as_levels(pixels: FloatImage) -> FloatImage:
    """Rounded to 8 bits, as a saved file has them."""
    return np.rint(pixels.clip(0, 1) * 255).astype(np.float32) / 255


def low_quality(truth: FloatImage, name: str, work: Path, degradation: str = "realesrgan", scale: int = 4) -> Path:
    """The degraded picture, as PNG; ``bicubic`` is nothing but smaller."""
    if degradation == "bicubic":
        lq = np.clip(resize(truth, (truth.shape[1] // scale, truth.shape[0] // scale)), 0, 1)
    else:
        lq = degrade(truth, preset=degradation, scale=scale, seed=0, name=name)[0]
    path = work / f"{name}-lq.png"
    Image.fromarray(np.rint(lq * 255).astype(np.uint8)).save(path)
    return path


def detail(pixels: FloatImage) -> FloatImage:
    """Luma above a Gaussian of 3 pixels."""
    from scipy.ndimage import gaussian_filter

    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma - gaussian_filter(luma, 3)


def correlation(result: Result, truth: FloatImage) -> float | None:
    """Correlation of the result's detail with the truth's where at least half of it is a photo's."""
    if result.evidence is None or not (inside := result.evidence.total > 127).any():
        return None
    return float(np.corrcoef(detail(result.picture.pixels)[inside], detail(truth)[inside])[0, 1])


def effect(pairs: Path, out: Path, also: list[str], degradation: str, scale: int, only: list[str]) -> None:
    """Measure every scene with every kind of reference and print the table."""
    kept = out / "effect.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.is_file() else []
    done = {row["scene"] for row in rows}
    restorer = rasr.Restorer()
    metrics = {name: load_metric(name, MeasuringProtocol()) for name in METRICS}
    measures = {name: metric.measure for name, metric in metrics.items()}
    if "lite2" in also:
        measures["EPD Lite2"] = _lite2()
    everything = scenes(pairs, out)
    names = list(everything)
    for number, (name, (truth, references)) in enumerate(everything.items()):
        if name in done:
            continue
        low = low_quality(truth, name, out, degradation, scale)
        whole = out / f"{name}-truth.png"
        Image.fromarray(np.rint(truth * 255).astype(np.uint8)).save(whole)
        elsewhere = everything[names[(number + 5) % len(names)]][1][0]
        kinds: dict[str, Any] = {"none": "none", "random": elsewhere, "truth": whole}
        kinds |= {f"photo {count}": reference for count, reference in enumerate(references, 1)}
        if len(references) > 1:
            kinds["all"] = list(references)
        kinds = {kind: reference for kind, reference in kinds.items() if not only or kind in only}
        row: dict[str, Any] = {"scene": name, "kinds": {}}
        size = TargetSize(scale=scale)
        plain = restorer(low, reference="none", size=size).picture.pixels
        for kind, reference in kinds.items():
            begun = time.process_time()
            result = restorer(low, reference=reference, size=size)
            pixels = as_levels(result.picture.pixels)
            untouched = result.evidence is None or result.evidence.total == 0
            shown = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
            shown.save(out / f"{name}-with-{kind.replace(' ', '')}.png")
            row["kinds"][kind] = {
                **{metric: measure(pixels, truth) for metric, measure in measures.items()},
                "verified": result.evidence is not None,
                "share": float(sum(result.evidence.shares)) if result.evidence else 0.0,
                "same as none outside": bool(np.array_equal(result.picture.pixels[untouched], plain[untouched])),
                "correlation": correlation(result, truth),
                "cpu seconds": result.timings.get("same scene", 0.0),
                "all cpu": time.process_time() - begun,
            }
        rows.append(row)
        write_bytes(json.dumps(rows, indent=1).encode(), kept, overwrite=True)
        print(name, {kind: round(_change(row, kind, "EPD"), 1) for kind in row["kinds"]}, flush=True)
    summarise(rows, list(measures))


def _lite2() -> Any:
    """The distance of EPD on EfficientNet-Lite2 (extra train), a network that nothing here was chosen by."""
    import torch

    from rasr.training.features import load_feature_network

    network = load_feature_network("effnet-lite2")

    def measure(restored: FloatImage, truth: FloatImage) -> float:
        pair = torch.from_numpy(np.stack([restored, truth]).transpose(0, 3, 1, 2).copy())
        with torch.inference_mode():
            maps = [torch.nn.functional.normalize(one, dim=1) for one in network(pair)]
        return float(np.mean([(one[0] - one[1]).square().sum(0).mean().item() for one in maps]))

    return measure


def _change(row: dict[str, Any], kind: str, metric: str) -> float:
    none, value = row["kinds"]["none"][metric], row["kinds"][kind][metric]
    return float(value - none if metric == "PSNR" else 100 * (value / none - 1))


def interval(values: list[float]) -> str:
    """Mean and bootstrap 95 % interval."""
    if not values:
        return "none"
    random = np.random.default_rng(0)
    array = np.array(values)
    means = array[random.integers(0, len(array), (10_000, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{array.mean():+.2f} [{low:+.2f}, {high:+.2f}] ({len(array)})"


def worst(metric: str, rows: list[dict[str, Any]]) -> float:
    """The least gain of any scene, or the greatest loss."""
    changes = [_change(row, "photo 1", metric) for row in rows]
    return (min if metric == "PSNR" else max)(changes, default=0.0)


def summarise(rows: list[dict[str, Any]], metrics: list[str]) -> None:
    """Print what the bars ask."""
    first = [row for row in rows if row["kinds"]["photo 1"]["verified"]]
    print(f"\nverified by their first photo: {len(first)} of {len(rows)}: {', '.join(row['scene'] for row in first)}")
    for metric in metrics:
        print(
            f"{metric}, verified, first photo against none: {interval([_change(r, 'photo 1', metric) for r in first])}"
        )
        print(f"{metric}, all scenes: {interval([_change(r, 'photo 1', metric) for r in rows])}")
        print(f"{metric}, verified, worst: {worst(metric, first):+.2f}")
        if "truth" in rows[0]["kinds"]:
            print(f"{metric}, truth as reference: {interval([_change(r, 'truth', metric) for r in rows])}")
    print("random verified:", [r["scene"] for r in rows if r["kinds"].get("random", {}).get("verified")])
    print("unchanged outside the map:", all(k["same as none outside"] for r in rows for k in r["kinds"].values()))
    inside = [r["kinds"]["photo 1"]["correlation"] for r in first]
    print("median correlation of detail inside the map:", np.median([c for c in inside if c is not None]))
    for row in rows:
        if "all" in row["kinds"]:
            best = min(_change(row, k, "EPD") for k in row["kinds"] if k.startswith("photo"))
            print(f"{row['scene']}: all {_change(row, 'all', 'EPD'):+.1f} %, best single {best:+.1f} %")


def false_acceptances(folders: list[Path], out: Path, queries: int, per_query: int, skipped: int) -> None:
    """Pictures against photos of other scenes: the most alike first, the rest drawn at random."""
    from rasr.gallery.encoders import load_encoder

    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in {".jpg", ".png"})
    random = np.random.default_rng(0)
    encoder = load_encoder("effnet-lite0-robust")
    features: dict[Path, tuple[LocalFeatures, ...]] = {}
    vectors = np.stack([encoder.embed(encoder.preprocess(read_picture(path).pixels)[None])[0] for path in paths])
    restorer = rasr.Restorer("mini")
    kept = out / "false.json"
    rows: dict[str, list[Any]] = json.loads(kept.read_text()) if kept.is_file() else {}
    chosen = random.permutation(len(paths))[skipped : skipped + queries]
    for number in chosen:
        path = paths[number]
        if str(path) in rows:
            continue
        truth = read_picture(path).pixels
        if min(truth.shape[:2]) < SIDE:
            continue
        pixels = restorer(low_quality(centre(truth), "query", out)).picture.pixels
        query = SceneQuery(pixels)
        alike = np.argsort(-(vectors @ vectors[number]))
        others = [int(one) for one in alike if _scene(paths[one]) != _scene(path)]
        wanted = others[: per_query // 4] + [int(x) for x in random.permutation(others[per_query // 4 :])]
        found = []
        for other in wanted[:per_query]:
            if paths[other] not in features:
                features[paths[other]] = extract_reference(read_picture(paths[other]).pixels)
            begun = time.process_time()
            seen = query.compare(features[paths[other]], lambda other=other: read_picture(paths[other]).pixels)
            found.append([str(paths[other]), seen.same_scene, seen.matches, seen.covered, time.process_time() - begun])
        rows[str(path)] = found
        write_bytes(json.dumps(rows).encode(), kept, overwrite=True)
    pairs = [pair for found in rows.values() for pair in found]
    accepted = [(query, *pair) for query, found in rows.items() for pair in found if pair[1]]
    count, total = len(accepted), len(pairs)
    low = 0.0 if count == 0 else beta.ppf(0.025, count, total - count + 1)
    high = beta.ppf(0.975, count + 1, total - count)
    print(f"{count} of {total} wrong pairs taken for the same scene: {count / total:.5f} [{low:.5f}, {high:.5f}]")
    print(f"CPU seconds to turn one down: mean {np.mean([pair[4] for pair in pairs]):.2f}")
    for one in accepted:
        print(one)
    print("nearest misses:", sorted(((pair[2], pair[0]) for pair in pairs if not pair[1]), reverse=True)[:5])


def beside(folders: list[Path], out: Path, queries: int) -> None:
    """Print which parts of photos are taken for others of the same photo."""
    restorer, random = rasr.Restorer("mini"), np.random.default_rng(0)
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in {".jpg", ".png"})
    brick = np.repeat((skimage.data.brick() / 255).astype(np.float32)[..., None], 3, 2)
    cases = [("brick", centre(brick), brick)]
    for number in random.permutation(len(paths))[:queries]:
        pixels = read_picture(paths[number]).pixels
        top, left = (pixels.shape[0] - SIDE) // 2, max(0, pixels.shape[1] // 2 - SIDE - 16)
        part = np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE])
        if part.shape[:2] == (SIDE, SIDE):
            cases.append((str(paths[number]), part, np.ascontiguousarray(pixels[:, left + SIDE + 16 :])))
    wrong = total = 0
    for name, part, rest in cases:
        for degradation in ("realesrgan", "bicubic"):
            low = low_quality(part, "part", out, degradation)
            query = SceneQuery(restorer(low, reference="none", size=TargetSize(scale=4)).picture.pixels)
            for turned, photo in (("", rest), (" upside down", np.ascontiguousarray(rest[::-1, ::-1]))):
                seen = query.compare(extract_reference(photo), lambda photo=photo: photo)
                total += 1
                middle = seen.to_reference @ np.array([SIDE / 2, SIDE / 2, 1.0])
                off = float(np.hypot(*(middle[:2] / middle[2] - np.array(brick.shape[:2]) / 2)))
                if seen.same_scene and (name != "brick" or off > 20):
                    wrong += 1
                if seen.same_scene or seen.repeats:
                    print(f"{name}{turned}, {degradation}: {seen.why}", flush=True)
    print(f"{wrong} of {total} taken for the same scene in a wrong place")


def find(pairs: Path, photos: list[Path], out: Path) -> None:
    """Look each scene up among all photos and print whether its own come first."""
    gallery = rasr.Gallery(out / "gallery")
    everything = scenes(pairs, out)
    gallery.add([*photos, *(reference for _, references in everything.values() for reference in references)])
    restorer = rasr.Restorer("mini", gallery)
    right, could = [], []
    for name, (truth, references) in everything.items():
        low = low_quality(truth, name, out)
        if not any(one.verdict == "same scene" for one in restorer(low, reference=references).references):
            continue
        could.append(name)
        first = restorer(low).references[0]
        by_likeness = restorer(low, candidates=0).references[0]
        # Two scenes of one place share their photos: what shows the same scene is right, whoever's folder it is in.
        if first.verdict == "same scene" and _scene(first.path) == _scene(references[0]):
            right.append(name)
        print(name, first.path, first.verdict, "| by likeness:", by_likeness.path, flush=True)
    print(f"a photo of the scene is first in {len(right)} of {len(could)} that can be verified at all")


def cost(out: Path) -> bool:
    """Print the CPU seconds of scikit-image's stereo pair at 512 × 512, features kept; True within the bars."""
    import cv2
    import torch

    from rasr.registration import fuse

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    left, right, _ = skimage.data.stereo_motorcycle()
    truth = np.clip(resize((left / 255).astype(np.float32), (759, 512)), 0, 1)
    low = low_quality(centre(truth, 512), "cost", out)
    pixels, lq = (
        rasr.Restorer()(low, reference="none", size=TargetSize(scale=4)).picture.pixels,
        read_picture(low).pixels,
    )
    photo = (right / 255).astype(np.float32)
    elsewhere = (skimage.data.coffee() / 255).astype(np.float32)
    features, others = extract_reference(photo), extract_reference(elsewhere)
    spent = []
    for _ in range(4):
        times = [time.process_time()]
        query = SceneQuery(pixels)
        for turned in range(4):
            query.features(turned)
        times.append(time.process_time())
        found = query.compare(features, lambda: photo)
        times.append(time.process_time())
        fuse(pixels.copy(), lq, [(photo, found)])
        times.append(time.process_time())
        other = query.compare(others, lambda: elsewhere)
        times.append(time.process_time())
        spent.append(np.diff(times))
    own, verdict, fused, turned_down = np.median(spent[1:], 0)  # the first loads the networks
    print(f"features of the picture {own:.2f} s, verdict {verdict:.2f} s, alignment and fusion {fused:.2f} s;")
    print(f"a verified photo {verdict + fused:.2f} s (bar 1.5), one turned down {turned_down:.2f} s (bar 0.3)")
    return found.same_scene and not other.same_scene and bool(verdict + fused <= 1.5 and turned_down <= 0.3)


def _scene(path: Path) -> str:
    """Photos of one scene lie in one folder of pairs; every other photo is a scene of its own."""
    for parent in path.parents:
        if (parent / "refs").is_dir():
            return parent.name.split("-")[0]
    return str(path)


def main() -> None:
    """Run one of the five."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("effect", "false", "beside", "find", "cost"))
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--photos", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/same_scene"))
    parser.add_argument("--queries", type=int, default=70)
    parser.add_argument("--skip", type=int, default=0, help="queries of the drawn order to leave out: others are new")
    parser.add_argument("--per-query", type=int, default=75)
    parser.add_argument("--degradation", choices=("realesrgan", "light", "bicubic"), default="realesrgan")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--only", nargs="*", default=[], help="kinds of reference: none, random, truth, 'photo 1', all")
    parser.add_argument("--also", nargs="*", default=[])
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.what == "effect":
        effect(asked.pairs, asked.out, asked.also, asked.degradation, asked.scale, asked.only)
    elif asked.what == "cost":
        raise SystemExit(0 if cost(asked.out) else 1)
    elif asked.what == "beside":
        beside(asked.photos, asked.out, asked.queries)
    elif asked.what == "find":
        find(asked.pairs, asked.photos, asked.out)
    else:
        false_acceptances(asked.photos, asked.out, asked.queries, asked.per_query, asked.skip)


if __name__ == "__main__":
    main()
