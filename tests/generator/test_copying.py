"""The copying branch: nothing until trained, and the truth's own detail when it may."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage import data

from rasr.errors import ConfigError
from rasr.generator.config import ModelConfig, ReferenceConfig
from rasr.generator.copying import COHERENCE_RANGE, CopyBranch, _detail, _squares
from rasr.generator.matching import gaussian_blur
from rasr.generator.refdsr import RefDSR, build_model


def photo(height: int = 96, width: int = 128, left: int = 0) -> torch.Tensor:
    pixels = data.chelsea()[40 : 40 + height, 60 + left : 60 + left + width].astype(np.float32) / 127.5 - 1
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@pytest.fixture
def copying(small_config: Callable[..., ModelConfig]) -> RefDSR:
    """A model whose backbone does nothing and whose gate stands open: own detail out, the reference's in."""
    model = build_model(small_config("copy")).eval()
    branch = model.attach_reference()
    with torch.no_grad():
        branch.scale.fill_(1.0)  # type: ignore[union-attr,operator]
        branch.gate.weight.zero_()  # type: ignore[union-attr,operator]
        branch.gate.bias.fill_(20.0)  # type: ignore[union-attr,operator]
    return model


def test_cells_are_the_patch_codecs_latents_where_they_do_not_overlap() -> None:
    picture = torch.randn(2, 3, 16, 24)
    assert torch.equal(_squares(picture, 4, 4), torch.nn.functional.pixel_unshuffle(picture, 4))
    closer = _squares(picture, 4, 2)
    assert closer.shape == (2, 48, 8, 12)
    assert torch.equal(closer[:, :, ::2, ::2], _squares(picture, 4, 4))
    assert torch.equal(closer[0, :16, 1, 3].view(4, 4), picture[0, 0, 2:6, 6:10])


def test_detail_is_what_the_gaussian_leaves() -> None:
    picture = photo()
    torch.testing.assert_close(_detail(picture) + gaussian_blur(picture, 2.0), picture)
    assert _detail(torch.full((1, 3, 20, 20), 0.3)).abs().max() < 1e-6


@torch.no_grad()
def test_an_open_gate_puts_the_truths_detail_into_a_blurred_picture(copying: RefDSR) -> None:
    truth = photo()
    blurred = gaussian_blur(truth, 1.5)
    before = (blurred - truth).square().mean()
    after = (copying(blurred, references=truth) - truth).square().mean()
    assert after < 0.35 * before
    half = copying(blurred, references=truth, strength=0.5)
    torch.testing.assert_close(half, (copying(blurred, references=truth) + blurred) / 2, atol=1e-5, rtol=0)


@torch.no_grad()
def test_of_several_references_each_place_takes_the_one_that_fits(copying: RefDSR) -> None:
    truth = photo()
    blurred = gaussian_blur(truth, 1.5)
    other = torch.from_numpy(data.coffee()[:96, :128].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    both = torch.stack((other, truth), 1)
    alone, chosen = copying(blurred, references=truth), copying(blurred, references=both)
    assert (chosen - alone).abs().mean() < 0.15 * (copying(blurred, references=other) - alone).abs().mean()
    # A reference with weight 0 is no reference at all.
    unused = copying(blurred, references=both, reference_weights=torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(unused, alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_does_not_fit_is_not_taken_however_open_the_gate(copying: RefDSR) -> None:
    blurred = gaussian_blur(photo(), 1.5)
    other = torch.from_numpy(data.coffee()[:96, :128].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    changed = (copying(blurred, references=other) - blurred).abs()
    taken = (copying(blurred, references=photo()) - blurred).abs()
    assert changed.mean() < 0.05 * taken.mean()
    branch = copying.branch
    assert isinstance(branch, CopyBranch)
    own, its = torch.randn(2, 1, 51, 4, 4)
    features = torch.randn(1, copying.unet.config.block_out_channels[0], 4, 4)
    amounts = []
    for coherence in (0.0, 0.1, COHERENCE_RANGE[0], sum(COHERENCE_RANGE) / 2, COHERENCE_RANGE[1], 1.0):
        scores = torch.full((1, 3, 4, 4), 1.0)
        scores[:, 2] = coherence
        branch.fit.weight.zero_()  # the network itself must not see the difference
        amounts.append(branch(own, its, scores, features))
    assert not amounts[0].any()
    assert not amounts[2].any()
    assert amounts[5].abs().mean() > 0
    torch.testing.assert_close(amounts[4], amounts[5])
    torch.testing.assert_close(2 * amounts[3], amounts[5])


@torch.no_grad()
def test_untrained_it_changes_no_bit(small_config: Callable[..., ModelConfig]) -> None:
    model = build_model(small_config("copy")).eval()
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.05)
    alone = model(photo())
    model.attach_reference()
    assert torch.equal(model(photo(), references=photo(left=16)), alone)


def test_gradients_reach_every_parameter_of_the_branch(small_config: Callable[..., ModelConfig]) -> None:
    model = build_model(small_config("copy"))
    branch = model.attach_reference()
    model.trainable_parameters("reference")
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model(photo(32, 64), references=photo(64, 64, left=8)).square().mean().backward()
    for name, parameter in model.reference_parameters().items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_it_needs_pixels_for_latents(small_config: Callable[..., ModelConfig]) -> None:
    eps = build_model(small_config("copy", rule="eps", alpha_bar=0.5))
    with pytest.raises(ConfigError, match="needs the patch codec"):
        eps.attach_reference(ReferenceConfig(control="copy", width=16))
