"""Random numbers as functions of a seed and a purpose."""

from __future__ import annotations

from rasr.training.rng import generator_for


def test_keyed_generators_are_independent() -> None:
    draws = {generator_for(seed, "a", n).random() for seed in range(3) for n in range(3)}
    assert len(draws) == 9
    assert generator_for(0, "a", 1).random() == generator_for(0, "a", 1).random()
