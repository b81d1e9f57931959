"""Whole evaluations with stand-in methods: rows, resumption, interruption, and what goes wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import LeakFound, UsageError, WeightsMissing
from rasr.evaluation import EvaluationSettings, InputSettings, MethodOptions, evaluate, load_method, write_report
from rasr.evaluation.metrics import MetricInfo, SetMetric
from rasr.evaluation.metrics.fid import FID
from rasr.evaluation.tables import tabulate
from rasr.images import FloatImage, read_picture, resize
from tests.evaluation.conftest import Enlarger, photo
from tests.spandrel_standin import install, write_model

METRICS = ("PSNR", "SSIM")


@pytest.fixture
def settings(photos: Path, references: Path, tmp_path: Path) -> Callable[..., EvaluationSettings]:
    def build(**changes: object) -> EvaluationSettings:
        values = {
            "benchmark": photos,
            "out": tmp_path / "out",
            "gallery": references,
            "metrics": METRICS,
            "inputs": InputSettings(crop=128),
        }
        return EvaluationSettings(**{**values, **changes})  # type: ignore[arg-type]

    return build


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in {"seconds", "memory_bytes"}} for row in csv.DictReader(file)]


def test_one_row_for_each_method_and_policy(settings: Callable[..., EvaluationSettings]) -> None:
    methods = [Enlarger("plain"), Enlarger("guided", uses_reference=True)]
    evaluation = evaluate(settings(), methods)
    write_report(evaluation)
    assert [row.key for row in evaluation.rows] == [
        "plain", "guided:retrieved", "guided:none", "guided:random", "guided:oracle",
    ]  # fmt: skip
    assert evaluation.complete
    none = next(row for row in evaluation.rows if row.key == "guided:none")
    assert none.scores == evaluation.rows[0].scores  # the stand-in without reference is the plain one
    results = json.loads((evaluation.settings.out / "results.json").read_text())
    assert [(row["method"], row["policy"]) for row in results["rows"]][:2] == [("plain", None), ("guided", "retrieved")]
    assert {gain["against"] for gain in results["gains"]} == {"random", "none"}
    retrieved, drawn = (
        next(row for row in evaluation.rows if row.policy == policy) for policy in ("retrieved", "random")
    )
    gain = next(g for g in results["gains"] if (g["metric"], g["against"]) == ("PSNR", "random"))
    assert gain["mean"] == pytest.approx((retrieved.mean("PSNR") or 0) - (drawn.mean("PSNR") or 0))


def test_finished_pictures_are_not_made_again(settings: Callable[..., EvaluationSettings]) -> None:
    method = Enlarger("plain")
    evaluate(settings(policies=("none",)), [method])
    assert len(method.done) == 9
    evaluate(settings(policies=("none",)), [method])
    assert len(method.done) == 9
    lost = settings().out / "outputs" / "plain" / "p3.png"
    lost.write_bytes(b"damaged")
    evaluate(settings(policies=("none",)), [method])
    assert method.done[9:] == ["plain/p3"]
    changed = Enlarger("plain", strength=0.5)
    evaluate(settings(policies=("none",)), [changed])
    assert len(changed.done) == 9


def test_interrupted_and_resumed_gives_the_same_table(
    settings: Callable[..., EvaluationSettings], tmp_path: Path
) -> None:
    def methods(stop: int | None = None) -> list[Enlarger]:
        return [Enlarger("plain"), Enlarger("guided", uses_reference=True, interrupt_after=stop)]

    whole, halves = settings(out=tmp_path / "whole"), settings(out=tmp_path / "halves")
    write_report(evaluate(whole, methods()))
    for stop in (4, 11):
        with pytest.raises(KeyboardInterrupt):
            evaluate(halves, methods(stop))
    resumed = methods()
    write_report(evaluate(halves, resumed))
    assert len(resumed[1].done) == 4 * 9 - 4 - 11
    assert resumed[0].done == []
    assert table(halves.out) == table(whole.out)
    for name in ("scores.csv",):
        assert (halves.out / name).read_text() == (whole.out / name).read_text()


def test_missing_and_wrong_sized_pictures_are_named_and_the_row_is_marked(
    settings: Callable[..., EvaluationSettings],
) -> None:
    bad = Enlarger("bad", skip=frozenset({"p1"}), wrong_size=frozenset({"p5"}))
    evaluation = evaluate(settings(policies=("none",)), [Enlarger("good"), bad])
    write_report(evaluation)
    row = evaluation.rows[1]
    assert not row.complete
    assert row.problems == {
        "p1": "no output picture was written",
        "p5": "its output has 64×64 pixels instead of 128×128",
    }
    assert len(row.scores["PSNR"]) == 7
    text = (evaluation.settings.out / "results.md").read_text()
    assert "bad (incomplete: 7 of 9)" in text
    assert "picture 'p5'" in text
    cells = [line.cells["PSNR"] for line in tabulate(evaluation).rows]
    assert [cell.rank for cell in cells] == ["best", None]  # the incomplete row is never ranked
    assert cells[0].text == f"{evaluation.rows[0].mean('PSNR'):.2f}"


def test_a_method_that_cannot_run_keeps_its_row_and_the_others_go_on(
    settings: Callable[..., EvaluationSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Enlarger("broken")
    monkeypatch.setattr(broken, "run", lambda *_: (_ for _ in ()).throw(WeightsMissing("Get the weights.")))
    evaluation = evaluate(settings(policies=("none",)), [broken, Enlarger("good")])
    write_report(evaluation)
    assert evaluation.rows[0].failed == "Get the weights."
    assert evaluation.rows[1].complete
    assert not evaluation.complete
    assert "broken could not be run: Get the weights." in (evaluation.settings.out / "results.md").read_text()


def test_a_leak_is_refused_or_excluded(
    settings: Callable[..., EvaluationSettings], photos: Path, references: Path
) -> None:
    planted = references / "cat" / "planted.jpg"
    Image.open(photos / "cat" / "p0.png").resize((256, 256)).save(planted, quality=70)
    method = Enlarger("guided", uses_reference=True)
    with pytest.raises(LeakFound, match=r"planted\.jpg"):
        evaluate(settings(policies=("retrieved",)), [method])
    assert method.done == []
    evaluation = evaluate(settings(policies=("retrieved", "oracle"), exclude_leaks=True), [method])
    assert {leak.photo.name for leak in evaluation.leaks} == {"planted.jpg"}
    shown = {choice.path.name for row in evaluation.rows for choices in row.references.values() for choice in choices}
    assert "planted.jpg" not in shown


def test_unusable_settings_are_refused(settings: Callable[..., EvaluationSettings]) -> None:
    with pytest.raises(UsageError, match="no row of this table"):
        evaluate(settings(baseline="osediff"), [Enlarger("plain")])
    with pytest.raises(UsageError, match="Two methods are called 'plain'"):
        evaluate(settings(), [Enlarger("plain"), Enlarger("plain")])
    with pytest.raises(UsageError, match="--gallery"):
        evaluate(settings(gallery=None), [Enlarger("guided", uses_reference=True)])


def test_unavailable_metrics_stay_in_the_table(settings: Callable[..., EvaluationSettings]) -> None:
    evaluation = evaluate(settings(policies=("none",), metrics=("PSNR", "LPIPS")), [Enlarger("plain")])
    write_report(evaluation)
    assert "| Method | Reference | Kind | PSNR ↑ | LPIPS |" in (evaluation.settings.out / "results.md").read_text()
    assert table(evaluation.settings.out)[0]["LPIPS"] == "unavailable"


class MeanColour(SetMetric):
    """A distribution metric whose features are three numbers."""

    info = MetricInfo("FID", "lower", "distribution", 0.0, float("inf"), 2, "a stand-in", "", ("none",))

    def __init__(self) -> None:
        self.seen = 0

    def features(self, picture: FloatImage) -> NDArray[np.float32]:
        self.seen += 1
        return picture.mean((0, 1))

    compare = FID.compare


def test_distribution_metrics_are_measured_once_and_carry_the_number_and_a_warning(
    settings: Callable[..., EvaluationSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = MeanColour()
    monkeypatch.setattr("rasr.evaluation.runner.load_metrics", lambda *_, **__: ([metric], []))
    chosen = settings(policies=("none",), metrics=("FID",))
    evaluation = evaluate(chosen, [Enlarger("plain"), Enlarger("dim", strength=0.1)])
    write_report(evaluation)
    assert metric.seen == 18  # nine truths, and nine outputs that both stand-ins make alike
    pixels = [[read_picture(p).pixels.mean((0, 1)) for p in paths] for paths in (
        [evaluation.output(evaluation.rows[0], item.name) for item in evaluation.inputs],
        [item.truth for item in evaluation.inputs],
    )]  # fmt: skip
    assert evaluation.rows[0].sets["FID"] == pytest.approx(metric.distance(*map(np.stack, pixels)), rel=1e-6)
    text = (chosen.out / "results.md").read_text()
    assert "9 pictures of" in text
    assert "FID over 9 pictures" in text
    evaluate(chosen, [Enlarger("plain"), Enlarger("dim", strength=0.1)])
    assert metric.seen == 18


def test_pairs_with_their_given_references(tmp_path: Path) -> None:
    """CUFED5's naming; the closest reference may be a near-duplicate, which is reported and not refused."""
    root = tmp_path / "CUFED5"
    root.mkdir()
    for group, name in enumerate(("astronaut.png", "chelsea.png", "coffee.png")):
        photo(name, (60, 60, 188, 188)).save(root / f"{group:03d}_0.png")
        photo(name, (61, 60, 189, 188)).save(root / f"{group:03d}_1.png")
        photo(name, (200, 100, 340, 240)).save(root / f"{group:03d}_2.png")
    settings = EvaluationSettings(root, tmp_path / "out", ("same-scene", "random"), ("PSNR",))
    evaluation = evaluate(settings, [Enlarger("guided", uses_reference=True)])
    write_report(evaluation)
    paired = next(row for row in evaluation.rows if row.policy == "same-scene")
    assert {name: choices[0].path.name for name, choices in paired.references.items()} == {
        "000": "000_1.png", "001": "001_1.png", "002": "002_1.png",
    }  # fmt: skip
    assert {leak.photo.name for leak in evaluation.leaks} >= {"000_1.png"}
    assert "Among the benchmark's own references" in (tmp_path / "out" / "results.md").read_text()
    (root / "000_2.png").write_bytes((root / "000_0.png").read_bytes())
    with pytest.raises(LeakFound, match="itself"):
        evaluate(settings, [Enlarger("guided", uses_reference=True)])


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Three scenes: a stereo pair, and two whose photos show something else."""
    root = tmp_path / "scenes"
    left, right, _ = skimage.data.stereo_motorcycle()
    pictures = {
        "motorcycle": (Image.fromarray(left[90:410, 210:530]), Image.fromarray(right)),
        "cat": (photo("chelsea.png", (100, 20, 356, 276)), photo("coffee.png", (0, 0, 400, 400))),
        "rocket": (photo("rocket.jpg", (200, 50, 456, 306)), photo("astronaut.png", (0, 0, 512, 512))),
    }
    for name, (truth, reference) in pictures.items():
        (root / name / "refs").mkdir(parents=True)
        truth.save(root / name / "truth.png")
        reference.save(root / name / "refs" / "0.png")
    return root


def shrink(truth: FloatImage, *, scale: int, **_: object) -> tuple[FloatImage, None]:
    return np.clip(resize(truth, (truth.shape[1] // scale, truth.shape[0] // scale)), 0, 1), None


def test_scenes_are_verified_fused_and_told_by_verdict(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every preset fuses photos of the same scene, so it has a row a policy; a resumed run knows the verdicts."""
    monkeypatch.setattr("rasr.degrade.degrade", shrink)  # what bicubic leaves can be verified, unlike of heavy damage
    settings = EvaluationSettings(scenes, tmp_path / "out", metrics=("PSNR",))
    methods = [load_method("bicubic", MethodOptions(device="cpu")), Enlarger("plain")]
    evaluation = evaluate(settings, methods)
    rows = {row.key: row for row in evaluation.rows}
    assert list(rows) == ["bicubic:none", "bicubic:same-scene", "bicubic:random", "bicubic:truth", "plain"]
    verdicts = {
        policy: {name: shown[0].verdict == "same scene" for name, shown in rows[f"bicubic:{policy}"].references.items()}
        for policy in ("same-scene", "random", "truth")
    }
    assert verdicts["same-scene"] == {"cat": False, "motorcycle": True, "rocket": False}
    assert verdicts["random"] == dict.fromkeys(verdicts["random"], False)
    assert verdicts["truth"]["motorcycle"]
    none, same, best = (rows[f"bicubic:{policy}"] for policy in ("none", "same-scene", "truth"))
    assert best.scores["PSNR"]["motorcycle"] > none.scores["PSNR"]["motorcycle"] + 6
    assert same.outputs["motorcycle"] != none.outputs["motorcycle"]
    assert same.outputs["cat"] == none.outputs["cat"]
    assert rows["bicubic:random"].outputs == none.outputs
    write_report(evaluation)
    results = json.loads((settings.out / "results.json").read_text())
    found = {scene["policy"]: scene for scene in results["scenes"]}
    assert (found["same-scene"]["verified"]["count"], found["same-scene"]["verified"]["total"]) == (1, 3)
    assert (found["random"]["false_accepts"]["count"], found["random"]["false_accepts"]["total"]) == (0, 3)
    assert results["settings"]["policies"] == ["none", "same-scene", "random", "truth"]
    page = (settings.out / "report.html").read_text()
    assert "<h2>Same scene</h2>" in page
    assert "1 of 3 (33.3 %" in page
    scores = (settings.out / "scores.csv").read_text()
    assert ",same scene," in scores
    resumed = load_method("bicubic", MethodOptions(device="cpu"))
    monkeypatch.setattr(type(resumed), "run", lambda *_: pytest.fail("restored again"))
    write_report(evaluate(settings, [resumed, Enlarger("plain")]))
    assert (settings.out / "scores.csv").read_text() == scores
    assert json.loads((settings.out / "results.json").read_text())["scenes"] == results["scenes"]


def test_flickr30_looks_for_references_in_the_species_only(photos: Path, references: Path, tmp_path: Path) -> None:
    root = tmp_path / "RASR-Flickr30"
    for species in ("cat", "dog", "owl"):
        (root / species).mkdir(parents=True)
        (photos / species).rename(root / species / "test")
        (references / species).rename(root / species / "reference")
    settings = EvaluationSettings(root, tmp_path / "out", metrics=("PSNR",), inputs=InputSettings(crop=128))
    evaluation = evaluate(settings, [Enlarger("guided", uses_reference=True)])
    assert evaluation.benchmark.layout == "flickr30"
    species = {item.name: item.category for item in evaluation.inputs}
    shown = [(row.policy, name, choices) for row in evaluation.rows for name, choices in row.references.items()]
    assert {policy for policy, _, _ in shown} == {"retrieved", "random", "oracle"}
    assert all([choice.category for choice in choices] == [species[name]] for _, name, choices in shown)


def test_a_damaged_model_file_is_named_and_the_evaluation_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    (tmp_path / "bad.pth").write_bytes(b"no model")
    specs = (f"spandrel:{tmp_path / 'bad.pth'}", f"spandrel:{write_model(tmp_path / 'good.pth')}", "bicubic")
    methods = [load_method(spec, MethodOptions(device="cpu")) for spec in specs]
    done = evaluate(EvaluationSettings(photos, tmp_path / "out", policies=("none",), metrics=("PSNR",)), methods)
    bad, good, bicubic = done.rows
    assert (bad.info.name, bad.complete, "bad.pth" in bad.failed) == ("bad", False, True)
    assert (good.complete, bicubic.complete, done.complete) == (True, True, False)
