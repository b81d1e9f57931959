"""``rasr gallery`` and ``rasr search`` as scripts and people meet them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from rasr.gallery.database import EncoderId, Manifest
from rasr.gallery.store import LocalStore

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photos that come with scikit-image, in two categories, with a copy and a broken file."""
    from skimage import data

    root = tmp_path_factory.mktemp("photos")
    left, right, _ = data.stereo_motorcycle()
    for name, pixels in {
        "machine/left": left, "machine/right": right, "animal/chelsea": data.chelsea(), "coffee": data.coffee(),
    }.items():  # fmt: skip
        path = root / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(path)
    (root / "zz_copy.png").write_bytes((root / "coffee.png").read_bytes())
    (root / "broken.jpg").write_text("no picture")
    return root


def test_the_life_of_a_gallery(photos: Path, run_rasr: Run, tmp_path: Path) -> None:
    added = run_rasr("gallery", "add", "zoo", photos, "--tag", "test", "--json")
    assert added.returncode == 1, added.stderr  # broken.jpg
    report = json.loads(added.stdout)
    assert report["added"] == 4
    assert report["gallery"] == str(tmp_path / "zoo")
    assert [Path(one["path"]).name for one in report["failed"]] == ["broken.jpg"]
    assert report["duplicates"] == [{"path": str(photos / "zz_copy.png"), "of": str(photos / "coffee.png")}]
    assert f"skipped {photos / 'broken.jpg'}: " in added.stderr
    assert "images/s" in added.stderr

    info = json.loads(run_rasr("gallery", "info", "zoo", "--json").stdout)
    assert (info["photos"], info["encoder"], info["dimension"]) == (4, "effnet-lite0-robust", 256)
    assert info["categories"] == {"": 1, "animal": 1, "machine": 2}
    assert info["tags"] == {"test": 4}
    assert "4, of which 1 near-duplicates" in run_rasr("gallery", "info", "zoo").stdout

    listed = run_rasr("gallery", "list", "zoo", "--category", "machine")
    assert listed.stdout == f"machine\t{photos}/machine/left.png\nmachine\t{photos}/machine/right.png\n"

    found = json.loads(run_rasr("search", "zoo", photos / "machine" / "left.png", "-k", "2", "--json").stdout)
    assert found["query"] == str(photos / "machine" / "left.png")
    assert [Path(one["path"]).name for one in found["references"]] == ["left.png", "right.png"]
    assert [one["rank"] for one in found["references"]] == [1, 2]
    assert found["references"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert found["references"][0]["category"] == "machine"
    assert found["references"][0]["accepted"]
    assert found["references"][0]["why"].startswith("Matches well: 1.00, needs ")

    # The two views of the motorcycle are 10 cm apart: the same picture, as far as leaking the answer goes.
    table = run_rasr("search", "zoo", photos / "machine" / "left.png", "--exclude-near-duplicates")
    assert len(table.stdout.splitlines()) == 2
    assert "machine" not in table.stdout

    verified = run_rasr("gallery", "verify", "zoo", "--deep")
    assert (verified.returncode, verified.stdout) == (0, "")
    assert "in order" in verified.stderr

    removed = run_rasr("gallery", "remove", "zoo", "*.png", "--category", "machine", "--json")
    assert len(json.loads(removed.stdout)) == 2
    assert json.loads(run_rasr("gallery", "info", "zoo", "--json").stdout)["photos"] == 2


def test_a_gallery_is_calibrated_and_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its photos are made bad in three ways, whole and in part, and looked up through the cleaner."""
    from skimage import data

    from rasr.cli.gallery import command
    from rasr.images import FloatImage

    pixels, cleaned = data.astronaut(), []
    for number in range(32):
        top, left = divmod(number, 8)
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[top * 120 : top * 120 + 96, left * 56 : left * 56 + 80]).save(path)

    def clean(query: FloatImage, input_size: int) -> FloatImage:
        cleaned.append(query.shape)
        return query

    monkeypatch.setattr("rasr.generator.clean_query", clean)
    zoo = str(tmp_path / "zoo")
    invoke = CliRunner().invoke
    invoke(command, ["add", zoo, str(tmp_path / "photos")], catch_exceptions=False)
    before = invoke(command, ["info", zoo], catch_exceptions=False).stdout
    assert "judged by figures that come with the encoder" in before
    done = invoke(command, ["calibrate", zoo, "--sample", "10", "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)["calibration"]
    assert (told["photos"], told["queries"]) == (32, 30)
    assert cleaned == [(20, 20, 3), (24, 20, 3), (24, 20, 3)] * 10
    after = invoke(command, ["info", zoo], catch_exceptions=False).stdout
    assert f"calibrated {told['measured']}: 32 photos, 30 queries" in after
    assert json.loads(invoke(command, ["info", zoo, "--json"]).stdout)["calibration"] == told


def test_a_plain_folder_is_searched_with_a_degraded_query(photos: Path, run_rasr: Run, tmp_path: Path) -> None:
    with Image.open(photos / "machine" / "left.png") as image:
        image.resize((60, 40)).save(tmp_path / "query.jpg", quality=60)
    for mode in ("auto", "off"):
        found = run_rasr("search", photos, "query.jpg", "-k", "1", "--category", "machine", "--query-restore", mode)
        assert found.returncode == 0, found.stderr
        assert found.stdout.split("\t")[1] == "machine"
    assert not list(photos.rglob("*.json"))


def test_bad_input_is_one_line_and_leaves_nothing(photos: Path, run_rasr: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    picture = photos / "coffee.png"
    cases = {
        ("gallery", "add", "g", "empty"): (1, "no pictures found"),
        ("gallery", "add", "g", "nowhere"): (1, "nowhere"),
        ("gallery", "info", "g"): (1, "no gallery"),
        ("gallery", "verify", "g"): (1, "no gallery"),
        ("gallery", "remove", "g", "x"): (1, "no gallery"),
        ("gallery", "add", "g"): (2, "Missing argument"),
        ("search", "empty", str(picture)): (1, "no gallery"),
        ("search", "nowhere", str(picture)): (1, "does not exist"),
        ("search", "empty", "missing.png"): (1, "missing.png"),
        ("search", str(photos), str(picture), "-k", "0"): (2, "-k"),
        ("search", str(photos), str(picture), "--encoder", "vgg"): (2, "vgg"),
    }
    for arguments, (code, message) in cases.items():
        result = run_rasr(*arguments)
        assert result.returncode == code, (arguments, result.stderr)
        assert message in result.stderr
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        if code == 1:
            assert len([line for line in result.stderr.splitlines() if "…" not in line]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_damage_and_foreign_encoders_are_said(photos: Path, run_rasr: Run, tmp_path: Path) -> None:
    assert run_rasr("gallery", "add", "g", photos / "coffee.png").returncode == 0
    database = tmp_path / "g" / "gallery.db"
    whole = database.read_bytes()
    database.write_bytes(whole.replace(b"coffee.png", b"toffee.png"))
    verified = run_rasr("gallery", "verify", "g", "--json")
    assert verified.returncode == 1
    report = json.loads(verified.stdout)
    assert not report["ok"]
    assert {problem["kind"] for problem in report["problems"]} == {"row"}
    searched = run_rasr("search", "g", photos / "coffee.png")
    assert (searched.returncode, searched.stdout) == (1, "")
    assert len([line for line in searched.stderr.splitlines() if "…" not in line]) == 1
    assert str(database) in searched.stderr
    assert "rasr gallery verify" in searched.stderr
    (tmp_path / "h").mkdir()
    LocalStore(tmp_path / "h").create(Manifest(EncoderId("other-encoder", "3", 1280, "other")), ())
    for arguments in (("search", "h", photos / "coffee.png"), ("gallery", "add", "h", photos / "coffee.png")):
        result = run_rasr(*arguments)
        assert result.returncode == 1
        assert "other-encoder" in result.stderr
        assert "rasr gallery add" in result.stderr
    database.write_bytes(whole)
    assert run_rasr("gallery", "verify", "g").returncode == 0


def test_a_gallery_of_format_1_is_brought_over(run_rasr: Run, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    kept = Path(__file__).resolve().parent.parent / "gallery" / "formats" / "format-1"
    shutil.copytree(kept, tmp_path / "g")
    listed = run_rasr("gallery", "list", "g").stdout
    assert len(listed.splitlines()) == 3
    refused = run_rasr("gallery", "remove", "g", "*")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert "rasr gallery upgrade" in refused.stderr
    upgraded = run_rasr("gallery", "upgrade", "g", "--json")
    assert upgraded.returncode == 0, upgraded.stderr
    assert json.loads(upgraded.stdout) == {"gallery": str(tmp_path / "g"), "upgraded": True, "photos": 3}
    assert run_rasr("gallery", "list", "g").stdout == listed
    assert run_rasr("gallery", "verify", "g", "--deep").returncode == 0
    again = run_rasr("gallery", "upgrade", "g")
    assert (again.returncode, again.stdout) == (0, "")
    assert "already" in again.stderr


@pytest.mark.parametrize(
    "verb",
    [
        ["gallery", "add"],
        ["gallery", "info"],
        ["gallery", "list"],
        ["gallery", "verify"],
        ["gallery", "remove"],
        ["gallery", "upgrade"],
        ["search"],
    ],
)
def test_every_help_ends_in_examples(verb: list[str]) -> None:
    import importlib

    from click.testing import CliRunner

    command = importlib.import_module(f"rasr.cli.{verb[0]}").command
    result = CliRunner().invoke(command, [*verb[1:], "--help"])
    assert result.exit_code == 0
    assert f"rasr {' '.join(verb)} " in result.output.partition("Examples:")[2]
