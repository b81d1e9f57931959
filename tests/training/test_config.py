"""Every key is checked, and a wrong one is named with the nearest right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rasr.errors import ConfigError
from rasr.training.config import changed_keys, packaged_configs, read_training_config
from tests.training.standin import tiny_config

MINIMAL = """
name = "a"
stage = "backbone"
[model]
preset = "sd21-osediff"
[data]
photos = ["photos"]
[loop]
steps = 10
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "stepz = 5\n", "unknown key 'loop.stepz'. Did you mean 'steps'?"),
        (MINIMAL.replace("name", "nam"), "unknown key 'nam'. Did you mean 'name'?|name: Field required"),
        (
            MINIMAL + "[references]\nphases = [{mix = {nul = 1.0}}]\n",
            "'references.phases.0.mix.nul'. Did you mean 'null'?",
        ),
        (MINIMAL + "[loss]\nmse = -1\n", "loss.mse: Input should be greater than or equal to 0"),
        (MINIMAL + 'batch = "many"\n', "loop.batch"),
        (MINIMAL + '[loss]\nperceptual_network = "effnet-lite0"\n', "loss.perceptual_network: .*'effnet-lite1'"),
        (MINIMAL.replace('"backbone"', '"reference"'), "stage 'reference' needs"),
        (MINIMAL + "[references]\nphases = [{mix = {random = 1.0}}]\n", "takes no references"),
        (MINIMAL + "[loss]\nmse = 0\nperceptual = 0\n", "every loss weight is 0"),
        (MINIMAL.replace('["photos"]', '["photos"]\ncrop = 30'), "crop 30 is not a multiple of scale 4"),
        (MINIMAL + "steps = 3\n", "not valid TOML"),
        (MINIMAL.replace('photos = ["photos"]', ""), "--photos FOLDER"),
        (MINIMAL.replace('"a"', '"../a"'), "name: String should match"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?").replace(".", r"\.").replace(r"\.*", ".*")):
        read_training_config(write(tmp_path, text))


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ([{"mix": {"null": 0.5, "random": 0.4}}], "add up to 0.9"),
        ([{"until": 5, "mix": {"null": 1.0}}], "rising 'until'"),
        (
            [{"until": 5, "mix": {"random": 1.0}}, {"until": 5, "mix": {"random": 1.0}}, {"mix": {"null": 1.0}}],
            "rising",
        ),
    ],
)
def test_impossible_mixes_are_refused(tmp_path: Path, mix: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(tmp_path, references__phases=mix)


def test_phases_follow_each_other(tmp_path: Path) -> None:
    phases = [{"until": 5, "mix": {"warped": 1.0}}, {"until": 8, "mix": {"random": 1.0}}, {"mix": {"null": 1.0}}]
    references = tiny_config(tmp_path, references__phases=phases).references
    assert [references.mix_at(step).warped for step in (0, 4, 5)] == [1, 1, 0]
    assert references.mix_at(7).random == 1
    assert references.mix_at(8).null == references.mix_at(10**6).null == 1


def test_settings_and_folders_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, MINIMAL.replace('photos = ["photos"]', ""))
    config = read_training_config(
        path, ["loop.batch=4", "data.degradation=light", "optimizer.betas=[0.5, 0.9]"], photos=[Path("mine")]
    )
    assert config.loop.batch == 4
    assert config.data.degradation == "light"
    assert config.optimizer.betas == (0.5, 0.9)
    assert config.data.photos == (tmp_path / "mine",)
    for wrong in ("loop.batch", "name.x=1"):
        with pytest.raises(ConfigError):
            read_training_config(path, [wrong])


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = MINIMAL.replace('preset = "sd21-osediff"', 'preset = "own.toml"\nweights = { backbone = "b.safetensors" }')
    config = read_training_config(write(tmp_path, text))
    assert config.data.photos == (tmp_path / "photos",)
    assert config.model.preset == str(tmp_path / "own.toml")
    assert config.model.weights == {"backbone": str(tmp_path / "b.safetensors")}


def test_every_packaged_config_is_valid(tmp_path: Path) -> None:
    configs = packaged_configs()
    assert set(configs) == {"sd21-rasrnet"}
    for name in configs:
        config = read_training_config(name, photos=[tmp_path])
        assert config.stage == "reference"
        assert not config.validation.photos
    with pytest.raises(ConfigError, match="sd21-rasrnet"):
        read_training_config("sd21-rasnet")


def test_what_may_change_between_sittings(tmp_path: Path) -> None:
    old = tiny_config(tmp_path)
    assert not changed_keys(old, tiny_config(tmp_path / "moved", loop__steps=99, data__workers=3, loop__keep=5))
    changes = changed_keys(old, tiny_config(tmp_path, optimizer__lr=0.5, seed=3))
    assert changes == ["optimizer.lr: 0.001 → 0.5", "seed: 0 → 3"]
