"""What embeds on a machine of the cluster, run here: the vectors of one machine, and a refusal of other weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rasr.cluster import ClusterOptions
from rasr.errors import EncoderMismatch, UsageError
from rasr.gallery import Gallery
from rasr.gallery.encoders import load_encoder
from rasr.memory import divide_memory
from tests.cluster.fake_ray import FakeRay, install
from tests.gallery.standin import ColourLayout, make_picture


@pytest.fixture(autouse=True)
def _whole_memory() -> Any:
    yield
    divide_memory(1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(40):
        make_picture(tmp_path / "photos" / f"{number:02}.png", number)
    (tmp_path / "photos" / "05.png").write_bytes(b"none")
    return tmp_path / "photos"


def test_the_same_gallery_and_the_same_report(monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path) -> None:
    install(monkeypatch, FakeRay(machines=3))
    alone, spread = Gallery(tmp_path / "alone"), Gallery(tmp_path / "spread")
    said = alone.add(photos)
    told = spread.add(photos, cluster=ClusterOptions("local"))
    assert {**told.to_json(), "seconds": 0, "images_per_second": 0} == {
        **said.to_json(),
        "seconds": 0,
        "images_per_second": 0,
    }
    assert told.embedded == 39
    (photos_alone, right), (photos_spread, made) = alone.embeddings(), spread.embeddings()
    assert [photo.id for photo in photos_alone] == [photo.id for photo in photos_spread]
    assert float(np.abs(right - made).max()) <= 1e-6
    again = spread.add(photos, cluster=ClusterOptions("local"))
    assert (again.added, again.unchanged, again.embedded) == (0, 39, 0)


def test_known_contents_are_not_embedded_again(monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path) -> None:
    install(monkeypatch, FakeRay())
    gallery = Gallery(tmp_path / "gallery")
    gallery.add(photos)
    photos.rename(tmp_path / "moved")
    report = gallery.add(tmp_path / "moved", cluster=ClusterOptions("local"))
    assert (len(report.moved), report.embedded) == (39, 0)


def test_other_weights_there_are_refused() -> None:
    from rasr.gallery.embedding import Embedder

    encoder = load_encoder()
    setup = {"encoder": encoder.name, "fingerprint": "another", "device": "cpu", "processes": 1, "driver": ""}
    with pytest.raises(EncoderMismatch, match="Install the same weights on all machines"):
        Embedder({**setup, "known": np.array([], "S32"), "filled": 1})


def test_an_encoder_that_has_no_name_stays_here(photos: Path, tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "gallery", encoder=ColourLayout())
    with pytest.raises(UsageError, match="by name"):
        gallery.add(photos, cluster=ClusterOptions("local"))
    with pytest.raises(UsageError, match="--workers"):
        Gallery(tmp_path / "gallery").add(photos, workers=2, cluster=ClusterOptions("local"))
