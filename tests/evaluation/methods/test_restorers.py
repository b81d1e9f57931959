"""Presets, spandrel files and finished folders as methods."""

from __future__ import annotations

import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from rasr.errors import BenchmarkError, ExtraMissing, UsageError, WeightsCorrupt, install_command
from rasr.evaluation import EvalJob, MethodOptions, list_methods, load_method
from rasr.evaluation.methods import ALIASES
from rasr.gallery import Reference
from rasr.generator import PRESETS
from rasr.images import read_header, read_picture, resize
from tests.evaluation.conftest import photo
from tests.spandrel_standin import Descriptor, install, write_model


@pytest.fixture
def job(tmp_path: Path) -> EvalJob:
    photo("chelsea.png", (100, 80, 132, 104)).save(tmp_path / "low.png")
    return EvalJob("a", tmp_path / "low.png", tmp_path / "a.png", 128, 96, 4)


def test_bicubic_is_bicubic(job: EvalJob, tmp_path: Path) -> None:
    outcomes = list(load_method("bicubic").run([job], tmp_path))
    assert outcomes[0].error == ""
    assert outcomes[0].memory > 10_000_000
    expected = np.rint(np.clip(resize(read_picture(job.low).pixels, (128, 96)), 0, 1) * 255)
    np.testing.assert_array_equal(np.asarray(Image.open(job.output), np.float32), expected)


def test_detail_of_the_same_scene_is_fused_and_told(tmp_path: Path) -> None:
    """Told in the order of the job's references, whatever their order by merit."""
    left, right, _ = skimage.data.stereo_motorcycle()
    paths = {name: tmp_path / f"{name}.png" for name in ("low", "other", "view", "truth")}
    Image.fromarray(left[90:410, 210:530]).resize((80, 80), Image.Resampling.BOX).save(paths["low"])
    Image.fromarray(left[90:410, 210:530]).save(paths["truth"])
    photo("astronaut.png", (0, 0, 512, 512)).save(paths["other"])
    Image.fromarray(right).save(paths["view"])
    shown = tuple(Reference(paths[name], 0.1, rank, "kept") for rank, name in enumerate(("other", "view", "truth"), 1))
    method = load_method("bicubic", MethodOptions(device="cpu"))
    assert method.info.fuses
    results = {}
    for name, references in (("none", ()), ("other", shown[:1]), ("both", shown[:2]), ("truth", shown[2:])):
        job = EvalJob(name, paths["low"], tmp_path / f"out-{name}.png", 320, 320, 4, references)
        (results[name],) = method.run([job], tmp_path)
    assert [(one.path, one.category) for one in results["both"].references] == [(r.path, "kept") for r in shown[:2]]
    assert results["both"].references[0].verdict != "same scene"
    assert results["both"].references[0].share is None
    assert results["both"].references[1].verdict == "same scene"
    assert (results["both"].references[1].share or 0) > 0.2
    assert results["none"].references == ()
    none, other, both, best = (np.asarray(Image.open(tmp_path / f"out-{name}.png"), np.float32) for name in results)
    np.testing.assert_array_equal(other, none)
    truth = left[90:410, 210:530].astype(np.float32)
    assert np.abs(both - truth).mean() < np.abs(none - truth).mean()
    assert np.abs(best - truth).mean() < 0.3 * np.abs(none - truth).mean()


def test_every_preset_is_a_method_with_a_state_and_says_what_it_needs() -> None:
    infos = {info.name: info for info in list_methods()}
    assert set(PRESETS) <= infos.keys()
    assert infos["bicubic"].state == infos["realesrgan"].state == infos["mini"].state == "ready"
    assert infos["mini"].uses_reference
    for name in ("sd21", "sd21-osediff", "sd21-osediff:no-reference", "sd21-pisasr:no-reference"):
        assert infos[name].state == "needs weights"
        assert infos[name].todo
        assert infos[name].uses_reference == (":" not in name)
    for info in infos.values():
        assert (info.state == "ready") == (not info.todo)


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_earlier_names_are_the_same_methods_under_the_name_asked_for(old: str, new: str) -> None:
    for spec, name in ((old, old), (f"ours={new}", "ours")):
        method = load_method(spec, MethodOptions(device="cpu")).info
        assert replace(method, name=new) == load_method(new, MethodOptions(device="cpu")).info
        assert method.name == name


def test_a_preset_without_its_reference_branch(job: EvalJob, tmp_path: Path) -> None:
    bare = load_method("mini:no-reference", MethodOptions(device="cpu"))
    assert (bare.info.uses_reference, bare.info.fuses, bare.info.remark) == (False, False, "")
    assert next(iter(bare.run([job], tmp_path))).error == ""
    assert read_header(job.output).width == 128
    with pytest.raises(UsageError, match="'bicubic' uses no reference anyway"):
        load_method("bicubic:no-reference")


def test_an_untrained_preset_says_so_in_its_label() -> None:
    info = load_method("mini").info
    assert (info.remark == "") == (info.label == "mini")
    assert info.label.startswith("mini")


@pytest.fixture
def spandrel(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


@pytest.mark.usefixtures("spandrel")
def test_a_model_file_runs_through_spandrel(job: EvalJob, tmp_path: Path) -> None:
    write_model(tmp_path / "BSRGANx2.pth")
    method = load_method(f"spandrel:{tmp_path / 'BSRGANx2.pth'}", MethodOptions(device="cpu"))
    assert (method.info.name, method.info.settings["generator"]) == ("BSRGANx2", "Stand-in SR")
    twice = EvalJob("a", job.low, job.output, 64, 48, 2)
    assert next(iter(method.run([twice], tmp_path))).error == ""
    expected = np.asarray(Image.open(job.low).resize((64, 48), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(np.asarray(Image.open(job.output)), expected)
    assert next(iter(method.run([job], tmp_path))).error == ""  # another factor than the model's
    assert (read_header(job.output).width, read_header(job.output).height) == (128, 96)


@pytest.mark.usefixtures("spandrel")
@pytest.mark.parametrize(
    ("network", "family"), [("ESRGAN", "GAN-based"), ("RealESRGAN Compact", "GAN-based"), ("SwinIR", "Regression")]
)
def test_the_type_of_a_model_file_is_its_networks(
    network: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Descriptor, "architecture", types.SimpleNamespace(name=network))
    write_model(tmp_path / "any.pth")
    info = load_method(f"spandrel:{tmp_path / 'any.pth'}", MethodOptions(device="cpu")).info
    assert (info.family, info.remark) == (family, "")


def test_osediff_says_that_it_has_no_prompts() -> None:
    (info,) = (info for info in list_methods() if info.name == "sd21-osediff:no-reference")
    assert info.label == "sd21-osediff:no-reference (without its prompts)"
    assert "DAPE" in info.summary


@pytest.mark.usefixtures("spandrel")
def test_settings_change_with_the_content_of_the_weights(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.pth")
    before = load_method(f"spandrel:{path}", MethodOptions(device="cpu")).info.settings
    write_model(path, value=2.0)
    after = load_method(f"spandrel:{path}", MethodOptions(device="cpu")).info.settings
    assert before != after


@pytest.mark.usefixtures("spandrel")
def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "x.pth", known=False)
    with pytest.raises(WeightsCorrupt, match="unknown architecture"):
        _ = load_method(f"spandrel:{tmp_path / 'x.pth'}").info
    with pytest.raises(UsageError, match="no model file"):
        _ = load_method(f"spandrel:{tmp_path / 'y.pth'}").info


def test_without_spandrel_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    write_model(tmp_path / "x.pth")
    with pytest.raises(ExtraMissing, match=re.escape(install_command("spandrel"))):
        _ = load_method(f"spandrel:{tmp_path / 'x.pth'}").info


def jobs(tmp_path: Path) -> list[EvalJob]:
    (tmp_path / "out").mkdir(exist_ok=True)
    return [EvalJob(name, tmp_path / "x", tmp_path / "out" / f"{name}.png", 16, 16, 4) for name in ("a", "b", "c")]


def fill(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        photo("coffee.png", (0, 0, 16, 16)).save(folder / name)


def test_pictures_are_taken_by_name_whatever_their_format(tmp_path: Path) -> None:
    fill(tmp_path / "done", "a.png", "b.webp", "c.jpg", "unrelated.png")
    method = load_method(f"mine=outputs:{tmp_path / 'done'}")
    assert method.info.name == "mine"
    assert [outcome.error for outcome in method.run(jobs(tmp_path), tmp_path)] == ["", "", ""]
    assert all(job.output.is_file() for job in jobs(tmp_path))


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "done", "a.png", "c.png")
    outcomes = list(load_method(f"outputs:{tmp_path / 'done'}").run(jobs(tmp_path), tmp_path))
    assert [(o.name, bool(o.error)) for o in outcomes] == [("a", False), ("b", True), ("c", False)]


def test_a_planted_sort_order_mismatch_is_refused(tmp_path: Path) -> None:
    """As many pictures as the benchmark has, in the same order, under other names."""
    fill(tmp_path / "done", "0001.png", "0002.png", "0003.png")
    with pytest.raises(BenchmarkError, match=r"'a' is missing and '0001' is there.*never by order"):
        list(load_method(f"outputs:{tmp_path / 'done'}").run(jobs(tmp_path), tmp_path))
    fill(tmp_path / "shifted", "b.png", "c.png", "d.png")
    with pytest.raises(BenchmarkError, match="'a' is missing and 'd' is there"):
        list(load_method(f"outputs:{tmp_path / 'shifted'}").run(jobs(tmp_path), tmp_path))


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "done", "a.png", "c.png")
    (tmp_path / "done" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    outcomes = list(load_method(f"outputs:{tmp_path / 'done'}").run(jobs(tmp_path), tmp_path))
    assert "cannot be read" in outcomes[1].error


def test_settings_change_with_the_files(tmp_path: Path) -> None:
    fill(tmp_path / "done", "a.png")
    before = load_method(f"outputs:{tmp_path / 'done'}").info.settings
    fill(tmp_path / "done", "b.png")
    assert load_method(f"outputs:{tmp_path / 'done'}").info.settings != before


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_method(f"outputs:{tmp_path / 'nowhere'}")
