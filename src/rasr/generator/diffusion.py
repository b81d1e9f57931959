"""Diffusion generator: RefDSR for numpy tiles of any size, with references encoded once.

torch is loaded with the weights, so that whatever is wrong with the options is told before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from rasr.device import Device, choose_device
from rasr.errors import ConfigError, RasrError, UsageError
from rasr.generator.config import ModelConfig, WeightPaths, preset_at_hand, read_model_config
from rasr.generator.protocol import (
    SURE,
    Batch,
    Conditioning,
    GenerationSettings,
    Generator,
    GeneratorInfo,
    ReferencePicture,
)
from rasr.images import FloatImage, resize
from rasr.memory import LruCache

if TYPE_CHECKING:
    import torch

    from rasr.generator.refdsr import RefDSR

CACHE_BYTES = 512 * 2**20
TEMPERATURE = 0.1
"""τ of softmax(score / τ), the weights of several references."""
UNTRAINED_SO = {
    True: "The reference adapter was not trained on registered photos: what it draws because of one was never trained.",
    False: "The reference adapter was trained on registered photos, and is shown photos as they are.",
}
"""Remarks where the option ``registered`` differs from how the adapter was trained, by the option."""


@dataclass(frozen=True, slots=True, eq=False)
class _Conditioning:
    """State that all tiles of one picture share."""

    context: torch.Tensor | None
    references: tuple[ReferencePicture, ...]
    weights: torch.Tensor | None
    """(1, K), summing to 1."""
    settings: GenerationSettings

    @property
    def registered(self) -> bool:
        """Whether the references lie on the picture."""
        return any(one.confidence is not None for one in self.references)

    def cut(self, part: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> _Conditioning:
        """The conditioning of a tile: of registered references only what lies there."""
        if not self.registered:
            return self
        return replace(self, references=tuple(_cut(one, part) for one in self.references))


class DiffusionGenerator:
    """Generator of a preset: backbone, reference branch where there is an adapter, and cleaner.

    Weights are loaded on the first :meth:`prepare`. Safe to share between threads; the network serves one at a time.
    """

    def __init__(
        self,
        preset: str | Path | ModelConfig,
        *,
        device: str = "auto",
        dtype: str = "auto",
        cleaner: Generator | None = None,
        weights: str | Path | None = None,
        adapter: str | Path | Literal["none"] | None = None,
        base: str | Path | None = None,
        checkpoint: str | Path | None = None,
        vae: Literal["full", "tiny"] | Path = "full",
        registered: Literal["auto", "on", "off"] = "auto",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Choose everything, load nothing.

        ``preset`` is a name or a TOML file. ``weights`` is the backbone of a model built here; ``base`` (hub id or
        folder) and ``checkpoint`` (file) the sources of the SD 2.1 presets; ``adapter`` is a trained reference branch,
        "none" to run without. ``vae`` "tiny" puts TAESD in place of the full autoencoder. ``registered`` says whether
        the branch is shown photos of the same scene as the picture sees them ("on", and "off" as they are), by default
        as its adapter was trained. ``cache_bytes`` bounds what is kept of encoded references. Raises ConfigError for an
        unknown preset, UsageError for a value out of range and for a device or dtype this machine does not have.
        """
        if preset == "sd21":
            preset = preset_at_hand()
        self.config = preset if isinstance(preset, ModelConfig) else read_model_config(preset)
        self.cleaner = cleaner
        self._weights = WeightPaths.find(
            self.config, weights=weights, adapter=adapter, base=base, checkpoint=checkpoint, vae=vae
        )
        self._place = choose_device(device, dtype)
        if not isinstance(cache_bytes, int) or cache_bytes < 0:
            raise UsageError(f"cache_bytes must be a whole number from 0 on, not {cache_bytes}.")
        trained_so = self._weights.registered
        shown_so = trained_so if registered == "auto" else _registered(registered, self.config.name, self._weights)
        self._encoded: LruCache[Any] = LruCache(cache_bytes, _tensor_bytes)
        self._model: RefDSR | None = None
        self._prompts: Any = None
        self._lock = threading.RLock()
        found = self._weights
        remark = " (untrained)" if not found.trained else " (no reference adapter)" if found.adapter is None else ""
        self.info = GeneratorInfo(
            name=self.config.name + remark,
            uses_reference=found.adapter is not None,
            registered=shown_so,
            remark="" if shown_so == trained_so or found.adapter is None else UNTRAINED_SO[shown_so],
            grid="output",
            scale=1,
            tile=self.config.tile,
            trained=found.trained,
            weights=found.described,
            colour=self.config.colour,
            licence=self.config.licence,
            device=str(self._place),
            reads_text=self.config.context.kind == "text",
            needs=found.needs(self.config),
            context_encoder=self.config.context.encoder,
        )

    @property
    def model(self) -> RefDSR:
        """Network, loaded when first asked for. Raises WeightsMissing or WeightsCorrupt."""
        with self._lock:
            if self._model is None:
                self._model, self._prompts = _load_model(self.config, self._weights, self._place)
            return self._model

    def prepare(
        self, lq: FloatImage, references: Sequence[ReferencePicture], settings: GenerationSettings
    ) -> Conditioning:
        """Compute the context and the references' weights, softmax(score / τ)."""
        if not 0 <= settings.strength <= 1:
            raise UsageError(f"The strength must lie between 0 and 1, not {settings.strength}.")
        model = self.model
        context = self._context(settings)
        if not references or settings.strength == 0 or model.branch is None:
            return _Conditioning(context, (), None, settings)
        scores = _tensor([[reference.score for reference in references]])
        weights = (scores / TEMPERATURE).softmax(-1).to(self._place.device, self._place.dtype)
        return _Conditioning(context, tuple(references), weights, settings)

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """Restore tiles on the output grid: (N, H, W, 3) → the same size, any H and W.

        Because of registered references only places change that they cover; the others keep their bits.
        """
        if not isinstance(conditioning, _Conditioning):
            raise TypeError(f"conditioning comes from prepare(), not {type(conditioning).__name__}")
        import torch

        model = self.model
        height, width = tiles.shape[1:3]
        with self._lock, torch.inference_mode():
            lq = self._fit(self._pictures(tiles))
            start = None if base is None else self._fit(self._pictures(base))

            def restore(features: list[Any], weights: torch.Tensor | None) -> torch.Tensor:
                given = (features, weights, conditioning.context, conditioning.settings.strength)
                return self._unfit(model(lq, start, *given).float(), height, width).clamp(-1, 1).add(1).div(2)

            if conditioning.registered:
                restored = restore([], None)
                sure = self._confidences(conditioning.references, height, width)
                if bool(sure.any()):
                    guided = restore(*self._register(conditioning, sure, lq if start is None else start))
                    restored = restored + (guided - restored) * (sure.amax(1, keepdim=True) / SURE).clamp(max=1)
            else:  # on the tile's own grid
                features = [self._encode(one, (lq.shape[2], lq.shape[3])) for one in conditioning.references]
                restored = restore(features, conditioning.weights)
        if not restored.isfinite().all():
            raise RasrError(f"{self.info.name} gave invalid numbers in {self._place}. Use --dtype fp32.")
        return np.ascontiguousarray(restored.permute(0, 2, 3, 1).cpu().numpy())

    def _context(self, settings: GenerationSettings) -> torch.Tensor | None:
        if self.config.context.kind == "text":
            prompt = self.config.context.prompt if settings.prompt is None else settings.prompt
            states: torch.Tensor = self._prompts.states(prompt)
            return states
        if settings.prompt:
            raise UsageError(f"{self.config.name} reads no text: leave out the prompt.")
        if settings.embedding is None:
            return None
        return _tensor(settings.embedding).reshape(1, -1).to(self._place.device, self._place.dtype)

    def _encode(self, reference: ReferencePicture, size: tuple[int, int]) -> Any:
        """Let the branch read a reference at (height, width), unless it has done so lately."""
        digest = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(reference.pixels).data)
        key = (digest, reference.pixels.shape, size)
        return self._encoded.get(key, lambda: self._read_reference(reference.pixels, *size))

    def _read_reference(self, pixels: FloatImage, height: int, width: int) -> Any:
        """Crop the reference's centre, resample it to (height, width), and let the branch read it."""
        ratio = min(pixels.shape[0] / height, pixels.shape[1] / width)
        # The side that is not cut may come out a rounding error longer than the photo, which no resampler accepts.
        tall, wide = min(height * ratio, pixels.shape[0]), min(width * ratio, pixels.shape[1])
        top, left = (pixels.shape[0] - tall) / 2, (pixels.shape[1] - wide) / 2
        box = (left, top, min(left + wide, pixels.shape[1]), min(top + tall, pixels.shape[0]))
        fitted = resize(pixels, (width, height), box=box)
        import torch

        with torch.inference_mode():
            return self.model.encode_reference(self._pictures(fitted.clip(0, 1)[None]).to(self._place.dtype))

    def _confidences(self, references: Sequence[ReferencePicture], height: int, width: int) -> torch.Tensor:
        """(1, K, H, W) of registered references; raises ValueError unless all of them were cut as the tile was."""
        planes = [one.confidence for one in references if one.confidence is not None]
        if len(planes) < len(references) or any(plane.shape != (height, width) for plane in planes):
            raise ValueError(f"registered references must all be cut to the tile's {width}×{height} pixels")
        return _tensor(np.stack(planes)[None]).to(self._place.device)

    def _register(
        self, conditioning: _Conditioning, sure: torch.Tensor, start: torch.Tensor
    ) -> tuple[list[Any], torch.Tensor]:
        """Let the branch read references that lie on the tile; what it made of them, and weights (1, K, H, W).

        A place counts as far as its surest reference is sure; several that cover it share that by score and confidence.
        """
        from rasr.generator.refdsr import fill_around

        model, dtype = self.model, self._place.dtype
        shares = sure if conditioning.weights is None else sure * conditioning.weights.float()[..., None, None]
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-6) * sure.amax(1, keepdim=True)
        fitted = self._fit(sure).clamp(min=0)
        features = []
        for number, one in enumerate(conditioning.references):
            seen = self._fit(self._pictures(one.pixels[None]))
            filled = fill_around(seen, fitted[:, number : number + 1], start)
            features.append(model.encode_reference(filled.to(dtype)))
        return features, self._fit(shares).clamp(min=0).to(dtype)

    def _pictures(self, pictures: NDArray[np.float32]) -> torch.Tensor:
        return _tensor(pictures.transpose(0, 3, 1, 2)).to(self._place.device).mul(2).sub(1)

    def _fit(self, pictures: torch.Tensor) -> torch.Tensor:
        """Enlarge up to the backbone's smallest side, then mirror edges up to the next multiple."""
        from torch.nn import functional as F

        height, width = pictures.shape[2:]
        if min(height, width) < self.config.minimum_side:
            pictures = F.interpolate(pictures, self._enlarged(height, width), mode="bicubic").clamp(-1, 1)
            height, width = pictures.shape[2:]
        multiple = self.model.multiple
        down, right = -height % multiple, -width % multiple
        mode = "reflect" if down < height and right < width else "replicate"
        return F.pad(pictures, (0, right, 0, down), mode=mode) if down or right else pictures

    def _unfit(self, pictures: torch.Tensor, height: int, width: int) -> torch.Tensor:
        from torch.nn import functional as F

        if min(height, width) >= self.config.minimum_side:
            return pictures[:, :, :height, :width]
        tall, wide = self._enlarged(height, width)
        return F.interpolate(pictures[:, :, :tall, :wide], (height, width), mode="bicubic", antialias=True)

    def _enlarged(self, height: int, width: int) -> tuple[int, int]:
        ratio = self.config.minimum_side / min(height, width)
        return round(height * ratio), round(width * ratio)


def _load_model(config: ModelConfig, weights: WeightPaths, place: Device) -> tuple[RefDSR, Any]:
    """Load the model onto its device and its prompt encoder (None without text).

    Raises WeightsMissing, WeightsCorrupt, or WeightsError when the adapter belongs to another backbone.
    """
    from rasr.generator.adapter import load_adapter, load_backbone
    from rasr.generator.refdsr import build_model

    prompts = None
    if config.base:
        from rasr.generator.stable_diffusion import load_stable_diffusion

        model, prompts = load_stable_diffusion(config, weights, place)
    else:
        model = build_model(config)
        if weights.backbone is not None:
            load_backbone(model, weights.backbone)
    if weights.adapter is not None:
        load_adapter(model, weights.adapter)
    if model.multiple != config.tile.multiple:
        raise ConfigError(f"{config.name}: tile.multiple must be {model.multiple}, not {config.tile.multiple}.")
    return model.to(place.device, place.dtype).requires_grad_(False).eval(), prompts


def _registered(asked: str, name: str, found: WeightPaths) -> bool:
    """What the option means, other than "auto". Raises UsageError for another word, and "on" without an adapter."""
    if asked not in {"on", "off"}:
        raise UsageError(f"registered must be auto, on or off, not '{asked}'.")
    if asked == "on" and found.adapter is None:
        raise UsageError(f"registered=on: {name} has no reference adapter here that could be shown a photo.")
    return asked == "on"


def _cut(one: ReferencePicture, part: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> ReferencePicture:
    if one.confidence is None:
        return one
    return replace(one, pixels=part(one.pixels), confidence=part(one.confidence[..., None])[..., 0])


def _tensor(array: Any) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _tensor_bytes(entry: Any) -> int:
    """Bytes held by the tensors of an encoded reference."""
    if hasattr(entry, "untyped_storage"):
        return int(entry.untyped_storage().nbytes())  # what is held, however large a view of it is
    return sum(_tensor_bytes(getattr(entry, field.name)) for field in fields(entry)) if is_dataclass(entry) else 0
