"""Metrics with networks: equal to their reference implementations on weights of the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.evaluation.metrics import MetricWeights, load_metric
from rasr.evaluation.metrics.networks.clip_rn50 import ClipRN50
from rasr.evaluation.metrics.networks.convnets import AlexNetFeatures, VGG16Features
from rasr.evaluation.metrics.networks.inception import Inception
from rasr.evaluation.metrics.networks.musiq import MusiqNetwork
from rasr.evaluation.settings import MeasuringProtocol
from rasr.weights import entry
from rasr.weights.download import Download
from tests.evaluation.patterned import InMemory, patterned, sample_pair

DEFAULT = MeasuringProtocol()


def weights_of(network: type[nn.Module]) -> InMemory:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in network().state_dict().items()}
    counters = {key: torch.tensor(1) for key in shapes if "num_batches" in key}
    return InMemory(patterned({key: shape for key, shape in shapes.items() if key not in counters}) | counters)


@pytest.mark.parametrize(
    ("name", "network", "value"),
    [
        ("LPIPS", AlexNetFeatures, 0.0042451937),
        ("DISTS", VGG16Features, 0.0029779673),
        ("MUSIQ", MusiqNetwork, 0.9472148),
        ("CLIPIQA", ClipRN50, 0.3471271),
    ],
)
def test_equal_to_the_reference_implementation(name: str, network: type[nn.Module], value: float) -> None:
    restored, truth = sample_pair()
    measured = load_metric(name, DEFAULT, weights_of(network)).measure(restored, truth)
    assert measured == pytest.approx(value, rel=1e-4)


def test_inception_features_equal_pytorch_fid() -> None:
    restored, _ = sample_pair()
    features = load_metric("FID", DEFAULT, weights_of(Inception)).features(restored)
    assert features.shape == (2048,)
    np.testing.assert_allclose(features[:4], [0.0, 0.7710479, 0.05231996, 0.29945165], rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(features) == pytest.approx(47.077965, rel=1e-5)


def test_lpips_and_dists_of_identical_pictures_are_zero() -> None:
    _, truth = sample_pair()
    for name, network in (("LPIPS", AlexNetFeatures), ("DISTS", VGG16Features)):
        assert load_metric(name, DEFAULT, weights_of(network)).measure(truth, truth) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_are_read_from_the_published_file(tmp_path: Path, wrapped: bool) -> None:
    """As torchvision publishes it: more tensors than needed, in a .pth; or inside 'params', as IQA-PyTorch does."""
    state = weights_of(AlexNetFeatures).state | {"classifier.6.weight": torch.zeros(2, 2)}
    torch.save({"params": state} if wrapped else state, tmp_path / Path(entry("alexnet").own).name)
    restored, truth = sample_pair()
    measured = load_metric("LPIPS", DEFAULT, MetricWeights(tmp_path)).measure(restored, truth)
    assert measured == pytest.approx(0.0042451937, rel=1e-4)


def test_wrong_files_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / Path(entry("alexnet").own).name
    state = weights_of(AlexNetFeatures).state
    short = {key: value for key, value in state.items() if key != "features.8.bias"}
    torch.save(short, file)
    with pytest.raises(WeightsCorrupt, match=r"lacks features\.8\.bias"):
        load_metric("LPIPS", DEFAULT, MetricWeights(tmp_path))
    torch.save(state | {"features.0.bias": torch.zeros(3)}, file)
    with pytest.raises(WeightsCorrupt, match=r"wrong shape for features\.0\.bias \(\(3,\), not \(64,\)\)"):
        load_metric("LPIPS", DEFAULT, MetricWeights(tmp_path))
    file.write_bytes(b"not weights")
    with pytest.raises(WeightsCorrupt, match="truncated or not a torch checkpoint"):
        load_metric("LPIPS", DEFAULT, MetricWeights(tmp_path))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("code ran",))

    (tmp_path / Path(entry("alexnet").own).name).write_bytes(pickle.dumps({"features.0.weight": Evil()}))
    with pytest.raises(WeightsCorrupt):
        load_metric("LPIPS", DEFAULT, MetricWeights(tmp_path))


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / Path(entry("clip-rn50").own).name)
    assert MetricWeights(tmp_path).load("clip-rn50")["a"].tolist() == [1, 1]


def test_nothing_is_fetched_offline() -> None:
    with pytest.raises(WeightsMissing, match="Downloading is off"):
        load_metric("LPIPS", DEFAULT, MetricWeights(download=True))


def test_a_missing_file_is_fetched_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def fetch(plan: Download, progress: object = None) -> Path:
        fetched.append(plan.weights.name)
        return tmp_path / "alexnet.pth"

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(Download, "run", fetch)
    torch.save(weights_of(AlexNetFeatures).state, tmp_path / "alexnet.pth")
    with pytest.raises(WeightsMissing, match=r"https://.*rasr models download alexnet, or run again with --download"):
        load_metric("LPIPS", DEFAULT, MetricWeights())
    load_metric("LPIPS", DEFAULT, MetricWeights(download=True))
    assert set(fetched) == {"alexnet"}
