"""The module: exactness without a reference, what reaches what, training's interface, the step, and the codecs."""

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler

from rasr.errors import UsageError
from rasr.generator.config import ModelConfig, read_model_config
from rasr.generator.refdsr import AutoencoderCodec, Codec, PatchCodec, RefDSR, _one_step, build_model
from tests.generator.conftest import ALPHA_BAR_999

RandomPictures = Callable[..., torch.Tensor]


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


LQ = pictures(2, 3, 32, 64)
REFERENCES = pictures(2, 2, 3, 32, 64, seed=1)


@torch.no_grad()
def test_an_untrained_backbone_in_residual_form_returns_its_input(small_config: Callable[..., ModelConfig]) -> None:
    model = build_model(small_config())
    assert torch.equal(model(LQ), LQ)
    cleaned = pictures(2, 3, 32, 64, seed=5)
    assert torch.equal(model(LQ, cleaned), cleaned)


@torch.no_grad()
def test_an_untrained_branch_changes_no_bit(backbone: RefDSR) -> None:
    alone = backbone(LQ)
    assert (alone - LQ).abs().max() > 0.01, "the backbone must do something for this test to mean anything"
    backbone.attach_reference()
    assert torch.equal(backbone(LQ, references=REFERENCES), alone)


@torch.no_grad()
def test_without_reference_or_strength_no_bit_changes(guided: RefDSR) -> None:
    branch, guided.branch = guided.branch, None
    alone = guided(LQ)
    guided.branch = branch
    assert (guided(LQ, references=REFERENCES) - alone).abs().max() > 1e-3
    assert torch.equal(guided(LQ), alone)
    assert torch.equal(guided(LQ, references=REFERENCES, strength=0.0), alone)
    assert torch.equal(guided(LQ, references=REFERENCES, reference_weights=torch.zeros(2, 2)), alone)


@torch.no_grad()
def test_a_null_reference_in_a_batch_touches_only_its_own_sample(guided: RefDSR) -> None:
    mixed = guided(LQ, references=REFERENCES, reference_weights=torch.tensor([[0.0, 0.0], [0.5, 0.5]]))
    alone, both = guided(LQ), guided(LQ, references=REFERENCES)
    assert torch.equal(mixed[0], alone[0])
    torch.testing.assert_close(mixed[1], both[1])


@torch.no_grad()
def test_strength_moves_gradually_from_nothing_to_all(guided: RefDSR) -> None:
    alone = guided(LQ)
    moved = [(guided(LQ, references=REFERENCES, strength=s) - alone).norm() for s in (0.1, 0.5, 1.0)]
    assert 0 < moved[0] < moved[1] < moved[2]


@torch.no_grad()
def test_a_reference_with_all_the_weight_is_the_only_reference(guided: RefDSR) -> None:
    first = guided(LQ, references=REFERENCES, reference_weights=torch.tensor([[1.0, 0.0]] * 2))
    torch.testing.assert_close(first, guided(LQ, references=REFERENCES[:, 0]))


@torch.no_grad()
def test_the_order_of_references_does_not_matter(guided: RefDSR) -> None:
    weights = torch.tensor([[0.7, 0.3]] * 2)
    one = guided(LQ, references=REFERENCES, reference_weights=weights)
    other = guided(LQ, references=REFERENCES.flip(1), reference_weights=weights.flip(1))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_batch_gives_what_its_samples_give_alone(guided: RefDSR) -> None:
    together = guided(LQ, references=REFERENCES)
    for index in range(2):
        alone = guided(LQ[index : index + 1], references=REFERENCES[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_context_reaches_the_output_and_none_is_the_null_context(backbone: RefDSR) -> None:
    embedding = pictures(2, 256, seed=7)
    assert (backbone(LQ, context=embedding) - backbone(LQ)).abs().max() > 1e-4
    torch.testing.assert_close(backbone(LQ, context=torch.zeros(2, 256)), backbone(LQ))


def test_stages_train_what_they_say_and_nothing_else(guided: RefDSR) -> None:
    own = guided.reference_parameters()
    shared = {id(parameter) for parameter in guided.unet.parameters()}
    for stage, expected in (
        ("reference", list(own.values())),
        ("backbone", [*guided.unet.parameters(), *guided.context_projection.parameters()]),  # type: ignore[union-attr]
    ):
        chosen = guided.trainable_parameters(stage)  # type: ignore[arg-type]
        unfrozen = {id(parameter) for parameter in guided.parameters() if parameter.requires_grad}
        assert {id(parameter) for parameter in chosen} == unfrozen == {id(parameter) for parameter in expected}
    assert not shared & {id(parameter) for parameter in own.values()}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_trained_parameter_of_the_branch_gets_a_gradient(guided: RefDSR, checkpointing: bool) -> None:
    chosen = guided.trainable_parameters("reference")
    guided.train()
    guided.gradient_checkpointing(checkpointing)
    guided(LQ, references=REFERENCES[:, :1]).square().mean().backward()
    names = {id(parameter): name for name, parameter in guided.named_parameters()}
    without = [names[id(p)] for p in chosen if p.grad is None or torch.count_nonzero(p.grad) == 0]
    # The null context of this model is one token, over which every softmax is 1: what asks for it has no influence.
    assert [name for name in without if ".attn2.to_q." not in name and ".attn2.to_k." not in name] == []
    assert all(parameter.grad is None for parameter in guided.unet.parameters())


def test_an_optimizer_step_on_the_branch_leaves_the_backbone_as_it_was(guided: RefDSR) -> None:
    with torch.no_grad():
        before = guided(LQ)
    optimizer = torch.optim.SGD(guided.trainable_parameters("reference"), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (guided(LQ, references=REFERENCES) - LQ).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert torch.equal(guided(LQ), before)


def test_a_reference_needs_a_branch(backbone: RefDSR) -> None:
    with pytest.raises(UsageError, match="no reference branch"):
        backbone(LQ, references=REFERENCES)


@pytest.fixture
def scheduler() -> DDPMScheduler:
    """Stable Diffusion 2.1-base's scheduler_config.json."""
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        prediction_type="epsilon",
    )


def test_alpha_bar_is_the_schedules(scheduler: DDPMScheduler) -> None:
    assert float(scheduler.alphas_cumprod[999]) == pytest.approx(ALPHA_BAR_999, rel=1e-5)
    assert read_model_config("sd21-osediff").alpha_bar == ALPHA_BAR_999


def test_eps_rule_equals_the_schedulers_prediction_of_the_clean_latent(scheduler: DDPMScheduler) -> None:
    z, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(1000)  # with one step, which is what is meant, diffusers >= 0.32 raises IndexError
    expected = scheduler.step(eps, 999, z).pred_original_sample
    torch.testing.assert_close(_one_step("eps", z, eps, ALPHA_BAR_999), expected, rtol=1e-4, atol=1e-4)


def test_eps_rule_undoes_the_noising(scheduler: DDPMScheduler) -> None:
    clean, eps = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    noisy = scheduler.add_noise(clean, eps, torch.tensor([999]))
    torch.testing.assert_close(_one_step("eps", noisy, eps, ALPHA_BAR_999), clean, rtol=1e-3, atol=1e-3)


def test_residual_rule_subtracts() -> None:
    z, prediction = torch.randn(2, 1, 4, 8, 8)
    assert torch.equal(_one_step("residual", z, prediction, 1.0), z - prediction)


KL = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
}


def kl_codec() -> AutoencoderCodec:
    return AutoencoderCodec(AutoencoderKL(**KL)).eval()


def tiny_codec() -> AutoencoderCodec:
    return AutoencoderCodec(AutoencoderTiny()).eval()


@pytest.mark.parametrize("make", [lambda: PatchCodec(4), kl_codec, tiny_codec], ids=["patch", "kl", "tiny"])
@torch.inference_mode()
def test_every_kind_keeps_the_promised_grid_and_is_deterministic(make: Callable[[], Codec]) -> None:
    codec = make()
    pictures = torch.rand(2, 3, 32, 64) * 2 - 1
    latents = codec.encode(pictures)
    assert latents.shape == (2, codec.channels, 32 // codec.stride, 64 // codec.stride)
    assert torch.equal(latents, codec.encode(pictures))
    assert codec.decode(latents).shape == pictures.shape
    assert torch.count_nonzero(codec.decode_change(latents, latents)) == 0


def test_the_patch_codec_loses_nothing_and_is_linear() -> None:
    codec = PatchCodec(4)
    a, b = torch.rand(2, 1, 3, 16, 24)
    assert torch.equal(codec.decode(codec.encode(a)), a)
    torch.testing.assert_close(codec.decode_change(codec.encode(a), codec.encode(b)), a - b)


@torch.inference_mode()
def test_the_kl_latent_is_the_scaled_mode() -> None:
    codec = kl_codec()
    picture = torch.rand(1, 3, 32, 32)
    mode = codec.model.encode(picture).latent_dist.mode()
    torch.testing.assert_close(codec.encode(picture), mode * 0.18215)
    torch.testing.assert_close(codec.decode(mode * 0.18215), codec.model.decode(mode).sample)


@torch.inference_mode()
def test_large_pictures_pass_the_autoencoder_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasr.generator.refdsr.TILE_ABOVE", 48 * 48)
    codec = kl_codec()
    codec.model.tile_sample_min_size, codec.model.tile_latent_min_size = 32, 4
    picture = torch.rand(1, 3, 64, 64)
    latents = codec.encode(picture)
    assert latents.shape == (1, 4, 8, 8)
    assert codec.decode(latents).shape == picture.shape
    tiled = codec.model.use_tiling
    codec.encode(picture[:, :, :32, :32])
    assert (tiled, codec.model.use_tiling) == (True, False)
