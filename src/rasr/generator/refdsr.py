"""RefDSR: the one-step diffusion network guided by references, and the codecs it works in.

    z  = E(x)                                x: the LQ picture at the output size, or what a cleaner made of it
    r  = E(reference)
    z' = rule(z, UNet(z, t, context; branch(r)))
    y  = D(z'),  or in the residual form  x + D(z') − D(z)

Pictures are (N, 3, H, W), RGB, in [-1, 1], with H and W multiples of :attr:`RefDSR.multiple`.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from rasr.errors import UsageError
from rasr.generator.config import ModelConfig, ReferenceConfig
from rasr.generator.controlnet import ControlBranch
from rasr.generator.protocol import SURE

ReferenceFeatures = Sequence[Any]
"""What the branch keeps of references, one entry each."""
TILE_ABOVE = 768 * 768
"""Pictures of more pixels pass through the autoencoder in diffusers' own overlapping tiles."""


class Codec(nn.Module):
    """Interface of an autoencoder: what RefDSR asks of one."""

    stride: int
    """Pixels per latent position."""
    channels: int
    """Channels of a latent."""

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Encode (N, 3, H, W) to (N, channels, H/stride, W/stride), scaled as the UNet expects."""
        raise NotImplementedError

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to pictures, not clamped."""
        raise NotImplementedError

    def decode_change(self, after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Compute D(after) − D(before), (N, 3, H, W)."""
        return self.decode(after) - self.decode(before)


class PatchCodec(Codec):
    """Lossless codec: a square of pixels becomes one position; no weights, next to no cost."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.stride = patch
        self.channels = 3 * patch * patch

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Unshuffle pixels."""
        return F.pixel_unshuffle(pictures, self.stride)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Shuffle pixels."""
        return F.pixel_shuffle(latents, self.stride)

    def decode_change(self, after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Decode once: D is linear."""
        return self.decode(after - before)


class AutoencoderCodec(Codec):
    """AutoencoderKL (Stable Diffusion) or AutoencoderTiny (TAESD) of diffusers.

    AutoencoderKL gives the posterior's mode, so that the same picture always gives the same latent; OSEDiff samples.
    """

    def __init__(self, model: Any, *, tiled: bool = True) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.channels = int(config.latent_channels)
        self.stride = 2 ** (len(config.block_out_channels) - 1)
        # TAESD's latents already are on the UNet's scale; its scaling_factor is 1.
        self.scaling = float(config.scaling_factor)
        self.tiled = tiled

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Take the posterior's mode, scaled."""
        self._tile(pictures.shape[-2] * pictures.shape[-1])
        encoded = self.model.encode(pictures)
        latents: torch.Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents * self.scaling

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode the unscaled latents."""
        self._tile(latents.shape[-2] * latents.shape[-1] * self.stride**2)
        decoded: torch.Tensor = self.model.decode(latents / self.scaling).sample
        return decoded

    def _tile(self, pixels: int) -> None:
        self.model.use_tiling = self.tiled and pixels > TILE_ABOVE and not self.training


class RefDSR(nn.Module):
    """Network of backbone, codec and reference branch. Build it with :func:`build_model`."""

    null_context: torch.Tensor

    def __init__(
        self,
        config: ModelConfig,
        unet: Any,
        codec: Codec,
        null_context: torch.Tensor,
        context_projection: nn.Module | None = None,
    ) -> None:
        """Take the parts; ``null_context`` (1, T, D) is no text, the projection reads embeddings."""
        super().__init__()
        self.config = config
        self.unet = unet
        self.codec = codec
        self.context_projection = context_projection
        self.register_buffer("null_context", null_context, persistent=False)
        self.branch: ControlBranch | None = None

    @property
    def multiple(self) -> int:
        """Number that sides must be multiples of: the codec's stride times the UNet's."""
        return int(self.codec.stride * 2 ** (len(self.unet.config.block_out_channels) - 1))

    def attach_reference(self, config: ReferenceConfig | None = None) -> ControlBranch:
        """Put a fresh branch, by default the preset's, in place; untrained, it changes nothing."""
        self.branch = branch = ControlBranch(self.unet, self.codec.channels, config or self.config.reference)
        return branch

    def forward(
        self,
        lq: torch.Tensor,
        base: torch.Tensor | None = None,
        references: torch.Tensor | ReferenceFeatures | None = None,
        reference_weights: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        strength: float = 1.0,
    ) -> torch.Tensor:
        """Restore a batch; pictures may be fp32 whatever the model's dtype.

        ``lq`` (N, 3, H, W) is the low-quality picture resampled to the output size, ``base`` a cleaner's output of the
        same shape. ``references`` are K pictures, (N, 3, H, W) or (N, K, 3, H, W), or what :meth:`encode_reference`
        made of them. ``reference_weights`` (N, K), (1, K) or (N,), by default 1/K, a row of zeros is a null reference;
        (N or 1, K, H, W) for registered ones, which count from place to place.
        ``context`` is (N, D) embeddings or (N, T, D) text states, None for none. ``strength`` scales what references
        add. Returns (N, 3, H, W), not clamped.
        """
        start = lq if base is None else base
        # The residual form adds to `start` in the caller's own precision: bf16 has 8 bits for a picture of 8 bits.
        latent = self.codec.encode(start.to(self.unet.dtype))
        sample = latent
        if self.config.sees_lq:
            other = latent if base is None else self.codec.encode(lq.to(self.unet.dtype))
            sample = torch.cat((latent, other), 1)
        prediction = self._predict(sample, context, references if strength else None, reference_weights, strength)
        restored = _one_step(self.config.rule, latent, prediction, self.config.alpha_bar)
        if self.config.residual_form:
            return start + self.codec.decode_change(restored, latent)
        return self.codec.decode(restored)

    def encode_reference(self, pictures: torch.Tensor) -> Any:
        """Encode references (M, 3, H, W) to one entry of features, for M = N pictures or 1 for all."""
        if self.branch is None:
            raise UsageError(f"{self.config.name} has no reference branch; attach one or load an adapter.")
        with torch.no_grad():  # the codec is frozen whenever a branch is trained
            latent = self.codec.encode(pictures)
        return self.branch.encode(latent)

    def _predict(
        self,
        sample: torch.Tensor,
        context: torch.Tensor | None,
        references: torch.Tensor | ReferenceFeatures | None,
        weights: torch.Tensor | None,
        strength: float,
    ) -> torch.Tensor:
        """Run the UNet. Without references the branch is not entered: the backbone, bit for bit."""
        timestep, states = self.config.timestep, self._read_context(context).expand(len(sample), -1, -1)
        injection: AbstractContextManager[dict[str, Any]] = nullcontext({})
        if isinstance(references, torch.Tensor):
            stacked = references if references.ndim == 5 else references.unsqueeze(1)
            references = [self.encode_reference(stacked[:, k]) for k in range(stacked.shape[1])]
        if references and self.branch is not None:
            if weights is None:
                weights = sample.new_full((1, len(references)), 1 / len(references))
            if weights.ndim == 4:
                weights = weights.expand(len(sample), -1, -1, -1) * strength
            else:
                weights = weights.reshape(-1, len(references)).expand(len(sample), -1) * strength
            null = self._read_context(None)
            injection = self.branch.inject(self.unet, sample, timestep, null, references, weights)
        with injection as extra:
            prediction: torch.Tensor = self.unet(sample, timestep, states, return_dict=False, **extra)[0]
        return prediction

    def _read_context(self, context: torch.Tensor | None) -> torch.Tensor:
        """Make what cross-attention reads, (N or 1, T, D), from text states or embeddings (N, D)."""
        states = self.null_context if context is None else context
        if states.ndim == 2:
            states = states.unsqueeze(1)
        return states if self.context_projection is None else self.context_projection(states)

    def trainable_parameters(self, stage: Literal["backbone", "reference"]) -> list[nn.Parameter]:
        """Unfreeze what ``stage`` trains, freeze everything else, and return it.

        ``backbone``: the UNet and the context projection; ``reference``: what the branch adds (zero convolutions,
        condition embedding and LoRA).
        """
        self.requires_grad_(False)
        if stage == "reference":
            chosen = list(self.reference_parameters().values())
        else:
            chosen = [p for part in (self.unet, self.context_projection) if part is not None for p in part.parameters()]
        for parameter in chosen:
            parameter.requires_grad_(True)
        return chosen

    def reference_parameters(self) -> dict[str, nn.Parameter]:
        """Collect the branch's own parameters by name: what an adapter holds. Empty without one."""
        if self.branch is None:
            return {}
        shared = {id(parameter) for parameter in self.unet.parameters()}
        return {name: p for name, p in self.branch.named_parameters() if id(p) not in shared}

    def gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute activations in the backward pass: less memory for a third more time."""
        for model in (self.unet, getattr(self.branch, "control", None)):
            if model is not None:
                (model.enable_gradient_checkpointing if enabled else model.disable_gradient_checkpointing)()


def fill_around(reference: torch.Tensor, confidence: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """A registered reference (N, C, H, W) where it is sure, and elsewhere ``start``, whose latent says nothing new.

    ``confidence`` is (N, 1, H, W), 0 to 1.
    """
    return start + (reference - start) * (confidence / SURE).clamp(max=1)


def _one_step(
    rule: Literal["eps", "residual"], latent: torch.Tensor, prediction: torch.Tensor, alpha_bar: float
) -> torch.Tensor:
    """Step from z to z' in closed form, given the UNet's answer; all are (N, C, h, w).

    ``eps``: z' = (z − √(1−ā)·ε) / √ā (Ho et al. 2020, eq. 15; used by OSEDiff at t = 999).
    ``residual``: z' = z − UNet(z) (PiSA-SR at t = 1).
    ``DDPMScheduler.step`` is not used: since diffusers 0.32 it raises IndexError for a one-step schedule at t = 999.
    """
    if rule == "residual":
        return latent - prediction
    return (latent - math.sqrt(1.0 - alpha_bar) * prediction) / math.sqrt(alpha_bar)


def build_model(config: ModelConfig) -> RefDSR:
    """Build the preset's network with seeded, untrained weights, fp32, on the CPU; no branch.

    The UNet's last convolution starts at zero, so that in the residual form the untrained model returns its input.
    """
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = UNet2DConditionModel(**config.unet)
        if config.residual_form:
            nn.init.zeros_(unet.conv_out.weight)
            nn.init.zeros_(unet.conv_out.bias)
        width = unet.config.cross_attention_dim
        projection, null = None, torch.zeros(1, 77, width)
        if config.context.kind == "embedding":
            projection = nn.Linear(config.context.dimension, width)
            null = torch.zeros(1, 1, config.context.dimension)
    model = RefDSR(config, unet, PatchCodec(config.codec.patch), null, projection)
    return model.requires_grad_(False).eval()
