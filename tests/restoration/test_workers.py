"""Workers: the same bytes as one process gives, a death that costs one try, and a parent that takes them with it."""

from __future__ import annotations

import importlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import rasr.restoration.workers as module
from rasr.child import Child
from rasr.errors import (
    ExtraMissing,
    PictureError,
    RasrError,
    UsageError,
    WeightsMissing,
    error_facts,
    error_of,
)
from rasr.images import Limits
from rasr.restoration import BatchOptions, Outcome, Restorer, SaveOptions, Settings, TargetSize, plan_jobs, run_batch
from rasr.restoration.workers import setup_of
from tests.restoration.conftest import Scene

ROOT = Path(__file__).parents[2]
TWICE = Settings(size=TargetSize(scale=2))
TWO = BatchOptions(workers=2)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("batch_10000")


def run(photos: Path, out: str, options: BatchOptions | None = None, **more: Any) -> list[Outcome]:
    folder = photos.parent / out
    jobs = plan_jobs([photos], folder)
    settings = more.pop("settings", TWICE)
    restorer = more.pop("restorer", None) or Restorer("bicubic")
    return list(run_batch(jobs, restorer, settings, options=options, journal_folder=folder, **more))


def results(photos: Path, out: str) -> dict[str, bytes]:
    folder = photos.parent / out
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def told(outcome: Outcome) -> tuple[Any, ...]:
    facts = outcome.to_json()
    output = facts["output"] and Path(facts["output"]).name
    return outcome.job.input.name, output, facts["error"], facts["settings"], facts["notes"], type(outcome.error)


def test_workers_give_what_one_process_gives(photos: Path) -> None:
    alone, beside = run(photos, "alone"), run(photos, "beside", TWO)
    assert sorted(map(told, beside), key=str) == sorted(map(told, alone), key=str)
    assert results(photos, "beside") == results(photos, "alone")
    assert len(results(photos, "alone")) == 6
    assert [outcome.earlier for outcome in run(photos, "beside")].count(True) == 6, "one journal, by the parent"
    assert not list((photos.parent / "beside").rglob(".rasr-*"))


def test_evidence_travels_from_a_worker(scene: Scene, tmp_path: Path) -> None:
    """The map of evidence, the report's layer and what is said of the photo are those of one process."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(scene.query.read_bytes())
    pages = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        command = [sys.executable, "-m", "rasr", "restore", tmp_path / "in", "-o", out, "--preset", "bicubic"]
        command += ["--scale", "2", "-g", scene.same.parent, "--workers", str(workers), "--report", f"{out}.html"]
        done = subprocess.run([*command, "--evidence", f"{out}-maps"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        pages.append((tmp_path / f"out{workers}.html").read_text("utf-8"))
        assert "Evidence" in done.stderr or "right.png" in done.stderr
    for name in ("a", "b"):
        maps = [(tmp_path / f"out{workers}-maps/{name}_rasr_evidence.png").read_bytes() for workers in (1, 2)]
        assert maps[0] == maps[1]
        made = [(tmp_path / f"out{workers}/{name}_rasr.png").read_bytes() for workers in (1, 2)]
        assert made[0] == made[1]
    assert pages[0].count("detail from your photo") == pages[1].count("detail from your photo") > 2
    assert pages[1].index("a.png") < pages[1].index("b.png")


def test_progress_is_told_of_each_picture(photos: Path) -> None:
    heard: dict[str, list[Any]] = {}

    def announce(job: Any, target: tuple[int, int]) -> Any:
        heard[job.input.name] = [target]
        return lambda *what: heard[job.input.name].append(what)

    run(photos, "out", TWO, announce=announce)
    assert heard.keys() == {"0.png", "1.png", "2.png", "3.png", "4.png", "5.png", "cut.png"}
    assert (heard["3.png"][0], heard["3.png"][-1]) == ((32, 24), ("restore", 1.0, 1.0))


def test_what_would_fail_every_picture_ends_the_batch(photos: Path, tmp_path: Path) -> None:
    weights = Restorer("mini", tuned=str(tmp_path / "none.safetensors"))
    with pytest.raises(RasrError, match=r"none\.safetensors"):
        run(photos, "out", TWO, restorer=weights)
    assert not (tmp_path / "out").exists(), "folders made for nothing are taken away again"


def test_objects_cannot_be_told_to_another_process(local: Any, photos: Path) -> None:
    with pytest.raises(UsageError, match="by name, not objects"):
        run(photos, "out", TWO, restorer=Restorer(local()))


def test_a_setup_says_all_choices() -> None:
    settings = Settings(reference=(Path("\udcff.png"), Path("b.png")), size=TargetSize(long_side=99), seed=7)
    save = SaveOptions(format="png")
    setup = setup_of(Restorer("bicubic"), settings, save, Limits(5), keep_evidence=True)
    given = setup["settings"]
    assert Settings(**given | {"size": TargetSize(**given["size"])}) == settings
    assert Limits(**setup["limits"]) == Limits(5)
    assert SaveOptions(**setup["save"]) == save


@pytest.mark.parametrize(
    "error", [PictureError("a.png: no"), WeightsMissing("gone"), ExtraMissing("this", "models"), RasrError("x")]
)
def test_an_error_is_the_same_on_both_sides(error: RasrError) -> None:
    back = error_of(error_facts(error))
    assert (type(back), str(back), back.exit_code) == (type(error), str(error), error.exit_code)
    assert type(error_of({"type": "os", "message": "x"})) is RasrError


DYING = """
import os, pathlib, signal, sys
import rasr.restoration.worker as module

real = module.do_job

def do_job(job, *arguments, **more):
    mark = pathlib.Path(os.environ["MARKS"], job.input.name)
    if job.input.name in {WHEN} and mark.exists() < {TIMES}:
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(job, *arguments, **more)

module.do_job = do_job
module.main()
"""


def work_by(name: str, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers as ``script``, which may leave marks."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / f"scripts/{name}.py").write_text(script)
    (tmp_path / "marks").mkdir()
    monkeypatch.setenv("MARKS", str(tmp_path / "marks"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'scripts'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(module, "Child", lambda _, threads: Child(name, threads=threads))


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has workers die at pictures: once, or every time."""

    def arrange(*names: str, always: bool = False) -> None:
        script = DYING.replace("{WHEN}", repr(set(names))).replace("{TIMES}", "2" if always else "1")
        work_by("dying_worker", script, tmp_path, monkeypatch)

    return arrange


def test_a_worker_that_dies_costs_one_try(photos: Path, dying: Any) -> None:
    dying("2.png", "3.png")
    outcomes = run(photos, "out", TWO)
    assert sum(outcome.error is None for outcome in outcomes) == 6
    assert len(list((photos.parent / "marks").iterdir())) == 2
    run(photos, "alone")
    assert results(photos, "out") == results(photos, "alone")


def test_a_picture_that_ends_two_workers_is_named_and_the_rest_goes_on(photos: Path, dying: Any) -> None:
    dying("2.png", always=True)
    outcomes = {outcome.job.input.name: outcome for outcome in run(photos, "out", TWO)}
    assert "2.png: the process that restored it was ended by signal 9, 2 times." in str(outcomes["2.png"].error)
    assert "fewer --workers" in str(outcomes["2.png"].error)
    assert sum(outcome.error is None for outcome in outcomes.values()) == 5
    assert not list((photos.parent / "out").rglob(".rasr-*"))


def test_workers_that_never_begin_end_the_batch(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Child", lambda _, threads: Child("rasr.no_such_module", threads=threads))
    with pytest.raises(RasrError, match="3 worker processes in a row ended with status 1 before they could begin"):
        run(photos, "out", TWO)


def test_a_worker_killed_between_the_journal_and_the_result_and_after_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in its place whole is done; what does not is made again."""
    places = {"0.png": "before", "1.png": "after"}
    script = """
import os, pathlib, signal
import rasr.images.output as output
import rasr.restoration.worker as module

real = output.write_bytes

def write_bytes(content, path, **more):
    mark = pathlib.Path(os.environ["MARKS"], path.name)
    when = {"0_rasr.png": "before", "1_rasr.png": "after"}.get(path.name)
    if when and not mark.exists():
        mark.touch()
        if when == "after":
            real(content, path, **more)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(content, path, **more)

output.write_bytes = write_bytes
module.main()
"""
    work_by("placing_worker", script, tmp_path, monkeypatch)
    outcomes = run(photos, "out", TWO)
    assert len(list((tmp_path / "marks").iterdir())) == len(places)
    assert sum(outcome.error is None for outcome in outcomes) == 6
    lines = (tmp_path / "out/report.jsonl").read_text("utf-8")
    assert (lines.count('"output": "0_rasr.png"'), lines.count('"output": "sub/1_rasr.png"')) == (2, 1)
    run(photos, "alone")
    assert results(photos, "out") == results(photos, "alone")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_workers_go_with_their_parent(benchmark: ModuleType, tmp_path: Path, sent: signal.Signals) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):  # minutes of work
        Image.new("RGB", (1500, 1500), (number, 0, 0)).save(tmp_path / f"in/{number}.png")
    command = [sys.executable, "-m", "rasr", "restore", "in", "-o", "out", "--workers", "2", "--preset", "realesrgan"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "[2/2]" in line:
            break
    workers = benchmark.children(process.pid)
    assert len(workers) == 2
    time.sleep(0.5)
    process.send_signal(sent)
    with process:
        rest = process.stderr.read()
        code = process.wait()
    assert code == (130 if sent == signal.SIGINT else -sent), rest
    until = time.monotonic() + 30
    while any(map(_lives, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert [worker for worker in workers if _lives(worker)] == []
    assert not list((tmp_path / "out").rglob("*.png"))
    if sent == signal.SIGINT:
        assert "0 of 2 done; the same command goes on." in rest


@pytest.fixture
def storms(benchmark: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """A batch of so many pictures, restored once, whose parent and workers are then killed so often."""

    def storm(pictures: int, kills: int) -> None:
        tree = benchmark.Tree(ROOT / "src", sys.executable, tmp_path / "home")
        batch, choose = benchmark.Batch(tmp_path, tree), random.Random(pictures)
        broken = benchmark.make_files(tmp_path / "in", pictures, seed=pictures)
        whole = batch.run("whole")
        assert whole.code == (1 if broken else 0)
        assert len(batch.results("whole")) == pictures - len(broken)
        seen = benchmark.kill_parents(batch, "parents", kills, choose)
        assert seen.pop("kills") == kills
        assert seen.pop("exit") == whole.code
        assert seen.pop("most redone by a kill") <= benchmark.WORKERS
        assert seen.pop("redone") <= kills * benchmark.WORKERS
        assert not any(seen.values()), seen
        seen = benchmark.kill_workers(batch, "workers", kills, choose)
        killed = seen.pop("kills")
        assert killed == kills
        assert seen.pop("redone") <= killed
        assert seen.pop("exit") == whole.code
        assert not any(seen.values()), seen

    return storm


def test_a_small_batch_whose_parent_and_workers_are_killed(storms: Any) -> None:
    storms(pictures=60, kills=2)


@pytest.mark.large
def test_a_batch_of_1000_whose_parent_and_workers_are_killed_twenty_times(storms: Any) -> None:
    storms(pictures=1000, kills=20)
