"""The paper's configuration on a narrow Stable Diffusion with OSEDiff's adapters: trains, exports, restores."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from rasr.generator import GenerationSettings, ReferencePicture, load_generator
from rasr.training import Trainer, read_training_config
from rasr.training.model import RefDSRModel, build_trainable


def stand_ins() -> Any:
    """The generator room's maker of small Stable Diffusion folders."""
    path = Path(__file__).parents[1] / "generator" / "conftest.py"
    spec = importlib.util.spec_from_file_location("generator_stand_ins", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sd21_rasrnet_trains_its_branch_and_the_adapter_restores(tmp_path: Path, photos: Path) -> None:
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

    def restored(**adapter: Any) -> Any:
        generator = load_generator("sd21-osediff", base=base, checkpoint=checkpoint, device="cpu", **adapter)
        return generator.generate(lq[None], None, generator.prepare(lq, [reference], GenerationSettings()))

    assert not np.array_equal(restored(adapter=outcome.exported), restored(adapter="none"))
