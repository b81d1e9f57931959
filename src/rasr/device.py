"""Device and number format, chosen once, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasr.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["Device", "choose_device"]

DTYPES = ("auto", "fp32", "bf16", "fp16")


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


def choose_device(name: str = "auto", dtype: str = "auto") -> Device:
    """Pick the device and dtype for inference.

    ``name`` is ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``dtype`` is ``auto``, ``fp32``, ``bf16`` or
    ``fp16``. On the CPU ``auto`` is fp32 and fp16 is refused (several CPU kernels have no half version and the rest
    are slower). On CUDA ``auto`` is bf16 where the chip has it, else fp16; on MPS fp32. ROCm builds of torch count as
    CUDA. Raises UsageError for a device this machine does not have.
    """
    import torch

    if dtype not in DTYPES:
        raise UsageError(f"Unknown number format '{dtype}'. Choose one of: {', '.join(DTYPES)}.")
    chosen, why = _pick_device(name)
    if chosen.type == "cpu":
        if dtype == "fp16":
            raise UsageError("fp16 does not run on the CPU. Use --dtype fp32, or bf16.")
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
            raise UsageError("This machine or this build of torch has no Apple GPU (mps). Use --device cpu.")
        return torch.device("mps"), "as asked"
    if name == "cuda" or name.startswith("cuda:"):
        index = name.partition(":")[2] or "0"
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not index.isdigit() or int(index) >= count:
            found = "no CUDA or ROCm GPU" if count == 0 else f"{count} GPU(s), cuda:0 to cuda:{count - 1}"
            raise UsageError(f"--device {name}: torch {torch.__version__} sees {found}. Use --device auto or cpu.")
        return torch.device("cuda", int(index)), torch.cuda.get_device_name(int(index))
    raise UsageError(f"Unknown device '{name}'. Choose auto, cpu, cuda, cuda:N or mps.")
