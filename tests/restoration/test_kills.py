"""A batch killed at any system call: nothing broken is ever seen, and the same command finishes it."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORKER = Path(__file__).with_name("kill_worker.py")


def restore(place: Path, out: str, kill_at: int = 0) -> tuple[int, int, int]:
    """Exit code, calls counted (0 when killed) and pictures found finished by one run of the command."""
    reader, writer = os.pipe()
    command = [sys.executable, WORKER, str(kill_at), out, "restore", "in", "-o", out, "--preset", "bicubic"]
    done = subprocess.run(
        [*command, "--scale", "2", "--name", "{stem}{ext}", "--json"],
        cwd=place,
        env={**os.environ, "KILL_COUNT": str(writer)},
        pass_fds=[writer],
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(writer)
    with os.fdopen(reader) as counted:
        calls = int(counted.read() or 0)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.endswith("}")]
    return done.returncode, calls, sum("Finished in an earlier run." in line["notes"] for line in lines)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def storm(place: Path, pictures: int, kills: int, seed: int) -> dict[str, int]:
    """Kill the batch at ``kills`` places, each in a folder of its own; what was seen."""
    (place / "in").mkdir()
    noise = np.random.default_rng(seed)
    for number in range(pictures):
        Image.fromarray(noise.integers(0, 256, (12, 16, 3), np.uint8)).save(place / f"in/{number:03}.png")
    code, calls, _ = restore(place, "whole")
    assert code == 0
    whole = files(place / "whole")
    assert len(whole) == pictures
    seen = {"kills": 0, "broken": 0, "failed": 0, "redone": 0, "most_redone": 0, "leftovers": 0, "calls": calls}
    choose = random.Random(seed)
    for number in range(kills):
        # One kill in every stretch of the batch, the same number in each.
        at = 1 + (calls * number + choose.randrange(calls)) // kills
        out = f"out{number}"
        assert restore(place, out, at)[0] == -signal.SIGKILL, at
        seen["kills"] += 1
        left = files(place / out)
        seen["broken"] += sum(whole[name] != content for name, content in left.items())
        code, _, finished = restore(place, out)
        seen["failed"] += code != 0
        redone = len(left) - finished
        seen["redone"] += redone
        seen["most_redone"] = max(seen["most_redone"], redone)
        seen["broken"] += files(place / out) != whole
        seen["leftovers"] += len(list((place / out).glob(".rasr-*")))
        lines = (place / out / "report.jsonl").read_bytes().split(b"\n")
        assert {json.loads(line)["output"] for line in lines if line.endswith(b"}")} == set(whole)
    return seen


def check(seen: dict[str, int]) -> None:
    logging.getLogger(__name__).info("%s", seen)  # shown by --log-cli-level=INFO
    assert (seen["broken"], seen["failed"], seen["leftovers"]) == (0, 0, 0)
    assert seen["most_redone"] <= 1


def test_a_small_batch_killed_at_six_places(tmp_path: Path) -> None:
    check(storm(tmp_path, pictures=3, kills=6, seed=1))


@pytest.mark.large
def test_a_batch_of_60_killed_at_60_places(tmp_path: Path) -> None:
    check(storm(tmp_path, pictures=60, kills=60, seed=2))
