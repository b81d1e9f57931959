from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rasr import device
from rasr.device import choose_device
from rasr.errors import UsageError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without any GPU; tests add what they need."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


def with_cuda(machine: pytest.MonkeyPatch, count: int, bf16: bool) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: count)
    machine.setattr(torch.cuda, "get_device_name", lambda *_: "Test GPU")
    machine.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)


def test_without_a_gpu_the_cpu_runs_fp32_and_says_why(machine: pytest.MonkeyPatch) -> None:
    chosen = choose_device()
    assert (chosen.device.type, chosen.dtype) == ("cpu", torch.float32)
    assert str(chosen) == "cpu, fp32: no GPU found"


def test_fp16_is_refused_on_the_cpu(machine: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="fp16 does not run on the CPU"):
        choose_device("cpu", "fp16")
    assert choose_device("cpu", "bf16").dtype is torch.bfloat16


@pytest.mark.parametrize(("bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_cuda_prefers_bf16(machine: pytest.MonkeyPatch, bf16: bool, dtype: torch.dtype) -> None:
    with_cuda(machine, 1, bf16)
    chosen = choose_device()
    assert (chosen.device.type, chosen.dtype) == ("cuda", dtype)
    assert "Test GPU" in str(chosen)
    assert choose_device("cuda", "fp32").dtype is torch.float32


def test_apple_gpus_run_fp32(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().device.type == "mps"
    assert choose_device().dtype is torch.float32


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "tpu", "cuda:x"])
def test_a_device_that_is_not_there_is_a_usage_error(machine: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(UsageError):
        choose_device(name)


def test_the_message_counts_the_gpus(machine: pytest.MonkeyPatch) -> None:
    with_cuda(machine, 2, True)
    assert choose_device("cuda:1").device.index == 1
    with pytest.raises(UsageError, match=r"2 GPU\(s\), cuda:0 to cuda:1"):
        choose_device("cuda:2")


def test_torch_is_not_loaded_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr("rasr.device._surely_without_gpu", lambda: True)
    assert str(choose_device()) == "cpu, fp32: no GPU found"
    assert str(choose_device("cpu", "bf16")) == "cpu, bf16: as asked; bf16 as asked"
    with pytest.raises(UsageError, match="no CUDA or ROCm GPU"):
        choose_device("cuda:3")
    assert "torch" not in sys.modules


def test_an_unknown_number_format_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="fp8"):
        choose_device("cpu", "fp8")


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Control groups as the kernel shows them: ``groups("0::/a/b", {"a/cpu.max": "200000 100000"})``."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(device.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)

    def show(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own + "\n")
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        monkeypatch.setattr(device, "_OWN_CGROUPS", tmp_path / "own")
        monkeypatch.setattr(device, "_CGROUPS", tmp_path / "groups")

    return show


V1 = "3:cpuset:/\n2:cpu,cpuacct:/docker/1\n1:memory:/"


@pytest.mark.parametrize(
    ("own", "files", "count", "reason"),
    [
        ("0::/", {}, 8, "this process may use 8 of 16 cores"),
        ("0::/", {"cpu.max": "max 100000"}, 8, "8 of 16 cores"),
        ("0::/", {"cpu.max": "250000 100000"}, 3, "the container's quota is 2.5 of 8 cores"),
        ("0::/", {"cpu.max": "20000 100000"}, 1, "quota is 0.2"),
        ("0::/", {"cpu.max": "1600000 100000"}, 8, "8 of 16 cores"),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2, "quota is 2"),
        ("0::/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "100000 100000"}, 1, "quota is 1"),
        ("0::/seen/from/outside", {"cpu.max": "200000 100000"}, 2, "quota is 2"),
        ("1:name=systemd:/\n0::/a", {"unified/a/cpu.max": "200000 100000"}, 2, "quota is 2"),
        (V1, {"cpu/docker/1/cpu.cfs_quota_us": "150000", "cpu/docker/1/cpu.cfs_period_us": "50000"}, 3, "quota is 3"),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2, "quota is 2"),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8, "8 of 16"),
        ("nonsense", {"cpu.max": "what is this"}, 8, "8 of 16"),
    ],
)
def test_threads_follow_affinity_and_quota(
    groups: Callable[..., None], own: str, files: dict[str, str], count: int, reason: str
) -> None:
    groups(own, files)
    chosen = device.choose_threads()
    assert chosen.count == count
    assert reason in str(chosen)


def test_what_the_user_says_about_threads_counts(groups: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    groups("0::/", {"cpu.max": "200000 100000"})
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert device.choose_threads().count == 5
    assert "OMP_NUM_THREADS" in device.choose_threads().reason
    assert device.choose_threads(7) == device.Threads(7, "as asked by --threads")
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert device.choose_threads().count == 2


ASKED_OF_OPENMP = """
import ctypes, glob, os, sys, importlib.util
from rasr.cli.main import rasr
import rasr.device
rasr.device.use_threads(int(sys.argv[1]) if len(sys.argv) > 1 else None)
assert not {"torch", "ncnn", "numpy"} & set(sys.modules)
import torch
found = [torch.get_num_threads()]
for line in open("/proc/self/maps"):
    path = line.split()[-1]
    if "libgomp" in path:
        found.append(ctypes.CDLL(path).omp_get_max_threads())
        break
print(*found, os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({}, ["1"], "1 1 PASSIVE"),
        ({"OMP_NUM_THREADS": "1"}, [], "1 1 PASSIVE"),
        ({"OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "ACTIVE"}, ["1"], "1 1 ACTIVE"),
    ],
)
def test_libraries_loaded_later_obey(environment: dict[str, str], arguments: list[str], expected: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "KMP_"))}
    code = [sys.executable, "-c", ASKED_OF_OPENMP, *arguments]
    done = subprocess.run(code, env=clean | environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == expected, done.stderr


def test_the_command_sets_threads_before_any_library_and_importing_rasr_sets_none() -> None:
    code = "import os, rasr, rasr.device; print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('OMP_NUM_THREADS'))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "None"], "a library leaves its host's environment alone"
    code = (
        "import builtins, os, sys; real = builtins.__import__\n"
        "def watch(name, *rest, **more):\n"
        "    if name.partition('.')[0] in {'numpy', 'torch', 'ncnn'} and 'OMP_WAIT_POLICY' not in os.environ:\n"
        "        sys.exit(f'{name} was loaded first')\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = watch\n"
        "from rasr.cli.main import main; main(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
