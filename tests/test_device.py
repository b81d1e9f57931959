from __future__ import annotations

import sys

import pytest
import torch

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
