"""Frozen feature networks for the losses, and proof of which weights were used.

EfficientNet-Lite1 and -Lite2 come with installed packages. VGG-16 and DINO ViT-B/16 are read from a local file or
folder, or from the hub's cache. Lite0 is not offered: the evaluation measures with it, and a network that trains must
not measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rasr.errors import ConfigError, WeightsCorrupt
from rasr.weights import load_pretrained, load_strictly, read_weights, require, serving, variant, weights_sha256
from rasr.weights.locate import require_files

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FeatureNetwork(nn.Module):
    """Frozen network: pictures (N, 3, H, W) in [0, 1] to maps (N, C, h, w) or vectors (N, C)."""

    mean: Tensor
    std: Tensor
    name = source = sha256 = ""
    """What it is, where its weights are from, and their hash: set when they are loaded."""

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def described(self) -> str:
        """Line for the log: what it is, from where, which weights."""
        return f"{self.name} from {self.source}, sha256 {self.sha256[:16]}"

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return features in fp32, shallow to deep."""
        return [level.float() for level in self.features((pictures - self.mean) / self.std)]

    def features(self, normalised: Tensor) -> list[Tensor]:
        """Return features of pictures on the network's own scale."""
        raise NotImplementedError

    def freeze(self) -> FeatureNetwork:
        """Set evaluation mode for good: no gradient reaches the weights, batch statistics stay."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Stay in evaluation mode whatever the model around it does."""
        return super().train(False)


class EfficientNetLite(FeatureNetwork):
    """EfficientNet-Lite: the last map at each of the strides 2, 4, 8, 16 and 32."""

    def __init__(self, network: Any) -> None:
        super().__init__((127 / 255,) * 3, (128 / 255,) * 3)
        self.network = _folded(network)
        last_of_stage = {}
        stride = 1
        for index, block in enumerate(network._blocks):
            stride *= block._depthwise_conv.stride[0]
            last_of_stage[stride] = index
        self.taps = frozenset(last_of_stage.values())

    def features(self, normalised: Tensor) -> list[Tensor]:
        """Return five maps."""
        if min(normalised.shape[-2:]) < 32:
            raise ConfigError(f"{self.name} needs crops of at least 32 pixels, not {min(normalised.shape[-2:])}.")
        network = self.network
        x = network._swish(network._bn0(network._conv_stem(normalised)))
        maps = []
        for index, block in enumerate(network._blocks):
            x = block(x, drop_connect_rate=0.0)
            if index in self.taps:
                maps.append(x)
        return maps


def _folded(network: Any) -> Any:
    """Fold each batch norm into the convolution before it; keep strided depthwise ones in fp32.

    Torch's backward pass of a strided depthwise convolution in bf16 on a CPU takes ten times the fp32 one's time.
    """
    network.eval()
    network._conv_stem = fuse_conv_bn_eval(network._conv_stem, network._bn0)
    network._bn0 = nn.Identity()
    for block in network._blocks:
        for number, name in enumerate(("_expand_conv", "_depthwise_conv", "_project_conv")):
            if hasattr(block, name):
                setattr(block, name, fuse_conv_bn_eval(getattr(block, name), getattr(block, f"_bn{number}")))
                setattr(block, f"_bn{number}", nn.Identity())
        if block._depthwise_conv.stride[0] > 1:
            block._depthwise_conv.forward = _outside_autocast(block._depthwise_conv.forward)
    return network


def _outside_autocast(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return forward(features.float())

    return run


class VGG16(FeatureNetwork):
    """VGG-16 after relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3, as LPIPS taps it."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers[:-1])

    def features(self, normalised: Tensor) -> list[Tensor]:
        """Return five maps at strides 1, 2, 4, 8 and 16."""
        maps = []
        x = normalised
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        return [*maps, x]


class DinoViT(FeatureNetwork):
    """DINO ViT-B/16 after blocks 5, 9 and 12 (counted from 1), as vision-aided GAN taps it.

    Pictures are brought to 224×224 by area averaging; every tap goes through the final norm. The first two are patch
    maps (N, 768, 14, 14), the last the class token (N, 768). (vision-aided-gan normalises with CLIP's mean; we use
    ImageNet's, with which DINO was trained.)
    """

    TAPS = (5, 9, 12)

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def features(self, normalised: Tensor) -> list[Tensor]:
        """Return two maps and one vector."""
        side = self.network.config.image_size
        x = F.interpolate(normalised, size=(side, side), mode="area")
        states = self.network(x, output_hidden_states=True).hidden_states
        *maps, last = (self.network.layernorm(states[tap]) for tap in self.TAPS)
        patches = side // self.network.config.patch_size
        return [m[:, 1:].transpose(1, 2).unflatten(2, (patches, patches)) for m in maps] + [last[:, 0]]


def load_feature_network(
    name: str, *, files: Mapping[str, str] | None = None, sha256: Mapping[str, str] | None = None
) -> FeatureNetwork:
    """Load ``effnet-lite1``, ``effnet-lite2``, ``vgg16`` or ``dino-vitb16``, frozen.

    ``files`` may name a local file or folder for it, ``sha256`` the hash its weights must have (WeightsCorrupt
    otherwise). Raises ExtraMissing or WeightsMissing when the weights cannot be had; nothing weaker takes its place.
    """
    if name not in _BUILD:
        raise ConfigError(f"Unknown feature network '{name}'. Choose one of: {', '.join(_BUILD)}.")
    local = Path(files[name]) if files and name in files else None
    weights = serving(name)[0]
    network, file = _BUILD[name](name, local or require(weights.name))
    network.name, network.sha256 = name, weights_sha256(file)
    network.source = str(local or next(iter(weights.repositories), weights.requirement.partition("==")[0]))
    wanted = (sha256 or {}).get(name)
    if wanted and wanted != network.sha256:
        raise WeightsCorrupt(
            f"{name} from {network.source} has sha256 {network.sha256}, but loss.sha256 says {wanted}."
        )
    return network.freeze()


def _load_effnet(name: str, path: Path) -> tuple[FeatureNetwork, Path]:
    from efficientnet_lite_pytorch import EfficientNet

    network: Any = EfficientNet.from_name(name.replace("effnet", "efficientnet"))
    load_strictly(network.state_dict(), read_weights(path), path)
    return EfficientNetLite(network), path


def _load_vgg(_name: str, path: Path) -> tuple[FeatureNetwork, Path]:
    network, prefix = VGG16(), "features."  # torchvision's and timm's names
    renamed = {key.removeprefix(prefix): value for key, value in read_weights(path).items() if key.startswith(prefix)}
    load_strictly(network.layers.state_dict(), renamed, path)
    return network, path


def _load_dino(name: str, folder: Path) -> tuple[FeatureNetwork, Path]:
    from transformers import ViTModel

    require_files(folder, ("config.json", "model.safetensors"), name)
    network = load_pretrained(ViTModel, folder, ignore_extra=True, add_pooling_layer=False)
    if network.config.num_hidden_layers < DinoViT.TAPS[-1]:
        raise WeightsCorrupt(f"{folder} is not a ViT-B/16: it has {network.config.num_hidden_layers} blocks, not 12.")
    return DinoViT(network), variant(folder, "model.safetensors")


_BUILD = {"effnet-lite1": _load_effnet, "effnet-lite2": _load_effnet, "vgg16": _load_vgg, "dino-vitb16": _load_dino}
