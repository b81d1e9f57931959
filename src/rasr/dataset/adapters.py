"""Adapters: the paper's published datasets in layouts that RASR trains on and evaluates."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from rasr.dataset.manifest import place_file, write_text
from rasr.errors import DatasetError, OutputError, RasrError, UsageError
from rasr.images import find_pictures, read_header

RECORD = "adapted.json"
NAMED = 10
"""Problems of one kind that are listed one by one; the rest is counted."""

Place = Callable[[Path, Path], str | None]
"""(downloaded folder, picture) → the picture's place in the layout, or None for files that do not belong to it."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One published dataset: how it is got, laid out and known to be complete."""

    name: str
    purpose: str
    instructions: str
    expected: dict[str, int]
    """Top folder of the layout (empty: the layout has none) → number of pictures when complete."""
    place: Place
    pairs: Callable[[set[str]], Iterator[str]] | None
    """Names what is missing, given all places."""


@dataclass(slots=True)
class AdaptReport:
    """Result of a conversion."""

    name: str
    folder: Path
    files: int = 0
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return all fields, for ``--json``."""
        return asdict(self) | {"folder": str(self.folder)}


def adapt_dataset(name: str, downloaded: str | Path, out: str | Path) -> AdaptReport:
    """Make the layout of dataset ``name`` in the new folder ``out`` from the unpacked download.

    Pictures are linked where the file system can, else copied; every one's header is read. What is missing or damaged
    is reported and left out. Raises UsageError for an unknown name, DatasetError when the folder holds nothing of the
    dataset, OutputError when ``out`` is not empty or cannot be written.
    """
    if name not in ADAPTERS:
        raise UsageError(f"There is no adapter '{name}'. Choose one of: {', '.join(ADAPTERS)}.")
    adapter, source, target = ADAPTERS[name], Path(downloaded), Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} is not an empty folder. Choose another.")
    report = AdaptReport(name, target)
    faults: Counter[str] = Counter()
    placed: dict[str, Path] = {}
    for picture in find_pictures([source]):
        place = adapter.place(source, picture)
        if place is None:
            continue
        if place in placed:
            _tell(report, faults, "twice", f"{picture}: {placed[place]} already gives {place}.")
            continue
        try:
            read_header(picture)
        except RasrError as error:
            _tell(report, faults, "unreadable", str(error))
            continue
        placed[place] = picture
    if not placed:
        raise DatasetError(f"{source} holds no picture of {name}. What to unpack where: rasr dataset adapt {name}")
    try:
        for place, picture in placed.items():
            place_file(picture, target / place)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}.") from error
    report.files = len(placed)
    counts = Counter(place.rpartition("/")[0].partition("/")[0] for place in placed)
    for folder, expected in adapter.expected.items():
        if counts[folder] != expected:
            report.problems.append(
                f"{folder or target.name} has {counts[folder]} pictures; the complete {name} has {expected}."
            )
    for missing in adapter.pairs(set(placed)) if adapter.pairs else ():
        _tell(report, faults, "missing", missing)
    report.problems += [f"… and {count - NAMED} more {kind}." for kind, count in faults.items() if count > NAMED]
    made = {"dataset": name, "pictures": {folder or ".": count for folder, count in counts.items()}}
    write_text(target / RECORD, json.dumps(made, indent=1) + "\n")
    return report


def _tell(report: AdaptReport, faults: Counter[str], kind: str, message: str) -> None:
    faults[kind] += 1
    if faults[kind] <= NAMED:
        report.problems.append(message)


def _lsdir(source: Path, picture: Path) -> str | None:
    """Shards unpack to numbered folders; the numbers of the pictures run through all of them."""
    inside = picture.relative_to(source).as_posix()
    if re.fullmatch(r"\d{7}", picture.stem) is None or re.search(r"(?:^|/)(?:X\d|LR|LQ)", inside):
        return None
    return f"{'val' if 'val' in inside.lower() else 'train'}/{picture.stem[:4]}/{picture.name}"


def _div2k(_: Path, picture: Path) -> str | None:
    match = re.fullmatch(r"(\d{4})", picture.stem)
    if match is None or "LR" in picture.parent.name or not 1 <= int(match[1]) <= 900:
        return None
    return f"{'train' if int(match[1]) <= 800 else 'test'}/{picture.name}"


def _cufed5(_: Path, picture: Path) -> str | None:
    match = re.fullmatch(r"(\d{3})_([0-5])", picture.stem)
    return picture.name if match and int(match[1]) <= 125 else None


def _cufed5_missing(places: set[str]) -> Iterator[str]:
    known = {Path(place).stem for place in places}
    for scene in range(126):
        missing = [f"{scene:03d}_{view}" for view in range(6) if f"{scene:03d}_{view}" not in known]
        if missing:
            yield f"CUFED5 scene {scene:03d}: {', '.join(missing)} missing (_0 is the input, _1 to _5 its references)."


def _wr_sr(_: Path, picture: Path) -> str | None:
    match = re.fullmatch(r"(\d{3})(_ref)?", picture.stem)
    return f"{'ref' if match[2] else 'input'}/{picture.name}" if match else None


def _wr_sr_missing(places: set[str]) -> Iterator[str]:
    stems = {Path(place).stem for place in places}
    for stem in sorted(stems):
        other = stem.removesuffix("_ref") if stem.endswith("_ref") else f"{stem}_ref"
        if other not in stems:
            yield f"WR-SR: {stem} has no partner {other}."


_TABLES = tomllib.loads(files("rasr.dataset").joinpath("adapters.toml").read_text("utf-8"))
_LAYOUTS: dict[str, tuple[Place, Callable[[set[str]], Iterator[str]] | None]] = {
    "lsdir": (_lsdir, None),
    "div2k": (_div2k, None),
    "cufed5": (_cufed5, _cufed5_missing),
    "wr-sr": (_wr_sr, _wr_sr_missing),
}
ADAPTERS = {name: Adapter(name, place=place, pairs=pairs, **_TABLES[name]) for name, (place, pairs) in _LAYOUTS.items()}
