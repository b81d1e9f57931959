"""Stable Diffusion 2.1's real size with random weights: 4 GB on disk, 9 GB of memory, minutes on two cores."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from rasr.device import choose_device
from rasr.generator import GenerationSettings, ReferencePicture
from rasr.generator.adapter import load_adapter, save_adapter
from rasr.generator.config import ReferenceConfig, WeightPaths, read_model_config
from rasr.generator.controlnet import ControlBranch
from rasr.generator.diffusion import DiffusionGenerator, _load_model
from rasr.generator.refdsr import RefDSR

pytestmark = [pytest.mark.large, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def folder(
    hub_folder: Callable[..., Path],
    sd21_unet: dict[str, Any],
    sd21_vae: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("sd21")
    yield hub_folder(path, unet=sd21_unet, vae=sd21_vae, text_width=1024)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def osediff(folder: Path, checkpoints: SimpleNamespace) -> Any:
    """(path, content) of a checkpoint with OSEDiff's names and shapes."""
    unet, vae = _models(folder)
    path = folder / "osediff.pkl"
    content = checkpoints.osediff(unet, vae, path)
    return path, content


@pytest.fixture(scope="module")
def model(folder: Path, osediff: Any) -> Iterator[RefDSR]:
    gc.collect()
    config = read_model_config("sd21-osediff")
    yield _load_model(config, WeightPaths(base=str(folder), checkpoint=osediff[0]), choose_device("cpu"))[0]
    gc.collect()


def test_osediffs_layers_are_counted_and_folded_as_published(folder: Path, osediff: Any, model: RefDSR) -> None:
    content = osediff[1]
    lora = content["state_dict_unet"]
    adapted = {name.split(".lora_")[0] for name in lora if ".lora_" in name}
    assert (len(adapted), len([name for name in lora if ".lora_" in name])) == (258, 516)
    assert sum(t.numel() for name, t in lora.items() if ".lora_" in name) == pytest.approx(4.056e6, rel=1e-3)
    assert len({name.split(".lora_")[0] for name in content["state_dict_vae"]}) == 32
    assert sum(tensor.numel() for tensor in content["state_dict_vae"].values()) == pytest.approx(0.369e6, rel=5e-3)
    plain, plain_vae = _models(folder)
    codec: Any = model.codec
    for table, before, after, every in (
        (lora, plain, model.unet, 16),
        (content["state_dict_vae"], plain_vae, codec.model, 5),
    ):
        for key in [name for name in table if ".lora_A." in name][::every]:
            layer, a, b = key.split(".lora_")[0], table[key], table[key.replace(".lora_A.", ".lora_B.")]
            start = table.get(f"{layer}.base_layer.weight", before.get_submodule(layer).weight)
            expected = start + 2.0 * torch.einsum("or,ri...->oi...", b.flatten(1), a)
            torch.testing.assert_close(after.get_submodule(layer).weight, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_residuals_reach_the_blocks_they_should_on_the_real_configuration(model: RefDSR) -> None:
    unet, sample, context = model.unet, torch.randn(1, 4, 8, 8), torch.randn(1, 3, 1024)
    branch = ControlBranch(unet, 4, ReferenceConfig(blocks=4))
    down, _ = branch.control(sample, 999, context, branch.condition(sample), return_dict=False)
    assert len(down) == 12
    inputs: list[Any] = []
    handles = [
        block.register_forward_hook(lambda _m, _a, kwargs, output: inputs.append(output.clone()), with_kwargs=True)
        for block in unet.up_blocks
    ]

    def outputs(residuals: list[torch.Tensor]) -> list[torch.Tensor]:
        inputs.clear()
        extra = {"down_block_additional_residuals": residuals, "mid_block_additional_residual": torch.zeros(())}
        unet(sample, 999, context, **extra)
        return list(inputs)

    still = outputs([torch.zeros_like(part) for part in down])
    for index in range(12):
        moved = outputs([torch.full_like(part, 0.5 * (n == index)) for n, part in enumerate(down)])
        changed = [not torch.equal(a, b) for a, b in zip(still, moved, strict=True)]
        assert changed == [block >= 3 - index // 3 for block in range(4)], index
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_the_branch_is_small_exact_untrained_and_shares_the_backbones_memory(model: RefDSR, tmp_path: Path) -> None:
    before = _bytes(model)
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    alone = model(picture)
    model.attach_reference()
    assert torch.equal(model(picture, references=picture.flip(-1)), alone)
    own = model.reference_parameters()
    trainable = sum(parameter.numel() for parameter in own.values())
    assert 13e6 <= trainable <= 15e6, f"{trainable:,}"
    assert _bytes(model) - before == 4 * trainable
    assert _bytes(model) <= 1.10 * before
    for parameter in own.values():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    guided = model(picture, references=picture.flip(-1))
    assert not torch.equal(guided, alone)
    assert torch.equal(model(picture, references=picture.flip(-1), strength=0.0), alone)
    adapter = save_adapter(model, tmp_path / "adapter.safetensors")
    assert adapter.stat().st_size <= 60e6
    model.branch = None
    load_adapter(model, adapter)
    assert torch.equal(model(picture, references=picture.flip(-1)), guided)
    model.branch = None


def test_128_to_512_with_a_reference(model: RefDSR, folder: Path, osediff: Any, tmp_path: Path) -> None:
    model.attach_reference()
    with torch.no_grad():
        for parameter in model.reference_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    adapter = save_adapter(model, tmp_path / "adapter.safetensors")
    model.branch = None
    generator = DiffusionGenerator("sd21-osediff", device="cpu", base=folder, checkpoint=osediff[0], adapter=adapter)
    random = np.random.default_rng(0)
    lq, tile, reference = (random.random((*size, 3), np.float32) for size in ((128, 128), (512, 512), (600, 700)))
    guided, alone = (
        generator.generate(tile[None], None, generator.prepare(lq, references, GenerationSettings()))
        for references in ([ReferencePicture(reference, 0.8)], [])
    )
    assert guided.shape == (1, 512, 512, 3)
    assert np.isfinite(guided).all()
    assert np.abs(guided - alone).max() > 1e-3


def _models(folder: Path) -> tuple[Any, Any]:
    return UNet2DConditionModel.from_pretrained(folder / "unet"), AutoencoderKL.from_pretrained(folder / "vae")


def _bytes(model: RefDSR) -> int:
    """Memory of the weights, each tensor once."""
    unique = {parameter.data_ptr(): parameter.nbytes for parameter in model.parameters()}
    return sum(unique.values())
