"""TOML to a checked model, and the one sentence about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from rasr.config import check_table, read_toml
from rasr.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    weight: float = Field(default=1.0, gt=0)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    loss: Inner = Inner()
    source: tuple[Inner, ...] = ()
    extra: Inner | None = None


def test_a_table_becomes_its_model(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[loss]\nweight = 2\n[[source]]\nweight = 3\n")
    model = check_table(Outer, read_toml(tmp_path / "a.toml"), "a.toml")
    assert model.loss.weight == 2
    assert model.source[0].weight == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"loss": {"weigth": 1}}, r"a\.toml: unknown key 'loss\.weigth'\. Did you mean 'weight'\?$"),
        ({"lost": {}}, r"a\.toml: unknown key 'lost'\. Did you mean 'loss'\?$"),
        ({"source": [{"wait": 1}]}, r"a\.toml: unknown key 'source\.0\.wait'\. Did you mean 'weight'\?$"),
        ({"extra": {"wait": 1}}, r"unknown key 'extra\.wait'\. Did you mean 'weight'\?$"),
        ({"loss": {"weight": -1}}, r"a\.toml: loss\.weight: Input should be greater than 0\."),
        ({"loss": 3}, r"a\.toml: loss: Input should be a valid dictionary"),
    ],
)
def test_a_fault_names_the_file_the_key_and_a_near_match(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_table(Outer, table, "a.toml")


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", b"a = " + b"[" * 100_000])
def test_a_file_that_is_no_toml_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml") as caught:
        read_toml(path, "recipe")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read the recipe .*none\.toml: No such file"):
        read_toml(tmp_path / "none.toml", "recipe")
