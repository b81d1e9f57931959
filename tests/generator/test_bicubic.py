"""The baseline generator: returns its tiles, promises nothing else."""

import numpy as np

from rasr.generator import GenerationSettings, Generator, load_generator


def test_it_returns_the_resampled_tiles_unchanged() -> None:
    generator = load_generator("bicubic")
    tiles = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
    conditioning = generator.prepare(tiles[0], [], GenerationSettings())
    assert np.array_equal(generator.generate(tiles, None, conditioning), tiles)


def test_it_says_what_it_is() -> None:
    generator = load_generator("bicubic")
    assert isinstance(generator, Generator)
    assert (generator.info.grid, generator.info.scale, generator.info.uses_reference) == ("output", 1, False)
    assert generator.cleaner is None
