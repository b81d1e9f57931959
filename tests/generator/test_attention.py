"""The search in the reference: against plain loops, and for what it is meant to find."""

import pytest
import torch
from torch.nn import functional as F

from rasr.errors import ConfigError
from rasr.generator.attention import AttentionBranch, ReferenceAttention, Remembered, _rows, _windows
from rasr.generator.build import build_model
from rasr.generator.config import ModelConfig, ReferenceConfig
from rasr.generator.refdsr import RefDSR

CONFIG = ReferenceConfig(control="attention", dimension=16, width=6, phases=2)


def attention(*, local: bool, phases: int = 2) -> ReferenceAttention:
    torch.manual_seed(0)
    config = CONFIG.model_copy(update={"phases": phases})
    module = ReferenceAttention(features=8, latent=0, hidden=4, local=local, config=config)
    with torch.no_grad():
        module.sharpness.fill_(6.0)  # e⁶: the softmax picks one
    return module


def reference(phases: int, count: int = 1) -> Remembered:
    keys = tuple(F.normalize(torch.randn(count, 16, 8, 12), dim=1) for _ in range(phases))
    values = tuple(torch.randn(count, 6, 8, 12) for _ in range(phases))
    return Remembered(keys, values, F.normalize(torch.randn(count, 4, 16), dim=-1))


def test_windows_are_the_positions_around_the_match_with_edges_repeated() -> None:
    coarse = torch.tensor([[0, 9, 23]])  # a 4 × 6 grid: its first cell, row 1 column 3, its last
    places = _windows(coarse, torch.Size((1, 1, 8, 12)), 4)
    for number, (top, left) in enumerate([(0, 0), (2, 6), (6, 10)]):
        expected = [
            min(max(row, 0), 7) * 12 + min(max(column, 0), 11)
            for row in range(top - 1, top + 3)
            for column in range(left - 1, left + 3)
        ]
        assert places[0, number].tolist() == expected


def test_each_sample_looks_into_its_own_reference_or_all_into_one() -> None:
    planes = torch.randn(2, 5, 8, 12)
    coarse = torch.tensor([[3], [7]])
    rows = _rows(planes, _windows(coarse, planes.shape, 2))
    for sample, match in enumerate((3, 7)):
        top, left = 2 * (match // 6), 2 * (match % 6)
        expected = planes[sample, :, top : top + 2, left : left + 2].flatten(1).mT
        assert torch.equal(rows[sample, 0], expected)
    shared = _rows(planes[:1], _windows(coarse, planes[:1].shape, 2))
    top, left = 2 * (7 // 6), 2 * (7 % 6)
    assert torch.equal(shared[1, 0], planes[0, :, top : top + 2, left : left + 2].flatten(1).mT)


@torch.no_grad()
def test_searching_everywhere_takes_the_value_at_the_match() -> None:
    known = reference(1)
    places = torch.randperm(96)[:24]
    query = known.keys[0].flatten(2)[:, :, places].reshape(1, 16, 4, 6)
    taken, trust, match = attention(local=False).look_up(query, known, None)
    assert torch.equal(match[0], places)
    torch.testing.assert_close(taken.flatten(2), known.values[0].flatten(2)[:, :, places])
    assert ((trust > 0) & (trust < 1)).all()


@pytest.mark.parametrize("phase", [0, 3])
@torch.no_grad()
def test_searching_near_finds_the_position_and_the_phase(phase: int) -> None:
    """Queries that lie one row and column off their coarse match, in a moved copy of the reference."""
    known = reference(4)
    coarse = torch.tensor([[7, 8, 9, 13, 14, 15]])  # rows 1 and 2, columns 1 to 3 of the 4 × 6 grid
    query = known.keys[phase][:, :, 3:7, 3:9]
    taken, _, match = attention(local=True).look_up(query, known, coarse)
    torch.testing.assert_close(taken, known.values[phase][:, :, 3:7, 3:9])
    assert torch.equal(match, coarse)


@torch.no_grad()
def test_chunks_of_a_search_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module, known = attention(local=False), reference(1, count=2)
    query = F.normalize(torch.randn(2, 16, 8, 8), dim=1)
    whole = module.look_up(query, known, None)
    monkeypatch.setattr("rasr.generator.attention.CHUNK", 1000)
    for a, b in zip(whole, module.look_up(query, known, None), strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_what_matches_is_trusted_more_than_what_does_not() -> None:
    module, known = attention(local=False), reference(1)
    alike = known.keys[0][:, :, :4, :6]
    unlike = F.normalize(torch.randn(1, 16, 4, 6), dim=1)
    assert module.look_up(alike, known, None)[1].mean() > module.look_up(unlike, known, None)[1].mean() + 0.05


@torch.no_grad()
def test_phases_of_the_reference_reach_the_finest_level(backbone: RefDSR) -> None:
    backbone.attach_reference()
    deepest, middle, finest = backbone.encode_reference(torch.rand(1, 3, 64, 64))
    assert [len(level.keys) for level in (deepest, middle, finest)] == [1, 1, 4]
    assert len(finest.values) == 4
    assert not torch.equal(finest.keys[0], finest.keys[3])


def test_attention_cannot_guide_the_last_block(small_config: type[ModelConfig]) -> None:
    model = build_model(small_config())
    with pytest.raises(ConfigError, match="at most 3 of 4"):
        AttentionBranch(model.unet, 48, CONFIG.model_copy(update={"blocks": 4}))
