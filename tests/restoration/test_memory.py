"""Tile side from free memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import rasr.restoration.memory as module
from rasr.errors import UsageError
from rasr.restoration.memory import choose_tile

Make = Callable[..., Any]


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
