"""Key of a batch's work: the same where a picture's result would be, for whoever made it and whenever."""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rasr.files import hash_json, xxh3_file
from rasr.restoration.restorer import Restorer
from rasr.restoration.settings import SaveOptions, Settings


def work_key(restorer: Restorer, settings: Settings, save: SaveOptions) -> str:
    """Hash of all that makes two runs interchangeable. References picked by hand count by their content."""
    return hash_json(_determining(restorer, settings, save))


def _determining(restorer: Restorer, settings: Settings, save: SaveOptions) -> dict[str, Any]:
    info, cleaner = restorer.generator.info, restorer.generator.cleaner
    gallery = restorer.gallery_address
    picked = settings.reference
    facts = settings.to_json()
    if gallery is None and not isinstance(picked, tuple):
        del facts["candidates"]  # nothing is looked at; and journals from before there was the option stay good
    for name in ("detail", "reduce"):  # so do those from before there were these two
        if facts[name] == getattr(Settings(), name):
            del facts[name]
    if isinstance(picked, tuple):
        with suppress(OSError):
            facts["reference"] = [xxh3_file(path) for path in picked]
    return facts | {
        "preset": restorer.preset,
        "weights": _contents(info.weights_at(settings.detail)),
        "cleaner": None if cleaner is None else _contents(cleaner.info.weights_at(settings.detail)),
        "gallery": gallery,
        "save": asdict(save) | {"overwrite": None},
    }


def _contents(weights: str) -> str:
    """Name weights by what is in their files: as good wherever they lie, and others once they are trained again."""

    def content(part: str) -> str:
        path = Path(part)
        return f"{path.name} {xxh3_file(path)}" if path.is_absolute() and path.is_file() else part

    return " + ".join(map(content, weights.split(" + ")))
