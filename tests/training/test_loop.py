"""The loop: resumed runs, averaged weights, limits, and everything that can go wrong on the way."""

from __future__ import annotations

import csv
import json
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from rasr.errors import ConfigError, OutputError, PictureError, TrainingDiverged, UsageError
from rasr.training.batch import TrainingBatch
from rasr.training.checkpoint import Checkpoint
from rasr.training.config import TrainingConfig
from rasr.training.loop import Outcome, Trainer
from tests.training.standin import TinyModel, tiny_config


def train(config: TrainingConfig, folder: Path, *, model: Any = None, resume: bool = False, **options: Any) -> Outcome:
    minutes = options.pop("max_minutes", None)
    trainer = Trainer(config, folder, model=model or TinyModel(), **options)
    return trainer.run(resume=resume, max_minutes=minutes)


def tensors(folder: Path) -> dict[str, Tensor]:
    found, damaged = Checkpoint.latest(folder / "checkpoints")
    assert found
    assert not damaged
    return {name: value.clone() for name, value in found.tensors.items()}  # they are mapped from the file


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_it_promises(tmp_path: Path, photos: Path) -> None:
    said: list[str] = []
    config = tiny_config(
        photos, validation__photos=[str(photos)], validation__crop=64, validation__every=6, validation__count=2
    )
    outcome = train(config, tmp_path, log=said.append)
    assert (outcome.step, outcome.stopped) == (12, "")
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000008.safetensors",
        "step-00000012.safetensors",
    ]
    assert json.loads((tmp_path / "config.json").read_text())["name"] == "tiny"
    assert any(tmp_path.joinpath("tensorboard").iterdir())
    with Image.open(tmp_path / "samples" / "step-00000012.png") as grid:
        assert grid.size == (5 * 64, 2 * 64)
    logged = [row for row in rows(tmp_path) if row["loss"]]
    assert [int(row["step"]) for row in logged] == list(range(1, 13))
    assert all(0 <= float(row["data_wait"]) <= 1 for row in logged)
    validated = [row for row in rows(tmp_path) if row.get("val/none/psnr")]
    assert [int(row["step"]) for row in validated] == [6, 12]
    assert {key.split("/")[1] for key in validated[0] if key.startswith("val/")} == {
        "none",
        "truth",
        "retrieved",
        "random",
    }
    assert any(line.startswith("trainable: 0.00 M parameters in 6 tensors") for line in said)
    assert any("3 photos" in line for line in said), "two of the five validate"
    # What is exported are the averaged weights, not the last ones.
    exported, kept = load_file(outcome.exported), tensors(tmp_path)
    assert all(torch.equal(value, kept[f"average.{name}"]) for name, value in exported.items())
    assert not torch.equal(exported["guide.bias"], kept["model.weight.guide.bias"])


def test_stopping_and_resuming_changes_nothing(tmp_path: Path, photos: Path) -> None:
    """Stopped off a checkpoint's beat, resumed with other workers: bit for bit the uninterrupted run."""
    train(tiny_config(photos), tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_at(step: int, _values: Mapping[str, float]) -> None:
        if step == 6:
            raise Stop

    with pytest.raises(Stop):
        train(tiny_config(photos), tmp_path / "cut", on_step=stop_at)
    outcome = train(tiny_config(photos, data__workers=1), tmp_path / "cut", resume=True)
    assert outcome.step == 12
    assert equal(tensors(tmp_path / "whole"), tensors(tmp_path / "cut"))
    keep = ("step", "loss", "mse", "grad_norm", "lr")
    assert [[r[k] for k in keep] for r in rows(tmp_path / "whole")] == [
        [r[k] for k in keep] for r in rows(tmp_path / "cut")
    ]


def test_the_adversarial_game_resumes_too(tmp_path: Path, photos: Path) -> None:
    options = {"loss__gan": 0.5, "loss__gan_after": 2, "data__crop": 96, "loop__steps": 6, "loop__batch": 2}
    options |= {"loop__checkpoint_every": 3, "loss__gram": 0.1, "loss__perceptual": 0.5}
    train(tiny_config(photos, **options), tmp_path / "whole")
    assert rows(tmp_path / "whole")[1]["gan"] == ""
    assert float(rows(tmp_path / "whole")[2]["discriminator"]) > 0
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "checkpoints" / "step-00000006.safetensors").unlink()
    train(tiny_config(photos, **options), tmp_path / "cut", resume=True)
    whole, cut = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert any(name.startswith("judge.buffer.") for name in whole), "spectral norm's vectors are state"
    assert equal(whole, cut)


def test_accumulation_gives_the_same_step(tmp_path: Path, photos: Path) -> None:
    train(tiny_config(photos), tmp_path / "one")
    train(tiny_config(photos, loop__accumulation=4), tmp_path / "four")
    one, four = tensors(tmp_path / "one"), tensors(tmp_path / "four")
    for name in one:
        torch.testing.assert_close(one[name], four[name], rtol=1e-3, atol=1e-5)
    assert [float(r["loss"]) for r in rows(tmp_path / "four")] == pytest.approx(
        [float(r["loss"]) for r in rows(tmp_path / "one")], rel=1e-4
    )


def test_only_the_listed_parameters_change(tmp_path: Path, photos: Path) -> None:
    model = TinyModel()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(tiny_config(photos), tmp_path, model=model)
    listed = set(model.trainable())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in listed), name


def test_time_limit_saves_and_resume_goes_on(tmp_path: Path, photos: Path) -> None:
    outcome = train(tiny_config(photos), tmp_path, max_minutes=0)
    assert (outcome.step, outcome.stopped) == (1, "time")
    assert train(tiny_config(photos), tmp_path, resume=True).step == 12
    again = train(tiny_config(photos), tmp_path, resume=True)
    assert (again.step, again.stopped) == (12, "")
    assert train(tiny_config(photos, loop__steps=14), tmp_path, resume=True).step == 14


def test_a_run_is_not_overwritten_nor_resumed_with_another_recipe(tmp_path: Path, photos: Path) -> None:
    train(tiny_config(photos), tmp_path)
    with pytest.raises(UsageError, match="Add --resume"):
        train(tiny_config(photos), tmp_path)
    with pytest.raises(ConfigError, match=r"optimizer\.lr: 0\.001 → 0\.1"):
        train(tiny_config(photos, optimizer__lr=0.1), tmp_path, resume=True)
    fewer = tmp_path / "fewer"
    shutil.copytree(photos, fewer)
    (fewer / "1.png").unlink()
    with pytest.raises(ConfigError, match="photos is not what the run began with"):
        train(tiny_config(fewer, loop__steps=20), tmp_path, resume=True)


class Poisoned(TinyModel):
    """Gives a NaN for one sample."""

    def forward(self, batch: TrainingBatch) -> Tensor:
        prediction = super().forward(batch)
        return prediction * float("nan") if 4 * 6 in batch.indices else prediction


def test_a_nan_stops_the_run_and_names_it(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"Step 7: the gradient is not finite \(loss nan.*photos \d\.png"):
        train(tiny_config(photos), tmp_path, model=Poisoned())
    found, _ = Checkpoint.latest(tmp_path / "checkpoints")
    assert found
    assert found.step == 4
    assert all(torch.isfinite(value).all() for value in found.tensors.values())


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, photos: Path) -> None:
    """The kernel refuses to let files grow beyond what is left: a real failed write, in the middle of saving."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int, _values: Mapping[str, float]) -> None:
        if step == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    try:
        with pytest.raises(OutputError, match="step-00000008"):
            train(tiny_config(photos, loop__log_every=50), tmp_path, on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004.safetensors"]
    train(tiny_config(photos, loop__log_every=50), tmp_path, resume=True)
    train(tiny_config(photos, loop__log_every=50), tmp_path / "whole")
    assert equal(tensors(tmp_path), tensors(tmp_path / "whole"))


def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path: Path, photos: Path) -> None:
    train(tiny_config(photos), tmp_path)
    whole = tensors(tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000012.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    said: list[str] = []
    train(tiny_config(photos), tmp_path, resume=True, log=said.append)
    assert any("step-00000012" in line and line.startswith("passed over") for line in said)
    assert equal(tensors(tmp_path), whole)


def test_unreadable_photos_are_skipped_by_name(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    said: list[str] = []

    def tear(step: int, _values: Mapping[str, float]) -> None:
        if step == 2:
            for name in ("1.png", "3.png"):
                (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n torn")

    config = tiny_config(folder, data__cache_gb=0)
    assert train(config, tmp_path / "run", log=said.append, on_step=tear).step == 12
    named = [line for line in said if line.startswith("skipped: ")]
    assert len(named) == 2
    assert {name for name in ("1.png", "3.png") if any(name in line for line in named)} == {"1.png", "3.png"}

    def tear_all(step: int, _values: Mapping[str, float]) -> None:
        for path in folder.glob("*.png"):
            path.write_bytes(b"")

    shutil.copytree(photos, folder, dirs_exist_ok=True)
    with pytest.raises(PictureError, match="50 photos in a row"):
        train(config, tmp_path / "run2", on_step=tear_all)


def test_nothing_to_retrieve_is_an_error_before_the_first_step(tmp_path: Path, photos: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(photos / "0.png", alone)
    config = tiny_config(alone, references__phases=[{"mix": {"retrieved": 1.0}}])
    with pytest.raises(ConfigError, match="photos to retrieve from"):
        train(config, tmp_path / "run")
    empty = tmp_path / "empty"
    empty.mkdir()
    config = tiny_config(photos, references__phases=[{"mix": {"retrieved": 1.0}}], references__gallery=str(empty))
    with pytest.raises(Exception, match="empty"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_batch_must_divide(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 3"):
        Trainer(tiny_config(photos, loop__accumulation=3), tmp_path)


def test_bf16_trains_in_mixed_precision(tmp_path: Path, photos: Path) -> None:
    from accelerate.state import AcceleratorState

    class Watched(TinyModel):
        def forward(self, batch: TrainingBatch) -> Tensor:
            prediction = super().forward(batch)
            kinds.add(self.guide(batch.hr).dtype)
            return prediction

    kinds: set[torch.dtype] = set()
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        train(
            tiny_config(photos, loop__precision="bf16", loss__perceptual=1.0, loop__steps=3), tmp_path, model=Watched()
        )
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert kinds == {torch.bfloat16}
    assert all(value.dtype == torch.float32 for value in tensors(tmp_path).values()), "weights and averages stay fp32"
    assert all(float(row["loss"]) > 0 for row in rows(tmp_path))


class GuideOnly(TinyModel):
    """Without a reference nothing that is trained takes part, as in the reference stage."""

    def __init__(self) -> None:
        super().__init__()
        self.body.requires_grad_(False)

    def forward(self, batch: TrainingBatch) -> Tensor:
        if batch.has_reference.any():
            return super().forward(batch)
        return super().forward(batch.without_reference()).detach()


def test_portions_without_any_reference_count_as_zero_gradient(tmp_path: Path, photos: Path) -> None:
    mix = [{"mix": {"warped": 0.5, "null": 0.5}}]
    for portions in (1, 4):
        config = tiny_config(photos, references__phases=mix, loop__accumulation=portions)
        train(config, tmp_path / str(portions), model=GuideOnly())
    one, four = tensors(tmp_path / "1"), tensors(tmp_path / "4")
    for name in one:
        torch.testing.assert_close(one[name], four[name], rtol=1e-3, atol=1e-5)
    train(
        tiny_config(photos, references__phases=[{"until": 1, "mix": {"null": 1.0}}, *mix]),
        tmp_path / "n",
        model=GuideOnly(),
    )


POOL = {"data__pool": 80, "data__pool_side": 48}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RASR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def made(home: Path) -> int:
    return int(next(home.rglob("made-in-order")).read_text())


@pytest.mark.parametrize("workers", [0, 1])
def test_training_begins_before_the_pool_is_whole_and_ends_the_same(
    tmp_path: Path, photos: Path, own_cache: Path, workers: int
) -> None:
    config = tiny_config(photos, **POOL, data__workers=workers)
    there: list[int] = []
    train(config, tmp_path / "a", on_step=lambda _step, _values: there.append(made(own_cache)))
    assert there[0] < 80, "the first step did not wait for all views"
    assert there == sorted(there)
    if workers == 0:
        assert there[0] == 8
    train(config, tmp_path / "b")  # with the views that are there now
    assert equal(tensors(tmp_path / "a"), tensors(tmp_path / "b"))


def test_the_time_limit_counts_the_making_of_views(tmp_path: Path, photos: Path, own_cache: Path) -> None:
    config = tiny_config(photos, **POOL, loop__batch=20, loop__steps=4)
    outcome = train(config, tmp_path / "a", max_minutes=0)
    assert (outcome.step, outcome.stopped) == (0, "time")
    assert made(own_cache) == 8, "every sitting gets further, however short"
    sittings = 1
    while outcome.stopped:
        outcome = train(config, tmp_path / "a", resume=True, max_minutes=0)
        sittings += 1
    assert outcome.step == 4
    assert 4 < sittings < 20
    train(config, tmp_path / "b")
    assert equal(tensors(tmp_path / "a"), tensors(tmp_path / "b"))


def test_the_time_limit_counts_the_search_for_references(tmp_path: Path, photos: Path, own_cache: Path) -> None:
    mix = {"retrieved": 0.5, "null": 0.5}
    config = tiny_config(photos, references__phases=[{"mix": mix}])
    outcome = train(config, tmp_path / "a", max_minutes=0)
    assert (outcome.step, outcome.stopped) == (0, "time")
    assert not list(tmp_path.glob("a/checkpoints/*")), "no step was done"
    while outcome.stopped:
        outcome = train(config, tmp_path / "a", resume=True, max_minutes=0 if outcome.step else 1)
    assert outcome.step == 12
    train(config, tmp_path / "b")
    assert equal(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
