"""OSEDiff's and PiSA-SR's checkpoints on a narrow SD 2.1, against peft running the very same adapters."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from rasr.errors import WeightsCorrupt
from rasr.generator.onestep_checkpoints import _lora_delta, fold_osediff, fold_pisasr
from tests.generator.conftest import UNET_TARGETS, VAE_TARGETS

VAE = {
    "block_out_channels": (8, 16, 24, 24),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 4,
}


@pytest.fixture(scope="module")
def build(narrow_sd21_unet: dict[str, Any]) -> Callable[[], tuple[Any, Any]]:
    def build() -> tuple[Any, Any]:
        torch.manual_seed(0)
        return UNet2DConditionModel(**narrow_sd21_unet).eval(), AutoencoderKL(**VAE).eval()

    return build


@pytest.fixture(scope="module")
def osediff(build: Callable[[], tuple[Any, Any]], checkpoints: SimpleNamespace, tmp_path_factory: Any) -> Any:
    """(UNet, VAE, saved content) with OSEDiff's adapters run by peft; and the file."""
    path = tmp_path_factory.mktemp("osediff") / "osediff.pkl"
    unet, vae = build()
    return unet, vae, checkpoints.osediff(unet, vae, path), path


@pytest.fixture(scope="module")
def plain(build: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """The models as they were; tests leave them so."""
    return build()


@pytest.fixture
def inputs() -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 4, 8, 8, generator=generator), 999, torch.randn(1, 5, 24, generator=generator)


@torch.no_grad()
def test_osediff_folded_gives_what_peft_gives(
    build: Callable[[], Any], osediff: Any, plain: Any, inputs: tuple[Any, ...]
) -> None:
    (unet, vae, _, path), (folded, folded_vae) = osediff, build()
    assert fold_osediff(folded, folded_vae, path) == (258, 32)
    expected = unet(*inputs).sample
    torch.testing.assert_close(folded(*inputs).sample, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(plain[0](*inputs).sample, expected, rtol=1e-2, atol=1e-2)
    picture = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(
        folded_vae.encode(picture).latent_dist.mode(), vae.encode(picture).latent_dist.mode(), rtol=1e-3, atol=1e-4
    )


@torch.no_grad()
def test_pisasr_folded_gives_what_peft_gives(
    build: Callable[[], Any], checkpoints: SimpleNamespace, inputs: tuple[Any, ...], tmp_path: Path
) -> None:
    (unet, _), (folded, _) = build(), build()
    checkpoints.pisasr(unet, tmp_path / "pisa_sr.pkl")
    assert fold_pisasr(folded, tmp_path / "pisa_sr.pkl") == 258
    torch.testing.assert_close(folded(*inputs).sample, unet(*inputs).sample, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_scaling_is_two(build: Callable[[], Any], osediff: Any, plain: Any) -> None:
    folded, folded_vae = build()
    content, path = osediff[2:]
    fold_osediff(folded, folded_vae, path)
    lora = content["state_dict_unet"]
    for layer, adapter in (
        ("down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k", "default_encoder"),
        ("mid_block.resnets.0.conv1", "default_others"),
        ("up_blocks.3.resnets.2.conv_shortcut", "default_decoder"),
    ):
        a, b = (lora[f"{layer}.lora_{side}.{adapter}.weight"] for side in "AB")
        delta = torch.einsum("or,ri...->oi...", b.flatten(1), a)
        expected = plain[0].get_submodule(layer).weight + 2.0 * delta
        torch.testing.assert_close(folded.get_submodule(layer).weight, expected)
    assert torch.equal(folded.conv_in.bias, lora["conv_in.base_layer.bias"])
    assert torch.equal(folded_vae.decoder.conv_in.weight, plain[1].decoder.conv_in.weight)


def target_modules(model: torch.nn.Module, substrings: tuple[str, ...]) -> set[str]:
    """Layers with weights whose name contains one of ``substrings`` and neither "bias" nor "norm"."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
        and "norm" not in name
        and any(substring in name for substring in substrings)
    }


def test_the_published_layers_are_the_ones_expected(plain: Any) -> None:
    unet, vae = plain
    assert len(target_modules(unet, UNET_TARGETS)) == 258
    names = target_modules(vae, VAE_TARGETS)
    assert len({n for n in names if n.startswith("encoder.") or n == "quant_conv"}) == 32


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c.pop("state_dict_unet"), "no state_dict_unet"),
        (lambda c: c.pop("unet_lora_others_modules"), "no unet_lora_others_modules"),
        (lambda c: c.update(rank_unet=8), "rank_unet is 8"),
        (lambda c: c["state_dict_unet"].pop("conv_in.base_layer.weight"), "also trains conv_in"),
        (lambda c: c["state_dict_unet"].pop(_lora(c, "B")), "only half of the LoRA"),
        (
            lambda c: c["state_dict_unet"].update({"down_blocks.9.lora_A.default_encoder.weight": torch.zeros(4, 4)}),
            "half",
        ),
        (lambda c: c["state_dict_unet"].update({"surprise": torch.zeros(1)}), "unknown surprise"),
        (lambda c: c["state_dict_unet"].update({_lora(c, "A"): torch.zeros(4, 7)}), "another architecture"),
        (lambda c: c["unet_lora_others_modules"].append("mid_block.resnets.7.conv1"), "no layer mid_block.resnets.7"),
        (lambda c: c["unet_lora_others_modules"].pop(), "list of layers and its tensors differ"),
        (lambda c: c.update(state_dict_unet=[1, 2]), "no state_dict_unet"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused_and_change_nothing(
    osediff: Any, plain: Any, tmp_path: Path, change: Callable[[Any], Any], complaint: str
) -> None:
    content = {key: _copy(value) for key, value in osediff[2].items()}
    change(content)
    torch.save(content, tmp_path / "osediff.pkl")
    before = {name: parameter.clone() for name, parameter in plain[0].named_parameters()}
    with pytest.raises(WeightsCorrupt, match=complaint):
        fold_osediff(*plain, tmp_path / "osediff.pkl")
    for name, parameter in plain[0].named_parameters():
        assert torch.equal(before[name], parameter)


def test_one_methods_checkpoint_is_not_the_others(osediff: Any, plain: Any) -> None:
    with pytest.raises(WeightsCorrupt, match=r"not the checkpoint|unknown"):
        fold_pisasr(plain[0], osediff[3])


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1, 1), (6, 5, 3, 3)])
def test_delta_of_linear_and_convolution(shape: tuple[int, ...]) -> None:
    a, b = torch.randn(2, *shape[1:]), torch.randn(6, 2, *([1] * (len(shape) - 2)))
    expected = sum(b.flatten(1)[:, r].view(-1, *[1] * (len(shape) - 1)) * a[r] for r in range(2))
    torch.testing.assert_close(_lora_delta(a, b, alpha=8.0), 4.0 * expected)


def _lora(content: dict[str, Any], side: str) -> str:
    return next(name for name in content["state_dict_unet"] if f"to_q.lora_{side}" in name)


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | list) else value
