"""Photos on object storage: added, found unchanged, changed, gone, searched and checked where they lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rasr.errors import GalleryError
from rasr.files import write_bytes
from rasr.gallery import Gallery
from rasr.object_path import place
from tests.gallery.standin import ColourLayout, make_picture
from tests.objects.proxy import Proxy


@pytest.fixture
def far(s3: str, photos: Path) -> Path:
    """The pictures of ``photos`` at an address."""
    top = place(f"{s3}/photos")
    for path in photos.rglob("*.png"):
        write_bytes(path.read_bytes(), top / path.relative_to(photos).as_posix())
    return top


@pytest.fixture(params=["folder", "s3"])
def gallery(request: pytest.FixtureRequest, s3: str, tmp_path: Path) -> Gallery:
    return Gallery(tmp_path / "gallery" if request.param == "folder" else f"{s3}/gallery", encoder=ColourLayout())


def test_photos_at_an_address_give_the_gallery_that_local_ones_give(
    gallery: Gallery, far: Path, photos: Path, tmp_path: Path
) -> None:
    local = Gallery(tmp_path / "local", encoder=ColourLayout())
    local.add(photos)
    report = gallery.add(str(far))
    assert (report.added, report.failed) == (12, [])
    facts = [(one.id, one.size, one.width, one.phash, one.category) for one in local.list()]
    assert sorted((one.id, one.size, one.width, one.phash, one.category) for one in gallery.list()) == sorted(facts)
    assert {str(one.path) for one in gallery.list()} == {
        f"{far}/{p.relative_to(photos).as_posix()}" for p in photos.rglob("*.png")
    }
    query = make_picture(tmp_path / "query.png", 4)
    ours, theirs = local.search(query, 12), gallery.search(query, 12)
    assert [one.id for one in ours] == [one.id for one in theirs]
    np.testing.assert_allclose([one.score for one in ours], [one.score for one in theirs], atol=1e-6, rtol=0)
    assert all(one.usable for one in theirs)
    assert gallery.verify(deep=True).ok
    assert len(gallery.search(query, 12, exclude=[theirs[0].path])) == 11
    assert len(gallery.search(far / "cat" / "00.png", 12, exclude_near_duplicates=True)) == 11


def test_a_second_run_reads_nothing(
    gallery: Gallery, far: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add(far)
    asked: list[str] = []

    def note(method: str, path: str, headers: dict[str, str]) -> str:
        if "/photos/" in path and "list-type" not in path:
            asked.append(f"{method} {path}")
        return ""

    with Proxy(s3_server, note) as proxy, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.address)
        report = gallery.add(far)
    assert (report.unchanged, report.embedded, report.added) == (12, 0, 0)
    assert len(asked) <= 1, "the list tells sizes and times; only whether the prefix is an object is asked"


def test_changed_moved_and_removed_photos_are_noticed(gallery: Gallery, far: Path, tmp_path: Path) -> None:
    gallery.add(far)
    write_bytes(make_picture(tmp_path / "new.png", 91).read_bytes(), far / "cat" / "00.png", overwrite=True)
    moved = (far / "dog" / "02.png").read_bytes()
    (far / "dog" / "02.png").unlink()
    write_bytes(moved, far / "moved.png")
    (far / "cat" / "01.png").unlink()
    assert {problem.kind for problem in gallery.verify().problems} <= {"photo-changed", "photo-missing"}
    report = gallery.add(far)
    assert [str(one) for one in report.updated] == [f"{far}/cat/00.png"]
    assert [(str(new), str(old)) for new, old in report.moved] == [(f"{far}/moved.png", f"{far}/dog/02.png")]
    assert [one.path.name for one in gallery.remove(missing=True)] == ["01.png"]
    assert len(gallery.remove([f"{far}/bird"])) == 3
    assert [one.path.name for one in gallery.remove([f"{far}/cat/0*.png"])] == ["00.png", "09.png"]


def test_what_is_no_picture_is_named_and_the_rest_is_added(gallery: Gallery, far: Path) -> None:
    write_bytes(b"no picture", far / "broken.png")
    report = gallery.add(far)
    assert [(str(path), "format" in why or "picture" in why) for path, why in report.failed] == [
        (f"{far}/broken.png", True)
    ]
    assert report.added == 12


def test_a_storage_that_does_not_answer_has_not_lost_its_photos(
    gallery: Gallery, far: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    local = Gallery(tmp_path / "other", encoder=ColourLayout())
    local.add(far)

    def forbidden(method: str, path: str, headers: dict[str, str]) -> str:
        return "403"

    with Proxy(s3_server, forbidden) as proxy, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.address)
        with pytest.raises(GalleryError, match="cannot be found out"):
            local.remove(missing=True)
    assert len(local) == 12
    assert os.environ["AWS_ENDPOINT_URL"] == s3_server
