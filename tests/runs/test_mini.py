"""What makes mini: its tuned layers, their packaging, and the shell scripts that hold it together."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import runs
from rasr.errors import WeightsCorrupt
from rasr.generator.realesrgan import TUNED_LAYERS, read_tuned, write_tuned
from rasr.weights import read_safetensors, require
from runs import realesrgan_tune, ship_mini
from tests.training.standin import make_photos

ROOT = Path(runs.__file__).resolve().parents[1]


def test_the_last_layers_are_tuned_judged_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SIDE": 32, "WIDE": 36, "BATCH": 2}.items():
        monkeypatch.setattr(realesrgan_tune, name, value)
    photos = make_photos(tmp_path / "photos", 5, side=64)

    def tune(out: str, *options: str) -> str:
        arguments = ["--photos", str(photos), "--validate-on", str(photos), "--held-out", "2", "--views", "4"]
        arguments += ["--warmup", "1", "--cache", str(tmp_path / "views"), "--out", str(tmp_path / out), *options]
        realesrgan_tune.main(arguments)
        return capsys.readouterr().out

    printed = tune("one.safetensors", "--steps", "2")
    assert printed.startswith("start: EPD ")
    assert "after 2 steps: EPD " in printed
    layers = read_tuned(tmp_path / "one.safetensors")
    assert len(layers) == TUNED_LAYERS
    _, metadata = read_safetensors(tmp_path / "one.safetensors", "numpy")
    assert '"photos": 3' in metadata["notes"], "two of the five validate"
    assert len(list((tmp_path / "views").iterdir())) == 2

    tune("one.safetensors", "--steps", "2")
    assert all((read_tuned(tmp_path / "one.safetensors")[n][0] == layers[n][0]).all() for n in layers), "all was done"
    with pytest.raises(SystemExit, match="another recipe"):
        tune("one.safetensors", "--steps", "3")
    tune("two.safetensors", "--steps", "1", "--start", str(tmp_path / "one.safetensors"))
    assert len(list((tmp_path / "views").iterdir())) == 2, "the same views"
    (photos / "4.png").unlink()
    tune("three.safetensors", "--steps", "1")
    assert len(list((tmp_path / "views").iterdir())) == 4, "views of other photos lie apart"

    def never(*_: object) -> None:
        raise AssertionError("a term of weight 0 is computed")

    monkeypatch.setattr(realesrgan_tune.PerceptualDistance, "forward", never)
    tune("smooth.safetensors", "--steps", "1", "--perceptual", "0")
    _, metadata = read_safetensors(tmp_path / "smooth.safetensors", "numpy")
    assert '"perceptual": 0.0' in metadata["notes"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the weights' folder and of their catalogue to write to."""
    place = tmp_path / "trained"
    shutil.copytree(ship_mini.PLACE, place)
    shutil.copy(runs.CATALOGUE, tmp_path / "catalogue.toml")
    monkeypatch.setattr(ship_mini, "PLACE", place)
    monkeypatch.setattr(runs, "CATALOGUE", tmp_path / "catalogue.toml")
    return place


def test_what_ships_is_written_as_it_loads_and_pinned(tmp_path: Path, package: Path) -> None:
    before = runs.CATALOGUE.read_text()
    ship_mini.main([str(require("mini"))])
    assert runs.CATALOGUE.read_text() == before, "the same layers have the same hash"
    other = tmp_path / "other.safetensors"
    write_tuned(other, read_tuned(), {"steps": 1})
    ship_mini.main([str(other)])
    assert runs.sha256_file(package / "mini.safetensors") in runs.CATALOGUE.read_text()
    assert runs.CATALOGUE.read_text() != before
    ship_mini.main([str(require("mini")), "--smooth", str(other)])
    assert runs.sha256_file(package / "smooth.safetensors") in runs.CATALOGUE.read_text()
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(require("mini").read_bytes()[:1000])
    with pytest.raises(WeightsCorrupt):
        ship_mini.main([str(torn)])


STAND_IN = """#!{python}
import pathlib, sys
arguments = sys.argv[1:]
if arguments[:1] in (["-m"], ["launch"]):
    arguments = arguments[arguments.index("-m") + 1 :]
what, *rest = arguments
print(what, *rest)
if what in ("rasr", "train"):
    rest = rest[1:] if what == "rasr" else rest
    from rasr.training import read_training_config
    given = lambda name: [rest[i + 1] for i, word in enumerate(rest) if word == name]
    config = read_training_config(rest[0], given("--set"), photos=map(pathlib.Path, given("--photos")))
    place = config.model.weights.get("backbone")
    assert place is None or pathlib.Path(place).is_file(), place
    out = pathlib.Path(given("--out")[0])
    out.mkdir(parents=True, exist_ok=True)
    (out / (config.name + ".safetensors")).touch()
else:
    assert (pathlib.Path({root!r}) / (what.replace(".", "/") + ".py")).is_file(), what
    for i, word in enumerate(rest):
        if word == "--out":
            pathlib.Path(rest[i + 1]).touch()
        elif rest[i - 1] != "--cache" and word.endswith(".safetensors"):
            assert pathlib.Path(word).is_file(), word
"""


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "runs").glob("*.sh")))
def test_shell_scripts_name_what_there_is(tmp_path: Path, script: str) -> None:
    """With stand-ins for rasr, python and accelerate that read the configuration and leave empty weights."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("rasr", "python", "accelerate"):
        tool = tools / name
        tool.write_text(STAND_IN.format(python=sys.executable, root=str(ROOT)))
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    places = {"PHOTOS": str(tmp_path), "LSDIR": str(tmp_path), "OUT": str(tmp_path / "out")}
    done = subprocess.run(
        ["sh", ROOT / "runs" / script], cwd=tmp_path, env={**env, **places}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
