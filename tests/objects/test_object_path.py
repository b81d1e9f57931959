"""Objects as paths: their names, sizes and bytes, and writing them whole or not at all."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rasr.errors import ExtraMissing, OutputError, OutputExists, UsageError, install_command
from rasr.files import check_writable, write_bytes, xxh3_file
from rasr.images import find_pictures, read_header, read_picture, walk_pictures
from rasr.object_path import BEGIN, ObjectPath, place, place_given
from rasr.objects import checked_address, is_address, reason
from tests.gallery.standin import make_picture
from tests.objects.proxy import Proxy
from tests.objects.servers import CREDENTIALS

NAMES = [
    "a b.png",
    "ä ö/ü%20x.png",
    "sub/c#d.png",
    "sub/deep/x+y&z.jpg",
    "100%.png",
    "~t*[1].png",
    "日本.webp",
    "q?.png",
]


@pytest.fixture
def top(s3: str) -> Path:
    return place(f"{s3}/photos")


def test_an_address_is_a_path_with_a_name_and_a_parent() -> None:
    path = place("s3://bucket/photos/cat/a b.PNG")
    assert str(path) == f"{path}" == os.fspath(path) == "s3://bucket/photos/cat/a b.PNG"
    assert (path.name, path.stem, path.suffix) == ("a b.PNG", "a b", ".PNG")
    assert str(path.parent) == "s3://bucket/photos/cat"
    assert str(path.parent / "b.png") == str(path.with_name("b.png")) == "s3://bucket/photos/cat/b.png"
    assert path.relative_to(place("s3://bucket/photos")).as_posix() == "cat/a b.PNG"
    assert place("s3://bucket/a.png").parent.relative_to(place("s3://bucket")).as_posix() == "."
    assert path.is_relative_to(place("s3://bucket/photos"))
    assert not path.is_relative_to(Path("/photos"))
    assert path.resolve() is path.absolute() is path.expanduser() is path
    assert path == place("s3://bucket/photos/cat/a b.PNG") != place("s3://bucket/photos/cat/b.PNG")
    assert str(Path("/results") / path.relative_to(place("s3://bucket/photos"))) == "/results/cat/a b.PNG"
    again = pickle.loads(pickle.dumps(path))
    assert (type(again), str(again)) == (ObjectPath, str(path))


def test_other_texts_are_files() -> None:
    for text in ("photos", "/photos", "s3:/bucket", "https://host/a.png", "S3://bucket"):
        assert type(place(text)) is type(Path())
        assert not is_address(text)
    for path in (Path("photos"), ObjectPath("s3://bucket/a.png")):
        assert place(path) is path


@pytest.mark.parametrize(
    "address", ["s3://key:secret@bucket/x", "s3://bucket/x?X-Amz-Signature=secret", "s3://", "s3:///x/"]
)
def test_an_address_that_may_hold_a_secret_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        place_given(address)
    assert "secret" not in str(caught.value)


def test_no_message_holds_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abcdSECRET")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=SECRET")
    told = reason(RuntimeError("no answer of https://user:SECRET@host/x?sig=SECRET with abcdSECRET\nSECRET, debug"))
    assert "SECRET" not in told
    assert told == "no answer of https://***@host/x with ***"
    assert len(reason(RuntimeError("x" * 5000))) < 250


def test_objects_are_listed_read_and_told_apart(top: Path) -> None:
    for name in NAMES:
        write_bytes(name.encode(), top / name)
    assert isinstance(top, ObjectPath)
    found = list(top.walk_objects())
    assert {one.relative_to(top).as_posix() for one in found} == {*NAMES}
    for one in found:
        assert one.read_bytes() == one.relative_to(top).as_posix().encode()
        with one.open("rb") as file:
            assert file.read(1) == one.read_bytes()[:1]
        assert one.is_file()
        assert not one.is_dir()
        status = one.stat()
        assert (status.st_size, status.st_mtime_ns) == (one.listed.st_size, one.listed.st_mtime_ns)
    assert top.is_dir()
    assert top.exists()
    assert not top.is_file()
    assert not (top / "none").exists()
    assert not place(str(top).replace("photos", "photo")).exists(), "a prefix ends at a slash"
    with pytest.raises(FileNotFoundError):
        (top / "none").stat()
    with pytest.raises(OSError, match="written as a whole"):
        (top / "new").open("wb")


def test_another_content_of_the_same_size_has_another_time(top: Path) -> None:
    path = top / "a.bin"
    write_bytes(b"one", path)
    before = path.stat()
    write_bytes(b"two", path, overwrite=True)
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns != before.st_mtime_ns
    assert path.read_bytes() == b"two"
    assert xxh3_file(path) == xxh3_file(path)


def test_writing_never_replaces_unless_asked(top: Path) -> None:
    path = top / "a.bin"
    check_writable(path)
    assert write_bytes(b"one", path) == path
    for call in (lambda: write_bytes(b"two", path), lambda: check_writable(path)):
        with pytest.raises(OutputExists, match="Use --overwrite"):
            call()
    assert path.read_bytes() == b"one"
    check_writable(path, overwrite=True)
    write_bytes(b"two", path, overwrite=True)
    assert path.read_bytes() == b"two"
    assert [one.name for one in top.walk_objects()] == ["a.bin"], "no probe and no temporary object is left"  # type: ignore[attr-defined]


def test_a_lost_answer_to_a_put_is_not_taken_for_anothers_object(
    top: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []

    def drop_once(method: str, path: str, headers: dict[str, str]) -> str:
        if method != "PUT" or lost:
            return ""
        lost.append(path)
        return "drop"

    with Proxy(s3_server, drop_once) as proxy, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.address)
        write_bytes(b"mine", top / "a.bin")
        assert proxy.done
    assert (top / "a.bin").read_bytes() == b"mine"


def test_storage_that_replaces_by_chance_is_refused_before_the_work(
    top: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dishonest(method: str, path: str, headers: dict[str, str]) -> str:
        return "unconditional" if "if-none-match" in headers else ""

    with Proxy(s3_server, dishonest) as proxy, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.address)
        with pytest.raises(OutputError, match=r"could replace what another has written.*--overwrite"):
            check_writable(top / "a.bin")
        check_writable(top / "a.bin", overwrite=True)


def test_a_storage_that_fails_is_an_error_and_not_a_missing_file(
    top: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(b"one", top / "a.bin")

    def forbidden(method: str, path: str, headers: dict[str, str]) -> str:
        return "403"

    with Proxy(s3_server, forbidden) as proxy, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.address)
        for call in ((top / "a.bin").exists, (top / "a.bin").read_bytes, top.is_dir):
            with pytest.raises(OSError) as caught:  # noqa: PT011  (its number is looked at)
                call()
            assert caught.value.errno == errno.EACCES
            assert all(one not in str(caught.value) for name, one in CREDENTIALS.items() if name != "AWS_REGION")


def test_pictures_are_found_below_an_address_as_in_a_folder(top: Path, tmp_path: Path) -> None:
    names = ["b.png", "cat/a.JPG", "cat/deep/c.webp", "cat/notes.txt", ".hidden/d.png", "cat/.e.png", "@eaDir/f.png"]
    for name in names:
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(b"x")
        write_bytes(b"x", top / name)
    here = {one.relative_to(tmp_path / "local").as_posix() for one in find_pictures(tmp_path / "local")}
    assert (
        {one.relative_to(top).as_posix() for one in find_pictures(top)}
        == here
        == {"b.png", "cat/a.JPG", "cat/deep/c.webp"}
    )
    assert [one.name for one in find_pictures(str(top), recursive=False)] == ["b.png"]
    assert list(walk_pictures(top / "cat/notes.txt")) == [(None, top / "cat/notes.txt")]


def test_a_picture_is_read_from_an_address(top: Path, tmp_path: Path) -> None:
    local = make_picture(tmp_path / "a.png", 1)
    write_bytes(local.read_bytes(), top / "a.png")
    there, here = read_picture(top / "a.png"), read_picture(local)
    assert (there.pixels == here.pixels).all()
    assert there.path == top / "a.png"
    assert read_header(str(top / "a.png")) == read_header(local)


def test_what_lies_right_below_is_listed(top: Path) -> None:
    for name in ("a.png", "sub/b.png", "sub/deep/c.png", "report.jsonl/1.json"):
        write_bytes(b"x", top / name)
    assert sorted(map(str, top.iterdir())) == sorted(f"{top}/{name}" for name in ("a.png", "sub", "report.jsonl"))


def test_a_header_takes_the_begin_of_a_large_object(
    top: Path, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (800, 1200, 3), np.uint8)).save(tmp_path / "a.jpg", quality=95)
    content = (tmp_path / "a.jpg").read_bytes()
    assert len(content) > 2 * BEGIN
    write_bytes(content, top / "a.jpg")
    ranges: list[str] = []

    def note(method: str, path: str, headers: dict[str, str]) -> str:
        if method == "GET":
            ranges.append(headers.get("range", "all"))
        return ""

    with Proxy(s3_server, note) as proxy, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.address)
        header = read_header(top / "a.jpg")
        assert (header.width, header.height) == (1200, 800)
        assert ranges == [f"bytes=0-{BEGIN - 1}"]
        assert (read_picture(top / "a.jpg").pixels == read_picture(tmp_path / "a.jpg").pixels).all()
    with (top / "a.jpg").open("rb") as file:
        for place, size in ((0, 10), (BEGIN - 5, 10), (len(content) - 3, 100), (7, 0), (len(content) + 9, 4)):
            file.seek(place)
            assert file.read(size) == content[place : place + size]
        file.seek(-4, os.SEEK_END)
        assert file.read() == content[-4:]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(ExtraMissing) as caught:
        place("s3://no-such-bucket-yet/a.png").stat()
    assert install_command("lance") in str(caught.value)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_any_name_is_kept(name: str) -> None:
    path = place(f"s3://bucket/{name}")
    if name not in {".", ".."}:
        assert str(path) == f"s3://bucket/{name}"
        assert checked_address("s3://bucket/x/") == "s3://bucket/x"
