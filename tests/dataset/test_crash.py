"""Builds killed with SIGKILL at random moments: nothing doubled, nothing fetched twice, the same dataset in the end."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rasr.dataset import check_dataset, read_manifest
from rasr.gallery import Gallery
from tests.dataset.photo_sites import World, config_for, make_world, serving

HARNESS = Path(__file__).parent / "kill_builds.py"
SUBJECTS = ["owl", "zebra", "lion"]


def _run(config: Path, out: Path, delays: list[float], world: World) -> list[dict[str, Any]]:
    """Run the harness; after every kill note how many requests the stand-in has seen."""
    words = [sys.executable, str(HARNESS), str(config), str(out), *map(str, delays)]
    reports = []
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        for line in process.stdout:
            reports.append(json.loads(line) | {"requests": len(world.requests)})
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0
    return reports


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kills", "seed"),
    [(6, 1), pytest.param(20, 2, marks=pytest.mark.large), pytest.param(60, 3, marks=pytest.mark.large)],
)
def test_killed_builds(tmp_path: Path, kills: int, seed: int) -> None:
    world = make_world(SUBJECTS, {"flickr": 16, "inaturalist": 10})
    world.page_size = 7
    with serving(world) as base:
        raw = config_for(base, SUBJECTS, ["flickr", "inaturalist"]) | {"lq": {"crop": 64}}
        raw["splits"] = {"train": 4, "test": 1, "reference": 5, "related_similarity": 0.995}
        config = tmp_path / "config.json"
        config.write_text(json.dumps(raw), "utf-8")
        (whole,) = _run(config, tmp_path / "whole", [0], world)
        assert whole["status"] == 0
        world.fetched.clear()
        world.tries.clear()
        world.requests.clear()
        # A little more time in all than one build takes: the last kills fall into a build that only has to finish.
        chance = random.Random(seed)
        delays = [chance.uniform(0.01, 2.5 * whole["seconds"] / kills) for _ in range(kills)]
        reports = _run(config, tmp_path / "out", [*delays, 0], world)
    assert reports[-1]["status"] == 0
    assert sum(report["status"] == -9 for report in reports) >= kills / 3
    # Nothing that had arrived was asked for again.
    for report in reports[:-1]:
        later = world.requests[report["requests"] :]
        asked = {match[1] for _, path, _ in later if (match := re.match(r"/img/(\d+)/", path))}
        assert not asked & {name.partition("_")[2] for name in report["complete"]}
    # And the dataset is the one that an undisturbed build makes.
    manifests = [(tmp_path / name / "manifest.jsonl").read_bytes() for name in ("whole", "out")]
    assert manifests[0] == manifests[1]
    records = read_manifest(tmp_path / "out")
    assert len({record.id for record in records}) == len({record.sha256 for record in records}) == len(records)
    checked = check_dataset(tmp_path / "out")
    assert [finding for finding in checked.findings if finding.kind != "count"] == []
    assert len(Gallery(tmp_path / "out")) == sum(record.split == "reference" for record in records)
