"""Command methods, proved with a real process: layout, references, outputs, time limit, and every way to fail."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rasr.errors import ConfigError, MethodError, UsageError
from rasr.evaluation import EvalJob, EvalOutcome, MethodOptions, load_method
from rasr.evaluation.methods.profile import Canvas, Profile
from rasr.gallery import Reference
from rasr.images import read_header
from tests.evaluation.conftest import photo
from tests.evaluation.methods.official import OFFICIAL, PRELUDE, STAND_INS

SCRIPT = """
import json, os, pathlib, sys, time
from PIL import Image
inputs, references, outputs, mode = (pathlib.Path(a) for a in sys.argv[1:5])
(pathlib.Path("seen.json")).write_text(json.dumps(
    {"cwd": os.getcwd(), "inputs": sorted(p.name for p in inputs.iterdir()),
     "references": sorted(str(p.relative_to(references)) for p in references.rglob("*.png")), "argv": sys.argv[5:],
     "pairs": pathlib.Path(outputs.parent / "pairs.txt").read_text()}))
for path in sorted(inputs.iterdir()):
    number = int(path.stem)
    if str(mode) == "slow" and number == 1:
        time.sleep(60)
    if str(mode) == "crash" and number == 1:
        raise SystemExit("CUDA out of memory")
    if str(mode) == "crash-first" and number == 0:
        raise SystemExit("CUDA out of memory")
    if str(mode) == "skip" and number == 1:
        continue
    picture = Image.open(path)
    size = (picture.width * 4, picture.height * 4) if not (str(mode) == "wrong" and number == 1) else picture.size
    (outputs / "sample00").mkdir(parents=True, exist_ok=True)
    picture.resize(size, Image.Resampling.NEAREST).save(outputs / "sample00" / f"{path.stem}_rlt.png")
"""

PROFILE = """
title = "Stand-in"
family = "Reference-based"
summary = "a process that enlarges"
repository = "https://example.org/standin"
licence = "MIT"
entry = "run.py"
weights = ["weights.bin"]
setup = "Put weights.bin into it."
uses_reference = true
reference_name = "{name}/{rank}.png"
output = ["{outputs}/nowhere/{name}.png", "{outputs}/sample00/{name}_rlt.png"]
command = ["{python}", "{checkout}/run.py", "{inputs}", "{references}", "{outputs}", "MODE", "--scale", "{scale}"]
start_seconds = 3
seconds = 0.5
[[file]]
path = "pairs.txt"
line = "{name}.png {width}x{height}"
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "check out"  # a space, as in real home folders
    folder.mkdir()
    (folder / "run.py").write_text(SCRIPT)
    (folder / "weights.bin").write_bytes(b"w")
    monkeypatch.setenv("RASR_PYTHON_STANDIN", sys.executable)
    return folder


@pytest.fixture
def jobs(tmp_path: Path) -> list[EvalJob]:
    """Three pictures, one of whose names would be cut at an underscore by careless code."""
    made = []
    for number, name in enumerate(("b_0_x", "a b", "c")):
        low = tmp_path / "low" / f"{name}.png"
        low.parent.mkdir(exist_ok=True)
        photo("coffee.png", (40 * number, 0, 40 * number + 16, 12)).save(low)
        reference = tmp_path / f"r{number}.png"
        photo("chelsea.png", (0, 0, 60, 40)).save(reference)
        (tmp_path / "out").mkdir(exist_ok=True)
        choice = Reference(reference, 0.9, 1, id="id")
        made.append(EvalJob(name, low, tmp_path / "out" / f"{name}.png", 64, 48, 4, (choice, choice)))
    return made


def run(
    checkout: Path, jobs: list[EvalJob], mode: str = "ok", profile: str = PROFILE, **options: object
) -> list[EvalOutcome]:
    profiles = checkout.parent / "profiles"
    profiles.mkdir(exist_ok=True)
    (profiles / "standin.toml").write_text(profile.replace("MODE", mode))
    method = load_method(
        "standin",
        MethodOptions(profiles=profiles, checkouts={"standin": checkout}, **options),  # type: ignore[arg-type]
    )
    return list(method.run(jobs, checkout.parent / "work"))


def test_inputs_references_and_files_go_where_the_profile_says(checkout: Path, jobs: list[EvalJob]) -> None:
    import json

    outcomes = run(checkout, jobs)
    assert [(outcome.name, outcome.error) for outcome in outcomes] == [("b_0_x", ""), ("a b", ""), ("c", "")]
    seen = json.loads((checkout / "seen.json").read_text())
    assert seen["cwd"] == str(checkout)
    assert seen["inputs"] == ["000000.png", "000001.png", "000002.png"]
    assert seen["references"] == [f"00000{n}/{rank}.png" for n in range(3) for rank in (1, 2)]
    assert seen["argv"] == ["--scale", "4"]
    assert seen["pairs"].splitlines()[2] == "000002.png 64x48"
    for job in jobs:  # the right picture came back under the right name
        expected = np.asarray(Image.open(job.low).resize((64, 48), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(np.asarray(Image.open(job.output)), expected)
    assert all(outcome.seconds > 0 and outcome.memory > 1_000_000 for outcome in outcomes)


def test_a_picture_the_command_skips_is_named(checkout: Path, jobs: list[EvalJob]) -> None:
    outcomes = {outcome.name: outcome.error for outcome in run(checkout, jobs, "skip")}
    assert outcomes == {"b_0_x": "", "a b": "no output picture was written", "c": ""}


def test_a_crash_loses_only_its_picture_and_gives_the_last_words(checkout: Path, jobs: list[EvalJob]) -> None:
    outcomes = {outcome.name: outcome.error for outcome in run(checkout, jobs, "crash")}
    assert (outcomes["b_0_x"], outcomes["c"]) == ("", "")
    assert "exit code 1" in outcomes["a b"]
    assert "CUDA out of memory" in outcomes["a b"]
    assert all(job.output.is_file() == (job.name != "a b") for job in jobs)
    first = re.search(r"\((.*log\.txt)\)", outcomes["a b"])
    assert first
    assert "CUDA out of memory" in Path(first[1]).read_text()  # the later run did not write over it


def test_the_first_picture_may_be_the_one_that_fails(checkout: Path, jobs: list[EvalJob]) -> None:
    outcomes = {outcome.name: outcome.error for outcome in run(checkout, [jobs[1], jobs[0], jobs[2]], "crash-first")}
    assert "CUDA out of memory" in outcomes["a b"]
    assert (outcomes["b_0_x"], outcomes["c"]) == ("", "")


def test_the_time_limit_ends_the_process_group(checkout: Path, jobs: list[EvalJob]) -> None:
    begun = time.monotonic()
    outcomes = {outcome.name: outcome.error for outcome in run(checkout, jobs, "slow")}
    assert time.monotonic() - begun < 40
    assert (outcomes["b_0_x"], outcomes["c"]) == ("", "")
    assert "time limit of 4 s" in outcomes["a b"]
    assert "--time-limit" in outcomes["a b"]


def test_nothing_at_all_is_an_error(checkout: Path, jobs: list[EvalJob]) -> None:
    tried = "import pathlib; p = pathlib.Path('tried'); p.write_text((p.read_text() if p.exists() else '') + 'x')"
    (checkout / "run.py").write_text(f"{tried}\nraise SystemExit('no GPU')")
    with pytest.raises(MethodError, match="no GPU"):
        run(checkout, [*jobs, *jobs])
    assert (checkout / "tried").read_text() == "xxx"  # and not six times


def test_stale_outputs_are_not_taken(checkout: Path, jobs: list[EvalJob]) -> None:
    run(checkout, jobs)
    outcomes = {outcome.name: outcome.error for outcome in run(checkout, jobs, "skip")}
    assert outcomes["a b"] == "no output picture was written"


def test_missing_checkout_and_weights_say_what_to_do(checkout: Path, jobs: list[EvalJob]) -> None:
    with pytest.raises(MethodError, match=r"has no run\.py.*git clone https://example\.org/standin"):
        run(checkout.parent / "profiles", jobs)
    for content in (b"", None):
        (checkout / "weights.bin").unlink()
        if content is not None:
            (checkout / "weights.bin").write_bytes(content)
        with pytest.raises(MethodError, match=r"weights\.bin is missing or empty\. Put weights\.bin into it"):
            run(checkout, jobs)


def test_a_missing_interpreter_is_named(checkout: Path, jobs: list[EvalJob], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASR_PYTHON_STANDIN", "/no/such/python")
    with pytest.raises(MethodError, match="/no/such/python cannot be started"):
        run(checkout, jobs)


def test_the_checkout_may_come_from_the_environment(
    checkout: Path, jobs: list[EvalJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RASR_CHECKOUT_STABLESR", str(checkout))
    info = load_method("stablesr").info
    assert info.state == "needs checkout"
    assert str(checkout) in info.todo


def test_a_scale_is_that_of_each_picture(checkout: Path, jobs: list[EvalJob]) -> None:
    """Told on the command line, it takes a run of its own for each."""
    script = SCRIPT.replace("picture.width * 4, picture.height * 4", "picture.width * scale, picture.height * scale")
    (checkout / "run.py").write_text(script.replace("for path", READ_SCALE, 1))
    twice = replace(jobs[1], width=32, height=24, scale=2)
    outcomes = run(checkout, [jobs[0], twice, jobs[2]])
    assert {outcome.name: outcome.error for outcome in outcomes} == {"b_0_x": "", "a b": "", "c": ""}
    headers = [read_header(job.output) for job in (jobs[0], twice, jobs[2])]
    assert [(header.width, header.height) for header in headers] == [(64, 48), (32, 24), (64, 48)]


READ_SCALE = "scale = int(sys.argv[sys.argv.index('--scale') + 1])\nfor path"


def test_the_environment_of_a_profile_is_the_commands(
    checkout: Path, jobs: list[EvalJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "of RASR's own process")
    (checkout / "run.py").write_text(f"import os\nassert os.environ['PYTHONPATH'] == {str(checkout)!r}\n{SCRIPT}")
    with pytest.raises(MethodError, match="AssertionError"):
        run(checkout, jobs)
    changed = PROFILE + '[environment]\nPYTHONPATH = "{checkout}"\n'
    assert not any(outcome.error for outcome in run(checkout, jobs, profile=changed))


@pytest.mark.parametrize(
    ("canvas", "size", "fitted"),
    [
        (Canvas(), (100, 60), (100, 60)),
        (Canvas(multiple=32), (100, 64), (128, 64)),
        (Canvas(multiple=8, smallest=512), (513, 60), (520, 512)),
        (Canvas(smallest=512, square=True), (600, 60), (600, 600)),
        (Canvas(multiple=8), (100, 60), (120, 72)),  # and multiples of the scale, 3
    ],
)
def test_canvases(canvas: Canvas, size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert canvas.fit(*size, 3 if fitted == (120, 72) else 1) == fitted


def test_a_picture_beyond_the_canvas_is_named_and_the_others_are_made(checkout: Path, jobs: list[EvalJob]) -> None:
    changed = PROFILE + "[canvas]\nlargest = 64\n"
    wide = replace(jobs[1], width=128, height=96)
    outcomes = run(checkout, [jobs[0], wide, jobs[2]], profile=changed)
    assert {outcome.name: outcome.error for outcome in outcomes} == {
        "a b": "Stand-in: this code writes at most 64 pixels a side, not 128×96",
        "b_0_x": "",
        "c": "",
    }


@pytest.fixture
def published(tmp_path: Path) -> list[EvalJob]:
    """Three pictures ×4 whose outputs are smaller than 512 and no multiples of 32, one of them upright."""
    made = []
    for number, (width, height) in enumerate(((92, 61), (75, 101), (128, 128))):
        low, view = tmp_path / f"low{number}.png", tmp_path / f"view{number}.png"
        photo("astronaut.png", (120, 60, 120 + width, 60 + height)).save(low)
        photo("chelsea.png", (0, 0, 300, 200)).save(view)
        (tmp_path / "out").mkdir(exist_ok=True)
        choice = Reference(view, 0.9, 1, id="id")
        output = tmp_path / "out" / f"{number}.png"
        made.append(EvalJob(str(number), low, output, 4 * width, 4 * height, 4, (choice, choice)))
    return made


def _official(name: str, tmp_path: Path) -> Path:
    """A checkout of an official code: its parser, what it does to sizes, its files with a byte in each."""
    profile, checkout = Profile.read(name), tmp_path / "official"
    (checkout / profile.entry).parent.mkdir(parents=True)
    for weight in profile.weights:
        place = checkout / weight if Path(weight).suffix else checkout / weight / "unet.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"w")
    root = str(Path(__file__).parents[3])
    prelude = PRELUDE.format(tests=root, checkout=str(checkout), name=name)
    (checkout / profile.entry).write_text(prelude + STAND_INS[name])
    return checkout


@pytest.mark.parametrize("name", OFFICIAL)
def test_packaged_profiles_fit_the_official_code(
    name: str, tmp_path: Path, published: list[EvalJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every profile runs end to end against a script with the official parser, sizes and needs; outputs keep shape."""
    profile, official = Profile.read(name), OFFICIAL[name]
    info = load_method(name).info
    assert info.state == "needs checkout"
    assert f"{profile.branch} {profile.repository}".strip() in info.todo
    assert (profile.repository, profile.entry) == (f"https://github.com/{official.repository}", official.script)
    checkout = _official(name, tmp_path)
    monkeypatch.setenv(f"RASR_PYTHON_{name.upper().replace('-', '_')}", sys.executable)
    method = load_method(name, MethodOptions(checkouts={name: checkout}))
    assert method.info.state == "ready"
    outcomes = list(method.run(published, tmp_path / "work"))
    assert {(outcome.name, outcome.error) for outcome in outcomes} == {("0", ""), ("1", ""), ("2", "")}
    for job in published:  # neither squashed, shifted nor cut
        result = np.asarray(Image.open(job.output), np.float32)
        expected = Image.open(job.low).resize((job.width, job.height), Image.Resampling.BICUBIC)
        assert result.shape == (job.height, job.width, 3)
        assert np.abs(result - np.asarray(expected, np.float32)).mean() < 4
    assert method.info.needs_reference == profile.uses_reference
    shown = list((tmp_path / "work" / profile.references).rglob("*.*"))
    assert bool([path for path in shown if path.is_file()]) == profile.uses_reference


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_profile_is_ready_with_every_one_of_its_weights(name: str, tmp_path: Path) -> None:
    checkout, profile = _official(name, tmp_path), Profile.read(name)
    assert profile.weights
    for weight in profile.weights:
        place = checkout / weight
        kept = place.rename(tmp_path / "kept")
        if kept.is_dir():
            place.mkdir()  # an empty folder holds no weights
        info = load_method(name, MethodOptions(checkouts={name: checkout})).info
        assert (info.state, str(place) in info.todo) == ("needs weights", True)
        if place.is_dir():
            place.rmdir()
        kept.rename(place)
    assert load_method(name, MethodOptions(checkouts={name: checkout})).info.state == "ready"


def test_a_script_that_has_to_be_edited_is_not_ready_before(tmp_path: Path) -> None:
    checkout = _official("refir", tmp_path)
    entry = checkout / Profile.read("refir").entry
    written = "ram(pretrained='/home/tiger/gh/cache/recognize_anything_model/ram_swin_large_14m.pth')"
    entry.write_text(f"{entry.read_text()}\n# {written}")
    info = load_method("refir", MethodOptions(checkouts={"refir": checkout})).info
    assert info.state == "needs weights"
    assert "recognize_anything_model" in info.todo


def test_the_default_branch_of_mrefsr_is_told_from_its_branch_test(tmp_path: Path) -> None:
    (tmp_path / "basicsr").mkdir()  # what the default branch has, at commit 242c0b6
    info = load_method("mrefsr", MethodOptions(checkouts={"mrefsr": tmp_path})).info
    assert info.state == "needs checkout"
    assert "has no mmsr/test.py. git clone -b test https://github.com/wdmwhh/MRefSR" in info.todo


def test_all_profiles_are_listed() -> None:
    assert set(Profile.names()) == set(OFFICIAL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sedconds = 3\n", "sedconds"),
        ("seconds = -1\n", "seconds"),
        ("= = =", "not valid TOML"),
        ("name = 'x'\n", "is called as"),
    ],
)
def test_wrong_profiles_are_refused_with_their_name(tmp_path: Path, change: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(change + PROFILE.replace("seconds = 0.5\n", ""))
    with pytest.raises(ConfigError, match=rf"mine\.toml.*{message}|{message}.*mine\.toml"):
        Profile.read("mine", tmp_path)


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(UsageError, match="Unknown method 'esrgan'"):
        load_method("esrgan")
