"""The stand-in photo sites, and no proxy between them and the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rasr.dataset.config import DatasetConfig, parse_config
from tests.dataset.photo_sites import KEY, World, config_for


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("FLICKR_API_KEY", KEY)
    monkeypatch.delenv("RASR_CONTACT", raising=False)


@pytest.fixture
def make_config() -> Callable[..., DatasetConfig]:
    """A checked config for the stand-in at an address."""

    def make(base: str, subjects: list[str], sources: list[str], **sections: object) -> DatasetConfig:
        raw = config_for(base, subjects, sources)
        for name, section in sections.items():
            old = raw.get(name)
            raw[name] = old | section if isinstance(old, dict) and isinstance(section, dict) else section
        return parse_config(raw, "test", Path())

    return make


@pytest.fixture
def world() -> World:
    return World()
