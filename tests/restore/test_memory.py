"""Tile side from free memory, and what counts as running out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import rasr.restore.memory as module
from rasr.errors import UsageError
from rasr.restore.memory import choose_tile, free_memory, is_out_of_memory, release

Make = Callable[..., Any]


def test_free_memory_is_what_the_system_says() -> None:
    available = psutil.virtual_memory().available
    assert 0 < free_memory() <= available * 1.2 + 2**28


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Path
    (tmp_path / "memory.max").write_text(str(500 * 2**20))
    (tmp_path / "memory.current").write_text(str(200 * 2**20))

    def redirected(path: str) -> Path:
        return tmp_path / real(path).name if path.startswith("/sys/fs/cgroup/memory.") else real(path)

    monkeypatch.setattr(module, "Path", redirected)
    assert free_memory() == 300 * 2**20
    (tmp_path / "memory.max").write_text("max")
    assert free_memory() > 300 * 2**20


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (2**40, 64),  # never more than the default, so that the same picture comes out on larger machines
        (2 * 40 * 40 * 1000, 40),
        (2 * 47 * 47 * 1000, 40),  # a multiple of 8
        (1, 8),  # the minimum is at least tried
    ],
)
def test_auto_fits_half_of_the_free_memory(
    local: Make, free: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: free)
    assert choose_tile("auto", local(multiple=8, bytes_per_pixel=1000).info) == expected


def test_auto_is_the_default_where_the_cost_is_unknown(local: Make) -> None:
    assert choose_tile("auto", local().info) == 64


def test_a_number_is_taken_as_it_is_unless_too_small(local: Make) -> None:
    assert choose_tile(500, local().info) == 500
    with pytest.raises(UsageError, match="local needs tiles of at least 8"):
        choose_tile(7, local().info)


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


def test_every_kind_of_running_out_is_recognised_and_nothing_else() -> None:
    for error in (MemoryError(), OutOfMemoryError(), RuntimeError("MPS backend out of memory (MPS allocated")):
        assert is_out_of_memory(error)
    for other in (RuntimeError("expected 4 channels"), ValueError("out of memory"), OSError("x")):
        assert not is_out_of_memory(other)
    release()
