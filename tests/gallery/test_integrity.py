"""Damage is reported, never answered; hostile files are refused with one sentence."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rasr.errors import GalleryCorrupt, GalleryError, UsageError
from rasr.gallery import Gallery, database
from rasr.gallery.database import Database, EncoderId, Manifest, _checksum, _write
from rasr.gallery.photo import Photo
from rasr.gallery.store import MARKER, PART, LocalStore
from tests.gallery.standin import ColourLayout, make_picture

Answer = list[tuple[Path, float]]


@pytest.fixture
def rich(gallery: Gallery, photos: Path) -> Gallery:
    """A gallery with several commits and a deletion."""
    gallery.add(make_picture(photos / "second.png", 50))
    gallery.add(make_picture(photos / "third.png", 51))
    gallery.remove(category="dog")
    gallery.add([make_picture(photos / "cat" / "fourth.png", 52), photos / "cat"], category="felidae")
    return gallery


def make_large(folder: Path, count: int = 300) -> None:
    """A gallery of random vectors in many commits, with rows removed from all over it and one added since."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    photos = [
        Photo(f"{i:032x}", Path(f"/p/{i:04d}.jpg"), 1, 1, 1, 1, i, "even" if i % 2 else "odd") for i in range(count)
    ]
    encoder = ColourLayout()
    identity = EncoderId(encoder.name, encoder.version, encoder.dimension, encoder.fingerprint)
    for start in range(0, count, 20):
        with LocalStore(folder).writing(identity) as writer:
            writer.commit(list(zip(photos, vectors, strict=True))[start : start + 20])
    with LocalStore(folder).writing() as writer:
        writer.commit(remove=[one.id for one in photos[5::7]])
        writer.commit([(photos[5], vectors[5])])


def damage(path: Path, page: int, rng: random.Random) -> str:
    """Damage a file once, at random; returns how."""
    content, status = bytearray(path.read_bytes()), path.stat()
    kind = rng.choice(["flip", "flip", "flip", "truncate", "zero", "append", "remove", "swap", "copy"])
    pages = len(content) // page
    if pages < 2 and kind in {"swap", "copy"}:
        kind = "flip"
    start = rng.randrange(len(content))
    if kind == "flip":
        content[start] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del content[start:]
    elif kind == "zero":
        length = rng.choice([16, 512, page])
        content[start : start + length] = bytes(len(content[start : start + length]))
    elif kind == "append":
        content += rng.randbytes(rng.choice([1, 100, page]))
    elif kind in {"swap", "copy"}:
        one, other = (slice(n * page, (n + 1) * page) for n in rng.sample(range(pages), 2))
        content[one], content[other] = content[other], content[one] if kind == "swap" else content[other]
    if kind == "remove":
        path.unlink()
    else:
        path.write_bytes(content)
        if rng.random() < 0.5:  # what a failing disk does: content changes, time stamps do not
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return f"{kind} at {start}"


def damages(folder: Path, page: int, count: int, seed: int) -> dict[str, int]:
    """Damage a gallery ``count`` times; every time it answers and changes as it should, or says one sentence."""
    make_large(folder / "whole")
    rng = random.Random(seed)
    query = np.random.default_rng(1).standard_normal(64).astype(np.float32)
    new = Photo("f" * 32, Path("/p/new.jpg"), 1, 1, 1, 1, 0)
    vector = query / np.linalg.norm(query)

    def answer() -> tuple[Answer, set[str]]:
        gallery = Gallery(folder / "g", encoder=ColourLayout())
        found = [(one.path, one.score) for one in gallery.search(query, 400)]
        return found, {one.id for one in gallery.list()}

    shutil.copytree(folder / "whole", folder / "g")
    expected, ids = answer()
    outcomes = {"noticed": 0, "harmless": 0, "noticed when changed": 0}
    for _ in range(count):
        shutil.rmtree(folder / "g")
        shutil.copytree(folder / "whole", folder / "g")
        victim = folder / "g" / (MARKER if rng.random() < 0.03 else Database.NAME)
        how = damage(victim, page, rng)
        ok = Gallery(folder / "g", encoder=ColourLayout()).verify().ok
        refusal = ""
        try:
            assert answer() == (expected, ids), f"{how}: a wrong answer"
        except GalleryCorrupt as error:
            refusal = str(error)
        if refusal:
            assert str(folder / "g") in refusal
            assert len(refusal.splitlines()) == 1
            assert not ok, f"{how}: {refusal}, and verify saw nothing"
            outcomes["noticed"] += 1
            continue
        wanted = (ids - {f"{8:032x}"}) | {new.id}
        try:  # a change neither loses nor doubles anything, even where the damage is in no page that is read
            with LocalStore(folder / "g").writing() as writer:
                writer.commit([(new, vector)], [f"{8:032x}"])
        except GalleryCorrupt as error:
            refusal, wanted = str(error), ids
        assert answer()[1] == wanted, f"{how}: {refusal}"
        outcomes["noticed when changed" if refusal else "harmless"] += 1
    return outcomes


@pytest.mark.parametrize("page", [512, 16384])
def test_hundreds_of_damages_are_never_answered(page: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PAGE", page)
    outcomes = damages(tmp_path, page, 100, seed=page)
    assert outcomes["noticed"] > 50, outcomes


@pytest.mark.large
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", [512, 4096, 16384])
def test_a_thousand_damages_are_never_answered(page: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PAGE", page)
    outcomes = damages(tmp_path, page, 1000, seed=page + 1)
    print(outcomes)  # noqa: T201
    assert outcomes["noticed"] > 500


def test_every_row_and_its_checksum_count(gallery: Gallery, photos: Path) -> None:
    """Bits of what is stored, changed through SQLite itself, which then has nothing to complain of."""
    whole = (gallery.path / Database.NAME).read_bytes()
    for statement, value in (
        ("UPDATE photos SET entry = replace(entry, '.png', '.pnh') WHERE number = 3", None),
        ("UPDATE photos SET vector = ? WHERE number = 3", np.eye(1, 64, dtype=np.float32).tobytes()),
        ("UPDATE photos SET checksum = ? WHERE number = 3", bytes(8)),
        ("DELETE FROM photos WHERE number = 3", None),
        ("INSERT INTO photos SELECT 99, entry, checksum, vector FROM photos WHERE number = 3", None),
        ("UPDATE manifest SET content = replace(content, '1', '2')", None),
        ("DELETE FROM manifest", None),
        ("INSERT INTO manifest SELECT * FROM manifest", None),
    ):
        with sqlite3.connect(gallery.path / Database.NAME) as connection:
            connection.execute(statement, [value] if value else [])
        connection.close()
        fresh = Gallery(gallery.path, encoder=ColourLayout())
        assert not fresh.verify().ok, statement
        with pytest.raises(GalleryCorrupt, match="rasr gallery verify"):
            fresh.search(photos / "07.png")
        with pytest.raises(GalleryCorrupt):
            fresh.add(make_picture(photos / "late.png", 60))
        (gallery.path / Database.NAME).write_bytes(whole)
    assert gallery.verify().ok


def test_rows_that_no_longer_match_their_checksum_are_named(gallery: Gallery) -> None:
    with sqlite3.connect(gallery.path / Database.NAME) as connection:
        connection.execute("UPDATE photos SET entry = replace(entry, '07.png', '70.png')")
    connection.close()
    report = Gallery(gallery.path, encoder=ColourLayout()).verify()
    rows = [problem for problem in report.problems if problem.kind == "row"]
    assert [(problem.path.name, problem.what) for problem in rows] == [
        ("70.png", "the gallery's entry does not match its checksum")
    ]
    assert report.photos == 11


def test_a_lost_database_is_damage_and_not_an_empty_gallery(gallery: Gallery, photos: Path) -> None:
    (gallery.path / Database.NAME).unlink()
    fresh = Gallery(gallery.path, encoder=ColourLayout())
    assert [problem.kind for problem in fresh.verify().problems] == ["file"]
    for use in (lambda: fresh.add(photos), fresh.list, lambda: fresh.search(photos / "07.png")):
        with pytest.raises(GalleryCorrupt, match="is missing"):
            use()


Hostile = Callable[[sqlite3.Connection], object]


def _row(entry: str, vector: object) -> tuple[str, bytes, object]:
    return entry, _checksum(entry.encode(), vector if isinstance(vector, bytes) else b""), vector


GOOD = ["0" * 32, "/p/a.jpg", 1, 1, 1, 1, 1, "", [], "", ""]
UNIT = np.eye(1, 64, dtype=np.float32).tobytes()
ROWS = {
    "a number for an entry": (5, bytes(8), UNIT),
    "a text for a vector": ("[]", bytes(8), "text"),
    "no vector": ("[]", bytes(8), None),
    "a huge vector": _row(json.dumps(GOOD), bytes(3_000_000)),
    "a vector of another length": _row(json.dumps(GOOD), UNIT[:-4]),
    "no JSON": _row("photo", UNIT),
    "deep JSON": _row("[" * 100_000, UNIT),
    "deep, closed JSON": _row("[" * 50_000 + "]" * 50_000, UNIT),
    "an object": _row("{}", UNIT),
    "a short entry": _row('["a"]', UNIT),
    "two entries": _row(f"{json.dumps(GOOD)},{json.dumps(GOOD)}", UNIT),
    "fields of other types": _row(json.dumps([*GOOD[:1], 7, *GOOD[2:]]), UNIT),
    "tags that are numbers": _row(json.dumps([*GOOD[:8], [1], *GOOD[9:]]), UNIT),
    "a long hash": _row(json.dumps([*GOOD[:6], 2**64, *GOOD[7:]]), UNIT),
    "a hash of many digits": _row(json.dumps(GOOD).replace("1, 1, 1", "1, 1, " + "9" * 5000), UNIT),
    "a path that is no text": _row(json.dumps([*GOOD[:1], "/p/\ud800.jpg", *GOOD[2:]]), UNIT),
}


def forge(
    folder: Path, change: Hostile, *, photos: int | None = None, rows: tuple[tuple[object, ...], ...] = ()
) -> None:
    """A database that claims to be a gallery's: sealed with right checksums over whatever it holds."""
    encoder = ColourLayout()
    identity = EncoderId(encoder.name, encoder.version, encoder.dimension, encoder.fingerprint)
    with LocalStore(folder).writing(identity):
        pass
    connection = sqlite3.connect(folder / Database.NAME, isolation_level=None)
    connection.executemany("INSERT INTO photos VALUES (NULL, ?, ?, ?)", rows)
    total = sum(int.from_bytes(row[1], "big") for row in rows if isinstance(row[1], bytes)) % 2**64
    count = len(rows) if photos is None else photos
    connection.execute("BEGIN")
    _write(connection, Manifest(identity, count, total, "1.0"), ())
    change(connection)
    connection.close()


def assert_refused(folder: Path, *uses: Callable[[Gallery], object]) -> None:
    query = np.ones(64, np.float32)
    for use in uses or (Gallery.list, Gallery.info, lambda gallery: gallery.search(query, 3)):
        with pytest.raises(GalleryError) as caught:
            use(Gallery(folder, encoder=ColourLayout()))
        assert len(str(caught.value).splitlines()) == 1
        assert str(folder) in str(caught.value)
        assert len(str(caught.value)) < 600
    assert not Gallery(folder, encoder=ColourLayout()).verify().ok


@pytest.mark.parametrize("name", ROWS)
def test_hostile_rows_are_refused(name: str, tmp_path: Path) -> None:
    forge(tmp_path / "g", lambda connection: None, rows=[ROWS[name]])
    assert_refused(tmp_path / "g")


@pytest.mark.parametrize("number", [0.0, 0.2, 1e30, np.inf, np.nan])
def test_vectors_that_are_not_unit_are_not_searched(number: float, tmp_path: Path) -> None:
    vector = np.full(64, number, np.float32).tobytes()
    forge(tmp_path / "g", lambda connection: None, rows=[_row(json.dumps(GOOD), vector)])
    assert_refused(tmp_path / "g", lambda gallery: gallery.search(np.ones(64, np.float32), 3))


ENDLESS = """
    CREATE VIEW photos AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)
    SELECT n AS number, '' AS entry, x'' AS checksum, x'' AS vector FROM r
"""


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW more AS SELECT * FROM photos",
        "CREATE TRIGGER t AFTER INSERT ON photos BEGIN DELETE FROM manifest; END",
        "CREATE INDEX i ON photos (entry)",
        "CREATE TABLE other (x)",
        "ALTER TABLE photos ADD COLUMN extra",
        "DROP TABLE photos",
        "ALTER TABLE photos RENAME TO p; CREATE VIEW photos AS SELECT number, entry, checksum, vector FROM p",
        f"DROP TABLE photos; {ENDLESS}",
        "PRAGMA application_id=0",
        "PRAGMA journal_mode=WAL",
        "PRAGMA user_version=3",
    ],
)
def test_another_schema_is_refused(sql: str, tmp_path: Path) -> None:
    forge(tmp_path / "g", lambda connection: connection.executescript(sql))
    assert_refused(tmp_path / "g")


@pytest.mark.parametrize("photos", [1, 10**6, 10**18, -1])
def test_a_manifest_that_counts_wrong_is_refused(photos: int, tmp_path: Path) -> None:
    forge(tmp_path / "g", lambda connection: None, photos=photos)
    assert_refused(tmp_path / "g")


@pytest.mark.parametrize("content", ["", "[]", "5", "{}", "[" * 100_000, '{"encoder": 5}', "\x00"])
def test_a_manifest_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    digest = database.xxhash.xxh3_64_digest(content.encode())
    forge(tmp_path / "g", lambda one: one.execute("UPDATE manifest SET content = ?, checksum = ?", (content, digest)))
    assert_refused(tmp_path / "g")


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00", bytes(100_000)])
def test_a_file_that_is_no_database_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / Database.NAME).write_bytes(content)
    assert_refused(tmp_path / "g")
    assert (tmp_path / "g" / Database.NAME).read_bytes() == content


def test_a_folder_in_place_of_the_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g" / Database.NAME).mkdir(parents=True)
    assert_refused(tmp_path / "g")


def test_verify_reports_missing_and_changed_photos(gallery: Gallery, photos: Path) -> None:
    (photos / "cat" / "00.png").unlink()
    make_picture(photos / "cat" / "01.png", 99, (60, 40))
    same_size = photos / "dog" / "02.png"
    content = bytearray(same_size.read_bytes())
    content[-20] ^= 1
    same_size.write_bytes(content)
    kinds = {problem.path.name: problem.kind for problem in gallery.verify().problems}
    assert kinds == {"00.png": "photo-missing", "01.png": "photo-changed"}
    kinds = {problem.path.name: problem.kind for problem in gallery.verify(deep=True).problems}
    assert kinds == {"00.png": "photo-missing", "01.png": "photo-changed", "02.png": "photo-changed"}


def test_leftovers_are_reported_harmless_and_swept(gallery: Gallery, photos: Path) -> None:
    (gallery.path / PART).write_bytes(b"half a file")
    (gallery.path / "photos-000001.lance" / "data").mkdir(parents=True)
    report = gallery.verify()
    assert report.ok
    assert report.leftovers == [PART, "photos-000001.lance"]
    gallery.add(make_picture(photos / "late.png", 61))
    assert gallery.verify().leftovers == []
    assert sorted(path.name for path in gallery.path.iterdir()) == [Database.NAME, MARKER, "gallery.lock"]


def test_a_newer_format_is_refused_with_the_reason(gallery: Gallery) -> None:
    with sqlite3.connect(gallery.path / Database.NAME) as connection:
        connection.execute("PRAGMA user_version=3")
    connection.close()
    with pytest.raises(GalleryCorrupt, match="Upgrade rasr"):
        Gallery(gallery.path, encoder=ColourLayout()).info()


def test_a_full_disk_changes_nothing(gallery: Gallery, photos: Path) -> None:
    before = {photo.id for photo in gallery.list()}
    for number in range(40):
        make_picture(photos / "more" / f"{number}.png", 2000 + number)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))  # no file may grow beyond: what a full disk looks like
    try:
        with pytest.raises(GalleryError, match="as it was before"):
            gallery.add(photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    fresh = Gallery(gallery.path, encoder=ColourLayout())
    assert {photo.id for photo in fresh.list()} == before
    assert fresh.verify().ok
    assert fresh.add(photos).added == 40
    assert fresh.verify().leftovers == []


def test_a_gallery_that_cannot_be_created(tmp_path: Path, photos: Path, encoder: ColourLayout) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(GalleryError, match="cannot be created"):
        Gallery(tmp_path / "file" / "gallery", encoder=encoder).add(photos)


def test_what_a_user_writes_finds_the_photos_meant(gallery: Gallery, photos: Path) -> None:
    def left() -> set[str]:
        return {photo.path.name for photo in gallery.list()}

    photo = next(photo for photo in gallery.list() if photo.path.name == "00.png")
    assert [one.path.name for one in gallery.remove([photo.id[:10]])] == ["00.png"]
    assert [one.path.name for one in gallery.remove([photos / "dog" / "02.png"])] == ["02.png"]
    assert [one.path.name for one in gallery.remove([photos / "bird"])] == ["06.png", "04.png", "05.png"]
    assert [one.path.name for one in gallery.remove(["0[78].*"])] == ["07.png", "08.png"]
    assert [one.path.name for one in gallery.remove([f"{photos}/*/01.png"])] == ["01.png"]
    (photos / "cat" / "09.png").unlink()
    assert [one.path.name for one in gallery.remove(missing=True)] == ["09.png"]
    assert [one.path.name for one in gallery.remove(category="dog")] == ["03.png", "10.png"]
    assert gallery.remove(["nothing.png"]) == []
    assert left() == {"11.png"}
    gallery.remove(["*"])
    assert left() == set()
    assert gallery.search(photos / "11.png") == []
    with pytest.raises(UsageError):
        gallery.remove()
    assert gallery.verify().ok
    assert gallery.add(photos).added == 11
