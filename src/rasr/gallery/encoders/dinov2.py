"""DINOv2, the paper's retriever (Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023).

The embedding is the class token after the final layer norm, which transformers calls ``pooler_output``. Weights come
from the Hugging Face hub (facebook/dinov2-small, -base, -large; Apache-2.0) or from a local folder in the same layout.
"""

from __future__ import annotations

import hashlib
import json
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import WeightsCorrupt
from rasr.files import read_object
from rasr.gallery.encoders import Embeddings, LazyNetwork
from rasr.images import FloatImage
from rasr.object_path import expand
from rasr.weights import find, load_pretrained, require, variant, weights_sha256
from rasr.weights.locate import require_files

if TYPE_CHECKING:
    import torch

DIMENSIONS = {"dinov2-small": 384, "dinov2-base": 768, "dinov2-large": 1024}
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESS = "short256-crop224-bicubic8-imagenet"
SHORT_SIDE = 256
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SHAPING_KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "hidden_act", "layer_norm_eps",
    "image_size", "patch_size", "qkv_bias", "layerscale_value", "use_swiglu_ffn",
)  # fmt: skip
"""What of config.json shapes an embedding and cannot be told from the weights alone (heads, norm epsilon)."""


class DinoV2:
    """A DINOv2 encoder, 224×224 in, class token out.

    ``name`` is one of :data:`DIMENSIONS`, or ``dinov2:FOLDER`` for a folder with ``config.json`` and
    ``model.safetensors`` as transformers' ``save_pretrained`` writes them. The fingerprint depends on the files'
    content, not on the name or place: the same weights from the hub and from a folder can search one gallery.
    """

    input_size = 224

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        self.name = name
        self._asked: Path | None = None
        if name not in DIMENSIONS:
            self._asked = expand(Path(name.removeprefix("dinov2:"))).absolute()
            self.name = f"dinov2:{self._asked}"
        self._folder: Path | None = None
        self._sha256 = ""
        self._lock = threading.RLock()
        self._network = LazyNetwork(self._build, _class_token, size=self.input_size, device=device)

    @property
    def dimension(self) -> int:
        """384, 768 or 1024, as config.json says when it is at hand. WeightsMissing when nothing says it."""
        if self._asked is None and find(self.name) is None:
            return DIMENSIONS[self.name]
        return int(_read_config(self._located())["hidden_size"])

    @property
    def version(self) -> str:
        """The first 16 digits of the weights' SHA-256. Raises WeightsMissing."""
        with self._lock:
            self._sha256 = self._sha256 or weights_sha256(variant(self._located(), WEIGHTS))
            return self._sha256[:16]

    @property
    def fingerprint(self) -> str:
        """Preprocessing, weights and what of the configuration shapes the embedding. Raises WeightsMissing."""
        config = _read_config(self._located())
        shape = json.dumps({key: config.get(key) for key in SHAPING_KEYS}, sort_keys=True)
        return f"dinov2/{PREPROCESS}/{self.version}/{hashlib.sha256(shape.encode()).hexdigest()[:8]}"

    def preprocess(self, pixels: FloatImage) -> NDArray[np.float32]:
        """(H, W, 3) in [0, 1] → (3, 224, 224): short side to 256, centre crop, ImageNet mean and deviation.

        Resized in 8 bits by Pillow's antialiased bicubic, as in DINOv2's published image processor (transformers'
        BitImageProcessor), to which it is equal.
        """
        image = Image.fromarray(np.rint(np.clip(_at_most_4_to_1(pixels), 0, 1) * 255).astype(np.uint8))
        scale = SHORT_SIDE / min(image.size)
        width, height = (SHORT_SIDE if side == min(image.size) else int(scale * side) for side in image.size)
        left, top = (width - self.input_size) // 2, (height - self.input_size) // 2
        square = image.resize((width, height), Image.Resampling.BICUBIC).crop(
            (left, top, left + self.input_size, top + self.input_size)
        )
        values = (np.asarray(square, np.float32) / np.float32(255) - MEAN) / STD
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    def embed(self, batch: NDArray[np.float32]) -> Embeddings:
        """(N, 3, 224, 224) → (N, dimension), L2-normalised. Raises WeightsMissing or WeightsCorrupt."""
        return self._network.embed(batch, dimension=self.dimension)

    def _located(self) -> Path:
        with self._lock:
            if self._folder is None:
                asked = self._asked
                self._folder = (
                    require_files(asked, (CONFIG, WEIGHTS), "a DINOv2 model") if asked else require(self.name)
                )
            return self._folder

    def _build(self) -> torch.nn.Module:
        from transformers import Dinov2Model

        network: torch.nn.Module = load_pretrained(Dinov2Model, self._located())
        return network


small, base, large = (partial(DinoV2, name) for name in DIMENSIONS)


def _class_token(network: torch.nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    token: torch.Tensor = network(pixel_values=pictures).pooler_output
    return token


def _at_most_4_to_1(pixels: FloatImage) -> FloatImage:
    """Cut the far ends, which the centre crop would drop anyway, before a panorama is resized as a whole."""
    height, width = pixels.shape[:2]
    reach = 4 * min(height, width)
    top, left = max(0, (height - reach) // 2), max(0, (width - reach) // 2)
    return pixels[top : height - top, left : width - left]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    config = read_object(path, "model configuration", WeightsCorrupt)
    kind = config.get("model_type")
    if kind != "dinov2" or not isinstance(config.get("hidden_size"), int):
        raise WeightsCorrupt(f"{path} describes a model of type '{kind}', not DINOv2.")
    return config
