"""Every source against its stand-in: pages, fields, and what its API says when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rasr.dataset.candidate import Candidate
from rasr.dataset.config import Category, DatasetConfig, FolderSource
from rasr.dataset.sources import Folder, Source, make_sources
from rasr.dataset.web import FetchError, Web
from rasr.errors import SourceError
from rasr.images import Picture, write_picture
from tests.dataset.photo_sites import Photo, World, serving

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
            (source,) = make_sources(config, web)
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
            (source,) = make_sources(config, web)
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
            return len(_all(make_sources(config, web)[0]))


def test_lasting_trouble_is_an_error(world: World, make_config: Make, kind: str) -> None:
    api = {"flickr": "services", "inaturalist": "v1", "commons": "w"}[kind]
    world.api_faults = {api: ["500"] * 50}
    with serving(world) as base:
        config = make_config(base, ["owl"], [kind])
        with Web(config.download, config.agent) as web, pytest.raises(FetchError, match="500"):
            make_sources(config, web)[0].page(ANIMAL, "")


def test_flickr_without_a_key(world: World, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLICKR_API_KEY")
    config = make_config("http://127.0.0.1:9", ["owl"], ["flickr"])
    with Web(config.download, config.agent) as web, pytest.raises(SourceError, match="FLICKR_API_KEY"):
        make_sources(config, web)[0].ready()


def test_flickr_with_a_wrong_key(world: World, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKR_API_KEY", "a-wrong-key")
    with serving(world) as base:
        config = make_config(base, ["owl"], ["flickr"])
        with (
            Web(config.download, config.agent) as web,
            pytest.raises(SourceError, match="refuses the API key") as error,
        ):
            make_sources(config, web)[0].page(ANIMAL, "")
    assert "a-wrong-key" not in str(error.value)


def test_flickr_takes_the_smallest_size_that_is_large_enough(world: World, make_config: Make) -> None:
    world.photos = _photos("flickr", 1)
    with serving(world) as base:
        config = make_config(base, ["owl"], ["flickr"], download={"long_side": 150})
        with Web(config.download, config.agent) as web:
            (photo,) = _all(make_sources(config, web)[0])
    assert photo.url.endswith("/small.jpg")
    assert (photo.width, photo.height) == (200, 189)


def test_commons_takes_a_width_that_is_kept_ready(world: World, make_config: Make) -> None:
    world.photos = _photos("commons", 1)
    world.photos[0].width, world.photos[0].height = 6000, 4000
    with serving(world) as base:
        config = make_config(base, ["owl"], ["commons"], download={"long_side": 2048})
        with Web(config.download, config.agent) as web:
            (photo,) = _all(make_sources(config, web)[0])
    assert photo.url.endswith("/thumb.jpg")
    assert (photo.width, photo.height) == (1920, 1280)


def test_commons_wants_to_know_who_calls(make_config: Make) -> None:
    config = make_config("http://127.0.0.1:9", ["owl"], ["commons"], contact="")
    with Web(config.download, config.agent) as web, pytest.raises(SourceError, match="RASR_CONTACT"):
        make_sources(config, web)[0].ready()


def test_commons_credits_the_artist_not_the_uploader(world: World, make_config: Make) -> None:
    world.photos = _photos("commons", 1)
    with serving(world) as base:
        config = make_config(base, ["owl"], ["commons"])
        with Web(config.download, config.agent) as web:
            (photo,) = _all(make_sources(config, web)[0])
    assert photo.author == "user 2"


def test_inaturalist_leaves_out_namesakes(world: World, make_config: Make) -> None:
    """The API matches common names too: another animal may be called what we ask for."""
    world.photos = [*_photos("inaturalist", 2), Photo(900, "Owl butterfly", "inaturalist", "x")]
    with serving(world) as base:
        config = make_config(base, ["owl"], ["inaturalist"])
        with Web(config.download, config.agent) as web:
            assert len(_all(make_sources(config, web)[0])) == 2


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
        FolderSource(
            kind="folder",
            path=folder,
            credits=table,
            columns={"photo": "id", "author": "who"},
            author="Studio",
            licence="CC0-1.0",
        )
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
        Folder(FolderSource(kind="folder", path=tmp_path / "gone")).ready()
    folder, table = _folder(tmp_path), tmp_path / "credits.csv"
    table.write_text("file,author\n", "utf-8")
    source = Folder(FolderSource(kind="folder", path=folder, credits=table))
    with pytest.raises(SourceError, match="no column 'photo'"):
        source.page(source.categories()[0], "")
