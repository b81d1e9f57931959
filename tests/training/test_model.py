"""The real model in training, at a size for tests: what changes, what is written, and that it is used."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from rasr.errors import ConfigError
from rasr.generator import load_generator
from rasr.generator.adapter import load_backbone
from rasr.generator.config import read_model_config
from rasr.generator.diffusion import DiffusionGenerator
from rasr.generator.protocol import GenerationSettings, ReferencePicture
from rasr.generator.refdsr import build_model
from rasr.training import read_training_config
from rasr.training.loop import Trainer
from rasr.training.model import RefDSRModel, build_trainable, enlarge
from tests.training.standin import tiny_config

PRESET = """
name = "tiny"
summary = "for tests"
licence = "Apache-2.0"
rule = "residual"
timestep = 1
residual_form = true
sees_lq = true
[codec]
kind = "patch"
patch = 4
[unet]
in_channels = 96
out_channels = 48
block_out_channels = [16, 32]
down_block_types = ["DownBlock2D", "CrossAttnDownBlock2D"]
up_block_types = ["CrossAttnUpBlock2D", "UpBlock2D"]
layers_per_block = 1
cross_attention_dim = 16
attention_head_dim = 8
norm_num_groups = 8
[context]
kind = "embedding"
encoder = "effnet-lite0"
dimension = 1280
[reference]
control = "controlnet"
blocks = 2
lora_rank = 2
[tile]
minimum = 32
multiple = 8
"""


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(PRESET)
    return path


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A few steps of the backbone stage: what the reference stage stands on."""
    folder = tmp_path_factory.mktemp("backbone")
    preset = folder / "tiny.toml"
    preset.write_text(PRESET)
    config = settings(photos, preset, stage="backbone", references__phases=[{"mix": {"null": 1.0}}], name="backbone")
    return Trainer(config, folder / "run").run().exported


def digest(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {name: hashlib.sha256(value.detach().numpy().tobytes()).hexdigest() for name, value in tensors.items()}


def settings(photos: Path, preset: Path, **changes: Any) -> Any:
    fast = {"optimizer__lr": 0.02, "optimizer__warmup": 0, "optimizer__ema": 0.0, "loop__steps": 6, "loop__batch": 2}
    return tiny_config(photos, **{"model__preset": str(preset), **fast, **changes})


def test_the_reference_stage_changes_the_branch_and_nothing_else(
    tmp_path: Path, photos: Path, preset: Path, backbone: Path
) -> None:
    config = settings(photos, preset, model__weights={"backbone": str(backbone)})
    model, _ = build_trainable(config, torch.device("cpu"), lambda _line: None)
    listed = set(model.trainable())
    assert listed == {name for name in listed if name.startswith("branch.")}
    assert len(listed) > 5
    before = digest(model.model.state_dict())
    outcome = Trainer(config, tmp_path / "run", model=model).run()
    after = digest(model.model.state_dict())
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= listed
    assert len(changed) > len(listed) / 2

    # The file works in the generator, changes the picture, and only when there is a reference.
    lq = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    reference = ReferencePicture(np.random.default_rng(1).random((64, 64, 3), dtype=np.float32), score=0.9)

    def restored(adapter: Any, *references: ReferencePicture) -> Any:
        generator = DiffusionGenerator(preset, device="cpu", weights=backbone, adapter=adapter)
        return generator.generate(lq[None], None, generator.prepare(lq, references, GenerationSettings()))

    assert np.abs(restored(outcome.exported, reference) - restored("none", reference)).max() > 1e-3
    assert np.array_equal(restored(outcome.exported), restored("none"))


def test_a_null_sample_is_untouched_by_the_branch_in_a_mixed_batch(photos: Path, preset: Path, backbone: Path) -> None:
    from rasr.training.batch import collate
    from rasr.training.data import TrainingData

    mix = [{"mix": {"warped": 0.5, "null": 0.5}}]
    config = settings(photos, preset, model__weights={"backbone": str(backbone)}, references__phases=mix)
    model, encoder = build_trainable(config, torch.device("cpu"), lambda _line: None)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.normal_(std=0.05)
    maker = TrainingData.prepare(config, encoder, lambda _line: None).maker
    samples = [maker[n] for n in range(12)]
    null = next(s for s in samples if s.reference is None)
    guided = next(s for s in samples if s.reference is not None)
    batch = collate([null, guided])
    assert batch.embedder_input is not None
    with torch.no_grad():
        mixed, bare = model(batch), model(batch.without_reference())
    torch.testing.assert_close(mixed[0], bare[0], rtol=1e-4, atol=1e-5)
    assert (mixed[1] - bare[1]).abs().max() > 1e-3


def test_the_backbone_stage_trains_and_its_file_is_the_next_stages_start(
    photos: Path, preset: Path, backbone: Path
) -> None:
    assert backbone.name == "backbone.safetensors"
    said: list[str] = []
    config = settings(photos, preset, model__weights={"backbone": str(backbone)})
    model, _ = build_trainable(config, torch.device("cpu"), said.append)
    fresh = build_model(read_model_config(preset))
    assert not torch.equal(model.model.unet.conv_out.weight, fresh.unet.conv_out.weight)
    assert any(str(backbone) in line for line in said)
    with pytest.raises(ConfigError, match="stands on a trained backbone"):
        build_trainable(settings(photos, preset), torch.device("cpu"), print)


def test_a_trained_backbone_can_begin_by_changing_nothing(photos: Path, preset: Path, backbone: Path) -> None:
    bare = {"stage": "backbone", "references__phases": [{"mix": {"null": 1.0}}]}
    config = settings(photos, preset, model__weights={"backbone": str(backbone)}, model__zero_output=True, **bare)
    model, _ = build_trainable(config, torch.device("cpu"), lambda _line: None)
    trained = build_model(read_model_config(preset))
    load_backbone(trained, backbone)
    assert not model.model.unet.conv_out.weight.any()
    assert not model.model.unet.conv_out.bias.any()
    assert torch.equal(model.model.unet.conv_in.weight, trained.unet.conv_in.weight)
    with pytest.raises(ValueError, match="zero_output"):
        settings(photos, preset, model__zero_output=True)


def test_checkpointed_gradients_give_the_same_step(tmp_path: Path, photos: Path, preset: Path, backbone: Path) -> None:
    values = []
    for flag in (False, True):
        config = settings(
            photos, preset, loop__gradient_checkpointing=flag, loop__steps=3, model__weights={"backbone": str(backbone)}
        )
        rows: list[float] = []
        Trainer(config, tmp_path / str(flag), on_step=lambda _s, v, rows=rows: rows.append(v["loss"])).run()
        values.append(rows)
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_unknown_parts_and_options_are_named(photos: Path, preset: Path, backbone: Path) -> None:
    with pytest.raises(ValueError, match="unknown part 'unet'"):
        settings(photos, preset, model__weights={"unet": "x"})
    with pytest.raises(ConfigError, match=r"model\.reference.*lora_rnk"):
        build_trainable(settings(photos, preset, model__reference={"lora_rnk": 3}), torch.device("cpu"), print)
    changed = settings(photos, preset, model__reference={"lora_rank": 5}, model__weights={"backbone": str(backbone)})
    model, _ = build_trainable(changed, torch.device("cpu"), lambda _line: None)
    assert isinstance(model, RefDSRModel)
    assert model.model.branch is not None
    assert model.model.branch.config.lora_rank == 5


def test_the_lq_is_enlarged_as_in_restoring() -> None:
    """Training and inference must feed the network alike; torch's plain bicubic is another cubic than Pillow's."""
    from rasr.images import resize

    lq = np.random.default_rng(3).random((24, 32, 3), dtype=np.float32)
    planes = torch.from_numpy(lq.transpose(2, 0, 1).copy())[None]
    enlarged = enlarge(planes, (96, 128))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(enlarged, np.clip(resize(lq, (128, 96)), 0, 1), atol=2e-5)


def test_with_a_cleaner_the_model_starts_from_its_picture(tmp_path: Path, photos: Path, preset: Path) -> None:
    """What training shows the model is Real-ESRGAN's picture of the very LQ, and the model reads and returns it."""
    from rasr.generator import load_generator
    from rasr.training.batch import collate
    from rasr.training.data import TrainingData

    config = settings(
        photos,
        preset,
        stage="backbone",
        model__cleaner="realesrgan",
        references__phases=[{"mix": {"null": 1.0}}],
        loop__steps=1,
        name="cleaned",
    )
    model, encoder = build_trainable(config, torch.device("cpu"), lambda _line: None)
    sample = TrainingData.prepare(config, encoder, lambda _line: None).maker[0]
    lq = np.divide(sample.lq, 255, dtype=np.float32)
    cleaner = load_generator("realesrgan")
    expected = cleaner.generate(lq[None], None, cleaner.prepare(lq, (), GenerationSettings()))[0]
    assert sample.base is not None
    assert sample.base.shape == sample.hr.shape == (32, 32, 3)
    assert np.abs(sample.base / 255.0 - expected).max() <= 0.5 / 255 + 1e-6
    batch = collate([sample, sample])
    assert batch.base is not None
    with torch.no_grad():
        untrained = model(batch)
    assert torch.allclose(untrained, batch.base, atol=1e-5)
    outcome = Trainer(config, tmp_path / "run").run()
    assert outcome.exported.is_file()


def stand_ins() -> Any:
    """The generator room's maker of small Stable Diffusion folders."""
    path = Path(__file__).parents[1] / "generator" / "conftest.py"
    spec = importlib.util.spec_from_file_location("generator_stand_ins", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("registered", [False, True])
def test_sd21_rasrnet_trains_its_branch_and_the_adapter_restores(
    tmp_path: Path, photos: Path, registered: bool
) -> None:
    makers = stand_ins()
    base = makers.write_hub_folder(tmp_path / "sd")
    checkpoint = tmp_path / "osediff.pkl"
    parts = UNet2DConditionModel.from_pretrained(base / "unet"), AutoencoderKL.from_pretrained(base / "vae")
    makers.write_osediff(*parts, checkpoint)
    mix = "{warped = 0.5, null = 0.5}"  # with portions of one sample: some have nothing to train
    changes = [
        f'model.weights.base="{base}"', f'model.weights.checkpoint="{checkpoint}"', "data.crop=128",
        "data.workers=0",
        'data.layout="folder"', f"references.phases=[{{mix = {mix}}}]", "loop.steps=3", "loop.batch=2",
        "loop.accumulation=2", 'loop.precision="fp32"', "loop.log_every=1", "optimizer.lr=0.01", "optimizer.warmup=0",
        "optimizer.ema=0", 'loss.perceptual_network="effnet-lite1"', 'loss.gram_network="effnet-lite1"',
        'loss.discriminator_network="effnet-lite2"', "loss.gan_after=0",
        f"model.reference.registered={str(registered).lower()}",
    ]  # fmt: skip
    config = read_training_config("sd21-rasrnet", changes, photos=[photos])
    model, _ = build_trainable(config, torch.device("cpu"), lambda _line: None)
    assert isinstance(model, RefDSRModel)
    assert model._states is not None, "the prompt that restoring uses"
    assert not torch.equal(model._states, model.model.null_context)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    outcome = Trainer(config, tmp_path / "run", model=model).run()
    listed = set(model.trainable())
    changed = {n for n, value in model.model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert changed <= listed

    lq = np.random.default_rng(0).random((128, 128, 3), dtype=np.float32)
    reference = ReferencePicture(np.random.default_rng(1).random((128, 128, 3), dtype=np.float32), score=0.9)

    def restored(reference: ReferencePicture = reference, **adapter: Any) -> Any:
        generator = load_generator("sd21-osediff", base=base, checkpoint=checkpoint, device="cpu", **adapter)
        assert generator.info.registered == (registered and adapter["adapter"] != "none")
        return generator.generate(lq[None], None, generator.prepare(lq, [reference], GenerationSettings()))

    plain = restored(adapter="none")
    assert not np.array_equal(restored(adapter=outcome.exported), plain)
    left = np.zeros((128, 128), np.float32)
    left[:, :64] = 1
    placed = restored(replace(reference, confidence=left), adapter=outcome.exported)
    assert np.array_equal(placed[:, :, 64:], plain[:, :, 64:])
    assert not np.array_equal(placed[:, :, :64], plain[:, :, :64])

    # What was trained is written down, and a run does not go on as another.
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["reference"]["registered"] is registered
    other = read_training_config(
        "sd21-rasrnet", [*changes, f"model.reference.registered={str(not registered).lower()}"], photos=[photos]
    )
    with pytest.raises(ConfigError, match="registered"):
        Trainer(other, tmp_path / "run").run(resume=True)


def test_a_branch_for_registered_references_needs_some_in_training(photos: Path, preset: Path) -> None:
    mix = [{"mix": {"other_crop": 1.0}}]
    with pytest.raises(ValueError, match="needs warped references"):
        settings(photos, preset, model__reference={"registered": True}, references__phases=mix)
