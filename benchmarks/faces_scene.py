"""Faces: what a photo of the same scene gives to the same face, and what another face or expression takes away.

    python benchmarks/faces_scene.py --portraits grace_hopper.jpg   # a file of matplotlib's package; more may be given

Portraits (scikit-image's astronaut and those given) are degraded, restored, and given detail by photos made of the very
portrait: turned as a whole (the face is the true one), or with its face changed before that: the mouth moved, the eyes
narrowed, the head turned, the face mirrored, another person's in its place. Of the face (as found in the portrait,
without its margin) it is told how many pixels change because of the photo, and how EPD and PSNR compare with no photo.
Each again at half the size, where the face is often found in the photo only. ``--check`` fails unless the true face
gains, no changed one loses, and nothing is taken from a mirrored face or another person's. Results are kept as JSON in
``--out``, so that a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data

import rasr
from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import FloatImage, read_picture
from rasr.registration import Face, SceneQuery, extract_reference, find_faces, find_faces_seen, fuse
from rasr.restoration.settings import TargetSize
from same_scene import as_levels, interval, low_quality

SIDE = 384
DEGRADATIONS = (("realesrgan", 4), ("light", 4), ("bicubic", 4))
TURNS = (5, 10, 15, 20)
Row = dict[str, Any]
TINY = 8
"""Levels of the map, of 255, below which a pixel counts as unchanged."""


@dataclass(frozen=True)
class Portrait:
    """A photo of a person, cut to a square, with the box of the face in it."""

    name: str
    pixels: FloatImage
    left: int
    top: int
    side: int
    smaller: int = 1
    """How many times smaller the picture is than the photos of it."""

    @property
    def truth(self) -> FloatImage:
        """The picture."""
        size = SIDE // self.smaller
        return np.clip(cv2.resize(self.pixels, (size, size), interpolation=cv2.INTER_AREA), 0, 1)

    @property
    def part(self) -> tuple[slice, slice]:
        """Rows and columns of the face in the picture."""
        rows, columns = ((round(one.start / self.smaller), round(one.stop / self.smaller)) for one in self.box)
        return slice(*rows), slice(*columns)

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the face."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


def portrait(name: str, whole: FloatImage) -> Portrait:
    """Cut a square around the largest face."""
    face = max(find_faces(whole), key=lambda one: one.side)
    side, margin = face.side, round(face.side * 0.25)
    left, top = face.left + margin, face.top + margin
    x = min(max(0, left + side // 2 - SIDE // 2), whole.shape[1] - SIDE)
    y = min(max(0, top + side // 2 - SIDE // 3), whole.shape[0] - SIDE)
    return Portrait(name, np.ascontiguousarray(whole[y : y + SIDE, x : x + SIDE]), left - x, top - y, side)


def moved(face: Portrait, shift: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> FloatImage:
    """The portrait with its face bent: ``shift`` gives offsets in sides of the face, from places in it (0 to 1)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    u, v = (x - face.left) / face.side, (y - face.top) / face.side
    dx, dy = shift(u, v)
    at_x, at_y = (x + dx * face.side).astype(np.float32), (y + dy * face.side).astype(np.float32)
    return cv2.remap(face.pixels, at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).clip(0, 1)


def bump(u: np.ndarray, v: np.ndarray, x: float, y: float, wide: float, high: float) -> np.ndarray:
    """A smooth hill at (x, y)."""
    return np.exp(-(((u - x) / wide) ** 2) - ((v - y) / high) ** 2)


def mouth(face: Portrait, much: float) -> FloatImage:
    """Corners of the mouth drawn up and apart, or down (negative), by ``much`` sides of the face."""

    def shift(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        left, right = (bump(u, v, x, 0.78, 0.14, 0.12) for x in (0.33, 0.67))
        return much * (left - right), much * (left + right)

    return moved(face, shift)


def eyes(face: Portrait, much: float) -> FloatImage:
    """Eyes narrowed: what lies above and below them drawn together by ``much`` sides of the face."""

    def shift(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lids = sum(bump(u, v, x, 0.4, 0.16, 0.12) * (v - 0.4) for x in (0.3, 0.7))
        return np.zeros_like(u), lids * much / 0.06

    return moved(face, shift)


def head(face: Portrait, degrees: float) -> FloatImage:
    """The head turned, as a cylinder of the face's width shows it."""

    def shift(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        across = (2 * u - 1).clip(-1, 1) * 0.8
        turned = np.sin(np.arcsin(across) + np.deg2rad(degrees)) / 0.8
        fade = bump(u, v, 0.5, 0.5, 0.75, 0.8)
        return (turned - across / 0.8) / 2 * fade, np.zeros_like(u)

    return moved(face, shift)


def replaced(face: Portrait, other: FloatImage) -> FloatImage:
    """Another face (H, W, 3) in place of the portrait's, in its colours, without a border."""
    result, (rows, columns) = face.pixels.copy(), face.box
    own, other = result[rows, columns], cv2.resize(other, (face.side, face.side), interpolation=cv2.INTER_AREA)
    other = (other - other.mean((0, 1))) / other.std((0, 1)) * own.std((0, 1)) + own.mean((0, 1))
    v, u = np.mgrid[0 : face.side, 0 : face.side] / face.side
    inside = (1.15 - np.hypot((u - 0.5) / 0.42, (v - 0.5) / 0.48)).clip(0, 0.15)[..., None] / 0.15
    result[rows, columns] = own + inside.astype(np.float32) * (other.clip(0, 1) - own)
    return result.astype(np.float32)


def photographed(pixels: FloatImage, degrees: float) -> FloatImage:
    """Another photo of it: turned, a little nearer, in other light."""
    bent = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), degrees, 1.1)
    bent[:, 2] += 0.1 * SIDE
    size = round(1.2 * SIDE)
    seen = cv2.warpAffine(pixels, bent, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return (seen.clip(0, 1) ** 0.9 * 0.95).astype(np.float32)


def photos(face: Portrait, others: list[Portrait]) -> dict[str, FloatImage]:
    """Photos by what was done to the face; those called ``true`` only turn the whole picture."""
    made = {f"true, turned by {turn}°": photographed(face.pixels, turn) for turn in TURNS}
    changed = {f"mouth by {much:+.0%}": mouth(face, much) for much in (0.04, 0.08, -0.08)}
    changed |= {f"eyes by {much:.0%}": eyes(face, much) for much in (0.02, 0.04)}
    changed |= {f"head by {turn}°": head(face, turn) for turn in (10, 20)}
    changed["mirrored"] = replaced(face, np.ascontiguousarray(face.pixels[face.box][:, ::-1]))
    changed |= {f"face of {one.name}": replaced(face, one.pixels[one.box]) for one in others}
    return made | {kind: photographed(pixels, 5.0) for kind, pixels in changed.items()}


def measure(face: Portrait, made: dict[str, FloatImage], degradation: str, scale: int, out: Path) -> list[Row]:
    """One row for each photo of a portrait that was degraded in one way."""
    restorer = rasr.Restorer()
    metrics = {name: load_metric(name, MeasuringProtocol()).measure for name in ("EPD", "PSNR")}
    truth, part = face.truth, face.part
    low = low_quality(truth, face.name, out, degradation, scale)
    plain = restorer(low, reference="none", size=TargetSize(scale=scale)).picture.pixels
    query, found, lq = SceneQuery(plain), find_faces(plain), read_picture(low).pixels
    none = {name: measured(as_levels(plain)[part], truth[part]) for name, measured in metrics.items()}
    rows = []
    for kind, photo in made.items():
        seen, result = query.compare(extract_reference(photo), lambda photo=photo: photo), plain.copy()
        row: Row = {"portrait": face.name, "from": f"{degradation} × {scale}", "photo": kind}
        row |= {"verified": seen.same_scene, "face found": any(_on(one, face) for one in found)}
        if seen.same_scene:
            also = find_faces_seen(photo, seen.to_reference, plain.shape[1::-1], input_scale=1 / scale)
            row["face found in the photo"] = any(_on(one, face) for one in also)
            total = fuse(result, lq, [(photo, seen)], faces=[*found, *also]).total
            row |= {"changed": float((total[part] >= TINY).mean()), "elsewhere": float((total >= TINY).mean())}
            values = {name: one(as_levels(result)[part], truth[part]) for name, one in metrics.items()}
            row |= {"EPD": 100 * (values["EPD"] / none["EPD"] - 1), "PSNR": values["PSNR"] - none["PSNR"]}
            shown = np.concatenate([one[part] for one in (plain, result, truth)], 1)
            name = f"{face.name}-{degradation}{scale}-{kind}.png".replace(" ", "-")
            cv2.imwrite(str(out / name), np.rint(shown[..., ::-1] * 255).astype(np.uint8))
        rows.append(row)
    return rows


def _on(found: Face, face: Portrait) -> bool:
    """Whether a found face is the portrait's."""
    x, y = ((one.start + one.stop) / 2 for one in face.part[::-1])
    return found.left < x < found.right and found.top < y < found.bottom


def summarise(rows: list[Row]) -> bool:
    """Print a table by photo; True where the true face gains and no changed one loses."""
    fine = True
    print("\n| photo | verified | face changed | elsewhere | EPD in the face, % | PSNR in the face, dB | worst EPD |")
    print("|---|---|---|---|---|---|---|")
    for kind in dict.fromkeys(str(row["photo"]) for row in rows):
        of_kind = [row for row in rows if row["photo"] == kind]
        used = [row for row in of_kind if row["verified"]]
        if not used:
            print(f"| {kind} | 0 of {len(of_kind)} | | | | | |")
            continue
        share, elsewhere, epd, psnr = ([r[key] for r in used] for key in ("changed", "elsewhere", "EPD", "PSNR"))
        print(
            f"| {kind} | {len(used)} of {len(of_kind)} | {np.mean(share):.0%} | {np.mean(elsewhere):.0%} "
            f"| {interval(epd)} | {interval(psnr)} | {max(epd):+.1f} |"
        )
        if kind.startswith("true"):
            fine = fine and bool(np.mean(epd) < -10 and np.mean(psnr) > 0)
        elif kind.startswith(("face of", "mirrored")):
            fine = fine and max(share) == 0
        else:
            fine = fine and max(epd) <= 1 and min(psnr) >= -0.05
    return fine


def main() -> None:
    """Measure, print, and exit 1 where ``--check`` is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, nargs="*", default=[], help="photos of one person each")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/faces_scene"))
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    given = {path.stem: read_picture(path).pixels for path in asked.portraits}
    whole = {"astronaut": (skimage.data.astronaut() / 255).astype(np.float32), **given}
    faces = [portrait(name, pixels) for name, pixels in whole.items()]
    faces += [replace(one, name=f"{one.name}, small", smaller=2) for one in faces]
    kept = asked.out / "faces.json"
    rows: list[Row] = json.loads(kept.read_text()) if kept.is_file() else []
    done = {(row["portrait"], row["from"]) for row in rows}
    for face in faces:
        made = photos(face, [one for one in faces if one.smaller == 1 and one.name != face.name.partition(",")[0]])
        for degradation, scale in DEGRADATIONS:
            if (face.name, f"{degradation} × {scale}") in done:
                continue
            rows += measure(face, made, degradation, scale, asked.out)
            kept.write_text(json.dumps(rows, indent=1))
            print(face.name, degradation, scale, flush=True)
    fine = summarise(rows)
    raise SystemExit(0 if fine or not asked.check else 1)


if __name__ == "__main__":
    main()
