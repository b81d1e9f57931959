"""A sheet of twelve results with their evidence maps, when there is a photo of the same scene and when there is none.

    python benchmarks/scene_sheet.py docs/images/same-scene-sheet.jpg [--singles DIR]

Each row: the input, the result without a photo, the result with it, the map, the photo. The motorcycle is a real pair
(scikit-image's, Middlebury stereo); the photos of the other rows are made from scikit-image's pictures: seen from the
side, in other light, turned, nearer, hidden in part. ``--singles`` keeps every picture at its own size. Prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from PIL import Image

import rasr
from rasr.degrade import degrade
from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import FloatImage, resize
from rasr.restoration.evidence import draw
from rasr.restoration.settings import TargetSize

SIDE = 384
SHOWN = 224
GAP = 6


@dataclass(frozen=True)
class Row:
    """A truth of 384 × 384 pixels, how it is degraded, and the photo that is offered."""

    name: str
    truth: FloatImage
    photo: FloatImage
    degradation: str = "realesrgan"


def picture(name: str) -> FloatImage:
    """A picture of scikit-image as (H, W, 3) in [0, 1]; where it lacks pixels it is enlarged."""
    pixels = getattr(skimage.data, name)()
    pixels = np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels
    scale = max(1.0, SIDE / min(pixels.shape[:2]))
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    return np.clip(resize((pixels / 255).astype(np.float32), size), 0, 1)


def cut(pixels: FloatImage, left: int = 0, top: int = 0) -> FloatImage:
    """A window of 384 × 384 pixels."""
    return np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE])


def from_the_side(pixels: FloatImage, *, gain: float = 1.0, warmth: float = 0.0) -> FloatImage:
    """The picture as a plane seen obliquely, by other light."""
    height, width = pixels.shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    moved = corners + np.array([(25, 18), (-10, -5), (-30, -22), (5, 12)], np.float32)
    bent = cv2.warpPerspective(
        pixels, cv2.getPerspectiveTransform(corners, moved), (width, height), flags=cv2.INTER_CUBIC
    )
    return np.clip(bent * gain * np.array([1 + warmth, 1, 1 - warmth], np.float32), 0, 1)


def rows() -> Iterator[Row]:
    """The twelve."""
    left, right, _ = skimage.data.stereo_motorcycle()
    left, right = (left / 255).astype(np.float32), (right / 255).astype(np.float32)
    yield Row("real pair", cut(left, 178, 58), right)
    yield Row("real pair, the other way round", cut(right, 140, 58), left)
    yield Row("real pair, input only small", cut(left, 178, 58), right, "bicubic")
    yield Row("real pair, half the photo", cut(left, 178, 58), np.ascontiguousarray(right[:, :330]))
    coffee, cat, rocket = picture("coffee"), picture("chelsea"), picture("rocket")
    yield Row("from the side, darker, warmer", cut(coffee, 110), from_the_side(coffee, gain=0.7, warmth=0.15))
    yield Row("turned by 90°", cut(cat, 60), np.ascontiguousarray(np.rot90(from_the_side(cat))))
    coins = picture("coins")
    nearer = resize(coins[60:300, 60:360], (900, 720))
    yield Row("nearer, only a part", cut(coins, 30), np.clip(nearer, 0, 1))
    hidden = from_the_side(rocket)
    hidden[150:330, 250:420] = np.array([0.2, 0.35, 0.25], np.float32)
    yield Row("something stands before it", cut(rocket, 120, 40), hidden)
    woman = picture("astronaut")
    other = woman.copy()
    other[60:170, 170:280] = cv2.flip(woman[60:170, 170:280], 1)
    yield Row("another expression", cut(woman, 60), from_the_side(other))
    brick = picture("brick")
    walls = np.clip(resize(brick, (2 * SIDE, 2 * SIDE)), 0, 1)
    yield Row("a look-alike: other bricks of the wall", cut(walls), cut(walls, SIDE, SIDE))
    yield Row("a photo blurrier than the result", cut(woman, 60), cv2.GaussianBlur(from_the_side(woman), (0, 0), 4))
    yield Row("another scene", cut(coffee, 110), cat)


def restored(row: Row, restorer: rasr.Restorer, work: Path) -> tuple[list[FloatImage], rasr.Result, FloatImage]:
    """The row's panels, the result with the photo, and the pixels of that without."""
    if row.degradation == "bicubic":
        low = np.clip(resize(row.truth, (SIDE // 4, SIDE // 4)), 0, 1)
    else:
        low = degrade(row.truth, preset=row.degradation, scale=4, seed=0, name=row.name)[0]
    stored = np.rint(low * 255).astype(np.uint8)
    path = work / f"{row.name.replace(' ', '-').replace(':', '')}.png"
    Image.fromarray(np.rint(row.photo * 255).astype(np.uint8)).save(path)
    none = restorer(stored, reference="none", size=TargetSize(scale=4)).picture.pixels
    result = restorer(stored, reference=path, size=TargetSize(scale=4))
    small = cv2.resize(low, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    return [small, none, result.picture.pixels, draw(result) / 255, row.photo], result, none


def fitted(pixels: FloatImage) -> Image.Image:
    """A panel: the whole picture within a square."""
    image = Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    panel = Image.new("RGB", (SHOWN, SHOWN), "white")
    panel.paste(image, ((SHOWN - image.width) // 2, (SHOWN - image.height) // 2))
    return panel


def main() -> None:
    """Restore all rows, print what each gained, and write the sheet: two rows beside each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--singles", type=Path, default=Path("benchmarks/out/scene_sheet"))
    asked = parser.parse_args()
    asked.singles.mkdir(parents=True, exist_ok=True)
    restorer, metrics = rasr.Restorer(), {name: load_metric(name, MeasuringProtocol()) for name in ("EPD", "PSNR")}
    strips = []
    print("| | photo | found | share | EPD | PSNR |\n| --- | --- | --- | --- | --- | --- |")
    for number, row in enumerate(rows(), 1):
        panels, result, none = restored(row, restorer, asked.singles)
        for pixels, what in zip(panels, ("input", "none", "result", "map", "photo"), strict=True):
            levels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
            Image.fromarray(levels).save(asked.singles / f"{number:02}-{what}.png")
        before, after = (
            {n: m.measure(p, row.truth) for n, m in metrics.items()} for p in (none, result.picture.pixels)
        )
        reference, share = result.references[0], sum(result.evidence.shares) if result.evidence else 0.0
        gained = f"{100 * (after['EPD'] / before['EPD'] - 1):+.1f} % | {after['PSNR'] - before['PSNR']:+.2f} dB"
        print(f"| {number} | {row.name} | {reference.why} | {share:.0%} | {gained} |", flush=True)
        strip = Image.new("RGB", (5 * SHOWN + 4 * GAP, SHOWN), "white")
        for place, pixels in enumerate(panels):
            strip.paste(fitted(pixels), (place * (SHOWN + GAP), 0))
        strips.append(strip)
    width, height = strips[0].size
    sheet = Image.new("RGB", (2 * width + 4 * GAP, 6 * (height + GAP) - GAP), "white")
    for number, strip in enumerate(strips):
        sheet.paste(strip, (number % 2 * (width + 4 * GAP), number // 2 * (height + GAP)))
    sheet = sheet.resize((1800, round(1800 * sheet.height / sheet.width)), Image.Resampling.LANCZOS)
    sheet.save(asked.sheet, quality=82)
    print(asked.sheet, f"{asked.sheet.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
