"""The table of presets, one of one's own in it, the baseline generator, and the cleaning of queries."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import rasr
from rasr.cli.restore import command
from rasr.errors import UsageError
from rasr.generator import (
    DEFAULT_PRESET,
    PRESETS,
    GenerationSettings,
    Generator,
    Preset,
    clean_query,
    load_generator,
    presets,
)
from rasr.images import FloatImage, Picture
from rasr.restoration import TargetSize
from tests.generator.conftest import SMALL


def test_an_earlier_name_is_answered_with_the_new_one() -> None:
    with pytest.raises(UsageError, match=r"'realesrgan-tuned' is called 'mini' now\."):
        load_generator("realesrgan-tuned")


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


def test_building_a_generator_loads_no_deep_learning_framework() -> None:
    made = "from rasr.generator import PRESETS, load_generator as g; [g(name, device='cpu') for name in PRESETS]"
    code = f"import sys; {made}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert done.stderr == "", "probing for a GPU must be quiet"


NEGATIVE = """
from rasr.generator import GeneratorInfo, TileHints, Unconditioned

class Negative:
    cleaner = None

    def __init__(self, *, device, dtype, cleaner=None, depth=1.0):
        self.cleaner, self.depth = cleaner, depth
        tile = TileHints(default=32, minimum=16)
        self.info = GeneratorInfo("negative", uses_reference=False, grid="output", scale=1, tile=tile, colour="none")

    def prepare(self, lq, references, settings):
        return Unconditioned(settings)

    def generate(self, tiles, base, conditioning):
        return 1 - self.depth * base
"""


@pytest.fixture
def negative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A preset of one's own: a file, and the line that makes it known."""
    (tmp_path / "my_negative.py").write_text(NEGATIVE)
    monkeypatch.syspath_prepend(tmp_path)
    own = Preset("the negative", "my_negative:Negative", ("cleaner", "depth"), cleaner="bicubic")
    monkeypatch.setitem(PRESETS, "negative", own)
    return "negative"


def test_a_preset_of_ones_own_restores_from_python(negative: str) -> None:
    lq = np.random.default_rng(0).random((20, 30, 3), np.float32)
    same = TargetSize(scale=1)
    assert np.allclose(rasr.Restorer(negative)(Picture(lq), size=same).picture.pixels, 1 - lq, atol=1e-6)
    half = rasr.Restorer(negative, depth=0.5)
    assert np.allclose(half(Picture(lq), size=same).picture.pixels, 1 - lq / 2, atol=1e-6)
    assert isinstance(half.generator, Generator)
    with pytest.raises(UsageError, match=r"'negative' has no option 'width'\. Its options: cleaner, depth"):
        load_generator(negative, width=3)


def test_the_cleaner_of_a_preset_comes_built_also_where_it_cannot_be_chosen(
    negative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, negative, replace(PRESETS[negative], options=("depth",)))
    made = load_generator(negative)
    assert made.cleaner is not None
    assert made.cleaner.info.name == "bicubic"
    with pytest.raises(UsageError, match="no option 'cleaner'"):
        load_generator(negative, cleaner="none")


def test_a_preset_of_ones_own_restores_on_the_command_line(negative: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 12), (250, 100, 0)).save(tmp_path / "lq.png")
    asked = [str(tmp_path / "lq.png"), "-o", str(tmp_path / "out.png"), "--preset", negative, "--scale", "2"]
    done = CliRunner().invoke(command, asked, standalone_mode=False)
    assert done.exception is None, done.output
    with Image.open(tmp_path / "out.png") as result:
        assert result.size == (32, 24)
        assert result.getpixel((5, 5)) == (5, 155, 255)


def test_a_diffusion_preset_of_ones_own_is_a_toml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.toml"
    own.write_text(SMALL.read_text(encoding="utf-8").replace('name = "small"', 'name = "own"'), encoding="utf-8")
    line = Preset("of one's own", PRESETS["sd21"].code, ("cleaner",), {"preset": own}, cleaner="bicubic")
    monkeypatch.setitem(PRESETS, "own", line)
    made = load_generator("own", device="cpu")
    assert made.info.name == "own (untrained)"
    assert made.cleaner is not None
    assert load_generator("own", device="cpu", cleaner="none").cleaner is None


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


class Enlarger:
    """Enlarges four times by repeating, and remembers what it was shown."""

    info = SimpleNamespace(scale=4)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def prepare(self, lq: FloatImage, references: Sequence[object], settings: object) -> None:
        assert not references

    def generate(self, tiles: Any, base: object, conditioning: object) -> Any:
        self.shapes.append(tiles.shape[1:3])
        return tiles.repeat(4, 1).repeat(4, 2)


@pytest.fixture
def cleaner(monkeypatch: pytest.MonkeyPatch) -> Enlarger:
    enlarger = Enlarger()
    monkeypatch.setattr(presets, "_query_cleaner", lambda: enlarger)
    return enlarger


def picture(height: int, width: int) -> FloatImage:
    return np.random.default_rng(0).random((height, width, 3), dtype=np.float32)


def test_auto_cleans_what_the_encoder_would_see_enlarged(cleaner: Enlarger) -> None:
    small, large = picture(80, 90), picture(224, 300)
    assert clean_query(small, 224).shape == (224, 252, 3), "as large as what the encoder sees"
    assert clean_query(small, 224, "off") is small
    assert clean_query(large, 224) is large
    assert clean_query(large, 224, "on") is not large
    assert len(cleaner.shapes) == 2


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 900), (900, 1), (60, 90), (128, 128), (200, 220), (223, 4000), (223, 224)]
)
def test_one_tile_of_bounded_size_whatever_the_picture(cleaner: Enlarger, shape: tuple[int, int]) -> None:
    answer = clean_query(picture(*shape), 224)
    ((height, width),) = cleaner.shapes
    assert answer.shape == (4 * height, 4 * width, 3)
    assert height * width <= 1.01 * 128 * 128
    assert min(height, width) == min(*shape, 56)
    assert 0 <= answer.min() <= answer.max() <= 1


def test_an_encoder_with_a_larger_square_gets_more_but_no_larger_tile(cleaner: Enlarger) -> None:
    assert clean_query(picture(300, 400), 448).shape == (448, 584, 3)
    assert clean_query(picture(700, 900), 1000).shape == (512, 512, 3)


def test_the_middle_is_kept(cleaner: Enlarger) -> None:
    wide = np.zeros((20, 400, 3), np.float32)
    wide[:, 190:210] = 1
    answer = clean_query(wide, 224)
    assert answer.shape == (80, 416, 3)
    bright = answer.mean(axis=(0, 2)) > 0.5
    assert bright[168:248].all()
    assert bright.sum() == 80


def test_a_picture_that_the_same_network_has_made_is_not_made_again(cleaner: Enlarger) -> None:
    lq = picture(80, 90)
    made = np.zeros((320, 360, 3), np.float32)
    assert clean_query(lq, 224, cleaned=made) is made
    assert clean_query(lq, 224, cleaned=made[:100]) is not made, "of another size: the result was asked for smaller"
    assert clean_query(lq, 224, "off", cleaned=made) is lq
    assert len(cleaner.shapes) == 1
