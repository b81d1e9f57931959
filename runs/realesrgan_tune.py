"""Train Real-ESRGAN's last layers further, on its own degradations: the preset ``mini``.

    python -m runs.realesrgan_tune --photos DIR [--photos DIR] --validate-on DIR --out tuned.safetensors \
        [--start tuned.safetensors] [--steps 300] [--mse 4]

The last three of 23 blocks and everything after them, 2.3 of 16.7 M parameters, are trained with MSE and an LPIPS-like
distance on EfficientNet-Lite1, from the published weights. What comes before them is frozen, so it is computed once for
a fixed set of views and kept in --cache (1 MB a view), in a folder named by the photos and settings it was made from;
a step of four views then takes 1.4 s on two cores. Photos that validate do not train. A checkpoint beside --out lets an
interrupted run of the same recipe go on.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.files import hash_json, sha256_file
from rasr.generator.realesrgan import TUNED_BLOCKS, TUNED_LAYERS, write_tuned
from rasr.generator.rrdbnet import BLOCKS, RRDBNet, load_rrdbnet
from rasr.training.config import DataConfig
from rasr.training.features import load_feature_network
from rasr.training.losses import PerceptualDistance, mse
from rasr.training.photos import DecodedPhotos, TrainingPhoto, find_photos
from rasr.training.rng import generator_for
from rasr.training.views import Box, degraded
from rasr.weights import entry
from runs import machine

SEED, SIDE, WIDE, BATCH, EMA = 7, 256, 512, 4, 0.99
FROZEN = BLOCKS - TUNED_BLOCKS
Arrays = dict[str, NDArray[Any]]


def views(
    name: str, photos: Sequence[TrainingPhoto], count: int, side: int, cache: Path, *, centre: bool, network: RRDBNet
) -> Arrays:
    """Make views, HR and the frozen layers' features of their LQ, or find them in ``cache``.

    They lie in a folder named by all that they are made from; an interrupted one goes on where it stopped.
    """
    data = DataConfig(photos=tuple(photo.path for photo in photos), degradation="realesrgan", scale=4, long_side=1440)
    made_from = data.model_dump(mode="json", include={"degradation", "scale", "usm", "long_side"}) | {
        "photos": [photo.identity for photo in photos],
        "views": [SEED, count, side, centre],
        "network": entry("realesrgan").digest,
        "frozen": FROZEN,
    }
    folder = cache / f"{name}-{hash_json(made_from)[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "made"
    made = int(done.read_text()) if done.is_file() else 0
    features = ((count, 64, side // 4, side // 4), np.float16)
    shapes = {"hr": ((count, side, side, 3), np.uint8), "first": features, "trunk": features}
    arrays: Arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "r+" if made else "w+", kind, shape)
        for name, (shape, kind) in shapes.items()
    }
    decoded = DecodedPhotos(gigabytes=1, long_side=data.long_side)
    for number in range(made, count):
        photo = photos[number % len(photos)]
        pixels = decoded.read(photo)
        random = generator_for(SEED, "view", number)
        box = Box.centre(pixels, side) if centre else Box.anywhere(random, pixels, side)
        arrays["hr"][number] = box.cut(pixels)
        key = photo.path.name if centre else f"{photo.path.name}@{number}"
        lq = degraded(arrays["hr"][number], data, seed=0 if centre else SEED, name=key)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            planes = torch.from_numpy(np.rint(lq * 255) / np.float32(255)).permute(2, 0, 1)[None]
            first, trunk = network.begin(planes, FROZEN)
        arrays["first"][number], arrays["trunk"][number] = first[0].half().numpy(), trunk[0].half().numpy()
        done.write_text(str(number + 1))
        if (number + 1) % 100 == 0:
            print(f"views: {number + 1} of {count}", flush=True)
    return arrays


def finish(network: RRDBNet, arrays: Arrays, rows: list[int]) -> torch.Tensor:
    """Compute the pictures (N, 3, H, W) of some views, in [0, 1], not clamped."""
    first, trunk = (
        torch.from_numpy(arrays[name][rows]).float().contiguous(memory_format=torch.channels_last)
        for name in ("first", "trunk")
    )
    with torch.autocast("cpu", torch.bfloat16):
        return network.finish(first, trunk, FROZEN).float()


def judge(network: RRDBNet, arrays: Arrays) -> NDArray[np.float64]:
    """Return (views, 2): EPD and PSNR of every validation view, by the evaluation's protocol."""
    epd, psnr = (load_metric(name, MeasuringProtocol()) for name in ("EPD", "PSNR"))
    found = []
    for row in range(len(arrays["hr"])):
        with torch.inference_mode():
            restored = finish(network, arrays, [row]).clamp(0, 1).mul(255).round().div(255)
        pixels = np.ascontiguousarray(restored[0].permute(1, 2, 0).numpy())
        truth = arrays["hr"][row] / np.float32(255)
        found.append((epd.measure(pixels, truth), psnr.measure(pixels, truth)))
    return np.array(found)


def report(title: str, network: RRDBNet, held: Arrays, before: NDArray[np.float64]) -> str:
    """Print one line, with 95 % intervals of the differences to the published network."""
    after = judge(network, held)
    relative, gain = (after[:, 0] / before[:, 0] - 1) * 100, (after - before)[:, 1]
    wide = [1.96 * part.std(ddof=1) / len(part) ** 0.5 for part in (relative, gain)]
    line = (
        f"{title}: EPD {after[:, 0].mean():.4f} ({relative.mean():+.2f} % ± {wide[0]:.2f}), "
        f"PSNR {after[:, 1].mean():.2f} ({gain.mean():+.2f} ± {wide[1]:.2f})"
    )
    print(line, flush=True)
    return line


def train(network: RRDBNet, arrays: Arrays, options: argparse.Namespace, recipe: dict[str, Any]) -> RRDBNet:
    """Train the last layers; returns the average of the weights over the last steps.

    A checkpoint of another ``recipe`` is refused: its weights would be those of neither.
    """
    which = hash_json([recipe, options.start and sha256_file(options.start)])
    chosen = network.layers[-TUNED_LAYERS:]
    chosen.requires_grad_(True)
    parameters = list(chosen.parameters())
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.99), weight_decay=0, fused=True)
    perceptual = PerceptualDistance(load_feature_network("effnet-lite1"))
    checkpoint, step = options.out.with_suffix(".checkpoint"), 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        if state.get("recipe") != which:
            raise SystemExit(f"{checkpoint} is of another recipe. Delete it, or choose another --out.")
        step = int(state["step"])
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    begun, tally = time.perf_counter(), []
    count = len(arrays["hr"])
    while step < options.steps:
        step += 1
        warm, turn = min(1.0, step / options.warmup), float(np.cos(np.pi * step / options.steps))
        optimizer.param_groups[0]["lr"] = options.rate * warm * (0.05 + 0.95 * 0.5 * (1 + turn))
        epoch, place = divmod((step - 1) * BATCH, count - count % BATCH)
        rows = generator_for(SEED, "epoch", epoch).permutation(count)[place : place + BATCH].tolist()
        truth = torch.from_numpy(arrays["hr"][rows]).permute(0, 3, 1, 2).float().div(255)
        restored = finish(network, arrays, rows)
        with torch.autocast("cpu", torch.bfloat16):
            apart = mse(restored, truth).mean()
            unlike = perceptual(restored, truth).mean() if options.perceptual else torch.zeros(())
        optimizer.zero_grad()
        (options.mse * apart + options.perceptual * unlike).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1 - min(EMA, step / (step + 10)))
        tally.append((apart.item(), unlike.item()))
        if step % 25 == 0:
            speed = len(tally) * BATCH / (time.perf_counter() - begun)
            print(f"{step}: mse, perceptual {np.mean(tally[-25:], axis=0).round(4)}, {speed:.1f} views/s", flush=True)
        if step % 100 == 0 or step == options.steps:
            parts = {"network": network, "average": average, "optimizer": optimizer}
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({**state, "step": step, "recipe": which}, checkpoint)
    return average


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the views, train, judge and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, action="append", required=True)
    parser.add_argument("--validate-on", type=Path, required=True, help="36 of these photos do not train")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="tuned layers to go on from")
    parser.add_argument("--cache", type=Path, default=Path("trained/realesrgan-views"))
    parser.add_argument("--views", type=int, default=752)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--mse", type=float, default=4.0, help="weight of MSE in [-1, 1] beside the perceptual term")
    parser.add_argument("--perceptual", type=float, default=1.0, help="weight of the perceptual term")
    parser.add_argument("--held-out", type=int, default=36)
    options = parser.parse_args(arguments)
    held = find_photos([options.validate_on], "folder", smallest=WIDE).spread(options.held_out)
    photos = find_photos(options.photos, "folder", smallest=SIDE, held_out=held).targets
    published = load_rrdbnet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    known = views("train", photos, options.views, SIDE, options.cache, centre=False, network=published)
    unseen = views("held-out", held, len(held), WIDE, options.cache, centre=True, network=published)
    before = judge(published, unseen)
    network = load_rrdbnet(tuned=options.start).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    recipe = {"seed": SEED, "batch": BATCH, "side": SIDE, "ema": EMA, "loss": "mse + LPIPS-shaped, effnet-lite1"}
    recipe |= {name: getattr(options, name) for name in ("views", "steps", "rate", "warmup", "mse", "perceptual")}
    begun = report("start", network, unseen, before)
    tuned = train(network, known, options, recipe)
    ended = report(f"after {options.steps} steps", tuned, unseen, before)
    numbers = range(len(tuned.layers) - TUNED_LAYERS, len(tuned.layers))
    layers = {n: (tuned.layers[n].weight.detach().numpy(), tuned.layers[n].bias.detach().numpy()) for n in numbers}
    notes = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "photos": len(photos),
        "recipe": recipe,
        "start": "published weights" if options.start is None else options.start.name,
        "held out": [begun, ended],
    }
    print(write_tuned(options.out, layers, notes))


if __name__ == "__main__":
    main()
