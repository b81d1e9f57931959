"""Optimization: the learning rate of a step, averaged weights, and parameters saved with their state."""

from __future__ import annotations

import pytest
import torch

from rasr.errors import WeightsCorrupt
from rasr.training.config import OptimizerConfig
from rasr.training.optimization import AveragedWeights, Optimized, learning_rate


def test_the_learning_rate_warms_up_and_follows_a_cosine() -> None:
    config = OptimizerConfig(warmup=4, final_lr=0.1)
    rates = [learning_rate(config, step, 104) for step in range(104)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1
    assert rates[54] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_averaged_weights_follow_their_formula_and_swap_exactly() -> None:
    parameters = {"w": torch.nn.Parameter(torch.tensor([1.0, -3.3e-5]))}
    averaged = AveragedWeights(parameters, 0.9)
    expected = parameters["w"].detach().double()
    for step in range(30):
        with torch.no_grad():
            parameters["w"] += 0.37
        averaged.update(parameters, step)
        decay = min(0.9, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * parameters["w"].detach().double()
    torch.testing.assert_close(averaged.values["w"].double(), expected, rtol=1e-6, atol=1e-6)
    live = parameters["w"].detach().clone()
    averaged.swap(parameters)
    assert not torch.equal(parameters["w"], live)
    averaged.swap(parameters)
    assert torch.equal(parameters["w"], live)


class OneProcess:
    num_processes = 1


def test_optimized_parameters_go_on_from_their_tensors() -> None:
    """Two steps at once, or one, saved, loaded into a fresh copy, and another: the same weights and buffers."""

    def fresh() -> tuple[torch.nn.Module, Optimized]:
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        parameters = dict(module.named_parameters())
        return module, Optimized("part", parameters, 0.1, OptimizerConfig(), buffers_of=module)

    def step(module: torch.nn.Module, part: Optimized) -> None:
        part.zero_grad()
        module(torch.arange(12.0).view(4, 3)).square().sum().backward()
        assert float(part.clip_gradients(OneProcess())) > 1  # type: ignore[arg-type]
        part.step(0.5)

    whole, part = fresh()
    step(whole, part)
    saved = {name: value.clone() for name, value in part.tensors().items()}
    assert {"part.weight.0.bias", "part.exp_avg.0.bias", "part.step.0.bias", "part.buffer.1.running_mean"} <= set(saved)
    step(whole, part)
    again, part = fresh()
    part.load(saved)
    step(again, part)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(WeightsCorrupt, match=r"part '0\.weight' is missing or of another shape"):
        part.load({})


def test_a_missing_gradient_counts_as_zero() -> None:
    parameters = {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.nn.Parameter(torch.ones(2))}
    part = Optimized("part", parameters, 0.1, OptimizerConfig(weight_decay=0))
    parameters["a"].sum().backward()  # type: ignore[no-untyped-call]
    part.clip_gradients(OneProcess())  # type: ignore[arg-type]
    part.step(1.0)
    assert float(parameters["a"][0].detach()) < 1
    assert torch.equal(parameters["b"].detach(), torch.ones(2))
