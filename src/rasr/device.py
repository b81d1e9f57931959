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

    name: str
    """``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    dtype_name: str
    """``fp32``, ``bf16`` or ``fp16``."""
    reason: str

    @property
    def device(self) -> torch.device:
        """The device as torch has it."""
        import torch

        return torch.device(self.name)

    @property
    def dtype(self) -> torch.dtype:
        """The number format as torch has it."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.dtype_name]

    def __str__(self) -> str:
        return f"{self.name}, {self.dtype_name}: {self.reason}"


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
    CUDA. torch is loaded only where there may be a GPU. Raises UsageError for a device this machine does not have.
    """
    check_device(name, dtype)
    chosen, why = _pick_device(name)
    if chosen == "cpu":
        if dtype == "fp16":
            raise UsageError(NO_FP16)
        return Device(chosen, "bf16", f"{why}; bf16 as asked") if dtype == "bf16" else Device(chosen, "fp32", why)
    if dtype != "auto":
        return Device(chosen, dtype, f"{why}; {dtype} as asked")
    if chosen == "mps":
        return Device(chosen, "fp32", why)
    import torch

    if torch.cuda.is_bf16_supported():
        return Device(chosen, "bf16", f"{why} has bf16")
    return Device(chosen, "fp16", f"{why} has no bf16")


def _pick_device(name: str) -> tuple[str, str]:
    """The device and what is to be said of it."""
    if name == "cpu":
        return name, "as asked"
    if name == "auto" and "torch" not in sys.modules and _surely_without_gpu():
        return "cpu", "no GPU found"
    import torch

    mps = torch.backends.mps.is_available()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        if count:
            return "cuda", torch.cuda.get_device_name()
        return ("mps", "Apple GPU found") if mps else ("cpu", "no GPU found")
    if name == "mps":
        if not mps:
            raise UsageError(NO_MPS)
        return name, "as asked"
    number = name.partition(":")[2] or "0"
    if not number.isdigit() or int(number) >= count:
        raise UsageError(_no_such_gpu(name, count))
    return f"cuda:{int(number)}", torch.cuda.get_device_name(int(number))


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
