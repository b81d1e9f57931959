"""Degradation of pixels: one implementation, on torch tensors, for files and for training.

Every picture is processed on its own, so a picture in a batch comes out bit for bit as it would alone. Noise is always
drawn by numpy on the CPU from the recipe's seeds: the same recipe gives the same noise on every device. JPEG is the
real codec (libjpeg through Pillow, 4:2:0), not a differentiable imitation, so no gradient passes. Kernels are those of
Real-ESRGAN (arXiv 2107.10833, section 3.1 and 3.3): generalized Gaussian families and sinc.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import next_fast_len
from scipy.special import j1

from rasr.degrade.recipe import GaussianKernel, Mode, Noise, Recipe, SincKernel, draw
from rasr.errors import PictureError
from rasr.images import FloatImage

if TYPE_CHECKING:
    from torch import Tensor

USM_AMOUNT = 0.5
USM_THRESHOLD = 10 / 255

Kernel = NDArray[np.float64]


def degrade(
    pixels: FloatImage, *, preset: str = "realesrgan", scale: int = 4, seed: int, name: str, usm: bool = False
) -> tuple[FloatImage, dict[str, Any]]:
    """Degrade a picture by Real-ESRGAN's two-stage pipeline.

    ``pixels`` is (H, W, 3) float32 RGB in [0, 1] with H and W multiples of ``scale`` (:func:`crop_to_multiple` makes
    them so; PictureError otherwise). Returns the LQ (H/scale, W/scale, 3), whose values are exact 8-bit levels k/255,
    and the manifest of drawn parameters, which :class:`Recipe` reads back. The same (seed, name) always draws the same.
    """
    recipe = draw(preset, scale=scale, seed=seed, name=name, usm=usm)
    return degrade_array(pixels, recipe), recipe.model_dump(mode="json")


def degrade_array(pixels: FloatImage, recipe: Recipe) -> FloatImage:
    """Apply a recipe to (H, W, 3) float32 pixels; sizes and values as for :func:`degrade`."""
    import torch

    with torch.inference_mode():
        hr = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))
        return np.ascontiguousarray(apply_recipe(hr, recipe).permute(1, 2, 0).numpy())


def degrade_batch(hr: Tensor, recipes: Sequence[Recipe]) -> Tensor:
    """Degrade (N, 3, H, W) float32 RGB in [0, 1] → (N, 3, H/scale, W/scale), same device.

    All recipes must share one scale. Each picture equals what it would be alone, bit for bit. On a GPU the filters and
    resizes run there; noise and JPEG stay on the CPU, and rounding may differ from the CPU's by single grey levels.
    """
    import torch

    if len(recipes) != hr.shape[0] or len({recipe.scale for recipe in recipes}) != 1:
        raise ValueError(f"{hr.shape[0]} pictures need as many recipes of one scale, not {len(recipes)}")
    with torch.no_grad():
        return torch.stack([apply_recipe(picture, recipe) for picture, recipe in zip(hr, recipes, strict=True)])


def crop_to_multiple(pixels: FloatImage, scale: int) -> FloatImage:
    """Cut right and bottom to multiples of ``scale``: the HR that matches an LQ exactly.

    Raises PictureError when a side is shorter than ``scale``.
    """
    height, width = pixels.shape[0] // scale * scale, pixels.shape[1] // scale * scale
    if not height or not width:
        raise PictureError(
            f"A picture of {pixels.shape[1]}x{pixels.shape[0]} pixels is too small to shrink by {scale}."
        )
    return pixels[:height, :width]


def apply_recipe(hr: Tensor, recipe: Recipe) -> Tensor:
    """Degrade one picture, (3, H, W) float32 RGB in [0, 1], to (3, H/scale, W/scale), k/255.

    H and W must be multiples of the recipe's scale (PictureError otherwise; see ``crop_to_multiple``).
    """
    height, width = hr.shape[-2:]
    if height % recipe.scale or width % recipe.scale or not height or not width:
        raise PictureError(f"A picture of {width}x{height} pixels cannot be degraded by {recipe.scale} exactly.")
    small = (height // recipe.scale, width // recipe.scale)
    pixels = _sharpen(hr) if recipe.usm else hr
    if recipe.stages is None:
        return _to_8_bit(_resize(pixels, small, recipe.final_mode))

    first, second = recipe.stages
    if first.blur:
        pixels = _filter(pixels, _kernel_array(first.blur))
    pixels = _resize(pixels, _scaled((height, width), first.resize.factor), first.resize.mode)
    pixels = _jpeg(_add_noise(pixels, first.noise), first.jpeg_quality)

    if second.blur:
        pixels = _filter(pixels, _kernel_array(second.blur))
    pixels = _resize(pixels, _scaled(small, second.resize.factor), second.resize.mode)
    pixels = _add_noise(pixels, second.noise)
    if not recipe.filter_before_jpeg:
        pixels = _jpeg(pixels, second.jpeg_quality)
    pixels = _resize(pixels, small, recipe.final_mode)
    if recipe.final_filter:
        pixels = _filter(pixels, _kernel_array(recipe.final_filter))
    if recipe.filter_before_jpeg:
        pixels = _jpeg(pixels, second.jpeg_quality)
    return _to_8_bit(pixels)


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def _resize(pixels: Tensor, size: tuple[int, int], mode: Mode) -> Tensor:
    import torch.nn.functional as F

    if pixels.shape[-2:] == size:
        return pixels
    aligned = None if mode == "area" else False
    return F.interpolate(pixels[None], size=size, mode=mode, align_corners=aligned)[0]


def _filter(pixels: Tensor, kernel: NDArray[np.float64]) -> Tensor:
    """Convolve with mirrored borders, by FFT: 3 to 6 times faster than direct 21×21 on a CPU."""
    import torch

    height, width = pixels.shape[-2:]
    reach = kernel.shape[0] // 2
    rows, columns = (torch.from_numpy(np.pad(np.arange(n), reach, mode="reflect")) for n in (height, width))
    padded = pixels[:, rows.to(pixels.device)][:, :, columns.to(pixels.device)]
    size = tuple(next_fast_len(int(n), real=True) for n in padded.shape[-2:])
    # A circular convolution wraps around into the first 2·reach rows and columns, which are cut off below.
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(
        torch.from_numpy(kernel.astype(np.float32)).to(pixels.device), s=size
    )
    blurred: Tensor = torch.fft.irfft2(spectrum, s=size)
    return blurred[:, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def _add_noise(pixels: Tensor, noise: Noise) -> Tensor:
    import torch

    random = np.random.Generator(np.random.Philox(key=noise.seed))
    if noise.kind == "gaussian":
        planes = (1, *pixels.shape[1:]) if noise.gray else pixels.shape
        plane = random.standard_normal(planes, dtype=np.float32) * np.float32(noise.level / 255)
    else:
        plane = _poisson(pixels.cpu().numpy(), noise, random)
    return (pixels + torch.from_numpy(plane).to(pixels.device)).clamp(0, 1)


def _poisson(pixels: NDArray[np.float32], noise: Noise, random: np.random.Generator) -> NDArray[np.float32]:
    """Draw 8-bit shot noise: level · (Poisson(v·x)/v − x), v = 2^⌈log₂(distinct values)⌉."""
    levels = np.rint(np.clip(pixels, 0, 1) * 255) / 255
    if noise.gray:
        luma = np.array([0.2989, 0.587, 0.114]).reshape(3, 1, 1)
        levels = np.rint(np.sum(levels * luma, axis=0, keepdims=True) * 255) / 255
    distinct = np.unique(np.rint(levels * 255).astype(np.uint8)).size
    counts = 2.0 ** np.ceil(np.log2(distinct))
    shot: NDArray[np.float64] = random.poisson(levels * counts) / counts - levels
    return (shot * noise.level).astype(np.float32)


def _jpeg(pixels: Tensor, quality: float) -> Tensor:
    """Compress by libjpeg and decode again, at the nearest whole quality, 4:2:0."""
    import torch

    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=round(quality), subsampling="4:2:0")
    decoded = np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1)
    return torch.from_numpy(decoded.astype(np.float32) / np.float32(255)).to(pixels.device)


def _sharpen(pixels: Tensor) -> Tensor:
    """Apply Real-ESRGAN's unsharp mask: amount 0.5 where the residual exceeds 10 grey levels."""
    residual = pixels - _filter(pixels, _usm_kernel())
    mask = _filter((residual.abs() > USM_THRESHOLD).to(pixels.dtype), _usm_kernel())
    sharp = (pixels + USM_AMOUNT * residual).clamp(0, 1)
    return mask * sharp + (1 - mask) * pixels


def _to_8_bit(pixels: Tensor) -> Tensor:
    return (pixels.clamp(0, 1) * 255).round() / 255


def _kernel_array(kernel: GaussianKernel | SincKernel) -> Kernel:
    """Compute a kernel as a (size, size) float64 array that sums to 1."""
    weights = _sinc(kernel) if isinstance(kernel, SincKernel) else _gaussian(kernel)
    normalised: Kernel = weights / weights.sum()
    return normalised


def _offsets(size: int) -> tuple[Kernel, Kernel]:
    axis = np.arange(size, dtype=np.float64) - (size - 1) / 2
    return axis[None, :], axis[:, None]


def _gaussian(kernel: GaussianKernel) -> Kernel:
    """Compute exp(−q/2), exp(−q^β/2) or 1/(1 + q^β), with q = xᵀΣ⁻¹x."""
    x, y = _offsets(kernel.size)
    cos, sin = np.cos(kernel.angle), np.sin(kernel.angle)
    along = (cos * x + sin * y) / kernel.sigma_x
    across = (-sin * x + cos * y) / kernel.sigma_y
    q = along**2 + across**2
    if kernel.kind.startswith("plateau"):
        return np.asarray(1.0 / (1.0 + q**kernel.beta))
    return np.asarray(np.exp(-0.5 * q**kernel.beta))


def _sinc(kernel: SincKernel) -> Kernel:
    """Compute the jinc filter ω·J₁(ω r) / (2π r), with its limit ω²/4π at r = 0."""
    x, y = _offsets(kernel.size)
    r = np.hypot(x, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = kernel.cutoff * j1(kernel.cutoff * r) / (2 * np.pi * r)
    return np.where(r == 0, kernel.cutoff**2 / (4 * np.pi), weights)


@lru_cache(maxsize=1)
def _usm_kernel() -> Kernel:
    """Compute the 51-pixel Gaussian (sigma 8) of Real-ESRGAN's unsharp mask."""
    return _kernel_array(GaussianKernel(kind="iso", size=51, sigma_x=8.0, sigma_y=8.0))
