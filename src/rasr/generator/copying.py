"""Copying reference branch: fine structure that is really there is moved, not drawn anew.

Places are found by layout (:mod:`matching`, nothing trained), the reference's detail is taken from there as it is, and
a small network decides position by position how far it, mended a little, replaces the picture's own. All that the
branch can do goes through this one gate: what could be done without a reference is the backbone's, and a branch that
may do it does it for every reference alike. Known form: texture transfer with a confidence map (TTSR, Yang et al., CVPR
2020). For the patch codec: its latents are pixels. The gate's scale starts at zero: untrained, it changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from rasr.generator.config import ReferenceConfig
from rasr.generator.matching import CELL, GRID, Layout, find_matches, gaussian_blur, read_layout

DEVIATION = 2.0
"""Of the Gaussian, in pixels, above whose frequencies a picture's detail begins."""
COHERENCE_RANGE = (0.28, 0.50)
"""Coherence of the matches between which they count for nothing and in full. Of the places found in photos of other
scenes 95 in 100 stay below 0.28, in another photo of the same scene 95 in 100 reach 0.57: docs/decisions.md."""
MATCH_FEATURES = 8
"""Numbers that the gate reads of a match: two energies, likeness, three colour differences, two scores."""


@dataclass(frozen=True, slots=True)
class _EncodedReference:
    """Features of references (M, 3, H, W): what is kept of them."""

    layout: Layout
    cells: torch.Tensor
    """Detail and mean colour of the 4-pixel cell at every second pixel, (M, 51, h, w)."""


class CopyBranch(nn.Module):
    """Gated copying, with a small network that mends what was copied."""

    def __init__(self, unet: Any, latent_channels: int, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
        self.latent = latent_channels
        features, width = unet.config.block_out_channels[0], config.width
        self.squeeze = nn.Conv2d(features, width, 1)
        self.fit = nn.Conv2d(MATCH_FEATURES, width, 1)
        self.look = nn.Conv2d(width, width, 3, padding=1)
        self.gate = nn.Conv2d(width, 1, 3, padding=1)
        self.scale = nn.Parameter(torch.zeros(1))
        self.both = nn.Conv2d(2 * latent_channels, width, 1)
        self.mend = nn.Conv2d(width, width, 3, padding=1)
        self.draw = nn.Conv2d(width, latent_channels, 1)
        for parameter in self.draw.parameters():
            nn.init.zeros_(parameter)
        self.to(next(unet.parameters()).device, next(unet.parameters()).dtype)

    def encode(self, latent: torch.Tensor) -> _EncodedReference:
        """Read layout and cells of references from their latent (M, 48, h, w)."""
        with torch.no_grad(), torch.autocast(latent.device.type, enabled=False):
            pictures = F.pixel_shuffle(latent.float(), CELL)
            return _EncodedReference(read_layout(pictures), _cells(pictures, GRID))

    @contextmanager
    def inject(
        self,
        unet: Any,
        sample: torch.Tensor,
        timestep: int,
        null_context: torch.Tensor,
        references: Sequence[_EncodedReference],
        weights: torch.Tensor,
    ) -> Iterator[dict[str, Any]]:
        """While open, change the UNet's answer by what is copied from the K ``references``.

        Every position takes from the reference that fits it best; ``weights`` (N, K) are already times strength, and
        their sum is how much of the change is made.
        """
        with torch.no_grad(), torch.autocast(sample.device.type, enabled=False):
            picture = F.pixel_shuffle(sample[:, : self.latent].float(), CELL)
            own = _cells(picture, CELL)
            copied, scores = self._fetch(picture, references, weights)
        features: list[torch.Tensor] = []

        def keep(block: Any, _args: object, output: Any) -> None:
            features.append(output[1][len(block.resnets) - 1])

        def change(_layer: nn.Module, _args: object, answer: torch.Tensor) -> torch.Tensor:
            # The answer is what is taken away from the latent (rule `residual`).
            added: torch.Tensor = self(own, copied, scores, features.pop())
            return answer - weights.sum(1).view(-1, 1, 1, 1) * added

        handles = [unet.down_blocks[0].register_forward_hook(keep), unet.conv_out.register_forward_hook(change)]
        try:
            yield {}
        finally:
            for handle in handles:
                handle.remove()

    def forward(
        self, own: torch.Tensor, copied: torch.Tensor, scores: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """Compute what is added to the picture's latent, (N, 48, h, w), fp32.

        ``own`` and ``copied`` (N, 51, h, w) are detail and mean colours of the picture's cells and of their matches,
        ``scores`` (N, 3, h, w) the matches' cosines, wide windows first, and coherence, ``features`` the UNet's on the
        same grid.
        """
        (mine, my_mean), (its, its_mean) = (torch.split(part, [self.latent, 3], 1) for part in (own, copied))
        energy = [part.square().mean(1, keepdim=True) + 1e-6 for part in (mine, its)]
        likeness = (mine * its).mean(1, keepdim=True) / (energy[0] * energy[1]).sqrt()
        match = torch.cat(
            (*(e.log() / 4 + 2 for e in energy), likeness, (my_mean - its_mean).abs() * 4, scores[:, :2]), 1
        )
        hidden = F.silu(self.squeeze(features) + self.fit(match.to(features.dtype)))
        hidden = F.silu(self.look(hidden))
        low, high = COHERENCE_RANGE
        coherent = ((scores[:, 2:] - low) / (high - low)).clamp(0, 1)
        gate = self.gate(hidden).sigmoid().float() * self.scale.float() * coherent
        drawn = self.both(10 * torch.cat((mine, its), 1).to(features.dtype))
        drawn = self.draw(F.silu(self.mend(F.silu(drawn + hidden)))).float() / 10
        change: torch.Tensor = gate * (its - mine + drawn)
        return change

    def _fetch(
        self, picture: torch.Tensor, references: Sequence[_EncodedReference], weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fetch each cell's best match: detail and mean (N, 51, h, w), and scores (N, 3, h, w)."""
        grid = (picture.shape[2] // CELL, picture.shape[3] // CELL)
        best: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        for k, reference in enumerate(references):
            match = find_matches(picture, reference.layout)
            scores = torch.stack((match.coarse, match.fine, match.coherence), 1)
            places = match.places[:, None].expand(-1, reference.cells.shape[1], -1)
            cells = reference.cells.expand(len(picture), -1, -1, -1).flatten(2).gather(2, places)
            fit = scores.sum(1, keepdim=True).where(weights[:, k].view(-1, 1, 1) > 0, -torch.inf)
            if best is not None:
                better = fit > best[0]
                fit, cells, scores = (
                    torch.where(better, *pair) for pair in zip((fit, cells, scores), best, strict=True)
                )
            best = fit, cells, scores
        assert best is not None  # noqa: S101 - there is always a reference
        cells, scores = (part.reshape(*part.shape[:2], *grid) for part in best[1:])
        return cells, scores


def _cells(pictures: torch.Tensor, grid: int) -> torch.Tensor:
    """Describe cells ``grid`` pixels apart by detail and mean colour: (N, 51, H/grid, W/grid)."""
    colours = torch.stack([part.mean(1) for part in _squares(pictures, CELL, grid).chunk(3, 1)], 1)
    return torch.cat((_squares(_detail(pictures), CELL, grid), colours), 1)


def _squares(pictures: torch.Tensor, side: int, grid: int) -> torch.Tensor:
    """Cut squares ``grid`` pixels apart, edges repeated: (N, C · side², H/grid, W/grid).

    The order within a square is pixel-unshuffle's, so that the patch codec's latents are ``_squares(x, 4, 4)``.
    """
    height, width = pictures.shape[2] // grid, pictures.shape[3] // grid
    padded = F.pad(pictures, (0, side - grid, 0, side - grid), mode="replicate")
    return F.unfold(padded, side, stride=grid).view(len(pictures), -1, height, width)


def _detail(pictures: torch.Tensor) -> torch.Tensor:
    """Extract the fine structure of (N, 3, H, W): what a Gaussian takes away."""
    return pictures - gaussian_blur(pictures, DEVIATION)
