"""Worker process: the model and the galleries, one restoration at a time, short questions between its tiles."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasr.child import Pipe, parent_of, resident
from rasr.errors import GalleryError, OutOfMemory, PictureError, RasrError, shown
from rasr.gallery import Gallery, Photo, Reference, open_gallery_or_folder, retrieve
from rasr.generator import clean_query, load_generator
from rasr.images import Limits, read_header, read_picture
from rasr.memory import divide_memory
from rasr.object_path import place
from rasr.restoration import Restorer, Result, SaveOptions, Settings, TargetSize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GENERATORS = 2
"""Presets that stay loaded."""
GIVEN = 6
"""Level of a map, of 255, from which a place counts as a photo's: 2 %, as in the report."""
VIEW, EVIDENCE, PLACES, MAPS, REPORT = "view.png", "evidence.png", "evidence.json", "evidence.npz", "report.html"
NAMES = ("score", "rank", "category", "accepted", "why", "usable", "verdict", "share", "changed")
"""Fields of a reference that are kept as they are."""


class Cancelled(BaseException):
    """The running job is to be stopped: passes through everything that catches errors."""


class Worker:
    """Does what the parent says, and answers over the pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._generators: dict[str, Any] = {}
        self._galleries: dict[str, Gallery] = {}
        self._running: str | None = None
        self._short: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "search": self._search,
            "add": self._add,
            "remove": self._remove,
            "report": self._report,
        }

    def run(self) -> None:
        """Work until the parent hangs up."""
        config, _ = self._pipe.receive()
        self._device, self._pixels = config["device"], int(config["max_pixels"])
        divide_memory(config["processes"])
        places, faults = {}, {}
        for name, path in config["galleries"].items():
            try:
                gallery = open_gallery_or_folder(path, progress=lambda *_: self._pipe.send({"alive": True}))
                places[name] = gallery.address
                self._galleries[gallery.address] = gallery
                self._load(name, gallery)
            except RasrError as error:
                faults[name] = shown(error)
        try:
            if config["preset"] is not None:
                self._restorer(config["preset"], None).check(Settings())
            self._pipe.send({"ready": True, "galleries": places, "faults": faults, "memory": resident()})
        except RasrError as error:
            self._pipe.send({"ready": False, "why": shown(error), "galleries": places, "faults": faults})
        while True:
            said, _ = self._pipe.receive()
            self._do(said)

    def _load(self, name: str, gallery: Gallery) -> None:
        """Load what the first search would wait for. Raises GalleryError."""
        begun = time.monotonic()
        self._pipe.send({"loading": name})
        how = gallery.prewarm()
        seconds = round(time.monotonic() - begun, 2)
        self._pipe.send({"loaded": name, "photos": len(gallery), "how": how, "seconds": seconds})

    def _do(self, said: dict[str, Any]) -> None:
        if "restore" in said:
            self._restore(said)
        elif "cancel" in said and said["cancel"] == self._running:
            raise Cancelled
        elif "call" in said:
            self._answer(said)

    def _between(self, stage: str, done: float, total: float) -> None:
        """Between two tiles: tell how far it is, and do what cannot wait. Raises Cancelled."""
        facts = {"stage": stage, "done": done, "total": total, "memory": resident()}
        self._pipe.send({"progress": self._running, **facts})
        while self._pipe.waiting():
            said, _ = self._pipe.receive()
            self._do(said)

    def _answer(self, said: dict[str, Any]) -> None:
        try:
            answer: dict[str, Any] = {"value": self._short[said["do"]](said)}
        except RasrError as error:
            answer = {"error": type(error).__name__, "message": shown(error)}
        except (OSError, MemoryError) as error:
            answer = {"error": "RasrError", "message": shown(f"It could not be done ({error}).")}
        self._pipe.send({"answer": said["call"], "memory": resident(), **answer})

    def _restore(self, said: dict[str, Any]) -> None:
        self._running = job = said["restore"]
        try:
            outcome: dict[str, Any] = {"outcome": self._restored(said)}
        except Cancelled:
            outcome = {"cancelled": True}
        except RasrError as error:
            outcome = {"error": _told(error, said)}
        except MemoryError:
            outcome = {"error": _told(OutOfMemory(f"{said['input']}: memory ran out."), said)}
        except OSError as error:
            outcome = {"error": _told(RasrError(f"{said['input']}: {error.strerror or error}."), said)}
        except Exception:  # noqa: BLE001 - a fault of ours costs this job, and is told in the log
            traceback.print_exc()
            outcome = {
                "error": f"{said['name']}: an unexpected fault ended the restoration; the service's log says more."
            }
        finally:
            self._running = None
        self._pipe.send({"ended": job, "memory": resident(), **outcome})

    def _restored(self, said: dict[str, Any]) -> dict[str, Any]:
        """Restore a job's picture, save what belongs to it, and tell what it became."""
        self._pipe.send({"progress": said["restore"], "stage": "load", "done": 0, "total": 1})
        gallery = None if said["gallery"] is None else self._gallery(said["gallery"])
        chosen = {} if gallery is None else _by_id(gallery, said["photos"])
        picked = [Path(path) for path in said["references"]]
        for one in said["photos"]:
            if one not in chosen or not chosen[one].path.is_file():
                raise GalleryError(f"The photo {one} is not in the gallery any more. Choose another.")
            picked.append(chosen[one].path)
        settings = Settings(
            reference=said["reference"] if not picked else tuple(picked),
            **said["settings"],
            size=TargetSize(scale=said["scale"]),
        )
        limits, output = Limits(self._pixels), Path(said["output"])
        restorer = self._restorer(said["preset"], gallery)
        result = restorer(Path(said["input"]), settings, limits=limits, progress=self._between)
        self._between("save", 0, 1)
        result.save(output, SaveOptions(**said["save"]), overwrite=True)
        folder = Path(said["folder"])
        _save_view(result, folder / VIEW)
        shares = _save_evidence(result, folder)
        photos = chosen | ({} if gallery is None else _by_id(gallery, [one.id for one in result.references]))
        return {
            "width": result.picture.width,
            "height": result.picture.height,
            "bytes": output.stat().st_size,
            "references": [_facts(one, photos) for one in result.references],
            "drawn": None if result.evidence is None else round(max(0.0, 1.0 - sum(shares)), 4),
            "settings": result.settings,
            "timings": result.timings,
            "notes": [shown(note) for note in result.notes],
        }

    def _search(self, said: dict[str, Any]) -> dict[str, Any]:
        gallery = self._gallery(said["gallery"])
        picture = read_picture(Path(said["input"]), limits=Limits(self._pixels))
        found = retrieve(gallery, picture, shown=said["k"], clean=clean_query)[: said["k"]]
        photos = _by_id(gallery, [one.id for one in found])
        cleaned = min(picture.width, picture.height) < gallery.encoder.input_size
        return {"references": [_facts(one, photos) for one in found], "cleaned": cleaned}

    def _add(self, said: dict[str, Any]) -> dict[str, Any]:
        gallery, path = self._gallery(said["gallery"]), Path(said["path"])
        report = gallery.add([path])
        if report.failed:
            raise PictureError(f"{path.name}: {report.failed[0][1]}")
        return {"duplicate": bool(report.duplicates)}

    def _remove(self, said: dict[str, Any]) -> dict[str, Any]:
        """Forget a gallery's open object, whose folder is going to be removed."""
        self._galleries.pop(said["gallery"], None)
        return {}

    def _report(self, said: dict[str, Any]) -> dict[str, Any]:
        """Write the page for a finished job from its files."""
        import numpy as np

        from rasr.registration import Evidence
        from rasr.restoration import write_report

        folder, outcome = Path(said["folder"]), said["outcome"]
        source, picture = read_picture(Path(said["input"])), read_picture(Path(said["output"]))
        references = [
            Reference(
                place(one["path"]),
                tags=tuple(one["tags"]),
                id=one["id"],
                **{name: one[name] for name in NAMES if name in one},
            )
            for one in outcome["references"]
        ]
        evidence = None
        if (folder / MAPS).is_file():
            with np.load(folder / MAPS) as kept:
                evidence = Evidence(kept["maps"], kept["places"])
        result = Result(
            picture, source, references, outcome["settings"], outcome["timings"], tuple(outcome["notes"]),
            evidence=evidence,
        )  # fmt: skip
        write_report([result], folder / REPORT, overwrite=True)
        return {}

    def _gallery(self, path: str) -> Gallery:
        return self._galleries.setdefault(path, Gallery(path))

    def _restorer(self, preset: str, gallery: Gallery | None) -> Restorer:
        generator = self._generators.pop(preset, None) or load_generator(preset, device=self._device)
        self._generators[preset] = generator
        while len(self._generators) > GENERATORS:
            del self._generators[next(iter(self._generators))]
        restorer = Restorer(generator, gallery)
        restorer.preset = preset
        return restorer


def _by_id(gallery: Gallery, photos: Iterable[str]) -> dict[str, Photo]:
    wanted = [one for one in photos if one]
    return {photo.id: photo for photo in gallery.find(wanted)} if wanted else {}


def _facts(reference: Reference, photos: Mapping[str, Photo]) -> dict[str, Any]:
    """A reference as the service keeps it: all its fields, and the size of a photo of the gallery."""
    photo = photos.get(reference.id) or next((one for one in photos.values() if one.path == reference.path), None)
    width, height = (photo.width, photo.height) if photo is not None else (0, 0)
    if photo is None:
        with suppress(RasrError, OSError):
            header = read_header(reference.path)
            width, height = header.width, header.height
    facts = {name: getattr(reference, name) for name in NAMES}
    known = reference.id or (photo.id if photo is not None else "")
    return {
        **facts,
        "tags": list(reference.tags),
        "path": str(reference.path),
        "id": known,
        "width": width,
        "height": height,
    }


def _save_view(result: Result, path: Path) -> None:
    """The result as a browser shows it: sRGB, 8 bits."""
    result.image.save(path, "PNG", compress_level=1)


def _save_evidence(result: Result, folder: Path) -> list[float]:
    """Overlay, places and maps of the evidence; returns the photos' shares, in their order."""
    import numpy as np
    from PIL import Image

    from rasr.registration.fusion import CELL
    from rasr.restoration.evidence import layer

    overlay, evidence = layer(result), result.evidence
    shares = list(evidence.shares) if evidence is not None else []
    columns, rows = -(-result.picture.width // CELL), -(-result.picture.height // CELL)
    told = []
    for index, _ in enumerate(result.references):
        places = None
        if evidence is not None and index < len(evidence.places):
            given = _cells(evidence.maps[index], CELL)
            found = np.round(evidence.places[index].reshape(-1, 2), 4).tolist()
            places = [place if gave else None for place, gave in zip(found, given.ravel(), strict=True)]
        told.append({"index": index, "places": places})
    if evidence is not None:
        overlay[..., 3] = evidence.total
        np.savez_compressed(folder / MAPS, maps=evidence.maps, places=evidence.places)
    Image.fromarray(overlay).save(folder / EVIDENCE, "PNG", compress_level=1)
    shown_shares = [round(share, 4) for share in shares] + [0.0] * (len(told) - len(shares))
    facts = {"cell": CELL, "columns": columns, "rows": rows, "references": told, "shares": shown_shares}
    (folder / PLACES).write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")
    return shares


def _cells(shares: NDArray[np.uint8], cell: int) -> NDArray[np.bool_]:
    """(rows, columns): in which cells of a map (H, W) anything was a photo's; places elsewhere are no evidence."""
    import numpy as np

    rows, columns = (np.arange(0, side, cell) for side in shares.shape)
    gave: NDArray[np.bool_] = np.maximum.reduceat(np.maximum.reduceat(shares, rows, 0), columns, 1) >= GIVEN
    return gave


def _told(error: RasrError, said: dict[str, Any]) -> str:
    """The sentence of an error, with the names that the picture's owner knows."""
    message = str(error).replace(said["input"], said["name"])
    for folder in (said["folder"], *map(str, Path(said["folder"]).parents)):
        message = message.replace(f"{folder}/", "") if len(folder) > 1 else message
    return shown(message)


def main() -> None:
    """Be a worker until the parent is gone."""
    from rasr.device import use_threads

    use_threads()
    pipe = parent_of(sys.argv)
    with suppress(EOFError, OSError):
        Worker(pipe).run()


if __name__ == "__main__":
    main()
