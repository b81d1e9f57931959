"""Adapter and backbone files: round trips, the backbone's identity, and what damage is answered with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rasr.errors import UsageError, WeightsCorrupt, WeightsError, WeightsMissing
from rasr.generator.adapter import _backbone_signature, load_adapter, load_backbone, save_adapter, save_backbone
from rasr.generator.config import ModelConfig
from rasr.generator.refdsr import RefDSR, build_model

PICTURES = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def adapter(guided: RefDSR, tmp_path: Path) -> Path:
    return save_adapter(guided, tmp_path / "adapter.safetensors", notes={"steps": 3})


@torch.no_grad()
def test_an_adapter_comes_back_as_it_was(guided: RefDSR, adapter: Path) -> None:
    expected = guided(PICTURES[0], references=PICTURES[1])
    guided.branch = None
    assert load_adapter(guided, adapter) == {"steps": 3}
    assert torch.equal(guided(PICTURES[0], references=PICTURES[1]), expected)
    assert not any(parameter.requires_grad for parameter in guided.reference_parameters().values())


def test_an_adapter_holds_only_what_the_branch_adds(guided: RefDSR, adapter: Path) -> None:
    stored = load_file(adapter)
    assert set(stored) == {*guided.reference_parameters(), "backbone.signature"}


def test_an_adapter_brings_its_own_configuration(guided: RefDSR, adapter: Path) -> None:
    guided.attach_reference(guided.config.reference.model_copy(update={"lora_rank": 2}))
    load_adapter(guided, adapter)
    assert guided.branch is not None
    assert guided.branch.config.lora_rank == 8


RETIRED = {
    "reading": "condition",
    "text": "everywhere",
    "temperature": 0.1,
    "dimension": 64,
    "summaries": 4,
    "window": 4,
    "phases": 1,
    "direct": False,
    "local_levels": [],
    "width": 256,
}
"""What adapters said of the attention and copying branches and of two readings of the paper."""


def rewrite(adapter: Path, **changes: object) -> None:
    """Change the reference table in an adapter's metadata."""
    from safetensors import safe_open

    with safe_open(adapter, "pt") as file:
        metadata = file.metadata()
    table = json.loads(metadata["reference"]) | changes
    save_file(load_file(adapter), adapter, metadata | {"reference": json.dumps(table)})


@torch.no_grad()
def test_adapters_with_retired_keys_are_read_as_before(guided: RefDSR, adapter: Path) -> None:
    assert guided.branch is not None
    expected, config = guided(PICTURES[0], references=PICTURES[1]), guided.branch.config
    rewrite(adapter, **RETIRED)
    load_adapter(guided, adapter)
    assert guided.branch.config == config
    assert torch.equal(guided(PICTURES[0], references=PICTURES[1]), expected)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"control": "attention"}, "its branch, 'attention', is retired"),
        ({"control": "copy"}, "its branch, 'copy', is retired"),
        ({"reading": "sample"}, "another reading than 'condition'"),
        ({"text": "last"}, "another text"),
        ({"temperature": 0.5}, "another temperature"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_is_no_longer_understood_is_refused_by_name(
    guided: RefDSR, adapter: Path, change: dict[str, object], complaint: str
) -> None:
    before = guided.branch
    rewrite(adapter, **(RETIRED | change))
    with pytest.raises(WeightsCorrupt, match=complaint):
        load_adapter(guided, adapter)
    assert guided.branch is before


def test_another_backbone_is_refused_by_name(
    adapter: Path, small_config: Callable[..., ModelConfig], guided: RefDSR
) -> None:
    other = build_model(small_config(seed=5))
    with pytest.raises(WeightsError, match=r"trained on the backbone 'small'.*weights differ"):
        load_adapter(other, adapter)
    assert other.branch is None
    guided.config = guided.config.model_copy(update={"timestep": 999})
    before = guided.branch
    with pytest.raises(WeightsError, match="its timestep differs"):
        load_adapter(guided, adapter)
    assert guided.branch is before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_identity_forgives_number_formats_but_no_training(
    guided: RefDSR, adapter: Path, dtype: torch.dtype
) -> None:
    exact = _backbone_signature(guided)
    guided.unet.to(dtype).float()
    assert not torch.equal(_backbone_signature(guided), exact)
    load_adapter(guided, adapter)
    with torch.no_grad():
        for parameter in guided.unet.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02 * parameter.std())
    with pytest.raises(WeightsError):
        load_adapter(guided, adapter)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\x00" * 8 + data[8:],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: b"not weights at all",
    ],
    ids=["empty", "truncated", "no header", "endless header", "text"],
)
def test_damaged_files_are_named_and_change_nothing(
    guided: RefDSR, adapter: Path, damage: Callable[[bytes], bytes]
) -> None:
    before = guided.branch
    adapter.write_bytes(damage(adapter.read_bytes()))
    with pytest.raises(WeightsCorrupt, match=r"adapter\.safetensors"):
        load_adapter(guided, adapter)
    assert guided.branch is before


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_wrong_architectures_are_refused_and_the_old_branch_stays(guided: RefDSR, adapter: Path, change: str) -> None:
    from safetensors import safe_open

    with safe_open(adapter, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(adapter)
    name = next(name for name in tensors if name.endswith("weight"))
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        tensors["branch.surprise"] = torch.zeros(2)
    else:
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, adapter, metadata)
    before = guided.branch
    with pytest.raises(WeightsCorrupt, match="another architecture"):
        load_adapter(guided, adapter)
    assert guided.branch is before


@pytest.mark.parametrize("metadata", [{}, {"format": "rasr-adapter-1"}, {"format": "rasr-adapter-1", "reference": "{"}])
def test_foreign_metadata_is_refused(guided: RefDSR, adapter: Path, metadata: dict[str, str]) -> None:
    save_file(load_file(adapter), adapter, metadata)
    with pytest.raises(WeightsCorrupt):
        load_adapter(guided, adapter)


def test_missing_files_and_branches_are_said(guided: RefDSR, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="nowhere"):
        load_adapter(guided, tmp_path / "nowhere.safetensors")
    guided.branch = None
    with pytest.raises(UsageError, match="no reference branch"):
        save_adapter(guided, tmp_path / "a.safetensors")


@torch.no_grad()
def test_a_backbone_comes_back_in_full_and_in_half(
    backbone: RefDSR, small_config: Callable[..., ModelConfig], tmp_path: Path
) -> None:
    expected = backbone(PICTURES[0])
    exact = save_backbone(backbone, tmp_path / "full.safetensors", notes={"steps": 9})
    half = save_backbone(backbone, tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.6 * exact.stat().st_size
    for path, tolerance in ((exact, 0.0), (half, 5e-3)):
        fresh = build_model(small_config(seed=77))
        notes = load_backbone(fresh, path)
        assert (fresh(PICTURES[0]) - expected).abs().max() <= tolerance
    assert notes == {}
    assert json.loads(json.dumps(load_backbone(build_model(small_config()), exact))) == {"steps": 9}


def test_an_adapter_is_not_a_backbone(guided: RefDSR, adapter: Path) -> None:
    with pytest.raises(WeightsCorrupt, match="not a RASR backbone"):
        load_backbone(guided, adapter)
