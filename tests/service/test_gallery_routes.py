"""Galleries over HTTP: made, filled, searched, restored with, removed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import pytest
from PIL import Image

from tests.service.conftest import Served, picture


@pytest.fixture(scope="module")
def album(served: Served) -> str:
    assert served.client.post("/galleries", json={"name": "Été 2020"}).status_code == 201
    for seed in (1, 2, 3):
        answer = served.client.post(
            "/galleries/Été 2020/photos", files={"file": (f"photo {seed}.png", picture(320, 240, seed))}
        )
        assert answer.status_code == 201, answer.text
    return "Été 2020"


def test_a_gallery_is_listed_with_its_photos(served: Served, album: str) -> None:
    listed = served.client.get("/galleries").json()["galleries"]
    assert {"name": album, "photos": 3, "encoder": "effnet-lite0-robust", "writable": True} in listed
    first = served.client.get(f"/galleries/{album}/photos", params={"limit": 2}).json()
    rest = served.client.get(f"/galleries/{album}/photos", params={"after": first["next"]}).json()
    photos = first["photos"] + rest["photos"]
    assert [one["name"] for one in photos] == ["photo 1.png", "photo 2.png", "photo 3.png"]
    assert {(one["width"], one["height"], one["problem"]) for one in photos} == {(320, 240, None)}
    assert rest["next"] is None
    assert served.client.get(f"/galleries/{album}").json()["problems"] == []


def test_a_known_photo_is_not_added_twice(served: Served, album: str) -> None:
    content = picture(320, 240, 1)
    digest, other = hashlib.sha256(content).hexdigest(), "0" * 64
    asked = served.client.post(f"/galleries/{album}/known", json={"hashes": [digest, other]})
    assert asked.json() == {"unknown": [other]}
    again = served.client.post(f"/galleries/{album}/photos", files={"file": ("another name.png", content)})
    assert again.status_code == 200
    assert again.json()["name"] == "photo 1.png"
    assert served.client.get(f"/galleries/{album}").json()["photos"] == 3


def test_search_finds_the_photo(served: Served, album: str) -> None:
    small = Image.open(io.BytesIO(picture(320, 240, 2))).resize((80, 60))
    stream = io.BytesIO()
    small.save(stream, "PNG")
    found = served.client.post("/search", files={"file": ("q.png", stream.getvalue())}, data={"gallery": album, "k": 2})
    results = found.json()["results"]
    assert [one["index"] for one in results] == [0, 1]
    assert results[0]["name"] == "photo 2.png"
    assert results[0]["score"] > results[1]["score"]
    assert found.json()["cleaned"] is True
    shown = served.client.get(results[0]["picture"])
    assert Image.open(io.BytesIO(shown.content)).size == (320, 240)
    thumbnail = served.client.get(f"/galleries/{album}/photos/{results[0]['id']}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(thumbnail.content)).size == (256, 192)


def test_a_broken_photo_is_named_and_not_kept(served: Served, album: str) -> None:
    answer = served.client.post(f"/galleries/{album}/photos", files={"file": ("broken.png", picture()[:200])})
    assert answer.status_code == 422
    assert "broken.png" in answer.json()["error"]["message"]
    assert str(served.data) not in answer.text
    assert served.client.get(f"/galleries/{album}").json()["photos"] == 3
    assert len(list((served.data / "galleries" / album / "photos").iterdir())) == 3


def test_a_photo_and_a_gallery_are_removed(served: Served) -> None:
    client = served.client
    assert client.post("/galleries", json={"name": "Gone"}).status_code == 201
    assert client.post("/galleries", json={"name": "gone"}).status_code == 409
    photo = client.post("/galleries/Gone/photos", files={"file": ("a.png", picture(64, 64))}).json()["id"]
    assert client.delete(f"/galleries/Gone/photos/{photo}").status_code == 204
    assert client.get("/galleries/Gone/photos").json() == {"photos": [], "next": None}
    assert not list((served.data / "galleries" / "Gone" / "photos").iterdir())
    empty = client.post("/search", files={"file": ("q.png", picture())}, data={"gallery": "Gone"})
    assert (empty.status_code, empty.json()["error"]["code"]) == (422, "empty_gallery")
    assert client.delete("/galleries/Gone").status_code == 204
    assert client.get("/galleries/Gone").status_code == 404
    assert not (served.data / "galleries" / "Gone").exists()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", ".hidden", "x" * 64, "a\x00", "trailing."])
def test_a_name_that_is_no_folder_is_refused(served: Served, name: str) -> None:
    assert served.client.post("/galleries", json={"name": name}).status_code == 422


def test_an_existing_gallery_can_only_be_read(
    start: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory
) -> None:
    photos = tmp_path_factory.mktemp("photos")
    (photos / "one.png").write_bytes(picture(64, 64))
    served = start("-g", photos)
    (listed,) = served.client.get("/galleries").json()["galleries"]
    assert (listed["name"], listed["photos"], listed["writable"]) == (photos.name, 1, False)
    adding = served.client.post(f"/galleries/{photos.name}/photos", files={"file": ("b.png", picture())})
    assert adding.status_code == 403
    assert served.client.delete(f"/galleries/{photos.name}").status_code == 403
    (photo,) = served.client.get(f"/galleries/{photos.name}/photos").json()["photos"]
    assert served.client.delete(f"/galleries/{photos.name}/photos/{photo['id']}").status_code == 403
    assert (photos / "one.png").is_file()
