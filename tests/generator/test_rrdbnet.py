"""The torch form of Real-ESRGAN gives ncnn's pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from rasr.device import Device
from rasr.generator import GenerationSettings, load_generator
from rasr.generator.realesrgan import RealESRGAN
from rasr.generator.rrdbnet import BLOCKS, TorchRealESRGAN, load_rrdbnet
from rasr.weights import find


@pytest.mark.parametrize("preset", ["realesrgan", "mini"])
def test_both_forms_give_the_same_picture(preset: str) -> None:
    lq = data.astronaut()[60:92, 200:240].astype(np.float32) / 255
    generator = load_generator(preset, device="cpu")
    wanted = generator.generate(lq[None], None, generator.prepare(lq, (), GenerationSettings()))[0]
    network = load_rrdbnet(tuned=find(preset) if preset == "mini" else None)
    assert sum(p.numel() for p in network.parameters()) == 16_697_987
    with torch.inference_mode():
        found = network(torch.from_numpy(lq).permute(2, 0, 1)[None]).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() < 1e-4


@pytest.mark.parametrize("preset", ["realesrgan", "mini"])
def test_a_generator_in_torch_gives_ncnns_pictures(preset: str) -> None:
    lq = np.stack([data.astronaut()[y : y + 24, 200:220].astype(np.float32) / 255 for y in (60, 90)])
    by_ncnn = load_generator(preset, device="cpu")
    tuned = find(preset) if preset == "mini" else None
    by_torch = TorchRealESRGAN(device="cpu", tuned=tuned)
    chosen = GenerationSettings(detail=0.8)
    pictures = [g.generate(lq, None, g.prepare(lq[0], (), chosen)) for g in (by_ncnn, by_torch)]
    assert pictures[1].shape == (2, 96, 80, 3)
    assert np.abs(pictures[0] - pictures[1]).max() < 1e-4
    ours, theirs = by_torch.info, by_ncnn.info
    assert replace(ours, device="") == replace(theirs, device="")
    assert TorchRealESRGAN(device="cpu", dtype="bf16").info.device.startswith("cpu, bf16")


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1", "mps"])
@pytest.mark.parametrize("preset", ["realesrgan", "mini"])
def test_where_torch_has_a_gpu_the_network_runs_there(
    preset: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gpu(name: str = "auto", dtype: str = "auto") -> Device:
        return Device("mps" if name == "mps" else "cuda:1", "fp32" if dtype == "auto" else dtype, "Some GPU")

    for module in ("presets", "rrdbnet", "diffusion"):
        monkeypatch.setattr(f"rasr.generator.{module}.choose_device", gpu)
    generator = load_generator(preset, device=device)
    assert isinstance(generator, TorchRealESRGAN)
    assert generator.info.name == preset
    assert generator.info.device == str(gpu(device, "fp32"))
    cleaner = load_generator("sd21-pisasr", device=device, cleaner=preset).cleaner
    assert isinstance(cleaner, TorchRealESRGAN)
    for other in ("cpu", "vulkan"):
        monkeypatch.setattr("rasr.generator.realesrgan._vulkan_gpus", lambda: {0: "vulkan:0 Some GPU"})
        assert type(load_generator(preset, device=other)) is RealESRGAN


def test_without_a_gpu_in_torch_ncnn_runs_it() -> None:
    assert type(load_generator("mini", device="auto")) is RealESRGAN or torch.cuda.is_available()


@torch.inference_mode()
@pytest.mark.parametrize("blocks", [0, 1, BLOCKS])
def test_the_network_can_be_cut_after_any_block(blocks: int) -> None:
    network, lq = load_rrdbnet(), torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    first, trunk = network.begin(lq, blocks)
    assert first.shape == trunk.shape == (1, 64, 8, 12)
    assert torch.equal(network.finish(first, trunk, blocks), network(lq))
