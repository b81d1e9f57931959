"""Answers of services: whatever is strange about one photo costs that photo and no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rasr.dataset.answers import parse_answer
from rasr.dataset.config import parse_config
from rasr.dataset.sources import Candidate, Category, Page
from rasr.dataset.web import Web
from tests.dataset.photo_sites import config_for

DEEP = "[" * 100_000 + "]" * 100_000
STRANGE = [
    *("null", "7", '"x"', "[]", "{}", "true", DEEP, '{"a":' * 200 + "1" + "}" * 200, "9" * 5000, "-" + "9" * 100),
    *("NaN", "1e999", r'"\ud800"', r'"\u0000"', '"http://[::1"', '"http://a:b/"', '"file:///etc/passwd"'),
]


def test_the_page_stays_what_it_was() -> None:
    sound = {"a": [1, 2.5e-3, "[[[{{{", 'quote " and \\ \\" é'], "b": {"c": None}}
    assert parse_answer(json.dumps(sound).encode()) == sound
    holed = json.dumps({**sound, "bad": "HERE", "end": [1]}).replace('"HERE"', DEEP).encode()
    assert parse_answer(holed) == {**sound, "bad": _in_lists("\0", 31), "end": [1]}


def _in_lists(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, DEEP + "]", "<html>", "\xff"])
def test_what_is_no_json_at_all(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_answer(text.encode("latin-1"))


def _answers(kind: str) -> tuple[dict[str, Any], list[Any], str]:
    """A page of three photos by each service, the list of the photos in it, and the facts that are read of one."""
    numbers = (1, 2, 3)
    if kind == "flickr":
        photos: list[Any] = [
            {"id": str(n), "owner": "o", "title": "t", "license": "4", "url_k": f"https://e.org/{n}", "ownername": "u"}
            | {"width_k": 900, "height_k": 800, "pathalias": "p"}
            for n in numbers
        ]
        page: dict[str, Any] = {"stat": "ok", "photos": {"pages": 1, "photo": photos}}
        return page, photos, "id url_k width_k title"
    if kind == "commons":
        info = {"mime": "image/jpeg", "width": 900, "height": 800, "user": "u", "descriptionurl": "https://e.org/p"}
        photos = [
            {"pageid": n, "title": "File:a", "imageinfo": [info | {"url": f"https://e.org/{n}", "extmetadata": {}}]}
            for n in numbers
        ]
        return {"query": {"pages": photos}}, photos, "pageid imageinfo"
    photos = [
        {"id": n, "taxon": {"name": "owl"}, "user": {"login": "u"}, "uri": "https://e.org"}
        | {"photos": [{"id": n, "url": f"https://e.org/{n}/square.jpg", "license_code": "cc-by"}]}
        for n in numbers
    ]
    return {"results": photos}, photos, "photos"


@pytest.mark.parametrize("kind", ["flickr", "inaturalist", "commons"])
def test_a_strange_photo_costs_itself(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(config_for("http://127.0.0.1:9", ["owl"], [kind]), "test", None)  # type: ignore[arg-type]
    category = Category(name="owl", scientific_name="owl", commons_category="owl")
    page, photos, facts = _answers(kind)
    with Web(config.download, config.agent) as web:
        (source,) = config.make_sources(web)
        if kind == "flickr":
            monkeypatch.setattr(type(source), "_ids", {"4": "CC-BY-2.0"})
        body = b""
        monkeypatch.setattr(web, "json", lambda *_args: parse_answer(body))
        body = json.dumps(page).encode()
        assert [one.source_id for one in source.page(category, "").candidates] == ["1", "2", "3"]
        sound = dict(photos[1])
        passed_over = 0
        for fact in ["", *facts.split()]:
            for value in STRANGE:
                photos[1] = "HERE" if not fact else sound | {fact: "HERE"}
                body = json.dumps(page).replace('"HERE"', value).encode()
                found = source.page(category, "")
                ids = [one.source_id for one in found.candidates]
                assert (ids[0], ids[-1]) == ("1", "3"), (fact, value[:50])
                passed_over += found.strange
                for one in found.candidates:
                    one.check()
        assert passed_over > len(STRANGE)


@pytest.mark.parametrize(
    "change",
    [
        {"url": "ftp://a/b"},
        {"url": "http://[::1"},
        {"title": "\ud800"},
        {"author": "\0"},
        {"width": 10**30},
        {"height": -1},
    ],
)
def test_facts_that_no_journal_keeps(change: dict[str, Any]) -> None:
    values = {"source": "flickr", "source_id": "1", "url": "https://e.org/1"}
    assert Page.of([1], lambda _: Candidate(**values), None).strange == 0
    page = Page.of([1, 2], lambda n: Candidate(**values | (change if n == 1 else {})), None)
    assert (len(page.candidates), page.strange) == (1, 1)
