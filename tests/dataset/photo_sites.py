"""A stand-in for Flickr, iNaturalist and Wikimedia Commons on 127.0.0.1, with everything that goes wrong there.

The answers have the shape of the services' public documentation: Flickr reports errors under status 200, its counts
are sometimes strings; iNaturalist pages by ``id_above``; Commons hands out ``continue`` values. Photos are made from
their number, so every run of every test sees the same bytes.
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

KEY = "0123456789abcdef0123456789abcdef"

LICENCES = [
    (0, "All Rights Reserved", "https://www.flickrhelp.com/hc/en-us/articles/10710266545556"),
    (1, "Attribution-NonCommercial-ShareAlike License", "https://creativecommons.org/licenses/by-nc-sa/2.0/"),
    (4, "Attribution License", "https://creativecommons.org/licenses/by/2.0/"),
    (5, "Attribution-ShareAlike License", "https://creativecommons.org/licenses/by-sa/2.0/"),
    (7, "No known copyright restrictions", "https://www.flickr.com/commons/usage/"),
    (9, "Public Domain Dedication (CC0)", "https://creativecommons.org/publicdomain/zero/1.0/"),
    (11, "CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"),
]


@dataclass
class Photo:
    """One photo of the stand-in's world."""

    number: int
    subject: str
    source: str
    author: str
    licence: str = "by"
    width: int = 360
    height: int = 340
    fault: str = ""
    """dead, html, truncated, small, redirect-loop, huge, gone-away, flaky, throttled, cut, forever, unavailable."""
    same_as: int | None = None
    """Number of the photo whose picture this one repeats, saved at another quality."""
    look: str = ""
    """Subject whose look it has; its own when empty."""


@dataclass
class World:
    """What the services know, and what was asked of them."""

    photos: list[Photo] = field(default_factory=list)
    page_size: int | None = None
    api_faults: dict[str, list[str]] = field(default_factory=dict)
    """API → faults for its next calls: 429, 500, html, busy."""
    delay: float = 0.0
    clock_error: float = 0.0
    """Seconds by which the servers' clock is wrong."""
    requests: list[tuple[float, str, str]] = field(default_factory=list)
    """(monotonic time, path, User-Agent)."""
    ranges: list[str] = field(default_factory=list)
    fetched: Counter[int] = field(default_factory=Counter)
    """Photo → complete answers sent."""
    tries: Counter[int] = field(default_factory=Counter)
    running: int = 0
    most_running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, source: str, subject: str) -> list[Photo]:
        return [photo for photo in self.photos if photo.source == source and photo.subject == subject]


@lru_cache(maxsize=64)
def picture(number: int, subject: str, width: int, height: int, quality: int = 90) -> bytes:
    """A JPEG: shapes in the subject's colours at places that only ``number`` decides, sharp and textured."""
    random = np.random.default_rng(number)
    palette = np.random.default_rng(zlib.crc32(subject.encode())).uniform(0, 255, (5, 3))
    field_ = random.uniform(0, 1, (7, 7)).astype(np.float32)
    coarse = np.asarray(Image.fromarray(field_).resize((width, height), Image.Resampling.BICUBIC))
    level = np.clip((coarse * len(palette)).astype(int), 0, len(palette) - 1)
    texture = random.normal(0, 14, (height, width, 1))
    shade = np.asarray(Image.fromarray(random.uniform(-60, 60, (4, 4)).astype(np.float32)).resize((width, height)))
    pixels = palette[level] + texture + shade[:, :, None]
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def make_world(subjects: list[str], per_source: dict[str, int], *, faults: bool = True, seed: int = 0) -> World:
    """Photos for every subject and source by many photographers, some faulty, some not free, some repeated."""
    random = np.random.default_rng(seed)
    world = World()
    kinds = ["dead", "html", "truncated", "small", "redirect-loop", "flaky", "throttled", "cut", "unavailable", "503"]
    number = 1000
    for subject in subjects:
        for source, count in per_source.items():
            for index in range(count):
                number += 1
                photo = Photo(number, subject, source, f"{source}-user-{int(random.integers(0, max(2, count // 2)))}")
                photo.licence = ["by", "by-sa", "cc0"][index % 3]
                if faults and index % 9 == 4:
                    photo.fault = kinds[(index // 9) % len(kinds)]
                elif faults and index % 23 == 7:
                    photo.licence = "reserved"
                elif faults and index % 29 == 11:
                    photo.same_as = number - 1
                world.photos.append(photo)
    return world


class _Handler(BaseHTTPRequestHandler):
    world: World
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        world, parts = self.world, urlsplit(self.path)
        with world.lock:
            world.requests.append((time.monotonic(), self.path, self.headers.get("User-Agent", "")))
            world.running += 1
            world.most_running = max(world.most_running, world.running)
        try:
            if world.delay:
                time.sleep(world.delay)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            route = {
                "/services/rest/": self._flickr,
                "/v1/observations": self._inaturalist,
                "/w/api.php": self._commons,
            }
            if parts.path in route:
                name = parts.path.split("/")[1]
                if not self._api_fault(name):
                    route[parts.path](query)
            elif match := re.fullmatch(r"/img/(\d+)/(\w+)\.jpg", parts.path):
                self._photo(int(match[1]))
            elif match := re.fullmatch(r"/loop/(\d+)", parts.path):
                self._redirect(f"/loop/{int(match[1]) + 1}")
            else:
                self._send(404, b"no such page", "text/plain")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with world.lock:
                world.running -= 1

    # The services

    def _flickr(self, query: dict[str, str]) -> None:
        if query.get("api_key") != KEY:
            self._json({"stat": "fail", "code": 100, "message": "Invalid API Key (Key has invalid format)"})
        elif query["method"] == "flickr.photos.licenses.getInfo":
            listed = [{"id": number, "name": name, "url": url} for number, name, url in LICENCES]
            self._json({"licenses": {"license": listed}, "stat": "ok"})
        elif query["method"] == "flickr.photos.search":
            numbers = {"by": "4", "by-sa": "5", "cc0": "9", "reserved": "0"}
            wanted = query["license"].split(",")
            found = self.world.of("flickr", query.get("text") or query.get("tags", ""))
            found = [photo for photo in found if numbers[photo.licence] in wanted]
            size = min(int(query["per_page"]), self.world.page_size or 500)
            page = int(query["page"])
            shown = [self._flickr_photo(one, numbers) for one in found[(page - 1) * size : page * size]]
            pages = -(-len(found) // size)
            answer = {"page": page, "pages": pages, "perpage": size, "total": str(len(found)), "photo": shown}
            self._json({"photos": answer, "stat": "ok"})
        else:
            self._json({"stat": "fail", "code": 112, "message": f'Method "{query["method"]}" not found'})

    def _flickr_photo(self, photo: Photo, numbers: dict[str, str]) -> dict[str, object]:
        base = {"secret": "bbdbb5f761", "server": "65535", "farm": 66, "ispublic": 1, "isfriend": 0, "isfamily": 0}
        owner = f"{zlib.crc32(photo.author.encode())}@N06"
        shown = {"id": str(photo.number), "owner": owner, "ownername": photo.author, "license": numbers[photo.licence]}
        large = {"url_l": self._image(photo), "width_l": photo.width, "height_l": str(photo.height)}
        small = {"url_c": self._image(photo, "small"), "width_c": 200, "height_c": 189}
        return base | shown | large | small | {"title": f"{photo.subject} {photo.number}", "pathalias": None}

    def _inaturalist(self, query: dict[str, str]) -> None:
        codes = {"by": "cc-by", "by-sa": "cc-by-sa", "cc0": "cc0", "reserved": None}
        found = [
            photo
            for photo in self.world.of("inaturalist", query["taxon_name"])
            if photo.number > int(query["id_above"])
        ]
        wanted = query["photo_license"].split(",")
        found = [photo for photo in found if codes[photo.licence] in wanted]
        size = int(query["per_page"])
        results = [
            {
                "id": photo.number,
                "uri": f"https://www.inaturalist.org/observations/{photo.number}",
                "quality_grade": "research",
                "license_code": "cc-by-nc",
                "taxon": {"name": photo.subject, "rank": "species", "preferred_common_name": photo.subject.title()},
                "user": {"id": 1, "login": photo.author, "name": None},
                "photos": [
                    {
                        "id": photo.number,
                        "license_code": codes[photo.licence],
                        "url": self._image(photo, "square"),
                        "attribution": f"(c) {photo.author}, some rights reserved",
                        "original_dimensions": {"width": photo.width, "height": photo.height},
                        "flags": [],
                    }
                ],
            }
            for photo in found[:size]
        ]
        self._json({"total_results": len(found), "page": 1, "per_page": size, "results": results})

    def _commons(self, query: dict[str, str]) -> None:
        names = {"by": "CC BY 4.0", "by-sa": "CC BY-SA 3.0 de", "cc0": "CC0", "reserved": "Fair use"}
        found = self.world.of(
            "commons", query.get("gcmtitle", "").removeprefix("Category:") or query["gsrsearch"].split(" filetype")[0]
        )
        start, size = (
            int(query.get("gcmcontinue", "0")),
            min(int(query.get("gcmlimit", 50)), self.world.page_size or 50),
        )
        pages = []
        for photo in found[start : start + size]:
            name = f"File:{photo.subject} {photo.number}.jpg"
            artist = f'<a href="//commons.wikimedia.org/wiki/User:X" title="User:X">{photo.author}</a>'
            facts = {"LicenseShortName": {"value": names[photo.licence], "source": "commons-desc-page", "hidden": ""}}
            facts |= {"Artist": {"value": artist, "source": "commons-desc-page"}}
            if photo.licence == "by":
                facts |= {"LicenseUrl": {"value": "https://creativecommons.org/licenses/by/4.0", "hidden": ""}}
            info = {"url": self._image(photo), "width": photo.width, "height": photo.height, "size": 100_000}
            info |= {"mime": "image/jpeg", "user": "Uploader", "extmetadata": facts}
            info |= {"descriptionurl": f"https://commons.wikimedia.org/wiki/{name.replace(' ', '_')}"}
            width = int(query["iiurlwidth"])
            if width < photo.width:
                height = photo.height * width // photo.width
                info |= {"thumburl": self._image(photo, "thumb"), "thumbwidth": width, "thumbheight": height}
            else:
                info |= {"thumburl": info["url"], "thumbwidth": photo.width, "thumbheight": photo.height}
            pages.append(
                {"pageid": photo.number, "ns": 6, "title": name, "imagerepository": "local", "imageinfo": [info]}
            )
        if start == 0:
            video = {"url": "https://upload.example/v.webm", "width": 640, "height": 480, "mime": "video/webm"}
            pages.insert(0, {"pageid": 7, "ns": 6, "title": "File:A.webm", "imageinfo": [video | {"extmetadata": {}}]})
        answer: dict[str, object] = {"batchcomplete": True, "query": {"pages": pages}}
        if start + size < len(found):
            answer["continue"] = {"gcmcontinue": str(start + size), "continue": "gcmcontinue||"}
        self._json(answer)

    # The pictures

    def _photo(self, number: int) -> None:
        photo = next((one for one in self.world.photos if one.number == number), None)
        with self.world.lock:
            self.world.tries[number] += 1
            tries = self.world.tries[number]
        if photo is None or photo.fault == "dead":
            self._send(404, b"<html>Not Found</html>", "text/html")
        elif photo.fault == "html":
            self._send(200, b"<html>Please log in</html>", "image/jpeg" if number % 2 else "text/html; charset=utf-8")
        elif photo.fault == "redirect-loop":
            self._redirect("/loop/1")
        elif photo.fault == "unavailable":
            self._redirect("/images/photo_unavailable.png")
        elif photo.fault == "503":
            self._send(503, b"down", "text/plain")
        elif photo.fault == "flaky" and tries < 3:
            self._send(500, b"oops", "text/plain")
        elif photo.fault == "throttled" and tries < 2:
            now = time.time() + self.world.clock_error
            wait = {"Retry-After": "0"} if number % 2 else {"Retry-After": formatdate(now + 1, usegmt=True)}
            self._send(429, b"slow down", "text/plain", wait | {"Date": formatdate(now, usegmt=True)})
        elif photo.fault == "forever":
            self._send(429, b"come back tomorrow", "text/plain", {"Retry-After": "86400"})
        elif photo.fault == "huge":
            self._endless()
        else:
            self._file(photo, tries)

    def _file(self, photo: Photo, tries: int) -> None:
        small = photo.fault == "small"
        shown = photo.same_as or photo.number
        size = (120, 90) if small else (photo.width, photo.height)
        body = picture(shown, photo.look or photo.subject, *size, quality=80 if photo.same_as else 90)
        if photo.fault == "truncated":
            body = body[: len(body) // 2]
        tag = {"ETag": f'"{photo.number}-{len(body)}"', "Accept-Ranges": "bytes"}
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.headers.get("If-Range") == tag["ETag"]:
            start, status = int(asked[1]), 206
            tag["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            with self.world.lock:
                self.world.ranges.append(self.headers["Range"])
        if photo.fault == "cut" and tries == 1:
            # The connection breaks in the middle of the first answer.
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (tag | {"Content-Type": "image/jpeg"}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self._send(status, body[start:], "image/jpeg", tag)
        with self.world.lock:
            self.world.fetched[photo.number] += 1

    def _endless(self) -> None:
        """A body without announced length that goes on until the client hangs up (at most 64 MB)."""
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for _ in range(1024):
            self.wfile.write(b"\xff" * 65536)

    def _api_fault(self, api: str) -> bool:
        with self.world.lock:
            waiting = self.world.api_faults.get(api)
            fault = waiting.pop(0) if waiting else ""
        if fault == "html":
            self._send(200, b"<html>upstream request timeout</html>", "text/html")
        elif fault == "busy" and api == "services":
            self._json({"stat": "fail", "code": 105, "message": "Service currently unavailable"})
        elif fault == "busy":
            self._json({"error": {"code": "maxlag", "info": "Waiting for db1: 5.5 seconds lagged"}})
        elif fault == "shape":
            self._json({"stat": "ok", "photos": [], "results": [3], "query": {"pages": [{"imageinfo": 3}]}})
        elif fault:
            self._send(int(fault), b"", "text/plain", {"Retry-After": "0"} if fault == "429" else {})
        return bool(fault)

    def _image(self, photo: Photo, size: str = "original") -> str:
        host, port = self.server.server_address[:2]
        return f"http://{host}:{port}/img/{photo.number}/{size}.jpg"

    def _redirect(self, target: str) -> None:
        self._send(302, b"", "text/plain", {"Location": target})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), "application/json; charset=utf-8")

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(world: World) -> Iterator[str]:
    """The stand-in's base address while the block runs."""
    handler = type("Handler", (_Handler,), {"world": world})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients hang up on purpose
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def config_for(base: str, subjects: list[str], sources: list[str], **sections: object) -> dict[str, object]:
    """A config that asks the stand-in."""
    endpoints = {"flickr": "/services/rest/", "inaturalist": "/v1", "commons": "/w/api.php"}
    listed = [{"kind": kind, "endpoint": base + endpoints[kind], "per_page": 25} for kind in sources]
    return {
        "name": "standin",
        "contact": "tests@rasr.invalid",
        "source": listed,
        "category": [
            {"name": name, "scientific_name": name, "text": name, "commons_category": name} for name in subjects
        ],
        "filters": {"min_short_side": 256, "max_blockiness": 10.0, "max_blur": 1.0, "duplicate_similarity": 0.999},
        "splits": {"related_similarity": 0.995},
        "download": {"rates": {"127.0.0.1": 400.0}, "workers": 8, "back_off": 0.01, "timeout": 10.0, "attempts": 4}
        | {"loopback": True},
        "lq": {"crop": 256},
    } | sections
