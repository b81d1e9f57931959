"""The tied ControlNet: shared tensors, which residual goes where, and trainable counts by structure."""

from typing import Any

import peft
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from rasr.generator import controlnet
from rasr.generator.config import ReferenceConfig
from rasr.generator.controlnet import ControlBranch, _first_guided_residual


@pytest.fixture(scope="module")
def unet(narrow_sd21_unet: dict[str, Any]) -> Any:
    """SD 2.1's UNet with narrow layers: the same blocks, residuals and names."""
    torch.manual_seed(0)
    return UNet2DConditionModel(**narrow_sd21_unet).eval()


def own_parameters(branch: ControlBranch, unet: Any) -> dict[str, torch.nn.Parameter]:
    """What the branch adds to the backbone."""
    shared = {id(parameter) for parameter in unet.parameters()}
    return {name: p for name, p in branch.named_parameters() if id(p) not in shared}


def test_the_branchs_frozen_weights_are_the_unets_own_tensors(unet: Any) -> None:
    branch = ControlBranch(unet, 4, ReferenceConfig())
    addresses = {parameter.data_ptr() for parameter in unet.parameters()}
    own = own_parameters(branch, unet)
    frozen = [name for name, p in branch.named_parameters() if name not in own]
    copied = ControlNetModel.from_unet(unet, conditioning_channels=4, conditioning_embedding_out_channels=(16,))
    assert len(frozen) == len(list(copied.parameters())) - 2 * 13 - 2 * 2  # zero convolutions, condition embedding
    for name in frozen:
        assert branch.get_parameter(name).data_ptr() in addresses
    assert not any(parameter.is_meta for parameter in branch.parameters())


def test_lora_sits_in_the_down_blocks_only_and_reaches_101_layers(unet: Any) -> None:
    own = own_parameters(ControlBranch(unet, 4, ReferenceConfig()), unet)
    lora = {name.split(".lora_")[0] for name in own if ".lora_" in name}
    assert len(lora) == 101
    assert all(name.startswith("control.down_blocks.") for name in lora)


def test_lora_is_what_pefts_own_layers_are(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, first values, result and gradients, bit by bit; and what it draws from the generator."""

    def inject(control: Any, rank: int, alpha: float) -> None:
        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=controlnet.LORA_TARGETS, init_lora_weights="gaussian"
        )
        peft.inject_adapter_in_model(config, control, adapter_name="reference")

    def build() -> tuple[dict[str, torch.Tensor], list[torch.Tensor], dict[str, torch.Tensor | None]]:
        torch.manual_seed(5)
        branch = ControlBranch(unet, 4, ReferenceConfig()).requires_grad_(True)
        own = own_parameters(branch, unet)
        first = {name: p.detach().clone() for name, p in own.items()} | {"next": torch.rand(1)}
        with torch.no_grad():
            for parameter in own.values():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        sample, reference = torch.randn(2, 1, 4, 16, 16)
        with branch.inject(unet, sample, 1, torch.zeros(1, 5, 24), [branch.encode(reference)], torch.ones(1, 1)) as out:
            residuals = [*out["down_block_additional_residuals"], out["mid_block_additional_residual"]]
        sum(residual.square().sum() for residual in residuals).backward()
        return first, residuals, {name: p.grad for name, p in own.items()}

    ours = build()
    monkeypatch.setattr(controlnet, "_add_lora", inject)
    theirs = build()
    unet.zero_grad()
    assert list(ours[0]) == list(theirs[0])
    assert all(torch.equal(ours[0][name], theirs[0][name]) for name in ours[0])
    assert all(torch.equal(a, b) for a, b in zip(ours[1], theirs[1], strict=True))
    assert any(".lora_A.reference" in name and grad is not None for name, grad in ours[2].items())
    for name, grad in ours[2].items():
        other = theirs[2][name]
        assert grad is other is None or torch.equal(grad, other), name


@torch.no_grad()
def test_tying_gives_what_a_copied_controlnet_gives(unet: Any) -> None:
    branch = ControlBranch(unet, 4, ReferenceConfig(lora_rank=0, blocks=4))
    copied = ControlNetModel.from_unet(unet, conditioning_channels=4, conditioning_embedding_out_channels=(16,)).eval()
    torch.manual_seed(3)
    for name, parameter in own_parameters(branch, unet).items():
        parameter.copy_(torch.randn_like(parameter))
        name = name.removeprefix("control.").replace("condition.", "controlnet_cond_embedding.")  # noqa: PLW2901
        copied.get_parameter(name).copy_(parameter)
    sample, reference = torch.randn(2, 1, 4, 16, 16)
    timestep, context = 7, torch.randn(1, 5, 24)
    condition = branch.encode(reference)
    ours = branch.control(sample, timestep, context, condition, return_dict=False)
    theirs = copied(sample, timestep, context, reference, return_dict=False)
    for mine, its in zip((*ours[0], ours[1]), (*theirs[0], theirs[1]), strict=True):
        assert torch.equal(mine, its)


@torch.no_grad()
def test_each_residual_reaches_the_decoder_block_it_should(unet: Any) -> None:
    """Of SD's twelve: 9-11 change what up block 0 gives, 6-8 only from block 1 on, 3-5 from 2, 0-2 from 3."""
    sample, context = torch.randn(1, 4, 16, 16), torch.randn(1, 5, 24)
    shapes = [part.shape for part in _residuals(unet, sample, context)]
    assert len(shapes) == 12
    untouched = _up_outputs(unet, sample, context, [torch.zeros(s) for s in shapes])
    for index in range(12):
        residuals = [torch.full(shape, 0.5 * (number == index)) for number, shape in enumerate(shapes)]
        changed = [
            not torch.equal(a, b) for a, b in zip(untouched, _up_outputs(unet, sample, context, residuals), strict=True)
        ]
        first = 3 - index // 3
        assert changed == [block >= first for block in range(4)], index


@pytest.mark.parametrize(("blocks", "first"), [(1, 9), (2, 6), (3, 3), (4, 0)])
@torch.no_grad()
def test_residuals_of_unguided_blocks_are_zero(unet: Any, blocks: int, first: int) -> None:
    assert _first_guided_residual(unet, blocks) == first
    branch = ControlBranch(unet, 4, ReferenceConfig(blocks=blocks))
    for parameter in own_parameters(branch, unet).values():
        parameter.add_(0.1)
    sample, null = torch.randn(2, 4, 16, 16), torch.zeros(1, 5, 24)
    bank = [branch.encode(torch.randn(1, 4, 16, 16))]
    with branch.inject(unet, sample, 1, null, bank, torch.ones(2, 1)) as extra:
        sizes = [part.abs().max() for part in extra["down_block_additional_residuals"]]
    assert [bool(size > 0) for size in sizes] == [index >= first for index in range(12)]


@pytest.mark.parametrize("mid", [False, True])
@torch.no_grad()
def test_the_middle_block_is_an_option(unet: Any, mid: bool) -> None:
    branch = ControlBranch(unet, 4, ReferenceConfig(mid=mid))
    for parameter in own_parameters(branch, unet).values():
        parameter.add_(0.1)
    sample = torch.randn(1, 4, 16, 16)
    bank = [branch.encode(sample)]
    with branch.inject(unet, sample, 1, torch.zeros(1, 5, 24), bank, torch.ones(1, 1)) as extra:
        assert bool(extra["mid_block_additional_residual"].abs().max() > 0) == mid


def _residuals(unet: Any, sample: torch.Tensor, context: torch.Tensor) -> list[torch.Tensor]:
    down, _ = ControlNetModel.from_unet(unet, conditioning_channels=4, conditioning_embedding_out_channels=(16,))(
        sample, 1, context, sample, return_dict=False
    )
    return list(down)


def _up_outputs(
    unet: Any, sample: torch.Tensor, context: torch.Tensor, residuals: list[torch.Tensor]
) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda _m, _i, output: outputs.append(output.clone())) for block in unet.up_blocks
    ]
    unet(
        sample,
        1,
        context,
        down_block_additional_residuals=tuple(residuals),
        mid_block_additional_residual=torch.zeros(()),
    )
    for handle in handles:
        handle.remove()
    return outputs
