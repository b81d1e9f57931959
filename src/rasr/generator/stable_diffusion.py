"""Stable Diffusion 2.1-base from a folder in the hub's layout, with a checkpoint folded in."""

from pathlib import Path
from typing import Any

import torch

from rasr.device import Device
from rasr.errors import UsageError, WeightsCorrupt
from rasr.files import read_object
from rasr.generator.config import ModelConfig, WeightPaths
from rasr.generator.onestep_checkpoints import fold_osediff, fold_pisasr
from rasr.generator.refdsr import AutoencoderCodec, RefDSR
from rasr.weights import CATALOGUE, fill_model, find, load_pretrained, read_safetensors, require, variant


def load_stable_diffusion(config: ModelConfig, weights: WeightPaths, place: Device) -> tuple[RefDSR, "_Prompts"]:
    """Load network and prompt encoder in fp32 on the CPU; the caller moves the network.

    Raises WeightsMissing, naming the command that helps, or WeightsCorrupt.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    checkpoint = (weights.checkpoint or require(config.checkpoint)) if config.checkpoint else None
    folder = _base_folder(config, weights.base)
    unet = _from_folder(UNet2DConditionModel, folder / "unet")
    vae = _from_folder(AutoencoderKL, folder / "vae")
    if config.checkpoint == "osediff" and checkpoint is not None:
        fold_osediff(unet, vae, checkpoint)
    elif config.checkpoint == "pisasr" and checkpoint is not None:
        fold_pisasr(unet, checkpoint)
    if weights.vae != "full":
        vae = _tiny_vae(weights.vae, folder)
    prompts = _Prompts(folder, place)
    return RefDSR(config, unet, AutoencoderCodec(vae), prompts.states("").cpu().float()), prompts


class _Prompts:
    """Prompt encoder: CLIP's last hidden states. CLIP (1.4 GB) is held only while it computes."""

    def __init__(self, folder: Path, place: Device) -> None:
        self._folder, self._place = folder, place
        self._known: dict[str, torch.Tensor] = {}

    def states(self, prompt: str) -> torch.Tensor:
        """Encode a prompt to (1, 77, D) on the device. Raises WeightsCorrupt."""
        if prompt in self._known:
            return self._known[prompt]
        from transformers import CLIPTextModel, CLIPTokenizer

        try:
            tokenizer = CLIPTokenizer.from_pretrained(self._folder / "tokenizer", local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise WeightsCorrupt(f"The tokenizer in {self._folder} cannot be loaded: {error}") from error
        encoder = load_pretrained(CLIPTextModel, self._folder / "text_encoder", ignore_extra=True)
        ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        with torch.inference_mode():
            states = encoder.eval()(ids)[0]
        return self._known.setdefault(prompt, states.to(self._place.device, self._place.dtype))


def _base_folder(config: ModelConfig, asked: str | None) -> Path:
    """Find the base model: as asked, else the first of the preset's list that is here."""
    named = [name for name in config.base if name not in CATALOGUE] if asked is None else []
    found = next(filter(None, (find("sd21", name) for name in named)), None)
    return found or require("sd21", asked)


def _tiny_vae(asked: str | Path, base: Path) -> Any:
    from diffusers import AutoencoderTiny

    folder = require("taesd", None if asked == "tiny" else asked)
    model = _from_folder(AutoencoderTiny, folder)
    latents = read_object(base / "vae" / "config.json", "model configuration", WeightsCorrupt).get("latent_channels")
    if model.config.latent_channels != latents:
        raise UsageError(f"{folder} has {model.config.latent_channels} latent channels and the base model {latents}.")
    return model


def _from_folder(family: Any, folder: Path) -> Any:
    """Load a diffusers model strictly, in fp32, never held twice in memory."""
    settings = read_object(folder / "config.json", "model configuration", WeightsCorrupt)
    try:
        with torch.device("meta"):
            model = family.from_config(settings)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise WeightsCorrupt(f"{folder}/config.json is not a configuration of {family.__name__}: {error}") from error
    path = variant(folder, "diffusion_pytorch_model.safetensors")
    tensors = {_current_name(name): tensor for name, tensor in read_safetensors(path)[0].items()}
    return fill_model(model, tensors, path)


_OLD_VAE_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def _current_name(name: str) -> str:
    """Rename the VAE's attention layers of files saved before diffusers 0.17."""
    for old, new in _OLD_VAE_ATTENTION.items():
        if ".attentions." in name:
            name = name.replace(old, new)
    return name
