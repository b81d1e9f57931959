"""LoRA layers give the same in place and as peft has them, and are trained as before."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch
from torch import nn

from rasr.generator.lora_layers import add_in_place_when_inferring


def network() -> Any:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1, stride=2), nn.Flatten(2), nn.Linear(16, 5, bias=False))
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=2, lora_alpha=8, target_modules=r"[02]", init_lora_weights="gaussian"), model, "reference"
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model


def test_adding_in_place_gives_the_same_without_pefts_own_path() -> None:
    model, pictures = network(), torch.randn(2, 6, 8, 8)
    expected = model(pictures)
    add_in_place_when_inferring(model)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for name, module in model.named_modules():
        if name.endswith("lora_B.reference"):
            module.register_forward_hook(count)
    with torch.no_grad():
        added = model(pictures)
    torch.testing.assert_close(added, expected.detach(), rtol=1e-4, atol=1e-4)
    assert calls == 0
    model(pictures)
    assert calls == 2


def test_training_takes_pefts_own_path_and_reaches_both_halves() -> None:
    model, pictures = network(), torch.randn(2, 6, 8, 8)
    expected = model(pictures)
    add_in_place_when_inferring(model)
    answer = model(pictures)
    assert torch.equal(answer, expected)
    answer.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name


@torch.no_grad()
@pytest.mark.parametrize("off", ["disabled", "merged"])
def test_what_peft_does_with_its_layers_stays_pefts(off: str) -> None:
    model, pictures = network(), torch.randn(1, 6, 8, 8)
    plain = copy.deepcopy(model)
    add_in_place_when_inferring(model)
    for module in [*model.modules(), *plain.modules()]:
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            module.enable_adapters(False) if off == "disabled" else module.merge()
    assert torch.equal(model(pictures), plain(pictures))


@torch.no_grad()
def test_a_copy_reads_its_own_weights() -> None:
    model, pictures = network(), torch.randn(1, 6, 8, 8)
    add_in_place_when_inferring(model)
    other = copy.deepcopy(model)
    before = other(pictures)
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(other(pictures), before)
    assert other[0].state_dict().keys() == model[0].state_dict().keys()


@torch.no_grad()
def test_autocast_as_in_the_validation_of_a_bf16_run() -> None:
    model, pictures = network(), torch.randn(2, 6, 8, 8)
    expected = model(pictures)
    add_in_place_when_inferring(model)
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(pictures)
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer.float(), expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))
