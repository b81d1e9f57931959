"""AlexNet and VGG-16 as LPIPS and DISTS look into them, with torchvision's tensor names."""

import torch
import torch.nn.functional as F
from torch import nn

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class AlexNetFeatures(nn.Module):
    """AlexNet's convolutions (torchvision's ``features``), giving the five ReLU outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W), normalised → five maps of 64, 192, 384, 256 and 256 channels."""
        maps = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps.append(x)
        return maps


class VGG16Features(nn.Module):
    """VGG-16's convolutions (torchvision's ``features``) with DISTS's blurred pooling.

    Returns the picture itself and the last ReLU output of each of the five stages.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in _STAGES:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.Identity())  # keeps torchvision's numbering, where the max-pool stands
        self.features = nn.Sequential(*layers)

    def forward(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) in [0, 1] → maps of 3, 64, 128, 256, 512 and 512 channels."""
        mean = picture.new_tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        deviation = picture.new_tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        x, maps = (picture - mean) / deviation, [picture]
        for layer in self.features:
            if isinstance(layer, nn.Identity):
                maps.append(x)
                x = _l2_pool(x)
            else:
                x = layer(x)
        return maps


def _l2_pool(x: torch.Tensor) -> torch.Tensor:
    """Half size: root of the squares blurred with a 3×3 Hann window."""
    window = x.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(window, window).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()
