"""A restorer of a cluster, without the cluster: the files that one machine makes, progress, cancelling, deaths."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from rasr.errors import ClusterError
from rasr.service.config import ServiceConfig
from rasr.service.replica import PREFIX, Restorer, exchanged
from tests.service.conftest import picture

VERSION = importlib.metadata.version("rasr")


def make(tmp: Path, version: str = VERSION, head: str = "", **facts: Any) -> Restorer:
    config = ServiceConfig(data=tmp / "unused", **{"preset": "bicubic", **facts})
    return Restorer(config, version, head or platform.node(), 1, 1, gpus=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where restorers of this test have their folders."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # what it sets is gone with the test
    return tmp_path / "tmp"


@pytest.fixture
def restorer(root: Path, tmp_path: Path) -> Iterator[Restorer]:
    one = make(tmp_path)
    yield one
    one.close()
    assert not (tmp_path / "unused").exists()
    assert [path.suffix for path in root.iterdir()] in ([], [".lock"])


def order(folder: str = "/srv/data/jobs/a1", **facts: Any) -> dict[str, Any]:
    """A job as the service hands it out."""
    return {
        "folder": folder, "input": f"{folder}/input/cat.png", "output": f"{folder}/result/cat_rasr.png",
        "references": [], "name": "cat.png", "photos": [], "gallery": None, "reference": "auto", "preset": "bicubic",
        "scale": 2.0,
        "settings": {"strength": 1.0, "detail": 0.5, "reduce": True, "seed": 0, "k": 1},
        "save": {"format": None, "metadata": "no-location"}, **facts,
    }  # fmt: skip


async def told(restorer: Restorer, said: dict[str, Any], content: bytes) -> list[dict[str, Any]]:
    return [one async for one in restorer.restore(said, {"input/cat.png": content}, 0)]


def test_the_files_are_one_machines(
    restorer: Restorer, run_rasr: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    content = picture(seed=4)
    said = asyncio.run(told(restorer, order(), content))
    assert said[0] == {"begun": platform.node()}
    stages = [step["stage"] for one in said for step in one.get("progress", ())]
    assert "restore" in stages
    files: dict[str, bytes] = {}
    for one in said:
        if "file" in one:
            files[one["file"]] = files.get(one["file"], b"") + one["content"]
    assert set(files) == {"result/cat_rasr.png", "view.png", "evidence.png", "evidence.json"}
    (tmp_path / "cat.png").write_bytes(content)
    done = run_rasr("restore", "cat.png", "--preset", "bicubic", "--scale", "2", "--metadata", "no-location")
    assert done.returncode == 0, done.stderr
    assert files["result/cat_rasr.png"] == (tmp_path / "cat_rasr.png").read_bytes()
    last = said[-1]
    assert (last["ended"], last["restarts"], last["outcome"]["width"]) == (True, 0, 96)
    assert last["outcome"]["bytes"] == len(files["result/cat_rasr.png"])


def test_an_error_says_nothing_of_its_folders(restorer: Restorer) -> None:
    (*_, last) = asyncio.run(told(restorer, order(), picture()[:100]))
    assert last["error"].startswith("cat.png: ")
    assert PREFIX not in last["error"]


def test_files_are_told_at_their_places_in_the_service(restorer: Restorer) -> None:
    said = order(references=["/srv/data/jobs/a1/references/0/other.png"])
    files = {"input/cat.png": picture(), "references/0/other.png": picture(64, 64, 7)}

    async def all_of() -> list[dict[str, Any]]:
        return [one async for one in restorer.restore(said, files, 0)]

    outcome = asyncio.run(all_of())[-1]["outcome"]
    assert [one["path"] for one in outcome["references"]] == ["/srv/data/jobs/a1/references/0/other.png"]
    assert PREFIX not in str(outcome)


async def begun(stream: AsyncIterator[dict[str, Any]]) -> None:
    """Wait until the worker is in the middle of a job."""
    async for one in stream:
        if any(step["stage"] == "restore" for step in one.get("progress", ())):
            return
    raise AssertionError("it ended before")


def test_whoever_stops_listening_stops_the_work(restorer: Restorer) -> None:
    async def leave() -> list[dict[str, Any]]:
        stream = restorer.restore(order(scale=4.0), {"input/cat.png": picture(1000, 1000)}, 0)
        await begun(stream)
        assert restorer._supervisor.running is not None
        await stream.aclose()  # type: ignore[attr-defined]  # a generator
        return await told(restorer, order(), picture())  # another one meanwhile

    assert asyncio.run(leave())[-1]["outcome"]["width"] == 96
    assert "rasr_worker_restarts_total 0.0" in restorer._metrics.text().decode()
    assert not [path for path in restorer._folder.iterdir() if path.is_dir()]


def test_a_worker_that_dies_costs_the_job_it_had(restorer: Restorer) -> None:
    async def die() -> dict[str, Any]:
        stream = restorer.restore(order(scale=4.0), {"input/cat.png": picture(1000, 1000)}, 0)
        await begun(stream)
        pid = restorer._supervisor.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return [one async for one in stream][-1]

    last = asyncio.run(die())
    assert last["error"].startswith("cat.png: the process that restored it was ended by signal 9")
    restorer.check_health()
    assert asyncio.run(told(restorer, order(), picture()))[-1]["outcome"]["width"] == 96


def test_another_version_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=rf"has RASR {VERSION}, where 0\.0\.1 was started"):
        make(tmp_path, "0.0.1")


def test_weights_that_are_not_there_are_told_with_the_machine(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=rf"rasr models download .*on the machine {platform.node()}"):
        make(tmp_path, head="another", preset="sd21")
    assert not [path for path in root.iterdir() if path.is_dir()]


def test_what_a_killed_one_left_is_removed(root: Path, tmp_path: Path) -> None:
    left = root / f"{PREFIX}0123"
    left.mkdir()
    (left / "photo.png").write_bytes(b"x")
    left.with_suffix(".lock").touch()
    first = make(tmp_path)
    assert not left.exists()
    second = make(tmp_path)
    assert first._folder.is_dir()
    first.close()
    second.close()


def test_folders_are_exchanged_wherever_they_are_told() -> None:
    value = {"a": ["/one/x", {"b": "see /one/y", "n": 1}], "c": None}
    assert exchanged(value, "/one", "/two") == {"a": ["/two/x", {"b": "see /two/y", "n": 1}], "c": None}
