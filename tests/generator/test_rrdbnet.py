"""The torch form of Real-ESRGAN gives ncnn's pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from rasr.errors import WeightsCorrupt
from rasr.generator import GenerationSettings, load_generator
from rasr.generator.realesrgan import weight_files
from rasr.generator.rrdbnet import _read_layers, load_rrdbnet


def test_both_forms_give_the_same_picture() -> None:
    lq = data.astronaut()[60:92, 200:240].astype(np.float32) / 255
    generator = load_generator("realesrgan", device="cpu")
    wanted = generator.generate(lq[None], None, generator.prepare(lq, (), GenerationSettings()))[0]
    network = load_rrdbnet()
    assert sum(p.numel() for p in network.parameters()) == 16_697_987
    with torch.inference_mode():
        found = network(torch.from_numpy(lq).permute(2, 0, 1)[None]).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() < 1e-4


def test_a_file_of_another_length_is_not_believed(tmp_path: Path) -> None:
    param, model = weight_files(None)
    longer = tmp_path / "model.bin"
    longer.write_bytes(model.read_bytes() + b"\0\0\0\0")
    with pytest.raises(WeightsCorrupt, match="bytes where the network needs"):
        list(_read_layers(param, longer))
    unknown = tmp_path / "unknown.bin"
    unknown.write_bytes(b"\1\2\3\4" + model.read_bytes()[4:])
    with pytest.raises(WeightsCorrupt, match="not known here"):
        list(_read_layers(param, unknown))
