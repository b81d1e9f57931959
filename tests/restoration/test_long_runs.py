"""Many restorations in one process: open files and threads stay as many, and memory stays where it was."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import json, os, resource, sys
from pathlib import Path
import numpy as np
from PIL import Image
from rasr.restoration import Job, Restorer, SaveOptions, Settings, TargetSize, run_batch
from tests.restoration.conftest import Local

class Forgetful(Local):  # which does not keep what it was asked, as the stand-in does for other tests
    def generate(self, tiles, base, conditioning):
        self.shapes.clear(), self.bases.clear()
        return super().generate(tiles, base, conditioning)

count, place = int(sys.argv[1]), Path(sys.argv[2])
noise = np.random.default_rng(0)
pictures = []
for number in range(50):
    pictures.append(place / f"in{number}.{('png', 'jpg', 'webp', 'tif')[number % 4]}")
    Image.fromarray(noise.integers(0, 256, (24, 32, 3), np.uint8)).save(pictures[-1])
reference = place / "reference.jpg"
Image.fromarray(noise.integers(0, 256, (48, 64, 3), np.uint8)).save(reference)
settings = Settings(size=TargetSize(scale=2), reference=(reference,), candidates=0)
kept = 40 * 24 * 32 * 12  # cleaned pictures: the cache is full after forty
restorers = [
    Restorer("bicubic"),
    Restorer(Forgetful(uses_reference=True, cleaner=Forgetful(grid="input")), cleaned_bytes=kept),
]

def jobs(first):
    for number in range(first, first + 50):
        source = pictures[number % 50]
        yield Job(source, place / "out" / f"{number}{source.suffix}")

def standing():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return [len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), pages * resource.getpagesize()]

seen = []
for first in range(0, count, 50):
    restorer = restorers[first // 50 % 2]
    for outcome in run_batch(list(jobs(first)), restorer, settings, SaveOptions(), journal_folder=place / "out"):
        assert outcome.result is not None, outcome.error
    seen.append(standing())
print(json.dumps({"seen": seen, "cleaned": restorers[1]._cleaned.held, "kept": kept}))
"""


def check(count: int, place: Path, settled: int) -> None:
    """Restore ``count`` pictures; the standing after ``settled`` of them is what may not grow."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(count), place],
        cwd=root, env={"PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    seen = facts["seen"][settled // 50 - 1 :]
    files, threads, memory = zip(*seen, strict=True)
    logging.getLogger(__name__).info(
        "%d restorations: files %s, threads %s, MB %.1f to %.1f (highest %.1f)",
        count, sorted(set(files)), sorted(set(threads)), memory[0] / 1e6, memory[-1] / 1e6, max(memory) / 1e6,
    )  # fmt: skip
    assert len(set(files)) == 1
    assert len(set(threads)) == 1
    assert max(memory) < 1.05 * memory[0]
    assert 0 < facts["cleaned"] <= facts["kept"]


def test_three_hundred_restorations(tmp_path: Path) -> None:
    check(300, tmp_path, settled=200)


@pytest.mark.large
def test_two_thousand_restorations(tmp_path: Path) -> None:
    check(2000, tmp_path, settled=400)
