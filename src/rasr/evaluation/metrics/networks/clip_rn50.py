"""CLIP's ResNet-50 and text transformer (Radford et al. 2021), with OpenAI's tensor names."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self._stride = stride
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Strides are average pools before a convolution of stride 1, in both branches.
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(F.avg_pool2d(y, self._stride)))
        if self.downsample is not None:
            x = self.downsample(F.avg_pool2d(x, self._stride))
        return F.relu(x + y)


class _AttentionPool(nn.Module):
    def __init__(self, width: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, outputs)
        self._heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend from the mean to all positions; without positions embedded, any size will do."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(*y.shape[:2], self._heads, -1).transpose(1, 2)

        query, key, value = (
            heads(self.q_proj(tokens[:, :1])),
            heads(self.k_proj(tokens)),
            heads(self.v_proj(tokens)),
        )
        pooled = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return torch.as_tensor(self.c_proj(pooled)[:, 0])


class _Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.layer1, self.layer2 = _stage(64, 64, 3, 1), _stage(256, 128, 4, 2)
        self.layer3, self.layer4 = _stage(512, 256, 6, 2), _stage(1024, 512, 3, 2)
        self.attnpool = _AttentionPool(2048, 32, 1024)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(norm(conv(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(F.avg_pool2d(x, 2)))))
        return torch.as_tensor(self.attnpool(x))


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [_Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(_Bottleneck(inputs, width, stride), *rest)


class _QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class _TextBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=_QuickGELU(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        later = torch.full((x.shape[1], x.shape[1]), float("-inf"), device=x.device).triu(1)
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=later)[0]
        return x + torch.as_tensor(self.mlp(self.ln_2(x)))


class ClipRN50(nn.Module):
    """Both towers; outputs are unit vectors of 1024 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = _Visual()
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*[_TextBlock(512, 8) for _ in range(12)])})
        self.token_embedding = nn.Embedding(49408, 512)
        self.positional_embedding = nn.Parameter(torch.zeros(77, 512))
        self.ln_final = nn.LayerNorm(512)
        self.text_projection = nn.Parameter(torch.zeros(512, 1024))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), normalised, any size of at least 32 → (N, 1024)."""
        return F.normalize(self.visual(pictures), dim=1)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """(L,) tokens from start to end → (1024,); the end cannot see padding, so there is none."""
        x = self.token_embedding(tokens) + self.positional_embedding[: len(tokens)]
        x = self.ln_final(self.transformer["resblocks"](x[None]))
        return F.normalize(x[0, -1] @ self.text_projection, dim=0)
