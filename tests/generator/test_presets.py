"""The table of presets, one of one's own in it, and the baseline generator."""

import subprocess
import sys

import numpy as np
import pytest

from rasr.errors import UsageError
from rasr.generator import DEFAULT_PRESET, PRESETS, GenerationSettings, Generator, load_generator


def test_an_unknown_preset_is_answered_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"Unknown preset 'esrgan'.*realesrgan.*bicubic"):
        load_generator("esrgan")


def test_the_default_is_in_the_table_and_built_when_no_name_is_given() -> None:
    assert DEFAULT_PRESET in PRESETS
    assert load_generator().info.name == DEFAULT_PRESET


def test_an_option_the_preset_does_not_have_is_answered_with_those_it_has() -> None:
    with pytest.raises(UsageError, match=r"'realesrgan' has no option 'vae'.*threads"):
        load_generator("realesrgan", vae="tiny")


@pytest.mark.parametrize("preset", ["bicubic", "realesrgan"])
def test_presets_meet_the_protocol_and_carry_their_own_name(preset: str) -> None:
    generator = load_generator(preset, device="cpu")
    assert isinstance(generator, Generator)
    assert generator.info.name == preset


def test_small_presets_load_no_deep_learning_framework() -> None:
    made = "from rasr.generator import load_generator as g; g('bicubic'); g('realesrgan')"
    code = f"import sys; {made}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert done.stderr == "", "probing for a GPU must be quiet"


def test_bicubic_returns_the_resampled_tiles_unchanged() -> None:
    generator = load_generator("bicubic")
    tiles = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
    conditioning = generator.prepare(tiles[0], [], GenerationSettings())
    assert np.array_equal(generator.generate(tiles, None, conditioning), tiles)


def test_bicubic_says_what_it_is() -> None:
    generator = load_generator("bicubic")
    assert isinstance(generator, Generator)
    assert (generator.info.grid, generator.info.scale, generator.info.uses_reference) == ("output", 1, False)
    assert generator.cleaner is None
