"""Training data: photos that validate neither train nor guide."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasr.errors import ConfigError
from rasr.training.config import TrainingConfig
from rasr.training.data import TrainingData
from tests.training.standin import make_photos, tiny_config


def prepared(config: TrainingConfig) -> TrainingData:
    return TrainingData.prepare(config, None, lambda _line: None)


def test_what_validates_does_not_train(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 6)
    config = tiny_config(photos, validation__photos=[str(photos)], validation__count=2, validation__crop=32)
    found = prepared(config)
    assert found.validation is not None
    names = {name for batch in found.validation.batches for name in batch.names}
    assert len(names) == 2
    assert names.isdisjoint(photo.path.name for photo in found.maker.photos)
    assert len(found.maker.photos) == 4
    everything = tiny_config(photos, validation__photos=[str(photos)], validation__count=6, validation__crop=32)
    with pytest.raises(ConfigError, match="every training photo"):
        prepared(everything)
