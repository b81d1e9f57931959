"""Small models of the same shape as the real ones, and a Stable Diffusion folder in the hub's layout."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rasr.generator.config import ModelConfig, read_model_config
from rasr.generator.refdsr import RefDSR, build_model

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
ALPHA_BAR_999 = 0.0046601
"""ā at t = 999 of Stable Diffusion's schedule: betas scaled-linear from 0.00085 to 0.012 in 1000 steps."""
UNET_TARGETS = (
    *("to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_in", "conv_shortcut", "conv_out"),
    *("proj_out", "proj_in", "ff.net.2", "ff.net.0.proj"),
)
"""OSEDiff and PiSA-SR adapt every layer whose name contains one of these; 258 layers of SD 2.1's UNet."""
VAE_TARGETS = ("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", "to_k", "to_q", "to_v", "to_out.0")
"""OSEDiff, in the VAE's encoder and quant_conv; 32 layers."""
NARROW = {"block_out_channels": [16, 32, 48, 48], "attention_head_dim": [2, 4, 6, 6], "norm_num_groups": 8}


SMALL = Path(__file__).parents[1] / "small.toml"


def small(**changes: Any) -> ModelConfig:
    """A model of a few narrow layers, built here, with some fields changed."""
    return read_model_config(SMALL).model_copy(update=changes)


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


@pytest.fixture
def guided() -> RefDSR:
    """A small model with a reference branch whose weights are not zero."""
    model = build_model(small())
    model.attach_reference()
    return awaken(model)


@pytest.fixture(scope="session")
def sd21_unet() -> dict[str, Any]:
    return SD21_UNET


@pytest.fixture(scope="session")
def narrow_sd21_unet() -> dict[str, Any]:
    return SD21_UNET | NARROW | {"cross_attention_dim": 24}


@pytest.fixture(scope="session")
def hub_folder() -> Callable[..., Path]:
    """``hub_folder(path, unet=..., vae=...)`` writes one."""
    return write_hub_folder


@pytest.fixture(scope="session")
def sd21_vae() -> dict[str, Any]:
    return sd_vae([128, 256, 512, 512])


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


def adapted_layers(model: Any, substrings: tuple[str, ...]) -> dict[str, list[str]]:
    """Layers by part of the network, found as the published training scripts find them: by substrings of names."""
    parts: dict[str, list[str]] = {"encoder": [], "decoder": [], "others": []}
    for name, _ in model.named_parameters():
        if "bias" in name or "norm" in name or not any(substring in name for substring in substrings):
            continue
        module = name.removesuffix(".weight")
        if "down_blocks" in name or "conv_in" in name:
            parts["encoder"] += [module, module]  # the published lists hold names twice
        elif "up_blocks" in name or "conv_out" in name:
            parts["decoder"].append(module)
        else:
            parts["others"].append(module)
    return parts


def add_trained_lora(model: Any, modules: list[str], adapter: str) -> None:
    """peft's own layers with its default alpha, as in the repositories, and with B as after training."""
    from peft import LoraConfig

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters are meant
        model.add_adapter(LoraConfig(r=4, init_lora_weights="gaussian", target_modules=sorted(set(modules))), adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f"lora_B.{adapter}." in name:
                parameter.normal_(0, 0.02)


def write_osediff(unet: Any, vae: Any, path: Path) -> dict[str, Any]:
    """Give the models OSEDiff's adapters and save them under its key names; returns what was saved."""
    torch.manual_seed(4)
    parts = adapted_layers(unet, UNET_TARGETS)
    encoder = [
        name.removesuffix(".weight")
        for name, _ in vae.named_parameters()
        if ("encoder" in name or "quant_conv" in name)
        and "post_quant" not in name
        and "bias" not in name
        and "norm" not in name
        and any(substring in name for substring in VAE_TARGETS)
    ]
    for part, modules in parts.items():
        add_trained_lora(unet, modules, f"default_{part}")
    unet.set_adapters([f"default_{part}" for part in parts])
    add_trained_lora(vae, encoder, "default_encoder")
    with torch.no_grad():
        for parameter in unet.conv_in.base_layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    content = {f"unet_lora_{part}_modules": modules for part, modules in parts.items()} | {
        "vae_lora_encoder_modules": encoder,
        "rank_unet": 4,
        "rank_vae": 4,
        "state_dict_unet": {k: v.clone() for k, v in unet.state_dict().items() if "lora" in k or "conv_in" in k},
        "state_dict_vae": {k: v.clone() for k, v in vae.state_dict().items() if "lora" in k},
    }
    torch.save(content, path)
    return content


def write_pisasr(unet: Any, path: Path) -> dict[str, Any]:
    """As :func:`write_osediff` for PiSA-SR: two LoRA a layer, the VAE untouched."""
    torch.manual_seed(5)
    parts = adapted_layers(unet, UNET_TARGETS)
    content: dict[str, Any] = {"lora_rank_unet_pix": 4, "lora_rank_unet_sem": 4}
    for kind in ("pix", "sem"):
        for part, modules in parts.items():
            add_trained_lora(unet, modules, f"default_{part}_{kind}")
            content[f"unet_lora_{part}_modules_{kind}"] = modules
    unet.set_adapters([f"default_{part}_{kind}" for kind in ("pix", "sem") for part in parts])
    content["state_dict_unet"] = {k: v.clone() for k, v in unet.state_dict().items() if "lora" in k}
    torch.save(content, path)
    return content


@pytest.fixture(scope="session")
def checkpoints() -> SimpleNamespace:
    """Writers of synthetic checkpoints with the published key names and shapes."""
    return SimpleNamespace(osediff=write_osediff, pisasr=write_pisasr)
