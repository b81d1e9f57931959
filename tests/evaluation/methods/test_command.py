"""Command methods, proved with a real process: layout, references, outputs, time limit, and every way to fail."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rasr.errors import ConfigError, MethodError, UsageError
from rasr.evaluation import EvalJob, EvalOutcome, MethodOptions, load_method
from rasr.evaluation.methods.command import Profile
from rasr.gallery import Reference
from tests.evaluation.conftest import photo

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


def run(checkout: Path, jobs: list[EvalJob], mode: str = "ok", **options: object) -> list[EvalOutcome]:
    profiles = checkout.parent / "profiles"
    profiles.mkdir(exist_ok=True)
    (profiles / "standin.toml").write_text(PROFILE.replace("MODE", mode))
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


def test_a_crash_keeps_what_was_finished_and_gives_the_last_words(checkout: Path, jobs: list[EvalJob]) -> None:
    outcomes = {outcome.name: outcome.error for outcome in run(checkout, jobs, "crash")}
    assert outcomes["b_0_x"] == ""
    assert "exit code 1" in outcomes["a b"]
    assert "CUDA out of memory" in outcomes["c"]


def test_the_time_limit_ends_the_process_group(checkout: Path, jobs: list[EvalJob]) -> None:
    begun = time.monotonic()
    outcomes = {outcome.name: outcome.error for outcome in run(checkout, jobs, "slow")}
    assert time.monotonic() - begun < 40
    assert outcomes["b_0_x"] == ""
    assert "time limit of 4 s" in outcomes["a b"]
    assert "--time-limit" in outcomes["c"]


def test_nothing_at_all_is_an_error(checkout: Path, jobs: list[EvalJob]) -> None:
    (checkout / "run.py").write_text("raise SystemExit('no GPU')")
    with pytest.raises(MethodError, match="no GPU"):
        run(checkout, jobs)


def test_stale_outputs_are_not_taken(checkout: Path, jobs: list[EvalJob]) -> None:
    run(checkout, jobs)
    outcomes = {outcome.name: outcome.error for outcome in run(checkout, jobs, "skip")}
    assert outcomes["a b"] == "no output picture was written"


def test_missing_checkout_and_weights_say_what_to_do(checkout: Path, jobs: list[EvalJob]) -> None:
    with pytest.raises(MethodError, match=r"has no run\.py.*git clone https://example\.org/standin"):
        run(checkout.parent / "profiles", jobs)
    (checkout / "weights.bin").unlink()
    with pytest.raises(MethodError, match=r"weights\.bin is missing\. Put weights\.bin into it"):
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


PUBLISHED = (
    "stablesr",
    "diffbir",
    "pasd",
    "seesr",
    "osediff-official",
    "c2-matching",
    "datsr",
    "mrefsr",
    "refir",
    "adarefsr",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_packaged_profiles_are_complete(
    name: str, tmp_path: Path, jobs: list[EvalJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every profile of official code runs end to end against a checkout whose scripts are stand-ins.

    The stand-in is told nothing but the command line: it writes a picture to each place the profile looks in.
    """
    profile = Profile.read(name)
    info = load_method(name).info
    assert info.state == "needs checkout"
    assert profile.repository in info.todo
    assert profile.repository.startswith("https://github.com/")
    checkout = tmp_path / "official"
    (checkout / profile.entry).parent.mkdir(parents=True)
    for weight in profile.weights:
        (checkout / weight).parent.mkdir(parents=True, exist_ok=True)
        (checkout / weight).write_bytes(b"")
    work = tmp_path / "work"
    places = [pattern.replace("{checkout}", str(checkout)).replace("{work}", str(work)) for pattern in profile.output]
    places = [place.replace("{outputs}", str(work / profile.outputs)) for place in places]
    (checkout / profile.entry).write_text(
        textwrap.dedent(f"""
        import pathlib, shutil, sys
        assert not any("{{" in a and "}}" in a for a in sys.argv), sys.argv
        inputs = pathlib.Path({str(work / profile.inputs)!r})
        assert any(str(inputs.parent) in a for a in sys.argv)
        for path in sorted(inputs.iterdir()):
            number = path.stem[:6]
            target = pathlib.Path({places[0]!r}.replace("{{name}}", number))
            target.parent.mkdir(parents=True, exist_ok=True)
            from PIL import Image
            Image.open(path).resize((64, 48)).save(target)
        """)
    )
    monkeypatch.setenv(f"RASR_PYTHON_{name.upper().replace('-', '_')}", sys.executable)
    method = load_method(name, MethodOptions(checkouts={name: checkout}))
    assert method.info.state == "ready"
    outcomes = list(method.run(jobs[:2], work))
    assert [(outcome.name, outcome.error) for outcome in outcomes] == [("b_0_x", ""), ("a b", "")]
    assert method.info.needs_reference == profile.uses_reference
    shown = list((work / profile.references).rglob("*.*"))
    assert bool([path for path in shown if path.is_file()]) == profile.uses_reference


def test_all_profiles_are_listed() -> None:
    assert set(Profile.names()) == set(PUBLISHED)


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
