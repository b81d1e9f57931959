"""RefDSR behind the generator protocol."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rasr.errors import ConfigError, RasrError, UsageError, WeightsMissing
from rasr.generator import (
    Cuttable,
    GenerationSettings,
    Generator,
    GeneratorInfo,
    ReferencePicture,
    load_generator,
)
from rasr.generator.adapter import save_adapter, save_backbone
from rasr.generator.config import ModelConfig
from rasr.generator.diffusion import TEMPERATURE, DiffusionGenerator
from rasr.generator.refdsr import RefDSR, build_model
from tests.generator.conftest import SMALL

SETTINGS = GenerationSettings()


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


@pytest.fixture
def files(guided: RefDSR, tmp_path: Path) -> dict[str, Path]:
    """A backbone and an adapter as training leaves them."""
    return {
        "weights": save_backbone(guided, tmp_path / "backbone.safetensors"),
        "adapter": save_adapter(guided, tmp_path / "adapter.safetensors"),
    }


@pytest.fixture
def generator(small_config: Callable[..., ModelConfig], files: dict[str, Path]) -> DiffusionGenerator:
    return DiffusionGenerator(small_config(), device="cpu", **files)


def test_without_weights_it_meets_the_protocol_and_says_that_it_is_untrained() -> None:
    generator = DiffusionGenerator(SMALL, device="cpu")
    assert isinstance(generator, Generator)
    assert generator.info.name == "small (untrained)"
    assert (generator.info.trained, generator.info.uses_reference) == (False, False)


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (33, 70), (5, 200)])
def test_untrained_weights_give_the_input_back_at_any_size(
    small_config: Callable[..., ModelConfig], size: tuple[int, int]
) -> None:
    generator = DiffusionGenerator(small_config(), device="cpu")
    tiles = photo(*size)[None]
    conditioning = generator.prepare(photo(9, 9), [ReferencePicture(photo(40, 40), 0.9)], SETTINGS)
    np.testing.assert_allclose(generator.generate(tiles, None, conditioning), tiles, atol=1e-6)
    base = photo(*size, seed=2)[None]
    np.testing.assert_allclose(generator.generate(tiles, base, conditioning), base, atol=1e-6)


def test_five_hundred_random_sizes_come_back_at_their_size(small_config: Callable[..., ModelConfig]) -> None:
    generator = DiffusionGenerator(small_config(), device="cpu")
    conditioning = generator.prepare(photo(8, 8), [], SETTINGS)
    random = np.random.default_rng(1)
    for _ in range(500):
        height, width = map(int, random.integers(1, 41, 2))
        tiles = np.full((1, height, width, 3), 0.25, np.float32)
        assert generator.generate(tiles, None, conditioning).shape == tiles.shape


def test_with_weights_it_says_whose_and_uses_references(generator: DiffusionGenerator, files: dict[str, Path]) -> None:
    assert generator.info.trained
    assert generator.info.uses_reference
    assert str(files["weights"]) in generator.info.weights
    assert generator.info.name == "small"


def test_reference_none_and_strength_zero_are_the_backbone_bit_for_bit(
    generator: DiffusionGenerator, small_config: Callable[..., ModelConfig], files: dict[str, Path]
) -> None:
    tiles, reference = photo(50, 70)[None], ReferencePicture(photo(90, 60, seed=1), 0.8)
    alone = DiffusionGenerator(small_config(), device="cpu", weights=files["weights"], adapter="none")
    expected = alone.generate(tiles, None, alone.prepare(photo(12, 17), [reference], SETTINGS))
    for references, strength in (([], 1.0), ([reference], 0.0)):
        conditioning = generator.prepare(photo(12, 17), references, GenerationSettings(strength=strength))
        assert np.array_equal(generator.generate(tiles, None, conditioning), expected)
    guided = generator.generate(tiles, None, generator.prepare(photo(12, 17), [reference], SETTINGS))
    assert np.abs(guided - expected).max() > 1e-3


def test_the_same_call_gives_the_same_bytes(generator: DiffusionGenerator) -> None:
    tiles, reference = photo(64, 64)[None], ReferencePicture(photo(64, 64, seed=1), 0.8)
    once, again = (
        generator.generate(tiles, None, generator.prepare(photo(16, 16), [reference], GenerationSettings(seed=3)))
        for _ in range(2)
    )
    assert once.tobytes() == again.tobytes()


def test_several_references_are_weighted_by_score(generator: DiffusionGenerator) -> None:
    tiles = photo(64, 64)[None]
    first, second = ReferencePicture(photo(64, 64, seed=1), 0.9), ReferencePicture(photo(64, 96, seed=2), 0.1)
    prepared = generator.prepare(photo(16, 16), [first, second], SETTINGS)
    expected = np.exp([0.9 / TEMPERATURE, 0.1 / TEMPERATURE])
    np.testing.assert_allclose(prepared.weights.numpy()[0], expected / expected.sum(), rtol=1e-5)  # type: ignore[attr-defined]
    both = generator.generate(tiles, None, prepared)
    one = generator.generate(tiles, None, generator.prepare(photo(16, 16), [first], SETTINGS))
    assert 0 < np.abs(both - one).max() < 0.01, "0.8 of cosine apart, the second hardly counts"


@pytest.mark.parametrize("size", [(300, 960), (307, 901), (510, 1081), (916, 1440), (1440, 916)])
def test_references_whose_reduced_sides_round_up_are_read(generator: DiffusionGenerator, size: tuple[int, int]) -> None:
    # For these the crop came out 1e-13 longer than the photo, which the resampler refused.
    prepared = generator.prepare(photo(16, 16), [ReferencePicture(photo(*size), 0.5)], GenerationSettings())
    assert generator.generate(photo(96, 64)[None], None, prepared).shape == (1, 96, 64, 3)


def test_a_reference_is_encoded_once(generator: DiffusionGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    original = RefDSR.encode_reference
    monkeypatch.setattr(
        RefDSR, "encode_reference", lambda self, pictures: encoded.append(pictures.shape) or original(self, pictures)
    )
    reference, same = ReferencePicture(photo(64, 64, seed=1), 0.8), ReferencePicture(photo(64, 64, seed=1), 0.5)
    for chosen in (reference, same):
        conditioning = generator.prepare(photo(16, 16), [chosen], SETTINGS)
        generator.generate(photo(64, 64)[None], None, conditioning)
        generator.generate(photo(64, 64, seed=3)[None], None, conditioning)
    assert len(encoded) == 1
    generator.generate(
        photo(64, 64)[None],
        None,
        generator.prepare(photo(16, 16), [ReferencePicture(photo(64, 64, seed=9), 0.8)], SETTINGS),
    )
    assert len(encoded) == 2


def test_the_pictures_embedding_is_the_context(
    small_config: Callable[..., ModelConfig], files: dict[str, Path]
) -> None:
    generator = DiffusionGenerator(small_config(), device="cpu", **files)
    assert generator.info.context_encoder == "effnet-lite0-robust"
    embedding = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    tiles = photo(64, 64)[None]
    with_context, without = (
        generator.generate(tiles, None, generator.prepare(photo(10, 20), [], settings))
        for settings in (GenerationSettings(embedding=embedding), SETTINGS)
    )
    assert np.abs(with_context - without).max() > 1e-5


def test_bf16_on_the_cpu_stays_close_and_keeps_the_inputs_precision(
    small_config: Callable[..., ModelConfig], files: dict[str, Path], generator: DiffusionGenerator
) -> None:
    half = DiffusionGenerator(small_config(), device="cpu", dtype="bf16", **files)
    tiles, reference = photo(64, 64)[None], ReferencePicture(photo(64, 64, seed=1), 0.8)
    a, b = (g.generate(tiles, None, g.prepare(photo(16, 16), [reference], SETTINGS)) for g in (half, generator))
    assert half.model.unet.dtype == torch.bfloat16
    assert "bf16" in half.info.device
    assert np.abs(a - b).mean() < 0.02
    with pytest.raises(UsageError, match="fp16 does not run on the CPU"):
        DiffusionGenerator(small_config(), device="cpu", dtype="fp16")


def test_small_inputs_are_enlarged_for_backbones_that_need_it(small_config: Callable[..., ModelConfig]) -> None:
    generator = DiffusionGenerator(small_config(minimum_side=64), device="cpu")
    seen = []
    conditioning = generator.prepare(photo(8, 8), [], SETTINGS)
    generator.model.unet.register_forward_hook(lambda _m, args, _o: seen.append(tuple(args[0].shape[2:])))
    smooth = np.linspace(0, 1, 20 * 30 * 3, dtype=np.float32).reshape(1, 20, 30, 3)
    result = generator.generate(smooth, None, conditioning)
    assert seen == [(16, 24)], "64 × 96 pixels on a stride of 4"
    np.testing.assert_allclose(result, smooth, atol=0.02)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"adapter": "gone.safetensors"}, WeightsMissing),
        ({"weights": "gone.safetensors"}, WeightsMissing),
        ({"base": "folder"}, UsageError),
        ({"vae": "tiny"}, UsageError),
        ({"device": "tpu"}, UsageError),
    ],
)
def test_wrong_options_are_answered_before_any_work(
    small_config: Callable[..., ModelConfig], options: dict[str, str], error: type[RasrError]
) -> None:
    with pytest.raises(error):
        DiffusionGenerator(small_config(), **({"device": "cpu"} | options))


def test_a_prompt_for_a_model_without_text_is_an_error(generator: DiffusionGenerator) -> None:
    with pytest.raises(UsageError, match="reads no text"):
        generator.prepare(photo(8, 8), [], GenerationSettings(prompt="a cat"))


def test_a_tile_multiple_that_does_not_fit_the_network_is_a_mistake_in_the_preset(
    small_config: Callable[..., ModelConfig],
) -> None:
    config = small_config()
    wrong = config.model_copy(update={"tile": replace(config.tile, multiple=48)})
    with pytest.raises(ConfigError, match="must be 32"):
        DiffusionGenerator(wrong, device="cpu").prepare(photo(8, 8), [], SETTINGS)


def test_presets_are_in_the_table_and_take_a_cleaner_by_name() -> None:
    generator = load_generator("sd21", device="cpu", cleaner="bicubic")
    assert generator.cleaner is not None
    assert generator.cleaner.info.name == "bicubic"
    assert generator.info.name.startswith("sd21-osediff")


def half(height: int, width: int, seed: int = 7) -> ReferencePicture:
    """A registered reference that covers the left half of a picture, with a soft border."""
    sure = np.clip((width / 2 - np.arange(width, dtype=np.float32)) / 8, 0, 1)
    return ReferencePicture(photo(height, width, seed), 0.9, confidence=np.tile(sure, (height, 1)))


def test_a_registered_reference_changes_what_it_covers_and_nothing_else(generator: DiffusionGenerator) -> None:
    tiles = photo(96, 128)[None]
    plain = generator.generate(tiles, None, generator.prepare(tiles[0], [], SETTINGS))

    def restored(*references: ReferencePicture, strength: float = 1.0) -> np.ndarray:
        settings = GenerationSettings(strength=strength)
        return generator.generate(tiles, None, generator.prepare(tiles[0], references, settings))

    changed = np.abs(restored(half(96, 128)) - plain)
    assert np.array_equal(restored(half(96, 128))[:, :, 64:], plain[:, :, 64:]), "to the bit where it does not reach"
    assert changed[:, :, :48].mean() > 1e-3
    assert np.array_equal(restored(half(96, 128), strength=0.0), plain)
    weaker = np.abs(restored(half(96, 128), strength=0.2) - plain)
    assert 0 < weaker.mean() < changed.mean()
    nowhere = replace(half(96, 128), confidence=np.zeros((96, 128), np.float32))
    assert np.array_equal(restored(nowhere), plain)
    other = restored(half(96, 128, seed=8))
    assert np.abs(other - restored(half(96, 128)))[:, :, :48].mean() > 1e-4, "what it shows counts"
    right = replace(half(96, 128), confidence=half(96, 128).confidence[:, ::-1].copy())  # type: ignore[index]
    both = restored(half(96, 128), right)
    assert np.abs(both - plain)[:, :, 80:].mean() > 1e-3


def test_a_base_is_what_surrounds_a_registered_reference(generator: DiffusionGenerator) -> None:
    tiles, base = photo(64, 64)[None], photo(64, 64, seed=2)[None]
    plain = generator.generate(tiles, base, generator.prepare(tiles[0], [], SETTINGS))
    restored = generator.generate(tiles, base, generator.prepare(tiles[0], [half(64, 64)], SETTINGS))
    assert np.array_equal(restored[:, :, 32:], plain[:, :, 32:])
    assert np.abs(restored - plain)[:, :, :24].mean() > 1e-3


@pytest.mark.parametrize("size", [(33, 70), (5, 200)])
def test_registered_references_come_in_any_size_and_are_cut_with_the_tile(
    generator: DiffusionGenerator, size: tuple[int, int]
) -> None:
    height, width = size
    tiles = photo(height, width)[None]
    conditioning = generator.prepare(tiles[0], [half(height, width)], SETTINGS)
    assert isinstance(conditioning, Cuttable)
    whole = generator.generate(tiles, None, conditioning)
    assert whole.shape == tiles.shape
    part = conditioning.cut(lambda plane: plane[:, -16:])
    plain = generator.generate(tiles[:, :, -16:], None, generator.prepare(tiles[0], [], SETTINGS))
    assert np.array_equal(generator.generate(tiles[:, :, -16:], None, part), plain), "the right end shows nothing of it"
    with pytest.raises(ValueError, match="cut to the tile's"):
        generator.generate(tiles[:, :, -16:], None, conditioning)
    as_it_is = generator.prepare(tiles[0], [ReferencePicture(photo(40, 40), 0.9)], SETTINGS)
    assert isinstance(as_it_is, Cuttable)
    assert as_it_is.cut(lambda plane: plane[:0]) is as_it_is, "a photo as it is belongs to no place"


def test_an_adapter_says_whether_it_was_trained_on_registered_references(
    small_config: Callable[..., ModelConfig], guided: RefDSR, files: dict[str, Path], tmp_path: Path
) -> None:
    trained = build_model(small_config())
    trained.load_state_dict(guided.state_dict(), strict=False)
    trained.attach_reference(small_config().reference.model_copy(update={"registered": True}))
    own = files | {"adapter": save_adapter(trained, tmp_path / "registered.safetensors")}

    def made(given: dict[str, Path], **options: Any) -> GeneratorInfo:
        return DiffusionGenerator(small_config(), device="cpu", **{**given, **options}).info

    assert (made(files).registered, made(files).remark) == (False, "")
    assert (made(own).registered, made(own).remark) == (True, "")
    asked = made(files, registered="on")
    assert asked.registered
    assert "was not trained on registered photos" in asked.remark
    left = made(own, registered="off")
    assert not left.registered
    assert "was trained on registered photos" in left.remark
    assert made(files, registered="off").remark == ""
    with pytest.raises(UsageError, match="registered must be auto, on or off, not 'yes'"):
        made(own, registered="yes")
    with pytest.raises(UsageError, match="no reference adapter here"):
        made(own, adapter="none", registered="on")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no adapter")
    assert not made(files, adapter=broken).registered, "what is wrong with it is told when it is loaded"
