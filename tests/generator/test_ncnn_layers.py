"""ncnn's files of convolutions are read and rewritten to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rasr.errors import WeightsCorrupt
from rasr.generator.ncnn_layers import read_convolutions, replace_convolutions
from rasr.generator.realesrgan import weight_files


def test_a_file_of_another_length_is_not_believed(tmp_path: Path) -> None:
    param, model = weight_files(None)
    longer = tmp_path / "model.bin"
    longer.write_bytes(model.read_bytes() + b"\0\0\0\0")
    with pytest.raises(WeightsCorrupt, match="bytes where the network needs"):
        list(read_convolutions(param, longer))
    unknown = tmp_path / "unknown.bin"
    unknown.write_bytes(b"\1\2\3\4" + model.read_bytes()[4:])
    with pytest.raises(WeightsCorrupt, match="not known here"):
        list(read_convolutions(param, unknown))


def test_layers_put_back_give_the_same_bytes() -> None:
    param, model = weight_files(None)
    own = {n: (c.weight, c.bias) for n, c in enumerate(read_convolutions(param, model))}
    assert len(own) == 351
    assert replace_convolutions(param, model, own) == model.read_bytes()


@pytest.mark.parametrize("number", [0, 17, 350])
def test_one_layer_is_replaced_and_no_other(number: int, tmp_path: Path) -> None:
    param, model = weight_files(None)
    before = list(read_convolutions(param, model))
    random = np.random.default_rng(number)
    weight = random.standard_normal(before[number].weight.shape).astype(np.float16).astype(np.float32)
    bias = random.standard_normal(before[number].bias.shape).astype(np.float32)
    changed = tmp_path / "model.bin"
    changed.write_bytes(replace_convolutions(param, model, {number: (weight, bias)}))
    for n, (old, new) in enumerate(zip(before, read_convolutions(param, changed), strict=True)):
        wanted = (weight, bias) if n == number else (old.weight, old.bias)
        assert np.array_equal(new.weight, wanted[0]), n
        assert np.array_equal(new.bias, wanted[1]), n


@pytest.mark.parametrize(("number", "shape"), [(351, (3, 64, 3, 3)), (-1, (3, 64, 3, 3)), (350, (3, 32, 3, 3))])
def test_layers_that_do_not_fit_are_named(number: int, shape: tuple[int, ...]) -> None:
    param, model = weight_files(None)
    layer = np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)
    with pytest.raises(WeightsCorrupt, match=f"no convolution {number}"):
        replace_convolutions(param, model, {number: layer})
