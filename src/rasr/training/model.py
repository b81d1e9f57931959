"""Trainable models: the interface that the loop asks for, and RefDSR behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rasr.device import Device
from rasr.errors import ConfigError
from rasr.gallery.encoders import Encoder, load_encoder
from rasr.generator.adapter import load_adapter, load_backbone, save_adapter, save_backbone
from rasr.generator.config import WeightPaths
from rasr.generator.refdsr import RefDSR, build_model, fill_around
from rasr.generator.stable_diffusion import load_stable_diffusion
from rasr.training.batch import TrainingBatch
from rasr.training.config import TrainingConfig


class TrainableModel(Protocol):
    """Module that restores a batch. The loop knows nothing else of it."""

    def __call__(self, batch: TrainingBatch) -> Tensor:
        """Restore a batch: (N, 3, H, W) on the [0, 1] scale, not clamped."""

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return name → parameter of exactly what is optimised, saved and averaged."""

    def to(self, device: torch.device) -> Any:
        """Do as torch's module does."""

    def train(self, mode: bool = True) -> Any:
        """Do as torch's module does."""

    def checkpoint_gradients(self) -> None:
        """Trade time for memory in the backward pass."""

    def export(self, path: Path, notes: Mapping[str, Any]) -> Path:
        """Write what has been trained in the form that ``rasr restore`` loads."""


class RefDSRModel(nn.Module):
    """RefDSR in training: one stage is unfrozen, the rest is left alone."""

    def __init__(self, model: RefDSR, stage: str, encoder: Encoder | None, states: Tensor | None = None) -> None:
        """``encoder`` embeds the LQ, if the preset reads that; ``states`` (1, T, D) of the prompt."""
        super().__init__()
        self.model = model
        self.guided = stage == "reference"
        self._encoder = encoder
        self._states = states
        if self.guided and model.branch is None:
            model.attach_reference()
        model.trainable_parameters(stage)  # type: ignore[arg-type]  # the config allows these stages only

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what the stage unfroze."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def checkpoint_gradients(self) -> None:
        """Turn on diffusers' own gradient checkpointing."""
        self.model.gradient_checkpointing()

    def forward(self, batch: TrainingBatch) -> Tensor:
        """Restore a batch, with its references in the reference stage."""
        height, width = batch.hr.shape[-2:]
        enlarged = enlarge(batch.lq, (height, width))
        guided = self.guided and bool(batch.has_reference.any())
        reference, weights = batch.reference, batch.has_reference.to(enlarged.dtype)[:, None]
        if batch.confidence is not None:  # as in restoring: elsewhere the reference says nothing
            reference = fill_around(reference, batch.confidence, enlarged if batch.base is None else batch.base)
            weights = weights[..., None, None] * batch.confidence
        restored: Tensor = self.model(
            enlarged * 2 - 1,
            None if batch.base is None else batch.base * 2 - 1,
            reference * 2 - 1 if guided else None,
            weights if guided else None,
            self._context(batch),
        )
        return (restored + 1) / 2

    def export(self, path: Path, notes: Mapping[str, Any]) -> Path:
        """Write an adapter (stage reference) or a backbone."""
        save = save_adapter if self.guided else save_backbone
        return save(self.model, path, notes=dict(notes))

    def _context(self, batch: TrainingBatch) -> Tensor | None:
        if self._states is not None:
            return self._states.to(batch.lq.device, batch.lq.dtype).expand(len(batch.indices), -1, -1)
        if batch.embedding is not None:
            return batch.embedding.to(batch.lq.dtype)
        if self._encoder is None or batch.embedder_input is None:
            return None
        embedded = torch.from_numpy(self._encoder.embed(batch.embedder_input))
        return embedded.to(batch.lq.device, batch.lq.dtype)


def enlarge(lq: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge LQ (N, 3, h, w) to (height, width), as ``rasr.images.resize`` does in restoring."""
    # antialias=True selects the cubic that Pillow uses (a = −0.5); torch's plain bicubic is another one (−0.75).
    return F.interpolate(lq, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def build_trainable(
    config: TrainingConfig, device: torch.device, log: Callable[[str], None]
) -> tuple[RefDSRModel, Encoder | None]:
    """Build a config's model in fp32 with the weights of earlier stages, and its encoder.

    The backbone stage starts from fresh weights unless ``model.weights.backbone`` names a file; the reference stage
    takes that file or the preset's own weights. Raises ConfigError, also when those are untrained (the
    last convolution of a fresh UNet is zero and lets no gradient through), WeightsMissing or WeightsCorrupt.
    """
    preset, weights = config.model.read_preset(), config.model.weights
    backbone, adapter = weights.get("backbone"), weights.get("adapter")
    fresh = not config.guided and backbone is None and not preset.base
    states: Tensor | None = None
    sources = WeightPaths.find(
        preset, weights=backbone, adapter="none", base=weights.get("base"), checkpoint=weights.get("checkpoint")
    )
    if preset.base:
        model, prompts = load_stable_diffusion(preset, sources, Device(str(device), "fp32", "training"))
        if preset.context.kind == "text":
            # Clones: tensors made in inference mode cannot take part in training.
            states = prompts.states(preset.context.prompt).clone()
            model.null_context = model.null_context.clone()
    else:
        model = build_model(preset)
        if sources.backbone is not None and not fresh:
            load_backbone(model, sources.backbone)
    if config.model.zero_output:
        nn.init.zeros_(model.unet.conv_out.weight)
        nn.init.zeros_(model.unet.conv_out.bias)
    if config.guided and not sources.trained:
        raise ConfigError(
            f"stage 'reference' stands on a trained backbone, and '{preset.name}' has none here. Train 'backbone' "
            'first and name its file: [model.weights] backbone = "...safetensors"'
        )
    log(f"backbone: {preset.name}, {'fresh weights' if fresh else sources.described}")
    if adapter:
        load_adapter(model, Path(adapter))
        log(f"adapter to start from: {adapter}")
    encoder = None
    if preset.context.kind == "embedding":
        encoder = load_encoder(preset.context.encoder, device=str(device))
    return RefDSRModel(model, config.stage, encoder, states), encoder
