"""The attention variant of the reference branch: the decoder looks up what it needs in the reference.

An additive residual is tied to position, while a reference shows the same kind of thing somewhere else in the frame.
Here each of the deepest decoder blocks is followed by an attention from the LQ's positions to the reference's. Both
sides come from the same frozen encoder half, so that similar places have similar features before anything is trained.

Deep levels are searched everywhere. A level of many positions (128 × 128 for a 512² picture on a stride of 4) is
searched in a small window around each position's best match one level deeper, as in C2-Matching and TTSR: the search
stays linear in the number of positions where the texture is. There the reference is also searched moved by fractions of
a position, so that what is copied lies where it should.

The gate is AdaRefSR's: a few learned tokens summarise the reference, and each position's mean similarity to the
summaries, through a sigmoid, scales what it takes. We add the position's best similarity to the reference, which tells
a true match from a merely related picture. The output projection starts at zero: untrained, the branch changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from rasr.errors import ConfigError
from rasr.generator.config import ReferenceConfig
from rasr.generator.encoder_half import tied_controlnet

__all__ = ["AttentionBranch", "Blend", "ReferenceAttention", "Remembered"]

CHUNK = 2**24
"""Similarities held at once while nothing is trained (64 MB in fp32); bounds the memory of a search."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What one attention keeps of a reference."""

    keys: tuple[torch.Tensor, ...]
    """One for each phase, (M, d, h, w), of unit length."""
    values: tuple[torch.Tensor, ...]
    """One for each phase, (M, width, h, w)."""
    summaries: torch.Tensor
    """(M, T, d), of unit length."""


class AttentionBranch(nn.Module):
    """The tied encoder half that reads the reference, and one attention for each guided decoder block."""

    def __init__(self, unet: Any, latent_channels: int, config: ReferenceConfig) -> None:
        super().__init__()
        depth = len(unet.up_blocks)
        if config.blocks >= depth:
            raise ConfigError(f"control = 'attention' can guide at most {depth - 1} of {depth} decoder blocks.")
        self.config = config
        self.copies = unet.config.in_channels // latent_channels
        self.levels = tuple(depth - 2 - index for index in range(config.blocks))
        """The encoder level on whose grid decoder block i's output lies; deepest first."""
        self.control = tied_controlnet(unet, latent_channels, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha)
        self.control.down_blocks = self.control.down_blocks[: self.levels[0] + 1]
        self.control.down_blocks[-1].downsamplers = None
        self.control.controlnet_down_blocks = nn.ModuleList()
        for unused in ("mid_block", "controlnet_mid_block", "controlnet_cond_embedding"):
            setattr(self.control, unused, None)
        device, dtype = next((p.device, p.dtype) for p in unet.parameters())
        widths = unet.config.block_out_channels
        self.attentions = nn.ModuleList(
            ReferenceAttention(
                features=widths[level],
                latent=latent_channels if level == 0 else 0,
                hidden=unet.up_blocks[index].resnets[-1].out_channels,
                local=level in config.local_levels,
                config=config,
            )
            for index, level in enumerate(self.levels)
        ).to(device, dtype)
        if config.direct:
            self.direct = Blend(unet.config.out_channels, widths[self.levels[-1]], config.width).to(device, dtype)

    def _attention(self, index: int) -> ReferenceAttention:
        return cast("ReferenceAttention", self.attentions[index])

    def encode(
        self, latents: Sequence[torch.Tensor], timestep: int, null_context: torch.Tensor
    ) -> tuple[Remembered, ...]:
        """Keys, values and summaries of references on every guided level, from their latents in every phase."""
        every: list[list[torch.Tensor]] = [[] for _ in self.levels]
        for phase, latent in enumerate(latents):
            sample, context = latent.repeat(1, self.copies, 1, 1), null_context.expand(len(latent), -1, -1)
            # Other phases serve the local levels only, and those are the finest.
            depth = len(self.control.down_blocks) if phase == 0 else max(self.config.local_levels) + 1
            features = _encoder_features(self.control, sample, timestep, context, depth)
            if not self.config.lora_rank:
                # Nothing of the branch is in them. When the backbone is trained too, it learns as the LQ's reader.
                features = [level.detach() for level in features]
            for index, level in enumerate(self.levels):
                if phase == 0 or level in self.config.local_levels:
                    every[index].append(torch.cat((features[level], latent), 1) if level == 0 else features[level])
        return tuple(self._attention(index).remember(contents) for index, contents in enumerate(every))

    @contextmanager
    def guiding(
        self,
        unet: Any,
        sample: torch.Tensor,
        timestep: int,
        null_context: torch.Tensor,
        bank: Sequence[tuple[Remembered, ...]],
        weights: torch.Tensor,
    ) -> Iterator[dict[str, Any]]:
        """While open, the UNet's guided decoder blocks look into the ``bank`` of K references.

        ``weights`` (N, K) are already times strength. The hooks are removed on leaving, so that the backbone's own
        forward stays what it was.
        """
        features: dict[int, torch.Tensor] = {}
        matches: dict[int, torch.Tensor] = {}
        finest: list[tuple[torch.Tensor, torch.Tensor]] = []

        def keep(level: int) -> Any:
            def hook(block: Any, _args: object, output: Any) -> None:
                features[level] = _features(block, output)

            return hook

        def look_up(index: int, level: int) -> Any:
            def hook(_block: nn.Module, _args: object, hidden: torch.Tensor) -> torch.Tensor:
                attention = self._attention(index)
                query = attention.ask(features[level])
                result = hidden
                for k, remembered in enumerate(bank):
                    taken, trust, matches[k] = attention.look_up(query, remembered[index], matches.get(k))
                    trust = trust * weights[:, k].view(-1, 1, 1, 1)
                    result = result + trust * attention(hidden, features[level], taken)
                    if index == len(self.levels) - 1:
                        finest.append((taken, trust))
                return result

            return hook

        def change_answer(_layer: nn.Module, _args: object, answer: torch.Tensor) -> torch.Tensor:
            changes = [trust * self.direct(answer, features[self.levels[-1]], taken) for taken, trust in finest]
            return answer + torch.stack(changes).sum(0)

        handles = [unet.down_blocks[level].register_forward_hook(keep(level)) for level in self.levels]
        handles += [
            unet.up_blocks[index].register_forward_hook(look_up(index, level))
            for index, level in enumerate(self.levels)
        ]
        if self.config.direct:
            handles.append(unet.conv_out.register_forward_hook(change_answer))
        try:
            yield {}
        finally:
            for handle in handles:
                handle.remove()


class Blend(nn.Module):
    """What to add to ``hidden`` given what was taken from the reference: starts as nothing."""

    def __init__(self, hidden: int, features: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(hidden + features, width, 1)
        self.fuse = nn.Conv2d(2 * width, width, 3, padding=1)
        self.project = nn.Conv2d(width, hidden, 1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

    def forward(self, hidden: torch.Tensor, features: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
        """(N, hidden, h, w) from ``hidden``, the LQ's encoder ``features`` and ``taken`` (N, width, h, w)."""
        own = self.squeeze(torch.cat((hidden, features), 1))
        blended: torch.Tensor = self.project(F.silu(self.fuse(torch.cat((own, taken), 1))))
        return blended


class ReferenceAttention(nn.Module):
    """One gated attention from the LQ's positions to a reference's, on one grid."""

    def __init__(self, *, features: int, latent: int, hidden: int, local: bool, config: ReferenceConfig) -> None:
        super().__init__()
        self.local, self.window = local, config.window
        self.norm = nn.GroupNorm(1, features, affine=False)
        self.query = nn.Conv2d(features, config.dimension, 1, bias=False)
        self.key = nn.Conv2d(features, config.dimension, 1, bias=False)
        self.key.load_state_dict(self.query.state_dict())  # alike places look alike from the start
        self.value = nn.Conv2d(features + latent, config.width, 1)
        self.sharpness = nn.Parameter(torch.tensor(3.0))
        """Logarithm of what cosines are multiplied with before the softmax."""
        self.summarise = nn.Parameter(torch.randn(config.summaries, config.dimension))
        self.gate = nn.Parameter(torch.tensor([1.0, 4.0, -2.0]))
        """Weights of mean similarity to the summaries and of the best similarity, and the bias."""
        if local:
            self.offsets = nn.Parameter(torch.zeros(4, config.phases**2 * config.window**2))
            """Preference of each of a cell's four positions for the positions of the windows, phase by phase."""
        self.blend = Blend(hidden, features, config.width)

    def remember(self, contents: Sequence[torch.Tensor]) -> Remembered:
        """What is kept of references from ``contents``, one (M, C, h, w) for each phase.

        Those are the encoder's features, on the finest grid with the latent behind them.
        """
        keys = tuple(self.ask(content[:, : self.query.in_channels], self.key) for content in contents)
        flat = keys[0].flatten(2)
        summaries = (F.normalize(self.summarise, dim=-1) @ flat * self.sharpness.exp()).softmax(-1) @ flat.mT
        return Remembered(keys, tuple(map(self.value, contents)), F.normalize(summaries, dim=-1))

    def ask(self, features: torch.Tensor, projection: nn.Module | None = None) -> torch.Tensor:
        """Queries (N, d, h, w) of unit length from the LQ's features on the same level."""
        return F.normalize((projection or self.query)(self.norm(features)), dim=1)

    def forward(self, hidden: torch.Tensor, features: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
        """What to add to ``hidden`` (N, C, h, w), before the gate."""
        blended: torch.Tensor = self.blend(hidden, features, taken)
        return blended

    def look_up(
        self, query: torch.Tensor, reference: Remembered, coarse: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What each position takes (N, width, h, w), its gate (N, 1, h, w) in 0..1, and its match (N, h·w).

        A match is an index into the reference's positions; ``coarse`` are those of the next coarser level. A local
        search passes them on.
        """
        if self.local:
            if coarse is None:
                raise ValueError("a local search needs the matches of the next coarser level")
            taken, best = self._search_near(query, reference, coarse)
        else:
            taken, best, coarse = self._search_all(query, reference)
        summaries = reference.summaries.expand(len(query), -1, -1)
        # The gate may not train the search: shutting itself by making everything unlike is the easiest way to a lower
        # loss while nothing useful is copied yet, and then nothing useful is ever found (measured, docs/decisions.md).
        likeness = torch.einsum("ndhw,ntd->nhw", query.detach(), summaries).unsqueeze(1) / summaries.shape[1]
        trust = torch.sigmoid(self.gate[0] * likeness + self.gate[1] * best.detach() + self.gate[2])
        return taken, trust, coarse

    def _search_all(
        self, query: torch.Tensor, reference: Remembered
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Every position against the whole reference."""
        count, _, height, width = query.shape
        keys, values = reference.keys[0].flatten(2), reference.values[0].flatten(2).mT
        positions = query.flatten(2).mT
        step = positions.shape[1] if torch.is_grad_enabled() else max(1, CHUNK // (count * keys.shape[2]))
        taken, best, match = [], [], []
        for part in torch.split(positions, step, 1):
            similarity = part @ keys
            top = similarity.max(-1)
            best.append(top.values)
            match.append(top.indices)
            taken.append((similarity * self.sharpness.exp()).softmax(-1) @ values)
        grid = (count, -1, height, width)
        return torch.cat(taken, 1).mT.reshape(grid), torch.cat(best, 1).reshape(grid), torch.cat(match, 1)

    def _search_near(
        self, query: torch.Tensor, reference: Remembered, coarse: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Each 2 × 2 cell of positions against a window around the match of its position on the coarser grid."""
        count, depth, height, width = query.shape
        grid = (count, -1, height // 2, width // 2)
        cells = F.pixel_unshuffle(query, 2).reshape(count, depth, 4, -1).permute(0, 3, 2, 1)
        places = _windows(coarse, reference.keys[0].shape, self.window)
        found = [cells @ _rows(keys, places).mT for keys in reference.keys]
        similarity = torch.cat(found, -1)
        attention = (similarity * self.sharpness.exp() + self.offsets).softmax(-1)
        taken = torch.zeros((), dtype=query.dtype, device=query.device)
        for part, values in zip(attention.chunk(len(found), -1), reference.values, strict=True):
            taken = taken + part @ _rows(values, places)
        best = similarity.amax(-1).permute(0, 2, 1)
        return F.pixel_shuffle(taken.permute(0, 3, 2, 1).reshape(grid), 2), F.pixel_shuffle(best.reshape(grid), 2)


def _windows(coarse: torch.Tensor, shape: torch.Size, side: int) -> torch.Tensor:
    """Positions (N, L, side²) of a reference of ``shape`` (M, C, h, w) around matches (N, L) on the grid half as fine.

    A cell's four positions lie in the window's middle; at the reference's edges positions repeat. With M = N each
    sample's positions count from its own reference, with M = 1 all from the one.
    """
    count, _, height, width = shape
    reach = torch.arange(side, device=coarse.device) - (side - 2) // 2
    top, left = 2 * (coarse // (width // 2)), 2 * (coarse % (width // 2))
    rows = (top.unsqueeze(-1) + reach).clamp(0, height - 1)
    columns = (left.unsqueeze(-1) + reach).clamp(0, width - 1)
    own = torch.arange(count, device=coarse.device).view(-1, 1, 1, 1) * height * width
    return (own + rows.unsqueeze(-1) * width + columns.unsqueeze(-2)).flatten(2)


def _rows(planes: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(M, C, h, w) at ``places`` (N, L, S) → (N, L, S, C)."""
    return F.embedding(places, planes.permute(0, 2, 3, 1).reshape(-1, planes.shape[1]))


def _encoder_features(
    control: Any,
    sample: torch.Tensor,
    timestep: int,
    context: torch.Tensor,
    depth: int,
) -> list[torch.Tensor]:
    """The first ``depth`` down blocks' features before their downsamplers; level i is 2^i coarser than the latent."""
    steps = torch.full((len(sample),), timestep, device=sample.device)
    embedding = control.time_embedding(control.time_proj(steps).to(sample.dtype))
    hidden, features = control.conv_in(sample), []
    for block in control.down_blocks[:depth]:
        reads = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
        hidden, outputs = block(hidden, embedding, **reads)
        features.append(_features(block, (hidden, outputs)))
    return features


def _features(block: Any, output: tuple[torch.Tensor, Sequence[torch.Tensor]]) -> torch.Tensor:
    """A down block's last layer, before its downsampler, from what the block returns."""
    return output[1][len(block.resnets) - 1]
