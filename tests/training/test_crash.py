"""Killed and resumed, and shared between processes: the same weights."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rasr.training.checkpoint import Checkpoint

SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from standin import TinyModel, tiny_config
from rasr.training.loop import Trainer

if __name__ == "__main__":
    folder, photos, steps, every, pause = Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:6])
    workers = int(sys.argv[6])
    config = tiny_config(photos, loop__steps=int(steps), loop__checkpoint_every=int(every), data__workers=workers)
    def on_step(step, values):
        print(step, flush=True)
        time.sleep(pause)
    outcome = Trainer(config, folder, model=TinyModel(), on_step=on_step).run(resume=True)
    sys.exit(130 if outcome.stopped else 0)
"""


def start(tmp_path: Path, *arguments: object, **env: str) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return subprocess.Popen(
        [sys.executable, "-W", "error", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )


def finish(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err + out


def test_killed_three_times_the_run_ends_with_the_same_weights(tmp_path: Path, photos: Path) -> None:
    """SIGKILL between two steps, in the midst of one, and while a checkpoint may be being written."""
    finish(start(tmp_path, tmp_path / "whole", photos, 30, 5, 0, 0))
    for at, delay in ((6, 0.0), (14, 0.013), (22, 0.004)):
        process = start(tmp_path, tmp_path / "killed", photos, 30, 5, 0.01, int(at == 14))
        assert process.stdout
        for line in process.stdout:
            if int(line) >= at:
                break
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    finish(start(tmp_path, tmp_path / "killed", photos, 30, 5, 0, 0))
    whole, _ = Checkpoint.latest(tmp_path / "whole" / "checkpoints")
    killed, _ = Checkpoint.latest(tmp_path / "killed" / "checkpoints")
    assert whole
    assert killed
    assert whole.step == killed.step == 30
    assert whole.tensors.keys() == killed.tensors.keys()
    for name, value in whole.tensors.items():
        assert torch.equal(value, killed.tensors[name]), name


def test_sigterm_finishes_the_step_and_saves(tmp_path: Path, photos: Path) -> None:
    process = start(tmp_path, tmp_path / "run", photos, 5000, 4000, 0.01, 1)
    assert process.stdout
    for line in process.stdout:
        if int(line) == 5:
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = int(out.split()[-1])
    found, _ = Checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found
    assert found.step == last


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_two_processes_train_as_one_with_the_summed_batch(tmp_path: Path, photos: Path) -> None:
    finish(start(tmp_path, tmp_path / "one", photos, 20, 20, 0, 0))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    processes = [
        start(tmp_path, tmp_path / "two", photos, 20, 20, 0, 0, RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in range(2)
    ]
    for process in processes:
        finish(process)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 20
    assert two == pytest.approx(one, rel=1e-4)
    first, _ = Checkpoint.latest(tmp_path / "one" / "checkpoints")
    second, _ = Checkpoint.latest(tmp_path / "two" / "checkpoints")
    assert first
    assert second
    for name, value in first.tensors.items():
        torch.testing.assert_close(value, second.tensors[name], rtol=1e-3, atol=1e-5)
