"""How much of a bare training loop's speed the real one keeps: the tests' small model, 256 px, data from disk.

The bare loop runs the same model, losses and optimizer over batches that lie in memory; the real one reads photos,
makes samples, logs, averages. Both in the same process, taking turns, so that a busy machine slows them alike.

python benchmarks/training_throughput.py [--photos ../shared/photos/train] [--steps 12] [--crop 256] [--batch 4]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch

from rasr.training import Trainer, TrainingConfig
from rasr.training.batch import TrainingBatch, collate
from rasr.training.data import TrainingData
from rasr.training.losses import Objective
from rasr.training.model import build_trainable
from rasr.training.optimization import Optimized
from rasr.training.rng import seed_torch

MODEL = Path(__file__).parents[1] / "tests" / "small.toml"


def config_for(options: argparse.Namespace, stage: str, steps: int, **model: object) -> TrainingConfig:
    """A stage of the small model."""
    guided = {"warped": 0.4, "other_crop": 0.3, "random": 0.15, "null": 0.15}
    return TrainingConfig.model_validate(
        {
            "name": f"throughput-{stage}",
            "stage": stage,
            "model": {"preset": str(MODEL), **model},
            "data": {"photos": [options.photos], "crop": options.crop, "workers": options.workers},
            "references": {"phases": [{"mix": guided if stage == "reference" else {"null": 1.0}}]},
            "loss": {"mse": 2.0, "perceptual": 1.0},
            "loop": {
                "steps": steps,
                "batch": options.batch,
                "log_every": 1,
                "checkpoint_every": 10**6,
                "device": "cpu",
            },
        }
    )


def bare_seconds(config: TrainingConfig, batches: list[TrainingBatch]) -> list[float]:
    """Seconds of each step of forward, losses, backward, clip and AdamW, nothing else."""
    device = torch.device("cpu")
    seed_torch(config.seed, "model")
    model, _ = build_trainable(config, device, lambda _line: None)
    objective = Objective(config, lambda _line: None)
    optimizer = Optimized("model", model.trainable(), 1e-5, config.optimizer)
    model.train()
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        optimizer.zero_grad()
        objective.total(objective.terms(model(batch).float(), batch, 0)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(optimizer.parameters.values(), 1.0)
        optimizer.step(1.0)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measure both and print the ratio of the median step times."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--photos", default="../shared/photos/train")
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--crop", type=int, default=256)
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--workers", type=int, default=1)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        backbone = Trainer(config_for(options, "backbone", 1), Path(folder) / "backbone").run().exported
        config = config_for(options, "reference", options.steps, weights={"backbone": str(backbone)})
        _, encoder = build_trainable(config, torch.device("cpu"), lambda _line: None)
        maker = TrainingData.prepare(config, encoder, lambda _line: None).maker
        size = options.batch
        batches = [collate([maker[n * size + i] for i in range(size)]) for n in range(options.steps)]
        bare = bare_seconds(config, batches[: options.steps // 2])
        times: list[float] = [time.perf_counter()]
        waits: list[float] = []

        def on_step(_step: int, values: object) -> None:
            times.append(time.perf_counter())
            waits.append(values["data_wait"])  # type: ignore[index]

        Trainer(config, Path(folder) / "reference", on_step=on_step).run()
        real = [b - a for a, b in pairwise(times[1:])]
        bare += bare_seconds(config, batches[options.steps // 2 :])
    quick, slow = (options.batch / statistics.median(seconds) for seconds in (bare, real))
    print(f"bare {quick:.2f} samples/s, real {slow:.2f}: {slow / quick:.0%}")
    print(f"waiting for data {statistics.mean(waits[2:]):.1%} of the time")
    print(f"{options.crop} px, batch {options.batch}, {options.workers} worker(s)")
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}")


if __name__ == "__main__":
    main()
