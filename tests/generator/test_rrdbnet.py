"""The torch form of Real-ESRGAN gives ncnn's pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from rasr.generator import GenerationSettings, load_generator
from rasr.generator.rrdbnet import BLOCKS, load_rrdbnet
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


@torch.inference_mode()
@pytest.mark.parametrize("blocks", [0, 1, BLOCKS])
def test_the_network_can_be_cut_after_any_block(blocks: int) -> None:
    network, lq = load_rrdbnet(), torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    first, trunk = network.begin(lq, blocks)
    assert first.shape == trunk.shape == (1, 64, 8, 12)
    assert torch.equal(network.finish(first, trunk, blocks), network(lq))
