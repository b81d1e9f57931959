"""Device, number format and CPU threads, each chosen once, with the reason in words."""

from __future__ import annotations

import ctypes
import importlib.metadata
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rasr.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["Device", "Threads", "check_device", "choose_device", "choose_threads", "use_threads"]

DTYPES = ("auto", "fp32", "bf16", "fp16")
NO_FP16 = "fp16 does not run on the CPU. Use --dtype fp32, or bf16."
NO_MPS = "This machine or this build of torch has no Apple GPU (mps). Use --device cpu."

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


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


@dataclass(frozen=True, slots=True)
class Threads:
    """How many CPU threads compute. ``str(threads)`` is the sentence ``rasr doctor`` prints."""

    count: int
    reason: str

    def __str__(self) -> str:
        return f"{self.count}: {self.reason}"


def choose_threads(asked: int | None = None) -> Threads:
    """Choose the number of threads: ``asked``, else ``OMP_NUM_THREADS``, else the cores this process may use.

    Those are the cores of its affinity (taskset, cpuset), and no more than the quota of its container lets run at once.
    How busy the machine is does not count: it changes while the work lasts. What other processes cost is bounded by
    :func:`use_threads` instead.
    """
    if asked is not None:
        return Threads(asked, "as asked by --threads")
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wanted.isdecimal() and int(wanted) > 0:
        return Threads(int(wanted), "as OMP_NUM_THREADS says")
    machine = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    quota = _cpu_quota()
    if quota is not None and quota < cores:
        return Threads(max(1, math.ceil(quota)), f"the container's quota is {quota:g} of {cores} cores")
    if cores < machine:
        return Threads(cores, f"this process may use {cores} of {machine} cores")
    return Threads(cores, "one a core")


def use_threads(asked: int | None = None) -> Threads:
    """Tell the numerical libraries that this process is going to load how many threads to use, and to wait asleep.

    Only for a program's own start: it sets the process's environment. OpenMP (torch, ncnn), MKL and OpenBLAS read it
    once, when they are loaded; what the user has set stays, except the number when ``asked``. Threads that wait asleep
    cost nothing on an idle machine; by default they spin at each of a network's thousand barriers, and beside other
    processes each barrier then lasts until the one thread that does not run gets its turn.
    """
    global _used  # noqa: PLW0603 - the environment of the process is one thing, too
    chosen = choose_threads(asked) if asked is not None or _used is None else _used
    _used = chosen
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if asked is not None or name not in os.environ:
            os.environ[name] = str(chosen.count)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # the same for Intel's and LLVM's OpenMP, which conda's torch has
    if asked is not None and "torch" in sys.modules:
        import torch

        torch.set_num_threads(chosen.count)
    return chosen


_used: Threads | None = None
"""What this process was told, before that stands in its environment like a wish of the user."""


def _cpu_quota() -> float | None:
    """Cores that the container's quota lets run at once on average (cgroup version 2 or 1), or None without one."""
    found = [quota for folder in _own_groups() if (quota := _quota_of(folder)) is not None]
    return min(found, default=None)


def _own_groups() -> Iterator[Path]:
    """Yield the folders that may bound this process: its control groups, those around them, and the root.

    A container sees its own group as the root, whatever path the kernel names.
    """
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        controllers, _, place = line.partition(":")[2].partition(":")
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        for top in {_CGROUPS, _CGROUPS / "unified"} if not controllers else {_CGROUPS / controllers, _CGROUPS / "cpu"}:
            group = top / place.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _quota_of(folder: Path) -> float | None:
    """Read one group's quota in cores: ``cpu.max`` of version 2, two files of version 1. None for no bound."""
    try:
        if (both := folder / "cpu.max").is_file():
            quota, period = both.read_text(encoding="ascii").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such controller, or "max"
        return None
    return cores if cores > 0 else None  # version 1 says -1 for no bound
