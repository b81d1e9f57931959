"""Every source against its stand-in: pages, fields, and what its API says when it refuses."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rasr.dataset import (
    SOURCES,
    Candidate,
    Category,
    DatasetConfig,
    Source,
    build_dataset,
    load_config,
    read_manifest,
)
from rasr.dataset.config import parse_config
from rasr.dataset.sources.folder import Folder
from rasr.dataset.web import Download, FetchError, Web
from rasr.errors import ConfigError, ExtraMissing, SourceError, install_command
from rasr.images import Picture, write_picture
from tests.dataset.photo_sites import Photo, World, config_for, picture, serving

Make = Callable[..., DatasetConfig]
ANIMAL = Category(name="owl", scientific_name="owl", text="owl", commons_category="owl")


def _photos(source: str, count: int = 60) -> list[Photo]:
    return [Photo(number, "owl", source, f"user {number % 7}") for number in range(100, 100 + count)]


def _all(source: Source) -> list[Candidate]:
    found: list[Candidate] = []
    cursor: str | None = ""
    while cursor is not None:
        page = source.page(ANIMAL, cursor)
        found += page.candidates
        cursor = page.following
    return found


@pytest.fixture(params=["flickr", "inaturalist", "commons"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_all_pages_each_photo_once(world: World, make_config: Make, kind: str) -> None:
    world.photos, world.page_size = _photos(kind), 25
    with serving(world) as base:
        config = make_config(base, ["owl"], [kind])
        with Web(config.download, config.agent) as web:
            (source,) = config.make_sources(web)
            source.ready()
            found = _all(source)
    assert [int(one.source_id) for one in found] == list(range(100, 160))
    first = found[0]
    assert first.source == kind
    assert first.author == "user 2"
    assert first.licence == {"flickr": "CC-BY-2.0", "inaturalist": "CC-BY-4.0", "commons": "CC-BY-4.0"}[kind]
    assert (first.width, first.height) == (360, 340)
    assert first.url.endswith("/img/100/original.jpg")
    assert first.page_url.startswith("https://")
    assert first.title


def test_licences_are_filtered_by_the_service_where_it_can(world: World, make_config: Make, kind: str) -> None:
    world.photos = _photos(kind, 6)
    world.photos[1].licence = "reserved"
    world.photos[2].licence = "by-sa"
    with serving(world) as base:
        config = make_config(base, ["owl"], [kind], filters={"licences": ["CC-BY-SA"]})
        with Web(config.download, config.agent) as web:
            (source,) = config.make_sources(web)
            found = _all(source)
    accepted = [one.licence for one in found if one.licence and one.licence.startswith("CC-BY-SA")]
    assert len(accepted) == 1
    if kind != "commons":
        assert len(found) == 1


@pytest.mark.parametrize("fault", ["429", "500", "html"])
def test_passing_trouble_is_waited_out(world: World, make_config: Make, kind: str, fault: str) -> None:
    assert _count_despite(world, make_config, kind, fault) == 3


@pytest.mark.parametrize("busy", ["flickr", "commons"])
def test_trouble_under_status_200_is_waited_out(world: World, make_config: Make, busy: str) -> None:
    assert _count_despite(world, make_config, busy, "busy") == 3


def _count_despite(world: World, make_config: Make, kind: str, fault: str) -> int:
    api = {"flickr": "services", "inaturalist": "v1", "commons": "w"}[kind]
    world.photos, world.api_faults = _photos(kind, 3), {api: [fault]}
    with serving(world) as base:
        config = make_config(base, ["owl"], [kind])
        with Web(config.download, config.agent) as web:
            return len(_all(config.make_sources(web)[0]))


def test_lasting_trouble_is_an_error(world: World, make_config: Make, kind: str) -> None:
    api = {"flickr": "services", "inaturalist": "v1", "commons": "w"}[kind]
    world.api_faults = {api: ["500"] * 50}
    with serving(world) as base:
        config = make_config(base, ["owl"], [kind])
        with Web(config.download, config.agent) as web, pytest.raises(FetchError, match="500"):
            config.make_sources(web)[0].page(ANIMAL, "")


def test_flickr_without_a_key(world: World, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLICKR_API_KEY")
    config = make_config("http://127.0.0.1:9", ["owl"], ["flickr"])
    with Web(config.download, config.agent) as web, pytest.raises(SourceError, match="FLICKR_API_KEY"):
        config.make_sources(web)[0].ready()


def test_flickr_with_a_wrong_key(world: World, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKR_API_KEY", "a-wrong-key")
    with serving(world) as base:
        config = make_config(base, ["owl"], ["flickr"])
        with (
            Web(config.download, config.agent) as web,
            pytest.raises(SourceError, match="refuses the API key") as error,
        ):
            config.make_sources(web)[0].page(ANIMAL, "")
    assert "a-wrong-key" not in str(error.value)


def test_flickr_takes_the_smallest_size_that_is_large_enough(world: World, make_config: Make) -> None:
    world.photos = _photos("flickr", 1)
    with serving(world) as base:
        config = make_config(base, ["owl"], ["flickr"], download={"long_side": 150})
        with Web(config.download, config.agent) as web:
            (photo,) = _all(config.make_sources(web)[0])
    assert photo.url.endswith("/small.jpg")
    assert (photo.width, photo.height) == (200, 189)


def test_commons_takes_a_width_that_is_kept_ready(world: World, make_config: Make) -> None:
    world.photos = _photos("commons", 1)
    world.photos[0].width, world.photos[0].height = 6000, 4000
    with serving(world) as base:
        config = make_config(base, ["owl"], ["commons"], download={"long_side": 2048})
        with Web(config.download, config.agent) as web:
            (photo,) = _all(config.make_sources(web)[0])
    assert photo.url.endswith("/thumb.jpg")
    assert (photo.width, photo.height) == (1920, 1280)


def test_commons_wants_to_know_who_calls(make_config: Make) -> None:
    config = make_config("http://127.0.0.1:9", ["owl"], ["commons"], contact="")
    with Web(config.download, config.agent) as web, pytest.raises(SourceError, match="RASR_CONTACT"):
        config.make_sources(web)[0].ready()


def test_commons_credits_the_artist_not_the_uploader(world: World, make_config: Make) -> None:
    world.photos = _photos("commons", 1)
    with serving(world) as base:
        config = make_config(base, ["owl"], ["commons"])
        with Web(config.download, config.agent) as web:
            (photo,) = _all(config.make_sources(web)[0])
    assert photo.author == "user 2"


def test_inaturalist_leaves_out_namesakes(world: World, make_config: Make) -> None:
    """The API matches common names too: another animal may be called what we ask for."""
    world.photos = [*_photos("inaturalist", 2), Photo(900, "Owl butterfly", "inaturalist", "x")]
    with serving(world) as base:
        config = make_config(base, ["owl"], ["inaturalist"])
        with Web(config.download, config.agent) as web:
            assert len(_all(config.make_sources(web)[0])) == 2


def _folder(tmp_path: Path) -> Path:
    import numpy as np

    for name in ("Snow Owl/a.png", "Snow Owl/b.png", "cat/c.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(Picture(np.full((8, 8, 3), 0.5, np.float32)), path)
    return tmp_path / "photos"


def test_folders_are_categories_and_the_table_gives_credits(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    table = tmp_path / "credits.csv"
    table.write_text("id,who,licence\na,Ann,CC BY 4.0\nb.png,Ben,\n", "utf-8")
    source = Folder(
        Folder.Settings(
            kind="folder",
            path=folder,
            credits=table,
            columns={"photo": "id", "author": "who"},
            author="Studio",
            licence="CC0-1.0",
        ),
        Web(Download(), "tests"),
    )
    categories = source.categories()
    assert [category.name for category in categories] == ["snow-owl", "cat"] or [c.name for c in categories] == [
        "cat",
        "snow-owl",
    ]
    owl = next(category for category in categories if category.name == "snow-owl")
    page = source.page(owl, "")
    assert [(one.author, one.licence) for one in page.candidates] == [("Ann", "CC-BY-4.0"), ("Ben", "CC0-1.0")]
    assert page.following is None


def test_a_missing_folder_and_a_table_without_the_column(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        Folder(Folder.Settings(kind="folder", path=tmp_path / "gone"), Web(Download(), "tests")).ready()
    folder, table = _folder(tmp_path), tmp_path / "credits.csv"
    table.write_text("file,author\n", "utf-8")
    source = Folder(Folder.Settings(kind="folder", path=folder, credits=table), Web(Download(), "tests"))
    with pytest.raises(SourceError, match="no column 'photo'"):
        source.page(source.categories()[0], "")


@pytest.mark.parametrize("names", [["Snow Owl", "snow-owl"], ["LQ"], ["東京", "京都"]])
def test_folders_that_cannot_be_categories_of_their_own_are_named(tmp_path: Path, names: list[str]) -> None:
    import numpy as np

    for name in names:
        (tmp_path / name).mkdir()
        write_picture(Picture(np.full((8, 8, 3), 0.5, np.float32)), tmp_path / name / "a.png")
    source = Folder(Folder.Settings(kind="folder", path=tmp_path), Web(Download(), "tests"))
    with pytest.raises(SourceError, match=f"The folder '{sorted(names)[-1]}' cannot be the category"):
        source.categories()


def test_a_file_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / "cat" / os.fsdecode(b"x\xff.png")).write_bytes((folder / "cat/c.png").read_bytes())
    source = Folder(Folder.Settings(kind="folder", path=folder), Web(Download(), "tests"))
    with pytest.raises(SourceError, match="x\udcff\\.png is not valid UTF-8"):
        source.query(Category(name="cat"))


NEW_SOURCE = '''
from rasr.dataset import Candidate, Category, Page
from rasr.dataset.sources.source import Online


class Zoo(Online):
    """A zoo's own archive: numbered photos, ten a page."""

    class Settings(Online.Settings):
        endpoint: str = "http://127.0.0.1:9"
        first: int = 1

    _settings: Settings

    def query(self, category: Category) -> str:
        return f"photos of {category.label} from {self._settings.first} on"

    def page(self, category: Category, cursor: str) -> Page:
        start = int(cursor or self._settings.first)
        found = [
            Candidate(
                source=self.kind, source_id=str(number), url=f"{self._settings.endpoint}/img/{number}/original.jpg",
                author=f"keeper {number}", licence="CC0-1.0",
            )
            for number in range(start, start + 10)
        ]
        return Page(found, str(start + 10))
'''


def test_a_new_source_is_a_file_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added in a temporary module, it is read from a config and built from by the command line."""
    from click.testing import CliRunner

    from rasr.cli.dataset import command

    (tmp_path / "zoo_archive.py").write_text(NEW_SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SOURCES, "zoo", "zoo_archive:Zoo")
    world = World([Photo(number, "owl", "zoo", "") for number in range(1, 41)])
    config = tmp_path / "zoo.toml"
    with serving(world) as base:
        config.write_text(
            f'name = "zoo"\ncategory = [{{name = "owl"}}]\ngallery = false\nlq = {{enabled = false}}\n'
            "splits = {train = 2, test = 1, reference = 3, related_similarity = 0.999}\n"
            "filters = {min_short_side = 300, max_blur = 1.0, max_blockiness = 9.0, duplicate_similarity = 1.0}\n"
            f'[download]\nrates = {{"127.0.0.1" = 1000}}\nloopback = true\n'
            f'[[source]]\nkind = "zoo"\nendpoint = "{base}"\ncandidates = 30\nfirst = 5\n'
        )
        done = CliRunner().invoke(command, ["build", str(config), "-o", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    records = read_manifest(tmp_path / "out")
    assert {(record.source, record.author, record.licence) for record in records} == {
        ("zoo", f"keeper {record.source_id}", "CC0-1.0") for record in records
    }
    assert len(records) == 6
    assert all(int(record.source_id) >= 5 for record in records)
    config.write_text(config.read_text().replace("first = 5", "frist = 5"))
    with pytest.raises(ConfigError, match="Did you mean 'first'"):
        load_config(config)


def test_without_the_extra_folders_are_built_and_sites_say_what_to_install(
    tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    config = make_config("http://127.0.0.1:9", ["owl"], ["flickr"])
    told = re.escape(install_command("dataset"))
    with Web(config.download, config.agent) as web, pytest.raises(ExtraMissing, match=told):
        config.make_sources(web)[0].ready()
    with pytest.raises(ExtraMissing, match=told):
        build_dataset(config, tmp_path / "web")
    photos = tmp_path / "photos/owl"
    photos.mkdir(parents=True)
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(picture(number, "owl", 360, 340))
    raw = config_for("", [], []) | {"category": [], "gallery": False, "lq": {"enabled": False}}
    raw["source"] = [{"kind": "folder", "path": str(photos.parent), "author": "A", "licence": "CC0-1.0"}]
    raw["splits"] = {"train": 1, "test": 1, "reference": 2, "related_similarity": 0.999, "by_photographer": False}
    assert build_dataset(parse_config(raw, "t", tmp_path), tmp_path / "out").photos == 4
