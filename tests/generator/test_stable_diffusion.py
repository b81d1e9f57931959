"""Stable Diffusion from a hub-layout folder: the whole path on narrow layers, and what is missing or damaged."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

from rasr.device import choose_device
from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.generator import GenerationSettings, ReferencePicture, load_generator
from rasr.generator.adapter import save_adapter
from rasr.generator.config import WeightPaths, preset_at_hand, read_model_config
from rasr.generator.diffusion import _load_model
from rasr.generator.refdsr import _one_step
from tests.generator.conftest import ALPHA_BAR_999

CPU = choose_device("cpu")


@pytest.fixture(scope="module")
def base(hub_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_folder(tmp_path_factory.mktemp("hub") / "sd")


@pytest.fixture(scope="module")
def osediff(base: Path, checkpoints: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "osediff.pkl"
    checkpoints.osediff(*_models(base), path)
    return path


@pytest.fixture(scope="module")
def pisasr(base: Path, checkpoints: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "pisa_sr.pkl"
    checkpoints.pisasr(_models(base)[0], path)
    return path


def _models(base: Path) -> tuple[Any, Any]:
    return UNet2DConditionModel.from_pretrained(base / "unet"), AutoencoderKL.from_pretrained(base / "vae")


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


@torch.no_grad()
def test_osediff_is_encode_one_eps_step_decode(base: Path, osediff: Path, checkpoints: SimpleNamespace) -> None:
    """Against the same computation written out with diffusers, peft and transformers."""
    config = read_model_config("sd21-osediff")
    model, prompts = _load_model(config, WeightPaths(base=str(base), checkpoint=osediff), CPU)
    unet, vae = _models(base)
    checkpoints.osediff(unet, vae, osediff.with_name("again.pkl"))
    picture = torch.rand(1, 3, 64, 128) * 2 - 1
    states = prompts.states("a cat")
    z = vae.encode(picture).latent_dist.mode() * 0.18215
    eps = unet(z, 999, states).sample
    expected = vae.decode(_one_step("eps", z, eps, ALPHA_BAR_999) / 0.18215).sample
    torch.testing.assert_close(model(picture, context=states), expected, rtol=2e-3, atol=2e-3)
    assert states.shape == (1, 77, 24)
    assert not torch.equal(states, prompts.states(""))
    assert torch.equal(model.null_context, prompts.states(""))


@torch.no_grad()
def test_pisasr_subtracts_what_the_unet_says_at_t_1(base: Path, pisasr: Path, checkpoints: SimpleNamespace) -> None:
    model, prompts = _load_model(read_model_config("sd21-pisasr"), WeightPaths(base=str(base), checkpoint=pisasr), CPU)
    unet, vae = _models(base)
    checkpoints.pisasr(unet, pisasr.with_name("again.pkl"))
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    z = vae.encode(picture).latent_dist.mode() * 0.18215
    expected = vae.decode((z - unet(z, 1, prompts.states("")).sample) / 0.18215).sample
    torch.testing.assert_close(model(picture), expected, rtol=2e-3, atol=2e-3)


def test_the_whole_path_with_an_adapter(base: Path, osediff: Path, tmp_path: Path) -> None:
    """From the preset's name to pixels: sizes kept, reference used, exact without it."""
    options = {"base": base, "checkpoint": osediff, "device": "cpu"}
    alone = load_generator("sd21", **options)
    assert alone.info.name == "sd21-osediff (no reference adapter)"
    assert not alone.info.uses_reference
    model = alone.model  # type: ignore[attr-defined]  # a DiffusionGenerator
    model.attach_reference()
    with torch.no_grad():
        for parameter in model.reference_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    adapter = save_adapter(model, tmp_path / "a.safetensors")
    model.branch = None
    guided = load_generator("sd21-osediff", adapter=adapter, **options)
    assert guided.info.uses_reference
    tiles, reference = photo(70, 90)[None], ReferencePicture(photo(50, 120, seed=1), 0.7)
    settings = GenerationSettings(prompt="a dog")
    results = [g.generate(tiles, None, g.prepare(tiles[0], [reference], settings)) for g in (alone, guided)]
    assert results[0].shape == results[1].shape == tiles.shape
    assert np.abs(results[0] - results[1]).max() > 1e-3
    without = guided.generate(tiles, None, guided.prepare(tiles[0], [], settings))
    assert np.array_equal(without, results[0])


def test_taesd_in_place_of_the_full_autoencoder(base: Path, osediff: Path, tmp_path: Path) -> None:
    AutoencoderTiny(num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1)).save_pretrained(
        tmp_path / "taesd"
    )
    tiny = load_generator("sd21", base=base, checkpoint=osediff, vae=tmp_path / "taesd", device="cpu")
    tiles = photo(64, 64)[None]
    result = tiny.generate(tiles, None, tiny.prepare(tiles[0], [], GenerationSettings()))
    assert result.shape == tiles.shape
    with pytest.raises(WeightsMissing, match="rasr models download taesd"):
        load_generator("sd21", base=base, checkpoint=osediff, vae="tiny", device="cpu").prepare(
            tiles[0], [], GenerationSettings()
        )


def test_what_is_missing_is_named_with_the_way_to_get_it(base: Path, osediff: Path, tmp_path: Path) -> None:
    lq = photo(8, 8)
    with pytest.raises(WeightsMissing, match=r"Get it from https.*osediff\.pkl.*RASR_OSEDIFF"):
        load_generator("sd21", base=base, device="cpu").prepare(lq, [], GenerationSettings())
    with pytest.raises(WeightsMissing, match=r"Manojb/stable-diffusion-2-1-base.*rasr models download sd21"):
        load_generator("sd21", checkpoint=osediff, device="cpu").prepare(lq, [], GenerationSettings())
    with pytest.raises(WeightsMissing, match=r"lacks unet/config\.json"):
        load_generator("sd21", base=tmp_path, checkpoint=osediff, device="cpu").prepare(lq, [], GenerationSettings())


def test_files_of_ones_own_are_found_by_variable_and_in_the_home_folder(
    base: Path, osediff: Path, pisasr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert preset_at_hand() == "sd21-osediff"
    monkeypatch.setenv("RASR_PISASR", str(pisasr))
    assert preset_at_hand() == "sd21-pisasr"
    monkeypatch.setenv("RASR_SD21_BASE", str(base))
    load_generator("sd21", device="cpu").prepare(photo(8, 8), [], GenerationSettings())
    monkeypatch.setenv("RASR_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "osediff.pkl").write_bytes(osediff.read_bytes())
    assert preset_at_hand() == "sd21-osediff"


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"])
@pytest.mark.parametrize("damage", ["truncated", "another architecture"])
def test_a_damaged_base_model_is_named(base: Path, osediff: Path, tmp_path: Path, part: str, damage: str) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(base, tmp_path / "sd")
    file = tmp_path / "sd" / f"{part}.safetensors"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        tensors = load_file(file)
        tensors.pop(sorted(tensors)[3])
        save_file(tensors, file, {"format": "pt"})
    with pytest.raises(WeightsCorrupt, match=str(tmp_path)):
        load_generator("sd21", base=tmp_path / "sd", checkpoint=osediff, device="cpu").prepare(
            photo(8, 8), [], GenerationSettings()
        )


def test_half_precision_files_serve_when_they_are_all_there_is(base: Path, osediff: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(base, tmp_path / "sd")
    for name in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        file = tmp_path / "sd" / f"{name}.safetensors"
        halves = {key: tensor.half() for key, tensor in load_file(file).items()}
        save_file(halves, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
        file.unlink()
    tiles = photo(64, 64)[None]
    results = []
    for folder in (base, tmp_path / "sd"):
        generator = load_generator("sd21", base=folder, checkpoint=osediff, device="cpu")
        results.append(generator.generate(tiles, None, generator.prepare(tiles[0], [], GenerationSettings())))
    assert 0 < np.abs(results[0] - results[1]).mean() < 0.05
