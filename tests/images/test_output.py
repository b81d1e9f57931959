"""Saving: whole or not at all, and nothing lost by surprise."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rasr import files
from rasr.errors import OutputError, OutputExists
from rasr.files import write_bytes
from rasr.images import Picture, check_output, read_picture, write_picture


@pytest.fixture
def picture(photo: NDArray[np.uint8]) -> Picture:
    return Picture(photo / np.float32(255))


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_picture_is_written_and_nothing_else(picture: Picture, tmp_path: Path, name: str) -> None:
    assert write_picture(picture, tmp_path / name) == tmp_path / name
    assert listing(tmp_path) == [name]
    assert np.abs(read_picture(tmp_path / name).pixels - picture.pixels).mean() < 0.02


def test_the_file_has_the_user_s_own_permissions(picture: Picture, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_picture(picture, tmp_path / "a.png")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_nothing_is_overwritten_unless_asked(picture: Picture, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(OutputExists, match=r"a.png: exists already. Use --overwrite"):
        write_picture(picture, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    write_picture(picture, tmp_path / "a.png", overwrite=True)
    assert read_picture(tmp_path / "a.png").width == 226
    assert listing(tmp_path) == ["a.png"]


def test_bytes_are_not_overwritten_either(tmp_path: Path) -> None:
    assert write_bytes(b"one", tmp_path / "report.html") == tmp_path / "report.html"
    with pytest.raises(OutputExists):
        write_bytes(b"two", tmp_path / "report.html")
    assert write_bytes(b"two", tmp_path / "report.html", overwrite=True).read_bytes() == b"two"
    assert listing(tmp_path) == ["report.html"]


def test_a_dangling_link_counts_as_taken(picture: Picture, tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(OutputExists):
        write_picture(picture, tmp_path / "a.png")
    assert listing(tmp_path) == ["a.png"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_during_the_work_is_not_replaced(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """The check at the end is the one that counts, on file systems with hard links and without."""
    fsync, link = os.fsync, os.link

    def appear(descriptor: int) -> None:
        fsync(descriptor)
        if not (tmp_path / "a.png").exists():
            (tmp_path / "a.png").write_bytes(b"theirs")

    def no_links(source: Any, target: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fsync", appear)
    monkeypatch.setattr(os, "link", link if links else no_links)
    with pytest.raises(OutputExists):
        write_picture(picture, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"theirs"
    assert listing(tmp_path) == ["a.png"]


def test_without_hard_links_it_still_works(picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Any, target: Any) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    write_picture(picture, tmp_path / "a.png")
    assert listing(tmp_path) == ["a.png"]
    assert read_picture(tmp_path / "a.png").width == 226


def test_a_move_that_fails_for_another_reason_is_said(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: Any, target: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", broken)
    with pytest.raises(OutputError, match=r"a.png: cannot be written \(Input/output error\)"):
        write_picture(picture, tmp_path / "a.png")
    assert listing(tmp_path) == []


def test_of_many_writers_exactly_one_wins(tmp_path: Path) -> None:
    outcomes: list[bytes | None] = []

    def write(number: int) -> None:
        content = str(number).encode() * 1000
        try:
            write_bytes(content, tmp_path / "a.bin")
        except OutputExists:
            outcomes.append(None)
        else:
            outcomes.append(content)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [content for content in outcomes if content is not None]
    assert winners == [(tmp_path / "a.bin").read_bytes()]
    assert listing(tmp_path) == ["a.bin"]


def test_the_input_is_never_the_output(picture: Picture, tmp_path: Path) -> None:
    source = write_picture(picture, tmp_path / "in.png")
    (tmp_path / "same.png").hardlink_to(source)
    (tmp_path / "link.png").symlink_to(source)
    before = source.read_bytes()
    read = read_picture(source)
    for name in ("in.png", "same.png", "link.png", "../" + tmp_path.name + "/in.png"):
        with pytest.raises(OutputError, match="this is the input itself"):
            write_picture(read, tmp_path / name, overwrite=True)
        with pytest.raises(OutputError, match="this is the input itself"):
            check_output(tmp_path / name, 10, 10, overwrite=True, source=source)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOSPC, "Free some space"), (errno.EDQUOT, "quota"), (errno.EIO, "Input/output error")],
)
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_full_disk_leaves_nothing_behind(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str, overwrite: bool
) -> None:
    if overwrite:
        (tmp_path / "a.png").write_bytes(b"old and good")
    before = listing(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=rf"a.png: cannot be written .*{advice}") as error:
        write_picture(picture, tmp_path / "a.png", overwrite=overwrite)
    assert "\n" not in str(error.value)
    assert listing(tmp_path) == before
    if overwrite:
        assert (tmp_path / "a.png").read_bytes() == b"old and good"


def test_a_real_write_that_fails_half_way(tmp_path: Path) -> None:
    """The kernel itself refuses more than 40 kB (RLIMIT_FSIZE), in a process of its own."""
    code = f"""
import resource, signal, numpy as np
from rasr.errors import OutputError
from rasr.images import Picture, write_picture
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
picture = Picture(np.random.default_rng(0).random((300, 300, 3), np.float32))
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
for name in ("a.png", "a.jpg", "a.tif", "a.webp"):
    try:
        write_picture(picture, {str(tmp_path)!r} + "/" + name)
    except OutputError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.count("cannot be written (File too large)") == 4
    assert listing(tmp_path) == []


def test_a_full_device(picture: Picture) -> None:
    """``/dev/full`` is no folder to write beside; the device folder refuses or the device is taken."""
    with pytest.raises(OutputError):
        write_picture(picture, "/dev/full", format="png")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """By a stand-in for the operating system: permission bits do not stop root."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match=rf"{os.strerror(code)}\). Choose a folder"):
        check_output(tmp_path / "a.png", 10, 10)


def test_check_output_answers_before_any_work(tmp_path: Path) -> None:
    check_output(tmp_path / "a.png", 10, 10)
    assert listing(tmp_path) == []
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "a.jpg").mkdir()
    cases: list[tuple[Path, tuple[int, int], dict[str, Any], str]] = [
        (tmp_path / "a.webp", (16_384, 10), {}, "WEBP holds at most 16383 pixels a side"),
        (tmp_path / "b.jpg", (10, 65_536), {}, "JPEG holds at most 65535 pixels a side"),
        (tmp_path / "b.jpg", (10, 10), {"bits": 16}, "cannot hold 16 bits"),
        (tmp_path / "a.xyz", (10, 10), {}, "Use one of .jpg"),
        (tmp_path / "no" / "a.png", (10, 10), {}, "the folder .*no does not exist"),
        (tmp_path / "file" / "a.png", (10, 10), {}, "file is not a folder|Not a directory"),
        (tmp_path / "a.jpg", (10, 10), {"overwrite": True}, "this is a folder. Name a file in it"),
        (tmp_path / ("x" * 300 + ".png"), (10, 10), {}, "Choose a shorter name"),
    ]
    for path, (width, height), options, message in cases:
        with pytest.raises(OutputError, match=message):
            check_output(path, width, height, **options)
    with pytest.raises(OutputExists):
        check_output(tmp_path / "file", 10, 10, format="png")
    check_output(tmp_path / "file", 10, 10, format="png", overwrite=True)


def test_interrupting_leaves_nothing_behind(picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_picture(picture, tmp_path / "a.png")
    assert listing(tmp_path) == []


def test_a_folder_that_cannot_be_synced_does_not_fail_a_whole_file(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., int] = os.open

    def refuse_folders(path: Any, flags: int, *more: int) -> int:
        if Path(path).is_dir():
            raise OSError(errno.EACCES, "Permission denied")
        return real(path, flags, *more)

    monkeypatch.setattr(files.os, "open", refuse_folders)
    write_picture(picture, tmp_path / "a.png")
    assert listing(tmp_path) == ["a.png"]
