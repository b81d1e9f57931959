"""Device and number format, chosen once, with the reason in words."""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rasr.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["Device", "check_device", "choose_device"]

DTYPES = ("auto", "fp32", "bf16", "fp16")
NO_FP16 = "fp16 does not run on the CPU. Use --dtype fp32, or bf16."
NO_MPS = "This machine or this build of torch has no Apple GPU (mps). Use --device cpu."


@dataclass(frozen=True, slots=True)
class Device:
    """Where the network runs. ``str(device)`` is the sentence printed at the start of a run."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    @property
    def dtype_name(self) -> str:
        """``fp32``, ``bf16`` or ``fp16``."""
        return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[str(self.dtype).removeprefix("torch.")]

    def __str__(self) -> str:
        return f"{self.device}, {self.dtype_name}: {self.reason}"


def check_device(name: str = "auto", dtype: str = "auto") -> None:
    """Refuse, without loading torch, a device or dtype that :func:`choose_device` would refuse.

    What only torch can tell (how many GPUs a driver offers) passes here. Raises UsageError.
    """
    kind, _, number = name.partition(":")
    if dtype not in DTYPES:
        raise UsageError(f"Unknown number format '{dtype}'. Choose one of: {', '.join(DTYPES)}.")
    if kind not in {"auto", "cpu", "cuda", "mps"} or (number and kind != "cuda"):
        raise UsageError(f"Unknown device '{name}'. Choose auto, cpu, cuda, cuda:N or mps.")
    if kind == "cpu" and dtype == "fp16":
        raise UsageError(NO_FP16)
    if "torch" in sys.modules:  # then torch itself is asked
        return
    if kind == "mps" and sys.platform != "darwin":
        raise UsageError(NO_MPS)
    if (kind == "cuda" or (kind == "auto" and dtype == "fp16")) and _surely_without_gpu():
        raise UsageError(NO_FP16 if kind == "auto" else _no_such_gpu(name, 0))


def choose_device(name: str = "auto", dtype: str = "auto") -> Device:
    """Pick the device and dtype for inference.

    ``name`` is ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``dtype`` is ``auto``, ``fp32``, ``bf16`` or
    ``fp16``. On the CPU ``auto`` is fp32 and fp16 is refused (several CPU kernels have no half version and the rest
    are slower). On CUDA ``auto`` is bf16 where the chip has it, else fp16; on MPS fp32. ROCm builds of torch count as
    CUDA. Raises UsageError for a device this machine does not have.
    """
    check_device(name, dtype)
    import torch

    chosen, why = _pick_device(name)
    if chosen.type == "cpu":
        if dtype == "fp16":
            raise UsageError(NO_FP16)
        if dtype == "bf16":
            return Device(chosen, torch.bfloat16, f"{why}; bf16 as asked")
        return Device(chosen, torch.float32, why)
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype)
    if wanted is not None:
        return Device(chosen, wanted, f"{why}; {dtype} as asked")
    if chosen.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return Device(chosen, torch.bfloat16, f"{why} has bf16")
        return Device(chosen, torch.float16, f"{why} has no bf16")
    return Device(chosen, torch.float32, why)


def _pick_device(name: str) -> tuple[torch.device, str]:
    import torch

    mps = torch.backends.mps.is_available()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), torch.cuda.get_device_name()
        if mps:
            return torch.device("mps"), "Apple GPU found"
        return torch.device("cpu"), "no GPU found"
    if name == "cpu":
        return torch.device("cpu"), "as asked"
    if name == "mps":
        if not mps:
            raise UsageError(NO_MPS)
        return torch.device("mps"), "as asked"
    number = name.partition(":")[2] or "0"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not number.isdigit() or int(number) >= count:
        raise UsageError(_no_such_gpu(name, count))
    return torch.device("cuda", int(number)), torch.cuda.get_device_name(int(number))


def _no_such_gpu(name: str, count: int) -> str:
    found = "no CUDA or ROCm GPU" if count == 0 else f"{count} GPU(s), cuda:0 to cuda:{count - 1}"
    version = importlib.metadata.version("torch")
    return f"--device {name}: torch {version} sees {found}. Use --device auto or cpu."


def _surely_without_gpu() -> bool:
    """True when torch is a build for the CPU, or there is neither a CUDA nor a ROCm driver."""
    if "+cpu" in importlib.metadata.version("torch"):
        return True
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False
