"""Can the reference stage learn at all? Eight pairs, ten CPU-minutes: the loss must fall by 80 %.

The backbone is frozen, so whatever is gained is gained through the reference branch. On the same pairs the output with
reference must beat the output without (PSNR and EPD). Without --backbone (or shipped weights) a backbone is trained
for a moment first, since an untrained one lets no gradient through.

python benchmarks/training_overfit.py [--photos ../shared/photos/train] [--backbone FILE] [--crop 64] [--steps 400]
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from rasr.evaluation.metrics.perceptual import EPD
from rasr.evaluation.settings import MeasuringProtocol
from rasr.training import Trainer, TrainingConfig
from rasr.training.batch import collate
from rasr.training.data import TrainingData
from rasr.training.loop import Outcome
from rasr.training.model import build_trainable

MODEL = Path(__file__).parents[1] / "tests" / "small.toml"


def config_for(options: argparse.Namespace, stage: str, steps: int, **model: object) -> TrainingConfig:
    """A stage on few, fixed samples."""
    mix = {"warped": 1.0} if stage == "reference" else {"null": 1.0}
    return TrainingConfig.model_validate(
        {
            "name": f"overfit-{stage}",
            "stage": stage,
            "model": {"preset": str(MODEL), **model},
            "data": {
                "photos": [options.photos],
                "crop": options.crop,
                "workers": 0,
                "distinct": 8 if stage == "reference" else 0,
                "cache_gb": 2,
            },
            "references": {"phases": [{"mix": mix}]},
            "loss": {"mse": 1.0, "perceptual": 0.0},
            "optimizer": {"lr": options.lr, "warmup": 20, "ema": 0.0, "weight_decay": 0.0},
            "loop": {"steps": steps, "batch": 8, "log_every": 10, "checkpoint_every": 10**6, "device": "cpu"},
        }
    )


def train(config: TrainingConfig, folder: Path) -> tuple[Outcome, list[float], float]:
    """Train; returns the outcome, the logged losses and the CPU seconds."""
    losses: list[float] = []

    def on_step(step: int, values: object) -> None:
        if values:
            losses.append(values["loss"])  # type: ignore[index]
            print(f"{config.stage} {step}: loss {losses[-1]:.5f}, {time.process_time() - start:.0f} CPU s", flush=True)

    start = time.process_time()
    outcome = Trainer(config, folder, on_step=on_step).run()
    return outcome, losses, time.process_time() - start


def main() -> None:
    """Train, measure, and print the verdict."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--photos", default="../shared/photos/train")
    arguments.add_argument("--backbone")
    arguments.add_argument("--crop", type=int, default=64)
    arguments.add_argument("--steps", type=int, default=400)
    arguments.add_argument("--backbone-steps", type=int, default=120)
    arguments.add_argument("--lr", type=float, default=2e-3)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        backbone = options.backbone
        if backbone is None:
            outcome, _, _ = train(config_for(options, "backbone", options.backbone_steps), Path(folder) / "backbone")
            backbone = str(outcome.exported)
        config = config_for(options, "reference", options.steps, weights={"backbone": backbone})
        outcome, losses, seconds = train(config, Path(folder) / "reference")
        weights = {"backbone": backbone, "adapter": str(outcome.exported)}
        config = config_for(options, "reference", options.steps, weights=weights)
        model, encoder = build_trainable(config, torch.device("cpu"), print)
        maker = TrainingData.prepare(config, encoder, print).maker
        batch = collate([maker[n] for n in range(8)])
        with torch.inference_mode():
            outputs = {"reference": model(batch), "null": model(batch.without_reference())}
    truth = batch.hr.permute(0, 2, 3, 1).numpy()
    epd = EPD(MeasuringProtocol())
    print(f"loss {losses[0]:.5f} -> {losses[-1]:.5f}: down by {1 - losses[-1] / losses[0]:.1%} in {seconds:.0f} CPU s")
    for name, output in outputs.items():
        pictures = output.clamp(0, 1).permute(0, 2, 3, 1).numpy()
        psnr = np.mean([-10 * np.log10(np.mean((a - b) ** 2)) for a, b in zip(pictures, truth, strict=True)])
        distance = np.mean([epd.measure(a, b) for a, b in zip(pictures, truth, strict=True)])
        print(f"{name}: PSNR {psnr:.2f} dB (RGB), EPD {distance:.4f}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}, crop {options.crop}")


if __name__ == "__main__":
    main()
