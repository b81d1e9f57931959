"""MUSIQ's network (Ke et al., ICCV 2021): a transformer over patches at three sizes.

Tensor names are those of IQA-PyTorch's conversion of the Apache-2.0 release of google-research.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

_PATCH, _GRID, _LONG_SIDES = 32, 10, (224, 384)


def _same(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """TensorFlow's SAME padding: what does not divide evenly goes to the right and the bottom."""
    pads = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[2:]]
    return F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))


class _StandardisedConv(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(_same(x, self.kernel_size[0], self.stride[0]), weight, None, self.stride)


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> _StandardisedConv:
    return _StandardisedConv(inputs, outputs, size, stride, bias=False)


class _Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.gn1 = _conv(64, 64, 1), nn.GroupNorm(32, 64, eps=1e-4)
        self.conv2, self.gn2 = _conv(64, 64, 3), nn.GroupNorm(32, 64, eps=1e-4)
        self.conv3, self.gn3 = _conv(64, 256, 1), nn.GroupNorm(32, 256, eps=1e-4)
        self.conv_proj, self.gn_proj = _conv(64, 256, 1), nn.GroupNorm(32, 256, eps=1e-4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.gn2(self.conv2(F.relu(self.gn1(self.conv1(x))))))
        return F.relu(self.gn3(self.conv3(y)) + self.gn_proj(self.conv_proj(x)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self._heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            projection(x).view(1, x.shape[1], self._heads, -1).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return torch.as_tensor(self.out(mixed))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = _Attention(width, 6)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(width, 1152), gelu=nn.GELU(), fc2=nn.Linear(1152, width)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + torch.as_tensor(self.mlp(self.norm2(x)))


class _Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.posembed_input = nn.ParameterDict({"position_emb": torch.zeros(1, _GRID * _GRID, width)})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": torch.zeros(len(_LONG_SIDES) + 1, width)})
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.transformer = nn.ModuleDict({f"encoderblock_{i}": _Block(width) for i in range(14)})

    def forward(self, x: torch.Tensor, places: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        x = x + self.posembed_input["position_emb"][:, places] + self.scaleembed_input["scale_emb"][scales]
        x = torch.cat([self.cls, x], 1)
        for block in self.transformer.values():
            x = block(x)
        return torch.as_tensor(self.encoder_norm(x)[:, 0])


class MusiqNetwork(nn.Module):
    """One picture (1, 3, H, W) in [-1, 1] → its mean opinion score, 0..100."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_root, self.gn_root = _conv(3, 64, 7, 2), nn.GroupNorm(32, 64, eps=1e-6)
        self.block1 = _Bottleneck()
        self.embedding = nn.Linear(256 * (_PATCH // 4) ** 2, 384)
        self.transformer_encoder = _Encoder(384)
        self.head = nn.Linear(384, 1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """The score, a tensor of one number."""
        patches, places, scales = [], [], []
        for scale, version in enumerate(_versions(picture)):
            cut, place = _patches(version)
            patches.append(cut)
            places.append(place)
            scales.append(torch.full_like(place, scale))
        x = F.relu(self.gn_root(self.conv_root(torch.cat(patches))))
        x = self.block1(F.max_pool2d(_same(x, 3, 2), 3, 2))
        tokens = self.embedding(x.permute(0, 2, 3, 1).flatten(1))[None]  # channels last, as in TensorFlow
        return torch.as_tensor(self.head(self.transformer_encoder(tokens, torch.cat(places), torch.cat(scales)))[0, 0])


def _versions(picture: torch.Tensor) -> list[torch.Tensor]:
    """Long side 224, 384, and as it is; shrunk without antialiasing, as for the conversion."""
    height, width = picture.shape[2:]
    versions = []
    for side in _LONG_SIDES:
        ratio = side / max(height, width)
        size = (round(height * ratio), round(width * ratio))
        versions.append(F.interpolate(picture, size, mode="bicubic", align_corners=False))
    return [*versions, picture]


def _patches(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All patches (N, 3, 32, 32) in rows, and their cells (N,) on the 10×10 grid of positions."""
    padded = _same(picture, _PATCH, _PATCH)
    rows, columns = padded.shape[2] // _PATCH, padded.shape[3] // _PATCH
    patches = F.unfold(padded, _PATCH, stride=_PATCH)[0].T.reshape(-1, 3, _PATCH, _PATCH)
    grid = torch.arange(_GRID, dtype=torch.float32, device=picture.device)[None, None]
    row = F.interpolate(grid, rows, mode="nearest")[0, 0].long()
    column = F.interpolate(grid, columns, mode="nearest")[0, 0].long()
    return patches, (row[:, None] * _GRID + column[None]).flatten()
