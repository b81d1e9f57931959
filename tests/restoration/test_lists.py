"""Lists of pictures: what is written of failures can be read again, whatever the names hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasr.errors import OutputError, OutputExists, PictureError, UsageError
from rasr.restoration.lists import FailedList, read_list
from rasr.restoration.plan import Job, Listed, plan_jobs

LETTERS = st.characters(exclude_characters="/\0", codec="utf-8")
NAMES = st.text(LETTERS, min_size=1, max_size=30).map(lambda name: f"x{name}")


@given(names=st.lists(NAMES, max_size=8, unique=True), folder=st.one_of(st.none(), NAMES))
def test_a_failed_list_reads_back_as_what_failed(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], folder: str | None
) -> None:
    path = tmp_path_factory.mktemp("lists") / "failed.jsonl"
    failed = FailedList(path)
    top = None if folder is None else Path(folder)
    for name in names:
        failed.add(Job((top or Path()) / name, Path("out"), folder=top), PictureError(f"{name}: damaged"))
    failed.write()
    assert read_list(path.read_bytes(), "failed.jsonl") == [Listed((top or Path()) / name, top) for name in names]
    assert [json.loads(line)["error"] for line in path.read_bytes().splitlines()] == [
        f"{one}: damaged" for one in names
    ]


def test_plain_lines_bytes_of_any_kind_and_each_picture_once() -> None:
    content = (
        b"\xef\xbb\xbfa.jpg\r\nsub/b.png\n\n  \n\xff.png\na.jpg\n" + b'{"input": "c.png"}\n{"input": "\\udcff.png"}\n'
    )
    found = read_list(content, "list")
    assert [str(one.path) for one in found] == ["a.jpg", "sub/b.png", "\udcff.png", "c.png"]
    assert {one.folder for one in found} == {None}


@pytest.mark.parametrize(
    "line",
    [
        b"a\0b.png",
        b"{",
        b'{"output": "a.png"}',
        b'{"input": 3}',
        b'{"input": ""}',
        b'{"input": "a.png", "folder": 3}',
        b'{"input": "a.png", "folder": ""}',
        b'{"input": "a\\u0000.png"}',
        b'{"input": ' + b"[" * 5000 + b"}",
    ],
)
def test_a_line_that_names_no_picture_is_refused_by_number(line: bytes) -> None:
    with pytest.raises(UsageError, match="list, line 2: "):
        read_list(b"a.png\n" + line, "list")


def test_a_listed_picture_is_mirrored_as_if_found_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    for name in ("in/a.png", "in/sub/b.png"):
        (tmp_path / name).write_bytes(b"x")
    found = plan_jobs([tmp_path / "in"], tmp_path / "out")
    listed = plan_jobs([Listed(job.input, job.folder) for job in found], tmp_path / "out")
    assert listed == found
    assert [job.name for job in listed] == ["a.png", "sub/b.png"]
    (alone,) = plan_jobs([Listed(tmp_path / "in/sub/b.png")], tmp_path / "out")
    assert alone.output == tmp_path / "out/b_rasr.png"


@pytest.mark.parametrize("path", ["other/a.png", "in/../../a.png", "in/../in", "in"])
def test_a_list_never_leads_out_of_the_folder_of_results(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match="is listed as a picture in"):
        plan_jobs([Listed(tmp_path / path, tmp_path / "in"), Listed(tmp_path / "b.png")], tmp_path / "out")


def test_only_an_earlier_list_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "failed.jsonl"
    first = FailedList(path)
    first.add(Job(Path("a.png"), Path("out")), PictureError("a.png: damaged"))
    first.write()
    FailedList(path).write()
    assert path.read_bytes() == b"", "nothing failed the second time"
    path.write_text('{"mine": 1}\n')
    with pytest.raises(OutputExists, match="no list of failed pictures"):
        FailedList(path)
    assert FailedList(path, overwrite=True).write() == path
    with pytest.raises(OutputError, match="does not exist"):
        FailedList(tmp_path / "nowhere/failed.jsonl")
