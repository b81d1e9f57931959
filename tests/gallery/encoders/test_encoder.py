"""An encoder of one's own: one file and one line, used through the public API and told apart by its fingerprint."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import rasr
from rasr.cli import doctor
from rasr.errors import EncoderMismatch, UsageError
from rasr.gallery import encoders, retrieve
from rasr.gallery.encoders import ENCODERS, Encoder, load_encoder
from tests.gallery.standin import make_picture

FILE = '''
"""Mean colours of a grid: an encoder that needs no weights."""

import numpy as np

from rasr.images import resize


class Mosaic:
    name, version, dimension, input_size = "mosaic", "1", 48, 4
    fingerprint = "mosaic/1/4x4"

    def __init__(self, *, device):
        self.device = device

    def preprocess(self, pixels):
        return np.ascontiguousarray(resize(pixels, (4, 4)).transpose(2, 0, 1), np.float32)

    def embed(self, batch):
        vectors = batch.reshape(len(batch), 48) - 0.5
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
'''


@pytest.fixture
def mosaic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file in a module of its own, and its line in the table."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "my_encoders.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setitem(ENCODERS, "mosaic", "my_encoders:Mosaic")
    monkeypatch.delitem(sys.modules, "my_encoders", raising=False)
    return "mosaic"


def test_it_makes_a_gallery_that_finds_by_it(mosaic: str, photos: Path, tmp_path: Path) -> None:
    gallery = rasr.Gallery(tmp_path / "g", encoder=mosaic)
    assert gallery.add(photos).added == 12
    again = rasr.Gallery(tmp_path / "g")  # the gallery knows its encoder by name
    assert isinstance(again.encoder, Encoder)
    assert (again.info().encoder, again.info().fingerprint, again.info().dimension) == ("mosaic", "mosaic/1/4x4", 48)
    query = photos / "dog" / "02.png"
    (best, *_) = retrieve(again, query)
    assert best.path == query
    assert best.accepted
    assert "mosaic has no calibration: cautious defaults" in best.why
    assert "mosaic/1/4x4" in doctor._encoders()["mosaic"]


def test_another_make_of_it_is_refused(mosaic: str, photos: Path, tmp_path: Path) -> None:
    rasr.Gallery(tmp_path / "g", encoder=mosaic).add(photos)
    changed = load_encoder(mosaic)
    changed.fingerprint = "mosaic/1/other"  # type: ignore[misc]
    with pytest.raises(EncoderMismatch, match="of another make"):
        rasr.Gallery(tmp_path / "g", encoder=changed).search(np.ones(48, np.float32))


def test_a_gallery_whose_encoder_is_not_there_says_so(
    mosaic: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rasr.Gallery(tmp_path / "g", encoder=mosaic).add(photos)
    monkeypatch.delitem(encoders.ENCODERS, "mosaic")
    with pytest.raises(EncoderMismatch, match=r"mosaic, which this version of rasr does not have.*rasr gallery add"):
        rasr.Gallery(tmp_path / "g").search(photos / "07.png")
    with pytest.raises(UsageError, match="Unknown encoder 'mosaic'"):
        rasr.Gallery(tmp_path / "h", encoder="mosaic").add(photos)


def test_a_users_own_calibration_is_used(
    mosaic: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = rasr.Gallery(tmp_path / "g", encoder=mosaic)
    gallery.add(make_picture(photos / "one.png", 70))
    monkeypatch.setenv("RASR_HOME", str(tmp_path))
    (tmp_path / "calibration.toml").write_text("[mosaic]\nthresholds = [[1, 0.9999]]\nmargin = 0.0\nsure = 1.0\n")
    (best,) = retrieve(gallery, photos / "07.png")
    assert not best.accepted
    assert "no calibration" not in best.why
