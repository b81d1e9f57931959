"""Preset files."""

from pathlib import Path

import pytest

from rasr.errors import ConfigError
from rasr.generator.config import ModelConfig, read_model_config
from tests.generator.conftest import SMALL


@pytest.mark.parametrize("name", ["sd21-osediff", "sd21-pisasr"])
def test_every_preset_file_is_valid_and_carries_its_own_name(name: str) -> None:
    assert read_model_config(name).name == name


def test_the_published_figures_stand_in_the_presets() -> None:
    osediff, pisasr = read_model_config("sd21-osediff"), read_model_config("sd21-pisasr")
    assert (osediff.rule, osediff.timestep) == ("eps", 999)
    assert (pisasr.rule, pisasr.timestep, pisasr.context.prompt) == ("residual", 1, "")
    assert osediff.reference.lora_rank == 4
    assert osediff.reference.blocks == 3


def test_a_preset_of_ones_own_is_read_from_its_file(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(SMALL.read_text(encoding="utf-8").replace('name = "small"', 'name = "own"'), encoding="utf-8")
    assert read_model_config(own).name == "own"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('rule = "residual"', 'rule = "guess"'), "rule"),
        (("timestep = 1", "timestep = 1\nspeed = 3"), "speed"),
        (("lora_rank = 8", "lora_rank = -1"), "lora_rank"),
        (("[reference]", '[reference]\ncontrol = "copy"'), "control"),
        (('kind = "patch"', 'kind = "kl"'), "codec.kind 'kl' comes with a base model"),
        (("sees_lq = true", "ses_lq = true"), "Did you mean 'sees_lq'"),
        (('name = "small"', "name = "), "not valid TOML"),
    ],
)
def test_mistakes_in_a_preset_are_named(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    text = SMALL.read_text(encoding="utf-8")
    assert change[0] in text
    own = tmp_path / "own.toml"
    own.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError, match=complaint):
        read_model_config(own)


def test_an_unknown_preset_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"Cannot read the preset .*maxi\.toml: No such file"):
        read_model_config("maxi")


def test_a_configuration_survives_its_json_form() -> None:
    config = read_model_config(SMALL)
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
