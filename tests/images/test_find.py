"""Which files count as pictures."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from rasr.errors import PictureError
from rasr.images import find_pictures, walk_pictures


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder as people have them: pictures, system files, hidden files, a loop."""
    for name in (
        "b.JPG", "a.png", "sub/c.tif", "sub/deep/d.webp", "sub/e.heic",
        "Thumbs.db", "notes.txt", ".DS_Store", ".hidden.jpg", "._b.JPG", ".cache/x.jpg", "@eaDir/b.JPG",
        "__MACOSX/a.png",
    ):  # fmt: skip
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    (tmp_path / "photos" / "folder.jpg").mkdir()
    return tmp_path / "photos"


def names(folder: Path, found: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


def test_pictures_are_found_sorted_and_the_rest_passed_over(tree: Path) -> None:
    assert names(tree, find_pictures(tree)) == ["a.png", "b.JPG", "sub/c.tif", "sub/deep/d.webp", "sub/e.heic"]


def test_sub_folders_only_when_asked(tree: Path) -> None:
    assert names(tree, find_pictures([tree], recursive=False)) == ["a.png", "b.JPG"]


def test_loops_of_symbolic_links_end(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "sub" / "self").symlink_to(tree / "sub", target_is_directory=True)
    assert len(find_pictures(tree)) == 5


def test_a_linked_folder_is_followed_and_a_dangling_link_is_not(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.jpg").write_bytes(b"x")
    (tree / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tree / "gone.jpg").symlink_to(tmp_path / "missing.jpg")
    found = names(tree, find_pictures(tree))
    assert "linked/z.jpg" in found
    assert "gone.jpg" not in found


def test_a_file_named_explicitly_is_always_tried(tree: Path) -> None:
    assert find_pictures([tree / "notes.txt", tree / ".hidden.jpg"]) == [tree / ".hidden.jpg", tree / "notes.txt"]


def test_a_picture_named_twice_is_found_once(tree: Path) -> None:
    assert len(find_pictures([tree, tree / "a.png", tree])) == 5


def test_walking_keeps_the_given_order_and_tells_the_folder(tree: Path) -> None:
    pairs = list(walk_pictures([tree / "b.JPG", tree / "sub"]))
    assert pairs[0] == (None, tree / "b.JPG")
    assert {root for root, _ in pairs[1:]} == {tree / "sub"}


def test_a_missing_path_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"nowhere: no such file or folder"):
        find_pictures(tmp_path / "nowhere")
    with pytest.raises(PictureError, match=r"no pictures found"):
        find_pictures(tmp_path)
    with pytest.raises(PictureError, match=r"nothing given"):
        find_pictures([])


def test_a_folder_that_cannot_be_listed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The top one is an error, one below is passed over with a warning. (Permission bits do not stop root.)"""
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if Path(folder).name in refused:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = {"sub"}
    with caplog.at_level(logging.WARNING):
        assert names(tree, find_pictures(tree)) == ["a.png", "b.JPG"]
    assert "sub" in caplog.text
    refused = {"photos"}
    with pytest.raises(PictureError, match=r"photos: the folder cannot be listed \(Permission denied\)"):
        find_pictures(tree)


def test_a_pipe_in_a_folder_is_passed_over_with_a_word(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = find_pictures(tree)
    os.mkfifo(tree / "pipe.jpg")
    (tree / "gone.jpg").symlink_to(tree / "nothing")
    with caplog.at_level(logging.WARNING):
        assert find_pictures(tree) == before
    assert caplog.messages == [f"{tree / 'pipe.jpg'}: passed over (not a regular file)"]
