"""Stand-in of the service for the page's tests: its HTTP contract with fixed pictures and no model.

Names of files choose what happens: ``broken`` is refused when it is sent, ``fails`` fails while it runs, ``slow`` takes
its time, ``drawn`` has no photo of its scene.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
import threading
import time
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE = Path(__file__).parents[2] / "src" / "rasr" / "service" / "page"
KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
SIZE = (123, 77)
SCALE = 4
CELL = 16
COLOUR = "#e66101"


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def scene(width: int, height: int, shift: int = 0) -> Image.Image:
    """A scene of fine stripes and circles, as large as asked for."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = (x + shift) / width * 6, y / height * 6
    waves = np.stack([np.sin(u * 2 + k) * np.cos(v * (k + 1)) for k in range(3)], axis=-1)
    fine = np.sin((u * u + v * v) * 6)[..., None] * 0.15
    levels = np.clip((0.5 + 0.3 * waves + fine) * np.array([0.75, 0.9, 1.0]) * 255, 0, 255)
    return Image.fromarray(levels.astype(np.uint8), "RGB")


def mark(width: int, height: int) -> tuple[int, int, int, int]:
    """A red square near the middle, in the input's pixels; in the result it is as many times as large as the result."""
    left, top = width // 2 - 2, height // 2 - 9
    return left, top, left + 10, top + 10


def marked(width: int, height: int, scale: int) -> Image.Image:
    """The scene, as large as asked for, with the mark of an input ``scale`` times smaller."""
    image = scene(width, height)
    if scale == 1:
        image = image.filter(ImageFilter.GaussianBlur(1))
    left, top, right, bottom = (scale * side for side in mark(width // scale, height // scale))
    edge = 4 * scale  # black on all sides, so that smoothing moves the mark's middle to none of them
    ImageDraw.Draw(image).rectangle((left - edge, top - edge, right + edge - 1, bottom + edge - 1), (0, 0, 0))
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), (255, 0, 0))
    return image


PHOTOS = {
    "p1": ("harbour from the pier.jpg", "same scene", 0.912, scene(320, 240, 8)),
    "p2": ("harbour in winter.jpg", "same kind", 0.701, scene(240, 320, 90)),
    "p3": ("old bridge with a very long name that will not fit.jpg", "unrelated", 0.402, scene(300, 200, 200)),
}
WHY = {
    "same scene": "212 places agree, in 61 of 144 cells",
    "same kind": "looks alike, but only 9 places agree",
    "unrelated": "score 0.402, 0.550 is needed",
    "not verified": "Picked by hand. Not verified: 9 places found again.",
}


@dataclass
class Job:
    number: int
    name: str
    batch: str | None
    fields: dict[str, list[str]]
    input: bytes
    size: tuple[int, int]
    uploads: list[str]
    state: str = "queued"
    done: int = 0
    error: str | None = None
    version: int = 0
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None

    @property
    def slow(self) -> bool:
        return "slow" in self.name


class Mock:
    """The service's state, with one worker thread."""

    tiles = 8

    def __init__(self, *, token: str | None = None, queue: int = 40) -> None:
        self.token, self.queue = token, queue
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.changed = threading.Condition(threading.RLock())
        self.galleries: dict[str, dict[str, tuple[str, str, Image.Image, str | None]]] = {"harbour": {}}
        self.readonly = {"harbour"}
        for key, (name, _, _, image) in PHOTOS.items():
            self.galleries["harbour"][key] = (name, key, image, None)
        self.sent: list[str] = []
        self.numbers = itertools.count(1)
        self.stopped = self.held = False
        self.ready = True
        handler = type("Handler", (Handler,), {"mock": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/"
        targets = (lambda: self.server.serve_forever(0.02), self.work)
        self.threads = [threading.Thread(target=one, daemon=True) for one in targets]

    def __enter__(self) -> Mock:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        for thread in self.threads:
            thread.join(5)

    def work(self) -> None:
        """Take queued jobs one after another, tile by tile."""
        while not self.stopped:
            with self.changed:
                job = next((one for one in self.jobs.values() if one.state == "queued"), None)
                if job is None:
                    self.changed.wait(0.2)
                    continue
                self.turn(job, state="running", started=time.time())
            for tile in range(1, self.tiles + 1):
                while self.held and tile == 4 and job.state == "running" and not self.stopped:
                    time.sleep(0.02)
                time.sleep(0.8 if job.slow else 0.001 if job.batch else 0.05)
                with self.changed:
                    if self.stopped or job.state != "running":
                        break
                    self.turn(job, done=tile)
            with self.changed:
                if job.state == "running":
                    if "fails" in job.name:
                        words = f"{job.name} needs 40 GB of memory; this machine has 24. Choose a smaller scale."
                        self.turn(job, state="failed", error=words)
                    else:
                        self.turn(job, state="done")

    def turn(self, job: Job, **changes: Any) -> None:
        for key, value in changes.items():
            setattr(job, key, value)
        if job.state in {"done", "failed", "cancelled"}:
            job.finished = time.time()
        job.version += 1
        self.changed.notify_all()

    def as_json(self, job: Job) -> dict[str, Any]:
        at = f"/jobs/{job.number}"
        before = [one for one in self.jobs.values() if one.state == "queued" and one.number < job.number]
        running = any(one.state == "running" for one in self.jobs.values())
        position = {"queued": len(before) + running, "running": 0}.get(job.state)
        scale = int(job.fields.get("scale", ["4"])[0] or 4)
        result, references, drawn = None, [], None
        if job.state == "done":
            result = {"width": job.size[0] * scale, "height": job.size[1] * scale, "type": "image/png"}
            result |= {"bytes": 1000, "name": f"{Path(job.name).stem}_x{scale}.png"}
            references = self.references(job)
            drawn = 1 - sum(one["share"] for one in references)
        return {
            "id": str(job.number),
            "name": job.name,
            "batch": job.batch,
            "state": job.state,
            "position": position,
            "progress": {"stage": "tiles", "done": job.done, "total": self.tiles} if job.state == "running" else None,
            "eta_seconds": 6.0 if job.state in {"queued", "running"} else None,
            **{key: stamp(getattr(job, key)) for key in ("created", "started", "finished")},
            "error": job.error,
            "input": {"width": job.size[0], "height": job.size[1]},
            "result": result,
            "references": references,
            "drawn": drawn,
            "settings": {key: value[0] for key, value in job.fields.items() if key in {"scale", "preset", "strength"}},
            "command": f"rasr restore '{job.name}' -g harbour --scale {scale} -o result.png",
            "links": {"self": at},
            "seconds": job.finished - job.started if job.finished and job.started else None,
        }

    def references(self, job: Job) -> list[dict[str, Any]]:
        fields = job.fields
        if fields.get("references") == ["none"] or not (fields.get("gallery", [""])[0] or job.uploads):
            return []
        wanted = fields.get("photo") or list(PHOTOS)
        found = [self.reference(key, self.galleries["harbour"][key]) for key in wanted if key in PHOTOS]
        nowhere = {"id": None, "gallery": None}
        found += [self.reference("p1", (name, "p1", PHOTOS["p1"][3], None)) | nowhere for name in job.uploads]
        for index, one in enumerate(found):
            same = one["verdict"] == "same scene" and "drawn" not in job.name
            one |= {"index": index, "accepted": same, "share": 0.47 if same else 0.0}
            if fields.get("photo") and one["verdict"] != "same scene":
                one |= {"verdict": "not verified", "why": WHY["not verified"]}
            one |= {"picture": f"/jobs/{job.number}/references/{index}"}
        return found

    def reference(self, key: str, photo: tuple[str, str, Image.Image, str | None]) -> dict[str, Any]:
        _, verdict, score, image = PHOTOS.get(key, ("", "unrelated", 0.31, photo[2]))
        return {
            "index": 0, "id": key, "name": photo[0], "gallery": "harbour", "verdict": verdict, "score": score,
            "accepted": verdict == "same scene", "why": WHY[verdict], "share": 0.0, "changed": 0.0,
            "width": image.width, "height": image.height, "colour": COLOUR,
            "picture": f"/galleries/harbour/photos/{key}/picture",
        }  # fmt: skip


def stamp(moment: float | None) -> str | None:
    return None if moment is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


class Handler(BaseHTTPRequestHandler):
    """One request."""

    mock: Mock
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: Any = b"", kind: str = "application/json", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("X-Content-Type-Options", "nosniff")
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def fault(self, status: int, code: str, message: str, **headers: str) -> None:
        self.answer(status, {"error": {"code": code, "message": message}}, **headers)

    def form(self) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, bytes]]]]:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        kind = self.headers["Content-Type"].encode()
        message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind + b"\r\n\r\n" + body)
        fields: dict[str, list[str]] = {}
        files: dict[str, list[tuple[str, bytes]]] = {}
        for part in message.iter_parts():
            name = str(part.get_param("name", header="content-disposition"))
            data = part.get_payload(decode=True)
            assert isinstance(data, bytes)
            if part.get_filename() is None:
                fields.setdefault(name, []).append(data.decode())
            else:
                files.setdefault(name, []).append((str(part.get_filename()), data))
        return fields, files

    def do_GET(self) -> None:
        self.route("GET")

    def do_POST(self) -> None:
        self.route("POST")

    def do_DELETE(self) -> None:
        self.route("DELETE")

    def route(self, method: str) -> None:
        address = urlsplit(self.path)
        path, query = unquote(address.path), {key: one[0] for key, one in parse_qs(address.query).items()}
        open_to_all = path == "/" or path.startswith("/static/")
        if self.mock.token and not open_to_all and self.headers["Authorization"] != f"Bearer {self.mock.token}":
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.fault(401, "token", "This service asks for a token.")
            return
        for wanted, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, path)
            if wanted == method and match:
                with self.mock.changed:
                    missing = self.unknown(match.groupdict())
                if missing:
                    self.fault(404, "unknown", missing)
                else:
                    handler(self, query=query, **match.groupdict())
                return
        self.fault(404, "unknown", f"There is nothing at {path}.")

    def unknown(self, names: dict[str, str]) -> str | None:
        if "job" in names and names["job"] not in self.mock.jobs:
            return f"There is no job {names['job']}."
        if "gallery" in names and names["gallery"] not in self.mock.galleries:
            return f"There is no gallery {names['gallery']}."
        return None

    def page(self, query: dict[str, str], file: str = "index.html") -> None:
        path = (PAGE / file).resolve()
        if not path.is_file() or PAGE not in path.parents:
            self.fault(404, "unknown", f"There is no file {file}.")
        else:
            self.answer(200, path.read_bytes(), KINDS.get(path.suffix, "text/plain"))

    def about(self, query: dict[str, str]) -> None:
        def setting(name: str, help: str, type: str, default: Any, **more: Any) -> dict[str, Any]:
            empty = {"choices": None, "minimum": None, "maximum": None}
            return {"name": name, "help": help, "type": type, "default": default} | empty | more

        presets = [
            {"name": "mini", "summary": "Small and quick, for any machine.", "available": True, "why": ""},
            {"name": "bicubic", "summary": "Interpolation, to compare with.", "available": True, "why": ""},
            {"name": "sd21", "summary": "Stable Diffusion 2.1.", "available": False, "why": "Weights are missing."},
        ]
        settings = [
            setting("scale", "How many times as large the result is.", "integer", 4, minimum=1, maximum=8),
            setting("strength", "How much the references count.", "number", 1.0, minimum=0, maximum=1),
            setting("seed", "Seed of the generator.", "integer", 0, minimum=0),
            setting("format", "Format of the file.", "choice", "png", choices=["png", "jpg", "webp", "tif"]),
        ]
        limits = {"max_bytes": 60 << 20, "max_pixels": 50_000_000, "queue": self.mock.queue}
        about = {"version": "0.1.0", "presets": presets, "default_preset": "mini", "limits": limits}
        self.answer(200, about | {"settings": settings, "auth": self.mock.token is not None, "ready": self.mock.ready})

    def create(self, query: dict[str, str]) -> None:
        fields, files = self.form()
        ((name, data),) = files["file"]
        if "broken" in name:
            self.fault(422, "picture", f"{name} is no whole picture: its data ends early. Send the file again.")
            return
        with self.mock.changed:
            if sum(job.state == "queued" for job in self.mock.jobs.values()) >= self.mock.queue:
                self.fault(429, "full", "The queue is full.", Retry_After="1")
                return
            with Image.open(io.BytesIO(data)) as image:
                size = image.size
            number = next(self.mock.numbers)
            uploads = [one for one, _ in files.get("reference", ())]
            job = Job(number, name, fields.get("batch", [None])[0], fields, data, size, uploads)
            self.mock.jobs[str(number)] = job
            self.mock.changed.notify_all()
            self.answer(202, self.mock.as_json(job), Location=f"/jobs/{number}")

    def list_jobs(self, query: dict[str, str]) -> None:
        with self.mock.changed:
            found = [one for one in reversed(self.mock.jobs.values()) if query.get("batch") in {None, one.batch}]
            found = [one for one in found if one.number < int(query.get("before", 1 << 40))]
            limit = int(query.get("limit", 50))
            shown = [self.mock.as_json(one) for one in found[:limit]]
        self.answer(200, {"jobs": shown, "next": shown[-1]["id"] if len(found) > limit else None})

    def one_job(self, query: dict[str, str], job: str) -> None:
        with self.mock.changed:
            self.answer(200, self.mock.as_json(self.mock.jobs[job]))

    def end_job(self, query: dict[str, str], job: str) -> None:
        with self.mock.changed:
            if self.mock.jobs[job].state in {"queued", "running"}:
                self.mock.turn(self.mock.jobs[job], state="cancelled")
            else:
                del self.mock.jobs[job]
        self.answer(204)

    def events(self, query: dict[str, str], job: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        seen = -1
        while not self.mock.stopped:
            with self.mock.changed:
                one = self.mock.jobs[job]
                if one.version == seen:
                    self.mock.changed.wait(0.5)
                    continue
                seen, state, text = one.version, one.state, json.dumps(self.mock.as_json(one))
            try:
                self.wfile.write(f"event: job\nid: {seen}\ndata: {text}\n\n".encode())
                self.wfile.flush()
            except OSError:
                return
            if state not in {"queued", "running"}:
                return

    def picture(self, query: dict[str, str], job: str, what: str) -> None:
        one = self.mock.jobs[job]
        scale = int(one.fields.get("scale", ["4"])[0] or 4)
        width, height = one.size[0] * scale, one.size[1] * scale
        if what == "input":
            with Image.open(io.BytesIO(one.input)) as image:
                self.answer(200, encode(image.convert("RGB")), "image/png")
        elif what in {"view", "result"}:
            image = marked(width, height, scale)
            if what == "view" and self.mock.references(one):
                ImageDraw.Draw(image).ellipse((8, 8, 24, 24), (255, 255, 255))
            disposition = {"Content_Disposition": 'attachment; filename="result.png"'} if what == "result" else {}
            self.answer(200, encode(image), "image/png", **disposition)
        elif what == "report":
            self.answer(200, b"<!doctype html><title>report</title>", "text/html")
        elif what == "evidence.png":
            levels = np.zeros((height, width, 4), np.uint8)
            if any(ref["share"] for ref in self.mock.references(one)):
                levels[:, : width // 2] = (230, 97, 1, 150)
            self.answer(200, encode(Image.fromarray(levels, "RGBA")), "image/png")
        else:
            columns, rows = -(-width // CELL), -(-height // CELL)
            places = [
                [round(0.25 + 0.5 * x / columns, 4), round(0.25 + 0.5 * y / rows, 4)] if x < columns // 2 else None
                for y, x in itertools.product(range(rows), range(columns))
            ]
            found = [{"index": ref["index"], "places": places} for ref in self.mock.references(one) if ref["share"]]
            shares = [0.47] * len(found)
            body = {"cell": CELL, "columns": columns, "rows": rows, "references": found, "shares": shares}
            self.answer(200, body)

    def job_reference(self, query: dict[str, str], job: str, index: str) -> None:
        key = self.mock.references(self.mock.jobs[job])[int(index)]["id"] or "p1"
        self.answer(200, encode(PHOTOS[key][3]), "image/png")

    def batch(self, query: dict[str, str], batch: str) -> None:
        with self.mock.changed:
            states = [one.state for one in self.mock.jobs.values() if one.batch == batch]
        counts = {key: states.count(key) for key in ("queued", "running", "done", "failed", "cancelled")}
        self.answer(200, {"batch": batch, "total": len(states)} | counts)

    def zip(self, query: dict[str, str], batch: str) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for one in self.mock.jobs.values():
                if one.batch == batch and one.state == "done":
                    archive.writestr(f"{Path(one.name).stem}.png", b"picture")
        self.answer(200, buffer.getvalue(), "application/zip", Content_Disposition='attachment; filename="batch.zip"')

    def search(self, query: dict[str, str]) -> None:
        fields, _ = self.form()
        photos = self.mock.galleries.get(fields["gallery"][0], {})
        found = [
            self.mock.reference(key, photo) | {"index": index, "verdict": "not compared"}
            for index, (key, photo) in enumerate(photos.items())
        ]
        for one in found:
            one |= {"accepted": one["score"] > 0.55, "why": f"score {one['score']:.3f}, 0.550 is needed"}
        self.answer(200, {"results": sorted(found, key=lambda one: -one["score"]), "cleaned": True})

    def list_galleries(self, query: dict[str, str]) -> None:
        found = [self.info(name) for name in self.mock.galleries]
        self.answer(200, {"galleries": found})

    def info(self, name: str) -> dict[str, Any]:
        photos = len(self.mock.galleries[name])
        writable = name not in self.mock.readonly
        return {"name": name, "photos": photos, "encoder": "effnet-lite0-robust", "writable": writable}

    def make_gallery(self, query: dict[str, str]) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["name"]
        if name in self.mock.galleries:
            self.fault(409, "exists", f"There is a gallery {name} already. Choose another name.")
            return
        self.mock.galleries[name] = {}
        self.answer(201, self.info(name))

    def gallery(self, query: dict[str, str], gallery: str) -> None:
        photos = self.mock.galleries[gallery].values()
        problems = [{"name": one[0], "message": one[3]} for one in photos if one[3]]
        self.answer(200, self.info(gallery) | {"problems": problems})

    def end_gallery(self, query: dict[str, str], gallery: str) -> None:
        del self.mock.galleries[gallery]
        self.answer(204)

    def known(self, query: dict[str, str], gallery: str) -> None:
        hashes = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["hashes"]
        there = {one[1] for one in self.mock.galleries[gallery].values()}
        self.answer(200, {"unknown": [one for one in hashes if one not in there]})

    def add_photo(self, query: dict[str, str], gallery: str) -> None:
        _, files = self.form()
        ((name, data),) = files["file"]
        if "broken" in name:
            self.fault(422, "picture", f"{name} is no whole picture: its data ends early. Send the file again.")
            return
        self.mock.sent.append(name)
        digest = hashlib.sha256(data).hexdigest()
        with self.mock.changed:
            with Image.open(io.BytesIO(data)) as image:
                photo = (name, digest, image.convert("RGB"), "Only 64 pixels wide." if "tiny" in name else None)
            self.mock.galleries[gallery][f"g{digest[:8]}"] = photo
        size = {"width": photo[2].width, "height": photo[2].height}
        self.answer(201, {"id": f"g{digest[:8]}", "name": name, **size, "problem": photo[3]})

    def photos(self, query: dict[str, str], gallery: str) -> None:
        found = [
            {"id": key, "name": one[0], "width": one[2].width, "height": one[2].height, "problem": one[3]}
            for key, one in self.mock.galleries[gallery].items()
        ]
        self.answer(200, {"photos": found, "next": None})

    def photo(self, query: dict[str, str], gallery: str, photo: str, what: str) -> None:
        image = self.mock.galleries[gallery][photo][2].copy()
        if what == "thumbnail":
            image.thumbnail((256, 256))
        self.answer(200, encode(image, "JPEG"), "image/jpeg")

    def end_photo(self, query: dict[str, str], gallery: str, photo: str) -> None:
        del self.mock.galleries[gallery][photo]
        self.answer(204)


JOB, GALLERY = "/jobs/(?P<job>[^/]+)", "/galleries/(?P<gallery>[^/]+)"
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/", Handler.page),
    ("GET", "/static/(?P<file>.+)", Handler.page),
    ("GET", "/about", Handler.about),
    ("POST", "/jobs", Handler.create),
    ("GET", "/jobs", Handler.list_jobs),
    ("GET", JOB, Handler.one_job),
    ("DELETE", JOB, Handler.end_job),
    ("GET", f"{JOB}/events", Handler.events),
    ("GET", f"{JOB}/references/(?P<index>[0-9]+)", Handler.job_reference),
    ("GET", f"{JOB}/(?P<what>input|view|result|report|evidence.png|evidence)", Handler.picture),
    ("GET", "/batches/(?P<batch>[^/]+)", Handler.batch),
    ("GET", "/batches/(?P<batch>[^/]+)/zip", Handler.zip),
    ("POST", "/search", Handler.search),
    ("GET", "/galleries", Handler.list_galleries),
    ("POST", "/galleries", Handler.make_gallery),
    ("GET", GALLERY, Handler.gallery),
    ("DELETE", GALLERY, Handler.end_gallery),
    ("POST", f"{GALLERY}/known", Handler.known),
    ("POST", f"{GALLERY}/photos", Handler.add_photo),
    ("GET", f"{GALLERY}/photos", Handler.photos),
    ("GET", f"{GALLERY}/photos/(?P<photo>[^/]+)/(?P<what>thumbnail|picture)", Handler.photo),
    ("DELETE", f"{GALLERY}/photos/(?P<photo>[^/]+)", Handler.end_photo),
]

if __name__ == "__main__":
    with Mock() as mock:
        print(mock.address, flush=True)  # noqa: T201
        threading.Event().wait()
