"""Text that a stranger wrote: at every place of every file that is read, every kind of value that breaks readers.

A reader either takes the value or says in one short line which file is wrong; nothing else may come out of it.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from rasr.config import read_toml
from rasr.dataset.card import _card, read_info
from rasr.dataset.check import check_dataset
from rasr.dataset.config import load_config
from rasr.dataset.manifest import Record, read_manifest
from rasr.degrade.files import Manifest
from rasr.errors import RasrError
from rasr.evaluation.benchmark import load_benchmark
from rasr.evaluation.inputs import prepare_inputs
from rasr.evaluation.methods.command import Profile
from rasr.evaluation.settings import InputSettings
from rasr.files import DEEPEST, JsonLines, parse_json, parse_toml, whole_number
from rasr.gallery import Gallery
from rasr.gallery.retrieval import calibration_of
from rasr.gallery.store import LocalStore
from rasr.generator.config import read_model_config
from rasr.images import Picture, write_picture
from rasr.training import read_training_config
from rasr.training.checkpoint import Checkpoint
from rasr.training.config import TrainingConfig
from rasr.weights import write_safetensors
from rasr.weights.locate import first_download
from rasr.weights.read import read_safetensors
from tests.training.standin import make_photos, tiny_config

SOURCE = Path(__file__).parent.parent / "src" / "rasr"

VALUES = [
    *("null", "true", "-1", "0", "1.5", '"x"', '""', "[]", "{}", "[[]]", '[{"a": 1}]'),
    *("NaN", "-Infinity", "1e999", "-1e999", "9" * 30, "-" + "9" * 400, "9" * 5000),
    *(
        r'"\u0000"',
        r'"a\u0000b"',
        r'"\ud800"',
        r'"\udcff"',
        r'"a\udfffb"',
        r'"\u202e\u001b[31m"',
        r'"../../etc/passwd"',
    ),
    *("[" * 70 + "]" * 70, '{"a":' * 300 + "1" + "}" * 300, "[" * 100_000, "[" * 100_000 + "]" * 100_000),
]
"""Put in the place of a value."""
FILES = [b"", b"\0", b"\xff\xfe{", b"null", b"[]", b"7", b'"text"', b"{", b'{"a":' * 100_000, b"[" * 100_000, b"NaN"]
"""Put in the place of the whole file."""


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*path, key))


def _damaged(document: Any) -> Iterator[bytes]:
    """The document with each of VALUES at each of its places, and the FILES."""
    for path in _places(document):
        copy = json.loads(json.dumps({"": document}))
        inner = copy
        for key in ("", *path)[:-1]:
            inner = inner[key]
        inner[("", *path)[-1]] = "\x07here"
        text = json.dumps(copy[""])
        for value in VALUES:
            yield text.replace(r'"\u0007here"', value).encode()
    yield from FILES


def _must_hold(read: Callable[[], object], name: str, content: object) -> bool:
    """Read; True when it was refused. Fails for anything but an answer or one short line with the file's name."""
    try:
        read()
    except RasrError as error:
        said = str(error)
        assert name in said, said
        assert len(said.splitlines()) == 1, said[:1000]
        assert len(said) < 1000, said[:1000]
        return True
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} for {str(content)[:300]}") from error
    return False


@dataclass
class Reader:
    """How a file is read, and a sound one."""

    name: str
    sound: Any
    read: Callable[[Path], object]
    """Gets the folder that the file lies in."""


def _record(**changes: Any) -> dict[str, Any]:
    numbers = {"bytes": 10, "width": 40, "height": 30, "deviation": 0.5}
    texts = dict.fromkeys(Record.__dataclass_fields__, "x") | {"split": "train", "file": "thing/train/a.png"}
    return texts | {"review": "", "phash": "0" * 16, "licence": "CC0-1.0", "sha256": ""} | numbers | changes


INFO = {
    "format": 1,
    "name": "a",
    "title": "A",
    "description": "d",
    "seed": 0,
    "encoder": "effnet-lite0",
    "rasr": "1",
    "built": "2026-01-01",
    "gallery": True,
    "splits": {"train": 1, "by_photographer": True},
    "filters": {"licences": ["CC0-1.0"]},
    "lq": {"crop": 256, "preset": "default", "scale": 4},
    "categories": [{"name": "thing", "title": "T", "scientific_name": "", "why": "", "found": 1, "rejected": {"x": 1}}],
}


def _described(folder: Path) -> None:
    _card(read_manifest(folder), read_info(folder))
    check_dataset(folder, quick=True)


def _evaluation_inputs(folder: Path) -> None:
    prepare_inputs(load_benchmark(folder / "benchmark"), folder, InputSettings(scale=4))


def _degraded(folder: Path) -> dict[str, Any]:
    from rasr.degrade import draw
    from rasr.degrade.files import Entry

    recipe = draw("realesrgan", scale=4, seed=1, name="a.png")
    entry = Entry(name="a.png", output="a.png", width=4, height=4, sha256="0", recipe=recipe)
    return json.loads(Manifest(seed=1, pictures=(entry,)).model_dump_json())  # type: ignore[no-any-return]


READERS = [
    Reader("manifest.jsonl", _record(), read_manifest),
    Reader("dataset.json", INFO, _described),
    Reader("lq.json", None, lambda folder: Manifest.read(folder / "lq.json")),
    Reader("models/pins.json", {"a/b": {"commit": "c", "sha256": {"f": "0"}}}, lambda _: first_download("a/b")),
    Reader("manifest.json", {"a": {"made_from": {}, "recipe": None, "hr_sha256": "0", "scale": 4}}, _evaluation_inputs),
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_json_files(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path))
    sound = _degraded(tmp_path) if reader.sound is None else reader.sound
    for name in ("thing/train/a.png", "benchmark/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        write_picture(Picture(np.full((32, 40, 3), 0.5, np.float32)), tmp_path / name)
    file = tmp_path / reader.name
    file.parent.mkdir(exist_ok=True)
    (tmp_path / "manifest.jsonl").write_text(json.dumps(_record()))
    file.write_text(json.dumps(sound))
    reader.read(tmp_path)
    refused = 0
    for content in _damaged(sound):
        file.write_bytes(content)
        refused += _must_hold(lambda: reader.read(tmp_path), Path(reader.name).name, content)
    assert refused > len(list(_places(sound))) * 8


def _toml(value: str) -> str:
    """A value of VALUES in TOML's spelling."""
    return value.replace("Infinity", "inf").replace("NaN", "nan").replace('"a":', "a=")


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("title = {}", lambda path: Profile.read(path.stem, path.parent)),
        ("command = {}", lambda path: Profile.read(path.stem, path.parent)),
        ("seed = {}", lambda path: read_training_config(str(path))),
        ("[data]\ncrop = {}", lambda path: read_training_config(str(path))),
        ("name = {}", read_model_config),
        ("[reference]\nblocks = {}", read_model_config),
        ("name = {}", load_config),
        ("[[source]]\nkind = {}", load_config),
        ("[filters]\nmax_blur = {}", load_config),
        ("anything = {}", read_toml),
    ],
)
def test_toml_files(key: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "strange.toml"
    for value in VALUES:
        path.write_text(key.replace("{}", _toml(value)))
        _must_hold(lambda: read(path), "strange.toml", value)
    for content in FILES:
        path.write_bytes(content)
        _must_hold(lambda: read(path), "strange.toml", content)


def test_a_calibration_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path))
    path = tmp_path / "calibration.toml"
    refused = 0
    for value in VALUES:
        for row in ("thresholds = {0}\nmargin = 1\nsure = 1", "thresholds = [[1, {0}]]\nmargin = 1\nsure = {0}"):
            path.write_text("[effnet-lite0]\n" + row.replace("{0}", _toml(value)))
            refused += _must_hold(lambda: calibration_of("effnet-lite0"), path.name, value)
    assert refused > len(VALUES)


def test_journals_leave_out_what_is_strange(tmp_path: Path) -> None:
    journal = JsonLines(tmp_path / "journal.jsonl")
    sound = {"key": "k", "value": [1, {"a": "é"}], "name": "caf\udce9.jpg"}
    lines = [line.replace(b"\n", b" ") for line in _damaged({"key": "k", "value": [1, {"a": "é"}]})]
    journal.path.write_bytes(b"\n".join([*lines, json.dumps(sound).encode()]) + b"\n")
    entries = list(journal.read())
    assert entries[-1] == sound, "names of files that are not UTF-8 are kept"
    assert all(isinstance(entry, dict) for entry in entries)
    assert 0 < len(entries) < len(lines)
    json.dumps(entries, allow_nan=False)


def test_an_evaluations_journal_gives_only_records_of_its_own_shape(tmp_path: Path) -> None:
    from rasr.evaluation.journal import NUMBER, Journal

    shape = {"references": [{"path": str, "score": NUMBER}], "value": NUMBER}
    sound = {"key": "k", "references": [{"path": "a", "score": 0.5}], "value": 1.5}
    file, found = tmp_path / "journal.jsonl", 0
    for content in _damaged(sound):
        file.write_bytes(content)
        record = Journal(file).get("k", **shape)
        if record is not None:
            found += 1
            assert all(isinstance(one["path"], str) and one["score"] < 2**64 for one in record["references"])
            assert isinstance(record["value"], int | float)
    assert found > 0
    file.write_text(json.dumps(sound))
    assert Journal(file).get("k", **shape) == sound


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    write_picture(Picture(np.random.default_rng(0).random((64, 80, 3), np.float32)), tmp_path / "photos" / "a.png")
    Gallery(tmp_path / "g").add([tmp_path / "photos"])
    return tmp_path / "g"


def _everything(folder: Path) -> None:
    opened = Gallery(folder)
    for photo in opened.list():
        json.dumps(str(photo.path)).encode()
        photo.path.is_file()
    opened.info()


def test_cells_of_a_gallery_whose_checksums_fit(gallery: Path) -> None:
    """A stranger can compute checksums too."""
    with sqlite3.connect(gallery / "gallery.db") as db:
        entry, vector = db.execute("SELECT entry, vector FROM photos").fetchone()
        content = json.loads(db.execute("SELECT content FROM manifest").fetchone()[0])
    refused = 0

    def put(entry: bytes, manifest: bytes | None) -> None:
        digest = xxhash.xxh3_64_digest(entry + vector)
        if manifest is None:
            manifest = json.dumps(content | {"checksum": int.from_bytes(digest, "big")}).encode()
        db = sqlite3.connect(gallery / "gallery.db", isolation_level=None)
        db.execute("PRAGMA synchronous = OFF")
        db.execute("UPDATE photos SET entry = CAST(? AS TEXT), checksum = ?", (entry, digest))
        db.execute(
            "UPDATE manifest SET content = CAST(? AS TEXT), checksum = ?", (manifest, xxhash.xxh3_64_digest(manifest))
        )
        db.close()

    put(entry.encode(), None)
    _everything(gallery)
    for damaged in _damaged(json.loads(entry)):
        put(damaged, None)
        refused += _must_hold(lambda: _everything(gallery), "gallery.db", damaged)
    for damaged in _damaged(content):
        put(entry.encode(), damaged)
        refused += _must_hold(lambda: _everything(gallery), str(gallery), damaged)
    assert refused > 300


def test_the_pointer_of_a_gallery_of_format_1(tmp_path: Path) -> None:
    encoder = {"name": "a", "version": "1", "dimension": 4, "fingerprint": "f"}
    sound = {"format": 1, "encoder": encoder, "photos": 0, "generation": 0, "version": 0, "created": "", "updated": ""}
    for damaged in [json.dumps(sound).encode(), *_damaged(sound)]:
        try:
            values = json.loads(damaged)
            digest = xxhash.xxh3_64_hexdigest(json.dumps(values, ensure_ascii=False).encode())
            items = [*values.items(), ("checksum", digest)]
            lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in items)
            text = f"{{\n{lines}\n}}\n".encode()
        except (ValueError, AttributeError, RecursionError):
            text = b'{\n"format": 1,' + damaged
        (tmp_path / "gallery.json").write_bytes(text)
        (tmp_path / "photos-000000.lance").mkdir(exist_ok=True)
        _must_hold(lambda: LocalStore(tmp_path).read(vectors=False), "gallery.json", damaged)


def test_metadata_of_checkpoints_and_adapters(photos: Path, tmp_path: Path) -> None:
    config = json.loads(tiny_config(photos).model_dump_json())
    sound = {
        "format": "rasr-training-1",
        "step": "1",
        "seconds": "1.5",
        "facts": '{"a": "b"}',
        "config": json.dumps(config),
    }
    path = tmp_path / "step-00000001.safetensors"
    tensors = {"a": np.zeros(2, np.float32)}
    write_safetensors(path, tensors, sound)
    assert isinstance(Checkpoint.read(path).config, TrainingConfig)
    for key in sound:
        for value in [*VALUES, "", "²", "1_000", "\0"]:
            write_safetensors(path, tensors, sound | {key: value})
            _must_hold(lambda: Checkpoint.read(path), path.name, value)
    some = {key: config[key] for key in ("seed", "loop", "data")}
    for damaged in _damaged(some):
        text = damaged.decode(errors="replace")
        write_safetensors(path, tensors, sound | {"config": text})
        _must_hold(lambda: Checkpoint.read(path), path.name, text)


def test_headers_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "strange.safetensors"
    sound = {"__metadata__": {"a": "b"}, "t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    refused = 0
    for header in _damaged(sound):
        for length in (len(header), 2**62, 0, len(header) + 9):
            path.write_bytes(length.to_bytes(8, "little") + header + bytes(8))
            refused += _must_hold(lambda: read_safetensors(path), path.name, header)
    for kind in ("BF16", "F8_E4M3", "U64", "F4", "C64", "BOOL"):
        text = json.dumps({"t": {"dtype": kind, "shape": [0], "data_offsets": [0, 0]}}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        for framework in ("pt", "numpy"):
            _must_hold(lambda framework=framework: read_safetensors(path, framework), path.name, kind)  # type: ignore[misc]
    assert refused > 300


@pytest.mark.parametrize(
    "text", ["[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), "[" * 10**5, "NaN", "1e999", "9" * 5000, r'"\ud800"']
)
def test_what_parse_json_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_what_parse_json_and_toml_take() -> None:
    assert parse_json('{"a": [1, 2.5, null, true, "é\\ud83d\\ude00"]}') == {"a": [1, 2.5, None, True, "é😀"]}
    assert parse_json("[" * DEEPEST + "]" * DEEPEST)
    assert parse_json(str(2**64 - 1)) == 2**64 - 1
    assert parse_toml("a = [1, 2]\nb = 2026-01-01")["a"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), ("", None), ("-1", None), ("²", None), ("٣", None), ("9" * 5000, None)]
)
def test_numbers_of_ascii_digits(text: str, number: int | None) -> None:
    assert whole_number(text) == number


def test_text_from_outside_is_parsed_in_one_place() -> None:
    """Only what comes with RASR (its own tables) is read by other means."""
    ours = {"files.py", "weights/catalogue.py", "dataset/adapters.py"}
    parsing = re.compile(r"\bjson\.loads?\(|\btomllib\.loads?\(|\bvalidate_json\(")
    found = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if parsing.search(path.read_text())}
    assert found == ours
