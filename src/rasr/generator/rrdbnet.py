"""Real-ESRGAN x4plus as a torch module, from the same packaged weights that ncnn runs.

ncnn is what restoring uses on the CPU, and on GPUs that only Vulkan reaches: it needs no torch. Where torch has a GPU
this one runs there, beside nothing on the CPU. Training wants pictures by the thousand, in batches, on the device it
trains on; there this one is several times faster (bf16 on a CPU with AMX: 1.6 s for 128 → 512 px against 4.1 s). In
fp32 both give the same picture to 1e-5.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rasr.device import choose_device
from rasr.errors import RasrError
from rasr.generator.protocol import DEFAULT_DETAIL, Batch, Conditioning
from rasr.generator.realesrgan import RealESRGAN, detail_of, dialled, read_convolutions, weight_files

BLOCKS, DENSE = 23, 3


class RRDBNet(nn.Module):
    """ESRGAN's 23 residual-in-residual dense blocks and two enlargements (Wang et al. 2018)."""

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Take 351 convolutions in order of use: weights (O, I, 3, 3) and biases (O,)."""
        super().__init__()
        self.layers = nn.ModuleList()
        for weight, bias in layers:
            convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            convolution.load_state_dict({"weight": weight, "bias": bias})
            self.layers.append(convolution)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Enlarge (N, 3, h, w) in [0, 1] to (N, 3, 4h, 4w), not clamped."""
        return self.finish(*self.begin(pictures, BLOCKS), BLOCKS)

    def begin(self, pictures: torch.Tensor, blocks: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute features (N, 64, h, w) of the first convolution and after so many blocks."""
        layers = iter(self.layers[: 1 + 5 * DENSE * blocks])
        first = next(layers)(pictures)
        trunk = first
        for _ in range(blocks):
            trunk = _block(trunk, layers)
        return first, trunk

    def finish(self, first: torch.Tensor, trunk: torch.Tensor, blocks: int) -> torch.Tensor:
        """Compute the picture from what :meth:`begin` gave."""
        layers = iter(self.layers[1 + 5 * DENSE * blocks :])
        for _ in range(BLOCKS - blocks):
            trunk = _block(trunk, layers)
        trunk = first + next(layers)(trunk)
        for _ in range(2):
            trunk = _leaky(next(layers)(F.interpolate(trunk, scale_factor=2.0, mode="nearest")))
        trunk = _leaky(next(layers)(trunk))
        restored: torch.Tensor = next(layers)(trunk)
        return restored


class TorchRealESRGAN(RealESRGAN):
    """Real-ESRGAN as torch runs it, for GPUs that torch has (CUDA, ROCm, Apple's)."""

    def __init__(self, *, device: str = "auto", dtype: str = "auto", **options: Any) -> None:
        """Choose everything, load nothing: the device is torch's, the options are those of :class:`RealESRGAN`.

        ``dtype`` is auto (fp32), fp32, bf16 or fp16. Raises UsageError for a device or dtype that cannot be had.
        """
        self._device = choose_device(device, "fp32" if dtype == "auto" else dtype)
        super().__init__(device="cpu", **options)
        self.info = replace(self.info, device=str(self._device))

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """Enlarge (N, H, W, 3) to (N, 4H, 4W, 3). Raises torch's out-of-memory error."""
        network = self._network(detail_of(conditioning))
        x = torch.from_numpy(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2), np.float32))
        with torch.inference_mode():
            y = network(x.to(self._device.device, self._device.dtype)).float()
        if not bool(torch.isfinite(y).all()):
            raise RasrError(f"Real-ESRGAN gave invalid numbers on {self.info.device}. Use --device cpu.")
        return np.ascontiguousarray(y.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy())

    def _load(self, detail: float) -> RRDBNet:
        network = load_rrdbnet(self._folder, tuned=self._tuned, detail=detail)
        return network.to(self._device.device, self._device.dtype)


def load_rrdbnet(folder: Path | None = None, *, tuned: Path | None = None, detail: float = DEFAULT_DETAIL) -> RRDBNet:
    """Load the packaged network, frozen, fp32, on the CPU.

    Layers in the file ``tuned`` take the place of its own, at the place ``detail`` of the dial. Raises WeightsMissing
    or WeightsCorrupt.
    """
    layers = [(c.weight, c.bias) for c in read_convolutions(*weight_files(folder))]
    for number, layer in (dialled(layers, tuned, detail) if tuned else {}).items():
        layers[number] = layer
    return RRDBNet([(torch.from_numpy(w), torch.from_numpy(b)) for w, b in layers]).eval().requires_grad_(False)


def _block(features: torch.Tensor, layers: Iterator[nn.Module]) -> torch.Tensor:
    block = features
    for _ in range(DENSE):
        seen = [block]
        for _ in range(4):
            seen.append(_leaky(next(layers)(torch.cat(seen, 1))))
        block = block + 0.2 * next(layers)(torch.cat(seen, 1))
    return features + 0.2 * block


def _leaky(features: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(features, 0.2)
