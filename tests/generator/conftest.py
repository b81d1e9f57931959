"""Small models of the same shape as the real ones, and a Stable Diffusion folder in the hub's layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rasr.generator.build import build_model
from rasr.generator.config import ModelConfig, ReferenceConfig, read_model_config
from rasr.generator.refdsr import RefDSR

SD21_UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
    "sample_size": 64,
}
"""Stable Diffusion 2.1-base, as its unet/config.json."""
NARROW = {"block_out_channels": [16, 32, 48, 48], "attention_head_dim": [2, 4, 6, 6], "norm_num_groups": 8}


def small(control: str = "attention", **changes: Any) -> ModelConfig:
    """``mini`` with narrow layers."""
    mini = read_model_config("mini")
    unet = mini.unet | {"block_out_channels": [16, 24, 32, 32], "cross_attention_dim": 24, "norm_num_groups": 8}
    reference = mini.reference.model_copy(update={"control": control, "dimension": 16, "width": 48})
    return mini.model_copy(update={"unet": unet, "reference": reference, **changes})


def awaken(model: RefDSR, seed: int = 1) -> RefDSR:
    """Give every zero-initialised weight a value, as training would, so that a test can see what flows."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in (*model.unet.conv_out.parameters(), *model.reference_parameters().values()):
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture
def small_config() -> Callable[..., ModelConfig]:
    return small


@pytest.fixture
def backbone() -> RefDSR:
    """A small model whose UNet answers something, without a reference branch."""
    return awaken(build_model(small()))


@pytest.fixture(params=["controlnet", "attention"])
def control(request: pytest.FixtureRequest) -> ReferenceConfig:
    """Both reference branches."""
    return small(request.param).reference


@pytest.fixture
def guided(control: ReferenceConfig) -> RefDSR:
    """A small model with a reference branch whose weights are not zero."""
    model = build_model(small())
    model.attach_reference(control)
    return awaken(model)


@pytest.fixture(scope="session")
def sd21_unet() -> dict[str, Any]:
    return SD21_UNET


@pytest.fixture(scope="session")
def narrow_sd21_unet() -> dict[str, Any]:
    return SD21_UNET | NARROW | {"cross_attention_dim": 24}


@pytest.fixture
def hub_folder() -> Callable[..., Path]:
    return write_hub_folder


def write_hub_folder(
    folder: Path, *, unet: dict[str, Any] | None = None, vae: dict[str, Any] | None = None, text_width: int = 24
) -> Path:
    """A Stable Diffusion 2.1 folder with random weights; narrow unless told otherwise."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    UNet2DConditionModel(**(unet or SD21_UNET | NARROW | {"cross_attention_dim": text_width})).save_pretrained(
        folder / "unet"
    )
    AutoencoderKL(**(vae or sd_vae([8, 8, 8, 8], groups=4))).save_pretrained(folder / "vae")
    tokens = write_tokenizer(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=text_width,
        intermediate_size=2 * text_width,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
        pad_token_id=0,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    return folder


def sd_vae(widths: list[int], groups: int = 32) -> dict[str, Any]:
    """AutoencoderKL's arguments as in SD 2.1's vae/config.json, for these widths."""
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": groups,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    }


def write_tokenizer(folder: Path) -> int:
    """CLIP's tokenizer with an alphabet and no merges; returns the number of tokens."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = ["!pad", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    table = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    specials = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials | {"pad_token": "!pad"}))
    settings = specials | {"pad_token": "!pad", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(table)
