"""What docs/service.md shows is so: its client restores a picture, and its unit and container name what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from tests.service.conftest import Served, picture

TEXT = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)


def test_the_ten_lines_restore_a_picture(
    start: Callable[..., Served], run_rasr: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    (client,) = blocks("text")
    assert len(client.strip().splitlines()) == 10
    (tmp_path / "Photos").mkdir()
    (tmp_path / "Photos" / "a.png").write_bytes(picture(96, 96, seed=1))
    (tmp_path / "old.jpg").write_bytes(picture(seed=2, kind="JPEG"))
    served = start("-g", tmp_path / "Photos")
    script = client.replace("http://127.0.0.1:8000", served.url)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "old_rasr.jpg").read_bytes()
    (job,) = served.client.get("/jobs").json()["jobs"]
    assert made == served.client.get(job["links"]["result"]).content
    assert served.stop() == 0


def test_the_options_that_are_named_exist(run_rasr: Callable[..., CompletedProcess[str]]) -> None:
    known = set(re.findall(r"--[a-z-]+", run_rasr("serve", "--help").stdout))
    lines = [*re.findall(r"rasr serve ([^\n`]*)", TEXT), *re.findall(r'"rasr", "serve", (.*)\]', TEXT)]
    assert len(lines) >= 5
    named = {option for line in lines for option in re.findall(r"--[a-z-]+", line)}
    named |= set(re.findall(r"`(--[a-z-]+)`", TEXT))
    assert named - known == set()
