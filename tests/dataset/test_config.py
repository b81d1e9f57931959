"""Configs: the shipped ones, and what a mistake in one's own is answered with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rasr.dataset import load_config, shipped_configs
from rasr.errors import ConfigError


def test_every_shipped_config_is_valid() -> None:
    assert {"rasr-flickr30", "museum", "buildings"} <= set(shipped_configs())
    for name in shipped_configs():
        config = load_config(name)
        assert config.name == name
        assert all(category.why for category in config.category)


def test_the_papers_protocol() -> None:
    config = load_config("rasr-flickr30")
    assert (config.splits.train, config.splits.test, config.splits.reference) == (40, 5, 100)
    assert len(config.category) == 30
    assert len({category.scientific_name for category in config.category}) == 30
    assert config.source[0].kind == "flickr"
    assert "CC-BY-NC" not in config.filters.licences


MINIMAL = 'name = "x"\n[[source]]\nkind = "flickr"\n[[category]]\nname = "owl"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "not valid TOML"),
        ('name = "x"', "source"),
        (MINIMAL.replace("flickr", "instagram"), "flickr"),
        (MINIMAL + "speices = 3\n", "speices"),
        (MINIMAL + '[[category]]\nname = "owl"\n', "twice: owl"),
        (MINIMAL.replace('"owl"', '"../owl"'), "lower-case"),
        (MINIMAL.replace('"owl"', '"lq"'), "not lq"),
        (MINIMAL + "[splits]\ntrain = -1\n", "splits.train"),
        (MINIMAL + "[splits]\ntrain = 0\ntest = 0\nreference = 0\n", "all 0"),
        (MINIMAL + "[download]\nrate = 0\n", "download.rate"),
        ('name = "x"\n[[source]]\nkind = "flickr"\n', "without [[category]]"),
        (MINIMAL + '[[source]]\nkind = "flickr"\n', "given twice"),
        (MINIMAL.replace('"flickr"', '["flickr"]'), "there is no source ['flickr']"),
        (MINIMAL.replace('kind = "flickr"', "x = 1"), "flickr, inaturalist, commons, folder"),
        (MINIMAL.replace('"flickr"', '"flickr"\nsorts = "relevance"'), "unknown key 'sorts'. Did you mean 'sort'?"),
        (MINIMAL.replace('"flickr"', '"folder"\npath = "x"\n[source.columns]\nauthors = "a"'), "columns"),
        (MINIMAL + "[lq]\npreset = 'realesgran'\n", "lq.preset: there is no degradation preset 'realesgran'"),
        (MINIMAL + "[download.rates]\n'www.flickr.com' = 0\n", "download.rates.www.flickr.com"),
        (MINIMAL + "[downloads]\nrate = 1\n", "Did you mean 'download'?"),
        ("source = 3\n" + MINIMAL.partition("[[source]]")[0], "source"),
        ("source = [3]\n" + MINIMAL.partition("[[source]]")[0], "there is no source None"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert said in str(error.value)
    assert "mine.toml" in str(error.value)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="rasr-flickr30"):
        load_config("flickr31")


def test_relative_folders_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "x"\n[[source]]\nkind = "folder"\npath = "photos"\n', "utf-8")
    (source,) = load_config(tmp_path / "mine.toml").source
    assert source.kind == "folder"
    assert source.path == tmp_path / "photos"


def test_contact_comes_from_the_environment_first(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("rasr-flickr30")
    assert not config.reachable
    monkeypatch.setenv("RASR_CONTACT", "me@zoo.example")
    assert re.fullmatch(r"rasr/[\d.]+\S* \(me@zoo\.example\)", config.agent)
    assert config.reachable


def test_a_home_of_nobody_is_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "x"\n[[source]]\nkind = "folder"\npath = "~nobody-here/p"\n', "utf-8")
    (source,) = load_config(tmp_path / "mine.toml").source
    assert source.path == tmp_path / "~nobody-here/p"
