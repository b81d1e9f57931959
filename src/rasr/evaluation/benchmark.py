"""Benchmarks: test pictures, their ground truth, and photos offered as references.

Files are paired by name, never by sort order: a missing, extra or misnamed file is an error, not a shifted column.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rasr.errors import BenchmarkError, PictureError, UsageError, shown
from rasr.images import find_pictures
from rasr.images.find import PICTURE_EXTENSIONS


@dataclass(frozen=True, slots=True)
class BenchmarkSample:
    """One test picture."""

    name: str
    """Unique within the benchmark and safe as a file name; outputs are called ``NAME.png``."""
    truth: Path
    """The ground truth (HR)."""
    low: Path | None = None
    """The low-quality input, or None when it is made from the ground truth."""
    category: str = ""
    """Folder of a category; in the layout ``pairs`` the place shown."""
    paired: tuple[Path, ...] = ()
    """References the benchmark itself gives for this picture, most similar first."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A set of test pictures with its own references, if it has any."""

    name: str
    layout: str
    root: Path
    samples: tuple[BenchmarkSample, ...]
    references: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Category → photos that the benchmark offers as references."""
    by_category: bool = False
    """References are looked for in the sample's own category only (RASR-Flickr30: one gallery a species)."""

    def check_names(self, names: Iterable[str]) -> None:
        """Raise UsageError for a picture that is not in the benchmark."""
        known = {sample.name for sample in self.samples}
        for name in names:
            if name not in known:
                raise UsageError(
                    f"--figure {name}: the benchmark has no such picture. Its pictures: {', '.join(sorted(known))}."
                )


def load_benchmark(path: Path, *, layout: str = "auto", low: Path | None = None) -> Benchmark:
    """Read a benchmark's folder; ``low`` has ready-made inputs for the ``folder`` layout.

    Raises BenchmarkError when files do not pair up, UsageError for an unknown layout or a missing folder.
    """
    if layout != "auto" and layout not in _LAYOUTS:
        raise UsageError(f"Unknown layout '{layout}'. Choose auto, {', '.join(_LAYOUTS)}.")
    if not path.is_dir():
        raise UsageError(f"There is no folder {path}.")
    chosen = _detect(path) if layout == "auto" else layout
    if low is not None and chosen != "folder":
        raise UsageError(f"--lq goes with the layout 'folder', not with '{chosen}'.")
    benchmark = _folder(path, low) if chosen == "folder" else _LAYOUTS[chosen](path)
    if not benchmark.samples:
        raise BenchmarkError(f"There are no test pictures in {path} (layout '{chosen}').")
    return benchmark


def _detect(path: Path) -> str:
    folders = [child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")]
    if any((folder / "test").is_dir() and (folder / "reference").is_dir() for folder in folders):
        return "flickr30"
    if any((folder / "refs").is_dir() and any(map(_is_truth, _names(folder))) for folder in folders):
        return "pairs"
    if {"input", "ref"} <= {folder.name for folder in folders} or any(map(_CUFED5.fullmatch, _names(path))):
        return "pairs"
    return "folder"


def _flickr30(path: Path) -> Benchmark:
    """``species/{train,test,reference}/*``: test pictures and one gallery for each species."""
    samples: list[tuple[str, Path, Path | None]] = []
    references = {}
    for species in sorted(child for child in path.iterdir() if (child / "test").is_dir()):
        if not (species / "reference").is_dir():
            raise BenchmarkError(f"{species} has a test folder but no reference folder.")
        samples += [(species.name, picture, None) for picture in _pictures(species / "test")]
        references[species.name] = _pictures(species / "reference")
    return Benchmark(path.name, "flickr30", path, _named(samples), references, by_category=True)


_CUFED5 = re.compile(r"(?P<group>.+)_(?P<rank>\d)\.\w+")


def _pairs(path: Path) -> Benchmark:
    """CUFED5 (``000_0.png`` with ``000_1`` …), WR-SR (``input/001`` with ``ref/001_ref``) or one folder a scene."""
    if (path / "input").is_dir():
        groups = _wrsr(path)
    else:
        groups = _cufed5(path) if any(map(_CUFED5.fullmatch, _names(path))) else _scenes(path)
    places = {name: _VIEW.sub("", name) for name in groups}
    if len(set(places.values())) == 1:  # numbers are all that tells these scenes apart: scene-001, scene-002, …
        places = {name: name for name in groups}
    samples = []
    references: dict[str, list[Path]] = {}
    for name, (truth, photos) in sorted(groups.items()):
        samples.append(BenchmarkSample(name, truth, category=places[name], paired=tuple(photos)))
        references.setdefault(places[name], []).extend(photos)
    return Benchmark(path.name, "pairs", path, tuple(samples), references)


_VIEW = re.compile(r"[-_](\d+|[a-z])$")
"""End of a scene's name that tells views of one place apart: ``castle-a`` and ``castle-b``, ``buddha-06``."""


def _is_truth(name: str) -> bool:
    return Path(name).stem == "truth" and Path(name).suffix.lower() in PICTURE_EXTENSIONS


def _scenes(path: Path) -> dict[str, tuple[Path, list[Path]]]:
    """``SCENE/truth.png`` with other photos of the scene in ``SCENE/refs/``, in the order of their names."""
    groups = {}
    for scene in sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")):
        truths = sorted(filter(_is_truth, _names(scene)))
        if len(truths) != 1 or not (scene / "refs").is_dir():
            have = f"{len(truths)} pictures called truth and {'a' if (scene / 'refs').is_dir() else 'no'} folder refs"
            raise BenchmarkError(f"{scene} has {have}. A scene is a folder with one truth.png and refs/.")
        groups[shown(scene.name)] = (scene / truths[0], _pictures(scene / "refs", recursive=False))
    return groups


def _cufed5(path: Path) -> dict[str, tuple[Path, list[Path]]]:
    ranks: dict[str, dict[int, Path]] = {}
    for picture in _pictures(path, recursive=False):
        match = _CUFED5.fullmatch(picture.name)
        if match is None:
            raise BenchmarkError(f"{picture} is not named GROUP_RANK, as 000_0.png and 000_1.png are.")
        group = ranks.setdefault(match["group"], {})
        if int(match["rank"]) in group:
            raise BenchmarkError(f"{picture} and {group[int(match['rank'])]} have the same group and rank.")
        group[int(match["rank"])] = picture
    expected = Counter(frozenset(group) for group in ranks.values()).most_common(1)[0][0] if ranks else frozenset()
    for name, group in ranks.items():
        if 0 not in group or len(group) < 2 or set(group) != expected:
            have, want = (", ".join(map(str, sorted(numbers))) for numbers in (group, expected | {0}))
            raise BenchmarkError(f"Group {name} in {path} has the files {have}; expected {want}.")
    return {name: (group[0], [group[rank] for rank in sorted(group) if rank]) for name, group in ranks.items()}


def _wrsr(path: Path) -> dict[str, tuple[Path, list[Path]]]:
    inputs = {picture.stem: picture for picture in _pictures(path / "input", recursive=False)}
    references: dict[str, list[Path]] = {}
    for photo in _pictures(path / "ref", recursive=False):
        references.setdefault(re.sub(r"_ref\d*$", "", photo.stem), []).append(photo)
    _match(inputs, references, f"{path}/input", f"{path}/ref (NAME_ref)")
    return {name: (inputs[name], references[name]) for name in inputs}


_TRUTH_FOLDERS, _LOW_FOLDERS = ("hr", "gt"), ("lq", "lr")


def _folder(path: Path, low: Path | None = None) -> Benchmark:
    """Any folder of good photos; or ``hr/`` (``gt/``) with inputs in ``lq/`` (``lr/``)."""
    children = {child.name.lower(): child for child in path.iterdir() if child.is_dir()}
    truth = next((children[name] for name in _TRUTH_FOLDERS if name in children), path)
    if low is None and truth != path:
        low = next((children[name] for name in _LOW_FOLDERS if name in children), None)
    lows: dict[str, Path] = {}
    truths = _by_name(truth)
    if low is not None:
        lows = _by_name(low)
        _match(truths, lows, str(truth), str(low))
    entries = [(Path(key).parent.as_posix(), picture, lows.get(key)) for key, picture in truths.items()]
    return Benchmark(path.name or "folder", "folder", path, _named(entries))


_LAYOUTS: dict[str, Callable[[Path], Benchmark]] = {"flickr30": _flickr30, "pairs": _pairs, "folder": _folder}


def _named(entries: Sequence[tuple[str, Path, Path | None]]) -> tuple[BenchmarkSample, ...]:
    """Samples called by their file's stem, or ``category__stem`` where stems repeat."""
    categories = ["" if category == "." else category for category, _, _ in entries]
    repeated = {stem for stem, count in Counter(shown(truth.stem) for _, truth, _ in entries).items() if count > 1}
    samples = []
    for category, (_, truth, low) in zip(categories, entries, strict=True):
        stem = shown(truth.stem)  # it becomes a file name of ours, a key in JSON and a word in tables
        name = f"{shown(category).replace('/', '__')}__{stem}" if stem in repeated and category else stem
        samples.append(BenchmarkSample(name, truth, low, category))
    twice = [name for name, count in Counter(sample.name for sample in samples).items() if count > 1]
    if twice:
        raise BenchmarkError(f"Several test pictures are called '{twice[0]}'. Give them different names.")
    return tuple(sorted(samples, key=lambda sample: sample.name))


def _by_name(folder: Path) -> dict[str, Path]:
    """Pictures by their path below ``folder`` without suffix; BenchmarkError when two share one."""
    named: dict[str, Path] = {}
    for picture in _pictures(folder):
        name = picture.relative_to(folder).with_suffix("").as_posix()
        if named.setdefault(name, picture) is not picture:
            raise BenchmarkError(f"{picture} and {named[name]} have the same name. Pictures are paired by name.")
    return named


def _match(left: Iterable[str], right: Iterable[str], left_place: str, right_place: str) -> None:
    """Raise BenchmarkError unless both sides have exactly the same names."""
    a, b = set(left), set(right)
    if a == b:
        return
    parts = [
        f"{len(extra)} only in {place} ({', '.join(sorted(extra)[:3])}{', …' if len(extra) > 3 else ''})"
        for extra, place in ((a - b, left_place), (b - a, right_place))
        if extra
    ]
    raise BenchmarkError(f"Pictures are paired by name, and the names differ: {'; '.join(parts)}.")


def _pictures(folder: Path, *, recursive: bool = True) -> list[Path]:
    try:
        return find_pictures([folder], recursive=recursive)
    except PictureError as error:
        raise BenchmarkError(str(error)) from error


def _names(path: Path) -> list[str]:
    return [child.name for child in path.iterdir() if child.is_file()]
